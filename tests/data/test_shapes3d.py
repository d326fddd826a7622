"""3D Shapes: index arithmetic, splits and bias, our renderer against ray marching, the official file."""

import math
import sys
import types

import numpy as np
import pytest
import torch

from lassi_lib.data import shapes3d_renderer as renderer
from lassi_lib.data.dataset import load_dataset
from lassi_lib.data.shapes3d import (
    FACTORS,
    FILE,
    N_IMAGES,
    N_VALUES,
    factors_of,
    fingerprint,
    index_of,
    load_shapes3d,
    read_shapes,
    split_indices,
    variations,
)
from lassi_lib.errors import StudyError
from lassi_lib.numerics import threads

SOME = np.random.default_rng(0).integers(0, N_IMAGES, 150)


# ---- index and splits ----------------------------------------------------------------------------


def test_the_index_follows_the_official_order():
    assert N_IMAGES == 480_000
    assert factors_of(0).tolist() == [0] * 6
    assert factors_of(N_IMAGES - 1).tolist() == [9, 9, 9, 7, 3, 14]
    place = {
        "orientation": 1,
        "shape": 15,
        "scale": 60,
        "object_hue": 480,
        "wall_hue": 4800,
        "floor_hue": 48000,
    }
    for name, index in place.items():
        assert factors_of(index).tolist() == [int(f == name) for f in FACTORS]
    assert np.array_equal(index_of(factors_of(SOME)), SOME)
    assert np.array_equal(index_of(factors_of(np.arange(N_IMAGES))), np.arange(N_IMAGES))


def test_variations_differ_in_one_factor_alone():
    for name, count in FACTORS.items():
        table = variations(SOME, name)
        assert table.shape == (len(SOME), count)
        factors = factors_of(table)
        column = list(FACTORS).index(name)
        assert (factors[..., column] == np.arange(count)).all()
        others = np.delete(factors, column, axis=2)
        assert (others == np.delete(factors_of(SOME), column, axis=1)[:, None]).all()
        assert (table == SOME[:, None]).sum() == len(SOME)


def test_the_splits_share_nothing_and_cover_everything():
    splits = {s: split_indices(s) for s in ("train", "valid", "test")}
    assert [len(i) for i in splits.values()] == [288_000, 96_000, 96_000]
    assert len(np.unique(np.concatenate(list(splits.values())))) == N_IMAGES
    assert len(splits["test"][::320]) == 300  # as many as the ECCV code certifies
    assert not np.array_equal(splits["test"], split_indices("test", seed=1))
    hue = factors_of(splits["test"][:3000])[:, 2]
    assert np.abs(np.bincount(hue) - 300).max() < 5 * math.sqrt(300 * 0.9)  # the first ones are a fair sample


def test_the_biased_training_set_ties_hue_to_orientation():
    whole, biased = split_indices("train"), split_indices("train", biased=True)
    hue, orientation = factors_of(biased)[:, 2], factors_of(biased)[:, 5]
    assert {(h >= 5, o > 7) for h, o in zip(hue.tolist(), orientation.tolist(), strict=True)} == {
        (False, False),
        (True, True),
    }
    assert 7 not in orientation
    assert set(hue) == set(range(10))
    assert set(orientation) == set(range(15)) - {7}
    hue, orientation = factors_of(whole)[:, 2], factors_of(whole)[:, 5]
    kept = ((hue <= 4) & (orientation <= 6)) | ((hue >= 5) & (orientation >= 8))
    assert np.array_equal(biased, whole[kept])
    assert np.array_equal(split_indices("test", biased=True), split_indices("test"))


