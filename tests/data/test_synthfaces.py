"""Rendered faces: determinism, labels, counterfactuals and user's mistakes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lassi_lib.data.dataset import FaceDataset, load_dataset
from lassi_lib.data.label_law import PUBLISHED_PAIRS, celeba_label_law
from lassi_lib.data.renderer import CHUNK, FACTORS, NUISANCES
from lassi_lib.data.synthfaces import (
    FACTOR_OF,
    draw_faces,
    factor_of,
    load_synthfaces,
    render_counterfactual,
    render_faces,
)
from lassi_lib.errors import StudyError

SIZE = 48


@pytest.fixture(scope="module")
def faces() -> FaceDataset:
    return load_synthfaces("test", image_size=SIZE, n_test=96)


def test_dataset_has_the_common_interface(faces):
    assert faces.images.shape == (96, 3, SIZE, SIZE)
    assert faces.images.dtype == torch.uint8
    assert faces.labels.shape == (96, len(faces.attribute_names))
    assert faces.extras["factors"].shape == (96, len(FACTORS))
    assert faces.extras["nuisances"].shape == (96, len(NUISANCES))
    assert len(FACTORS) >= 20
    for task, sensitive in PUBLISHED_PAIRS:
        assert set(faces.label(task)) | set(faces.label(sensitive)) <= {0, 1}
    again = load_dataset("synthfaces", "test", image_size=SIZE, n_test=96)
    assert torch.equal(again.images, faces.images)


def test_bytes_depend_on_seed_split_and_index_alone(faces):
    fewer = load_synthfaces("test", image_size=SIZE, n_test=5, n_train=7, n_valid=3)
    assert torch.equal(fewer.images, faces.images[:5])
    np.testing.assert_array_equal(fewer.labels, faces.labels[:5])
    order = np.random.default_rng(0).permutation(96)[:70]  # other neighbours, other places in the chunk
    factors, nuisances = faces.extras["factors"], faces.extras["nuisances"]
    assert torch.equal(render_faces(factors[order], nuisances[order], SIZE), faces.images[order])
    for other in ({"seed": 1}, {"split": "valid"}):
        changed = draw_faces(96, **{"seed": 0, "split": "test"} | other)
        assert (changed[1] != factors).all()


def test_dialled_faces_differ_in_one_factor(faces):
    other = load_synthfaces("test", image_size=SIZE, n_test=96, dial="Smiling/Blond_Hair", dial_phi=0.35)
    moved = (other.extras["factors"] != faces.extras["factors"]).any(0)
    assert np.flatnonzero(moved).tolist() == [FACTORS.index("blond_hair")]
    changed = (other.labels != faces.labels).any(0)
    assert np.array(faces.attribute_names)[changed].tolist() == ["Blond_Hair"]
    np.testing.assert_array_equal(other.extras["nuisances"], faces.extras["nuisances"])
    assert "0.35" in other.note
    assert "phi" not in faces.note


def test_bytes_do_not_depend_on_threads(faces):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 if threads != 3 else 2)
        assert torch.equal(
            load_synthfaces("test", image_size=SIZE, n_test=CHUNK).images, faces.images[:CHUNK]
        )
    finally:
        torch.set_num_threads(threads)


def test_rows_beyond_a_block_do_not_depend_on_the_count():
    few, many = draw_faces(1100, seed=0, split="train"), draw_faces(2500, seed=0, split="train")
    for a, b in zip(few, many, strict=True):
        np.testing.assert_array_equal(a, b[:1100])


@pytest.mark.parametrize("size", [32, 40, 64, 128])
def test_every_size_draws_the_same_face(faces, size):
    small = load_synthfaces("test", image_size=size, n_test=8).images.float()
    assert small.shape[-1] == size
    means = [torch.nn.functional.adaptive_avg_pool2d(x, 8) for x in (small, faces.images[:8].float())]
    assert (means[0] - means[1]).abs().mean() < 4  # levels of 255


@pytest.mark.parametrize("factor", FACTORS)
def test_every_factor_shows_and_is_the_only_change(faces, factor):
    """Moving a factor from -1.5 to 1.5 is visible; setting it to its own value changes nothing."""
    rows = np.arange(24)
    own = faces.extras["factors"][rows, FACTORS.index(factor)]
    assert torch.equal(render_counterfactual(faces, rows, factor, own), faces.images[rows])
    low, high = (render_counterfactual(faces, rows, factor, v).float() for v in (-1.5, 1.5))
    largest = (low - high).abs().amax((1, 2, 3))
    assert largest.median() > 24  # three of the 5-bit levels in some pixel, for most faces


@pytest.mark.parametrize(
    ("factor", "rows"),
    [("smile", (0.35, 0.95)), ("narrow_eyes", (0.25, 0.7)), ("necklace", (0.75, 1.0)), ("hat", (0.0, 0.6)),
     ("eye_bags", (0.3, 0.75)), ("lip_size", (0.5, 0.95)), ("arched_brows", (0.2, 0.6))],
)  # fmt: skip
def test_local_factors_leave_far_pixels_alone(faces, factor, rows):
    """Outside the rows [top, bottom) of the picture, not one byte changes."""
    low, high = (render_counterfactual(faces, np.arange(96), factor, v) for v in (-1.5, 1.5))
    top, bottom = (round(r * SIZE) for r in rows)
    changed = (low != high).any(1)
    assert changed[:, top:bottom].any((1, 2)).all()
    changed[:, top:bottom] = False
    assert not changed.any()


def test_factors_follow_their_attributes(faces):
    labels, factors, _ = draw_faces(20_000, seed=0, split="train")
    names = celeba_label_law().names
    for attribute, factor in FACTOR_OF.items():
        y, x = labels[:, names.index(attribute)] == 1, factors[:, FACTORS.index(factor)]
        # at least 0.7 standard deviations apart even where annotators disagree most
        assert x[y].mean() - x[~y].mean() > 0.7, attribute
    assert factor_of("Smiling") == "smile"
    assert factor_of("Attractive") is None
    assert set(FACTOR_OF) == set(names) - {"Attractive"}


def test_a_paler_face_is_lighter(faces):
    dark, pale = (render_counterfactual(faces, range(96), "paleness", v).float() for v in (-2.5, 1.0))
    centre = (..., slice(SIZE * 5 // 8, SIZE * 11 // 16), slice(SIZE * 3 // 8, SIZE * 5 // 8))
    assert (pale[centre].mean((1, 2, 3)) > dark[centre].mean((1, 2, 3))).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: load_synthfaces("tset"), "did you mean 'test'"),
        (lambda d: load_synthfaces("test", image_size=31), "use 32 to 128"),
        (lambda d: load_synthfaces("test", image_size=129), "use 32 to 128"),
        (lambda d: load_synthfaces("test", n_train=0), "n_train = 0"),
        (lambda d: factor_of("Smilling"), "did you mean 'Smiling'"),
        (lambda d: load_synthfaces("test", dial="Smiling/Blond_Hiar"), "did you mean 'Blond_Hair'"),
        (lambda d: load_synthfaces("test", dial="Smiling/Smiling"), "must name two attributes"),
        (lambda d: load_synthfaces("test", dial="Smiling/Blond_Hair", dial_phi=0.9), "out of reach"),
        (lambda d: render_counterfactual(d, [0], "smiel", 1.0), "did you mean 'smile'"),
        (lambda d: d.label("Beautiful"), "is not in data set 'synthfaces'"),
        (
            lambda d: render_counterfactual(bare(d), [0], "smile", 1.0),
            "only 'synthfaces' has counterfactuals",
        ),
    ],
)
def test_mistakes_are_named_in_one_line(faces, call, message):
    with pytest.raises(StudyError, match=message) as caught:
        call(faces)
    assert "\n" not in str(caught.value)


def bare(faces: FaceDataset) -> FaceDataset:
    return FaceDataset("celeba", "test", faces.images, faces.labels, faces.attribute_names, faces.ids)
