"""Attribute vectors in closed form, and their controls, against their definitions."""

from functools import partial

import numpy as np
import pytest
import torch

from lassi_lib.errors import StudyError
from lassi_lib.similarity import vectors
from lassi_lib.similarity.boundaries import Boundary
from lassi_lib.similarity.kinds import KINDS, angle_of, find_kind
from lassi_lib.similarity.vectors import attribute_vector
from lassi_lib.streams import torch_stream


def gaussian(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def cosine(a, b):
    return float(a.double() @ b.double() / a.double().norm() / b.double().norm())


def test_mean_difference_is_the_difference_of_class_means():
    z = gaussian(5000, 7)
    y = np.random.default_rng(0).integers(0, 2, 5000)
    expected = z[y == 1].double().mean(0) - z[y == 0].double().mean(0)
    a = attribute_vector(z, y)
    assert a.dtype == torch.float32
    assert torch.allclose(a.double(), expected, atol=1e-7)


def test_it_recovers_a_shift_between_the_classes():
    shift = torch.tensor([1.0, -2.0, 0.0])
    y = np.arange(20_000) % 4 == 0
    z = gaussian(20_000, 3, 1) + torch.from_numpy(y).float()[:, None] * shift
    # standard error: sqrt(1/5000 + 1/15000) = 0.016
    assert (attribute_vector(z, y) - shift).abs().max() < 0.065


def test_mistakes_are_one_line():
    z = torch.zeros(3, 2)
    for kind in ("mean_difference", "random", "partialled", "degraded_10"):
        inputs = {"generator": torch_stream(0, "x"), "others": np.zeros((3, 1))}
        with pytest.raises(StudyError, match="with and without"):
            attribute_vector(z, np.ones(3), kind, **inputs)
    with pytest.raises(StudyError, match="did you mean 'mean_difference'"):
        attribute_vector(z, np.array([0, 1, 1]), "mean_diference")
    with pytest.raises(StudyError, match="angle"):
        find_kind("degraded")
    with pytest.raises(StudyError, match="angle"):
        find_kind("degraded_200")
    for wrong in ("degraded_same_task", "degraded_60same_task", "degraded_200_same_task", "degraded_60_same"):
        with pytest.raises(StudyError, match="angle"):
            find_kind(wrong)
    with pytest.raises(StudyError, match="two codes"):
        attribute_vector(z, kind="pairs", codes=np.ones(3))
    with pytest.raises(ValueError, match="'perpendicular' needs boundary"):
        attribute_vector(z, np.array([0, 1, 1]), "perpendicular")
    with pytest.raises(TypeError, match="boundry"):
        attribute_vector(z, np.array([0, 1, 1]), boundry=1)


def test_every_kind_of_the_table_can_be_made_by_name(monkeypatch):
    monkeypatch.setattr(vectors, "Discovery", partial(vectors.Discovery, iterations=20))
    z, y = gaussian(60, 5), np.arange(60) % 2
    inputs = {
        "boundary": Boundary(gaussian(1, 5, 1)[0], 0.1),
        "task_boundary": Boundary(gaussian(1, 5, 2)[0], 0.2),
        "seed": 0,
        "predict": lambda x: torch.sigmoid(x[:, 0]),
        "codes": np.arange(60) % 4,
        "others": np.arange(60)[:, None] % 3,
        "z_base": z[:10],
        "z_counterfactual": z[:10] + 1,
    }
    for name in KINDS:
        a = attribute_vector(
            z, y, name.replace("degraded", "degraded_30"), generator=torch_stream(0, "v"), **inputs
        )
        assert a.dtype == torch.float32
        assert a.isfinite().all()
        assert a.shape[-1] == 5
        several = {"discovered": 3, "discovered_mended": 3, "pairs": 4, "pairs_basis": 3}
        assert a.shape[:-1] == ((several[name],) if name in several else ())
    assert {name for name, kind in KINDS.items() if kind.epsilon == 10} == {
        "perpendicular",
        "discovered",
        "discovered_mended",
    }


# ---- pairs -----------------------------------------------------------------------------------------


def test_pairs_of_fifteen_orientations_are_the_49_of_the_original_code():
    codes = np.arange(150) % 15
    pairs = vectors.class_pairs(codes)
    assert len(pairs) == 49
    assert pairs[4] == (0, 14)  # the original's index 4
    assert all(i < 7 < j for i, j in pairs)
    z = gaussian(150, 40)
    a = vectors.pair_vectors(z, codes)
    for row, (i, j) in zip(a, pairs, strict=True):
        assert torch.allclose(row, z[codes == j].mean(0) - z[codes == i].mean(0), atol=1e-6)
    assert torch.linalg.matrix_rank(a.double(), rtol=1e-6) == 13


def test_principal_axes_span_the_very_same_set():
    a = vectors.pair_vectors(gaussian(150, 40), np.arange(150) % 15)
    axes = vectors.principal_axes(a)
    assert axes.shape == (13, 40)
    # the reach of {t A : ||t|| <= 1} in direction u is ||A u||: equal in every direction
    u = gaussian(40, 100, 1)
    assert torch.allclose((a @ u).norm(dim=0), (axes @ u).norm(dim=0), rtol=1e-5)
    gram = axes @ axes.T
    assert torch.allclose(gram, gram.diagonal().diag(), atol=1e-5)
    assert (gram.diagonal().diff() <= 1e-6).all()
    # and smoothing noise has the same covariance, A^T A
    assert torch.allclose(a.T @ a, axes.T @ axes, atol=1e-4)


# ---- controls --------------------------------------------------------------------------------------


def test_random_has_the_length_and_no_direction():
    z = gaussian(500, 2000) + 0.5
    y = np.arange(500) % 5 == 0
    a = attribute_vector(z, y)
    r = attribute_vector(z, y, "random", generator=torch_stream(0, "random"))
    assert float(r.norm()) == pytest.approx(float(a.norm()), rel=1e-5)
    assert abs(cosine(r, a)) < 4 / 2000**0.5
    again = attribute_vector(z, y, "random", generator=torch_stream(0, "random"))
    other = attribute_vector(z, y, "random", generator=torch_stream(1, "random"))
    assert torch.equal(r, again)
    assert abs(cosine(r, other)) < 4 / 2000**0.5


@pytest.mark.parametrize("angle", [0, 30, 45.5, 90, 180])
def test_degraded_is_turned_by_the_angle(angle):
    z, y = gaussian(100, 300), np.arange(100) % 2
    a = attribute_vector(z, y)
    b = attribute_vector(z, y, f"degraded_{angle}", generator=torch_stream(0, "turn"))
    assert angle_of(f"degraded_{angle}") == angle
    assert float(b.norm()) == pytest.approx(float(a.norm()), rel=1e-5)
    assert cosine(a, b) == pytest.approx(np.cos(np.deg2rad(angle)), abs=1e-6)


@pytest.mark.parametrize("angle", [0, 30, 60, 75])
def test_degraded_can_keep_what_the_vector_shares_with_the_task(angle):
    z, y = gaussian(100, 300), np.arange(100) % 2
    a = attribute_vector(z, y)
    task = Boundary(a / a.norm() + gaussian(1, 300, 3)[0] / 300**0.5, 0.0)  # at some 45 degrees
    kind = f"degraded_{angle}_same_task"
    made = [attribute_vector(z, y, kind, task_boundary=task, generator=torch_stream(i, "t")) for i in (0, 1)]
    assert angle_of(kind) == angle and cosine(a, task.w) > 0.4
    for b in made:
        assert float(b.norm()) == pytest.approx(float(a.norm()), rel=1e-5)
        assert cosine(a, b) == pytest.approx(np.cos(np.deg2rad(angle)), abs=1e-6)
        assert cosine(b, task.w) == pytest.approx(cosine(a, task.w), abs=1e-6)
    if angle:
        assert cosine(*made) < 0.99  # the rest is chance
    plain = attribute_vector(z, y, f"degraded_{angle}", generator=torch_stream(0, "t"))
    assert abs(cosine(plain, task.w)) <= cosine(a, task.w)
    with pytest.raises(StudyError, match="keeps its cosine"):
        attribute_vector(z, y, "degraded_170_same_task", task_boundary=task, generator=torch_stream(0, "t"))


def test_partialled_is_the_regression_coefficient_and_drops_what_is_dragged_along():
    rng = np.random.default_rng(0)
    n = 20_000
    other = rng.random(n) < 0.5
    y = rng.random(n) < np.where(other, 0.8, 0.2)  # strongly correlated labels
    effect, side_effect = torch.tensor([1.0, 0, 0]), torch.tensor([0, 2.0, 0])
    z = gaussian(n, 3) + torch.from_numpy(y).float()[:, None] * effect
    z += torch.from_numpy(other).float()[:, None] * side_effect
    dragged = attribute_vector(z, y)
    assert float(dragged[1]) == pytest.approx(2 * 0.6, abs=0.07)  # P(other | y) - P(other | not y) = 0.6
    a = attribute_vector(z, y, "partialled", others=other[:, None])
    assert (a - effect).abs().max() < 0.08  # standard error 2 / sqrt(n) / sqrt(1 - 0.36) = 0.018
    design = np.column_stack([np.ones(n), y, other])
    coefficient = np.linalg.lstsq(design, z.double().numpy(), rcond=None)[0][1]
    assert np.allclose(a.numpy(), coefficient, atol=1e-6)
    alone = vectors.partialled(z, y, np.zeros((n, 0)))
    assert torch.allclose(alone, dragged, atol=1e-6)
    with pytest.raises(StudyError, match="drop a label"):
        vectors.partialled(z, y, np.column_stack([other, ~y]))


def test_true_factor_is_the_mean_displacement():
    z, move = gaussian(5000, 4), torch.tensor([0.0, 3.0, 0.0, -1.0])
    moved = z + move * torch.rand(5000, 1, generator=torch.Generator().manual_seed(2)) * 2
    a = attribute_vector(z, kind="true_factor", z_base=z, z_counterfactual=moved)
    assert torch.allclose(a.double(), (moved - z).double().mean(0), atol=1e-6)
    assert (a - move).abs().max() < 0.1
    with pytest.raises(ValueError, match="no pairs"):
        vectors.true_factor(z, moved[:-1])


@pytest.mark.parametrize("kind", ["partialled", "true_factor"])
def test_matched_kinds_keep_the_direction_and_take_the_mean_differences_length(kind):
    z = gaussian(400, 6)
    y = np.arange(400) % 3 == 0
    inputs = {"y": y, "others": (np.arange(400) % 2)[:, None], "z_base": z[:9], "z_counterfactual": z[9:18]}
    own, matched = (attribute_vector(z, kind=k, **inputs) for k in (kind, f"{kind}_matched"))
    assert cosine(own, matched) == pytest.approx(1, abs=1e-6)
    assert float(matched.norm()) == pytest.approx(float(attribute_vector(z, y).norm()), rel=1e-5)