def test_the_data_set_has_the_common_interface():
    options = {"n_train": 30, "n_valid": 10, "n_test": 20, "biased": True}
    data = load_dataset("shapes3d", "train", **options)
    assert data.images.shape == (30, 3, 64, 64)
    assert data.images.dtype == torch.uint8
    assert data.attribute_names == tuple(FACTORS)
    assert data.n_classes == N_VALUES == (10, 10, 10, 8, 4, 15)
    assert data.classes("orientation") == 15
    assert np.array_equal(data.ids, split_indices("train", biased=True)[:30])
    assert np.array_equal(data.labels, factors_of(data.ids))
    assert torch.equal(data.images, read_shapes(data.ids))
    assert "rendered by us" in data.note
    assert "correlated" in data.note
    test = load_shapes3d("test", n_test=5, biased=True)
    assert len(test) == 5
    assert "correlated" not in test.note


# ---- our pictures --------------------------------------------------------------------------------


def test_bytes_depend_on_the_index_alone():
    images = read_shapes(SOME)
    order = np.random.default_rng(1).permutation(len(SOME))[:70]
    assert torch.equal(read_shapes(SOME[order]), images[torch.from_numpy(order)])
    for k in range(3):
        assert torch.equal(read_shapes([SOME[k]])[0], images[k])
    before = torch.get_num_threads()
    with threads(before + 1):
        renderer.light_maps.cache_clear()
        assert torch.equal(read_shapes(SOME), images)
        assert torch.get_num_threads() == before + 1


@pytest.mark.parametrize("size", [32, 45, 96])
def test_every_size_draws_the_same_scene(size):
    images, small = (read_shapes(SOME[:10], image_size=s).float() for s in (64, size))
    assert small.shape[-2:] == (size, size)
    means = [torch.nn.functional.adaptive_avg_pool2d(x, 8) for x in (images, small)]
    assert (means[0] - means[1]).abs().mean() < 3  # levels of 255


def test_every_step_of_every_factor_is_seen():
    """Neighbouring values change at least 1.5 % of the pixels by more than a level of the flow's 5 bits."""
    for name in FACTORS:
        table = variations(SOME[:12], name)
        images = read_shapes(table.reshape(-1)).view(*table.shape, 3, 64, 64).int()
        change = (images[:, 1:] - images[:, :-1]).abs().amax(2) > 8
        assert change.float().mean((-2, -1)).min() > 0.015, name


def test_a_hue_changes_its_own_surface_alone():
    factors = np.array([0, 4, 8, 5, 2, 3])
    before = read_shapes(index_of(factors)[None])[0].int()
    seen = torch.zeros(64, 64)
    for k in range(3):
        other = factors.copy()
        other[k] = (other[k] + 3) % 10
        changed = (read_shapes(index_of(other)[None])[0].int() - before).abs().amax(0) > 0
        assert not changed[renderer.light_maps(5, 2, 3, 64)[k] == 0].any()
        seen += changed
    assert ((seen == 0) | (seen == 1)).float().mean() > 0.9  # but for antialiased edges
    assert (seen == 0).float().mean() < 0.1  # the strip of sky


def distance_to(shape: str, p: np.ndarray, s: float) -> np.ndarray:
    """Signed distances of points [P, 3] from an object of scale s: written down independently."""
    flat = np.hypot(p[:, 0], p[:, 1])
    if shape == "cube":
        q = np.abs(p - (0, 0, 0.72 * s)) - 0.72 * s
        return np.linalg.norm(np.maximum(q, 0), axis=1) + np.minimum(q.max(1), 0)
    if shape == "cylinder":
        q = np.stack([flat - 0.72 * s, np.abs(p[:, 2] - 0.75 * s) - 0.75 * s], 1)
        return np.linalg.norm(np.maximum(q, 0), axis=1) + np.minimum(q.max(1), 0)
    if shape == "sphere":
        return np.linalg.norm(p - (0, 0, 0.82 * s), axis=1) - 0.82 * s
    z = p[:, 2] - np.clip(p[:, 2], 0.58 * s, 1.42 * s)
    return np.hypot(flat, z) - 0.58 * s


@pytest.mark.parametrize("shape", range(4))
@pytest.mark.parametrize(("scale", "orientation"), [(0, 0), (7, 11)])
def test_silhouettes_are_those_of_ray_marching(shape, scale, orientation):
    """March along the central ray of each pixel by the distance to the object: hit or miss as ray cast."""
    s, azimuth = 0.75 + scale / 14, math.radians(-30 + 30 * orientation / 7)
    eye = np.array([math.sin(azimuth), -math.cos(azimuth), 0]) * renderer.DISTANCE + (0, 0, renderer.HEIGHT)
    ahead = np.array([0, 0, renderer.TARGET]) - eye
    ahead /= np.linalg.norm(ahead)
    right = np.cross(ahead, (0, 0, 1))
    right /= np.linalg.norm(right)
    line = ((np.arange(64) + 0.5) / 32 - 1) * renderer.VIEW
    v, u = np.meshgrid(-line, line, indexing="ij")
    rays = ahead + u.reshape(-1, 1) * right + v.reshape(-1, 1) * np.cross(right, ahead)
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    travelled = np.zeros(len(rays))
    closest = np.full(len(rays), np.inf)
    for _ in range(150):
        d = distance_to(renderer.SHAPES[shape], eye + travelled[:, None] * rays, s)
        closest = np.minimum(closest, d)
        travelled += np.maximum(d, 0)
    light = renderer.light_maps(scale, shape, orientation, 64)[2].numpy().reshape(-1)
    hit = closest < 1e-3
    assert hit.mean() > 0.02
    assert (light[hit] > 0).all()
    # a pixel whose centre misses may still have a corner on the object: nowhere but at the outline
    assert not light[closest > 0.05].any()


def test_the_room_is_mirrored_with_the_orientation():
    for shape in range(4):
        for k in range(7):
            left, right = (renderer.light_maps(3, shape, o, 64) > 0 for o in (k, 14 - k))
            assert (left[:3] == right[:3].flip(-1)).float().mean() > 0.999
    maps = renderer.light_maps(3, 2, 7, 64) > 0
    assert maps[0, -1].all()  # floor below
    assert maps[3, 0].all()  # sky above
    assert not maps[1, 33:].any()  # no wall in the lower half
    assert maps[2, 35, 32]  # the object in the middle


def test_the_lamp_casts_a_shadow_on_the_floor():
    floor = renderer.light_maps(7, 0, 7, 64)[0]
    shade = renderer.AMBIENT + 0.35 * renderer.DIFFUSE * renderer.LIGHT[2]
    dark = (floor - shade).abs() < 0.01
    assert dark.sum() > 20
    assert dark[:, 32:].sum() > 5 * dark[:, :32].sum()  # the lamp is on the left


def test_hues_are_those_of_the_colour_circle():
    import colorsys

    rgb = renderer.hue_to_rgb(torch.arange(10) / 10)
    expected = [colorsys.hsv_to_rgb(k / 10, 0.88, 0.94) for k in range(10)]
    np.testing.assert_allclose(rgb, expected, atol=1e-6)


# ---- the official file ---------------------------------------------------------------------------


class StubArray:
    """What the loader uses of an HDF5 array; image i has bytes i % 251."""

    shape, chunks = (N_IMAGES, 64, 64, 3), (128, 64, 64, 3)

    def __init__(self):
        self.unpacked = []

    def __getitem__(self, rows):
        self.unpacked.append(rows.start)
        values = np.arange(rows.start, min(rows.stop, N_IMAGES)) % 251
        return np.broadcast_to(values[:, None, None, None], (len(values), 64, 64, 3)).astype(np.uint8)


def official_labels():
    """Values as the official file has them: floats, hues in tenths, scales 0.75..1.25, degrees."""
    values = [np.arange(10) / 10] * 3 + [np.linspace(0.75, 1.25, 8), np.arange(4.0), np.linspace(-30, 30, 15)]
    factors = factors_of(np.arange(N_IMAGES))
    return np.stack([v[factors[:, k]] for k, v in enumerate(values)], axis=1)


@pytest.fixture
def stub(monkeypatch, tmp_path):
    """A folder with an empty 3dshapes.h5 and a stand-in for h5py that shows it as the official file."""
    (tmp_path / FILE).touch()
    content = {"images": StubArray(), "labels": official_labels()}

    class File(dict):
        def __init__(self, path, mode):
            super().__init__(content)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return False

    monkeypatch.setitem(sys.modules, "h5py", types.SimpleNamespace(File=File))
    return tmp_path, content


def test_official_images_are_found_by_index(stub):
    root, content = stub
    order = np.append(SOME, SOME[:3])
    images = read_shapes(order, source="official", data_root=root)
    assert (images.amin((1, 2, 3)).numpy() == order % 251).all()
    assert (images.amax((1, 2, 3)).numpy() == order % 251).all()
    unpacked = content["images"].unpacked
    assert sorted(set(order // 128 * 128)) == unpacked  # every block once, from front to back
    data = load_dataset("shapes3d", "test", n_test=7, source="official", data_root=root)
    assert np.array_equal(data.ids, split_indices("test")[:7])
    assert np.array_equal(data.labels, factors_of(data.ids))
    assert "DeepMind" in data.note
    assert "rendered" not in data.note


def test_a_real_hdf5_file_is_read(tmp_path):
    h5py = pytest.importorskip("h5py", reason="the optional package h5py is not installed")
    (tmp_path / "shapes3d").mkdir()
    with h5py.File(tmp_path / "shapes3d" / FILE, "w") as file:
        shape = (N_IMAGES, 64, 64, 3)
        images = file.create_dataset("images", shape, "u1", chunks=(64, 64, 64, 3), compression="gzip")
        file["labels"] = official_labels()
        for k, index in enumerate(SOME[:5]):
            images[index] = 40 * (k + 1)
    read = read_shapes(SOME[:5], source="official", data_root=tmp_path)
    assert read.float().mean((1, 2, 3)).tolist() == [40, 80, 120, 160, 200]


def test_the_fingerprint_tells_the_sources_apart(stub):
    root, _ = stub
    before = fingerprint("official", root)
    (root / FILE).write_bytes(b"more")
    assert len({before, fingerprint("official", root), fingerprint("rendered", None)}) == 3


@pytest.mark.parametrize("case", ["no root", "no file", "no h5py", "no images", "other order", "other size"])
def test_what_is_missing_is_said_in_one_line(stub, case, monkeypatch):
    root, content = stub
    words = ["google-deepmind/3d-shapes"]
    if case == "no root":
        root, words = None, [*words, "--data-root", FILE, "rendered", "needs no download"]
    elif case == "no file":
        (root / FILE).unlink()
        words += [str(root), "rendered", "needs no download"]
    elif case == "no h5py":
        monkeypatch.setitem(sys.modules, "h5py", None)
        words = ["pip install h5py", "rendered", "download"]
    elif case == "no images":
        del content["images"]
        words += ["cannot be read"]
    elif case == "other order":
        content["labels"] = content["labels"][::-1]
        words += ["not the official"]
    else:
        content["labels"] = content["labels"][:100]
        words += ["not the official"]
    with pytest.raises(StudyError) as error:
        read_shapes([0], source="official", data_root=root)
    text = str(error.value)
    assert "\n" not in text
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: factors_of([3, 480_000]), "480000"),
        (lambda: factors_of([-1]), "-1"),
        (lambda: index_of([0, 0, 0, 8, 0, 0]), "scale 0..7"),
        (lambda: index_of([0, 0, 0]), "orientation 0..14"),
        (lambda: variations([0], "orientaton"), "did you mean 'orientation'"),
        (lambda: split_indices("validation"), "did you mean 'valid'"),
        (lambda: read_shapes([0], source="oficial"), "did you mean 'official'"),
        (lambda: read_shapes([0], image_size=16), "32..128"),
        (lambda: load_shapes3d("test", n_test=96_001), "0..96000"),
        (lambda: load_shapes3d("test", n_test=-1), "n_test = -1"),
    ],
)
def test_impossible_requests_are_refused(wrong, words):
    with pytest.raises(StudyError) as error:
        wrong()
    assert words in str(error.value)
