"""Linear boundaries on Gaussians whose best boundary is known, and the vectors made from them."""

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from lassi_lib.errors import StudyError
from lassi_lib.similarity.boundaries import (
    Boundaries,
    Boundary,
    BoundaryTraining,
    fit_boundaries,
    perpendicular,
    ramaswamy,
    ramaswamy_signed,
)
from lassi_lib.streams import torch_stream

N, D = 6000, 20
SHIFT = torch.tensor([2.0, -1.0, 0.5] + [0.0] * (D - 3))
SCALE = torch.tensor([1.0, 2.0, 0.5] + [1.0] * (D - 3))
BAYES = SHIFT / SCALE**2  # normal of the best boundary of two Gaussians with equal covariance
THOROUGH = BoundaryTraining(epochs=60, batch_size=128, learning_rate=5e-3)


def classes(n, seed, share=0.5):
    g = torch.Generator().manual_seed(seed)
    y = torch.rand(n, generator=g) < share
    z = torch.randn(n, D, generator=g) * SCALE + y[:, None] * SHIFT
    return z, y.numpy()


def fit(z, y, training=THOROUGH, seed=0, names=("g",)):
    zv, yv = classes(1500, 99)
    yv = np.tile(yv[:, None], (1, len(names)))
    return fit_boundaries(z, y.reshape(len(z), -1), zv, yv, names, training, seed=seed)


def cosine(a, b):
    return float(a.double() @ b.double() / a.double().norm() / b.double().norm())


def test_the_bayes_boundary_is_recovered():
    z, y = classes(N, 0)
    boundaries, history = fit(z, y)
    g = boundaries["g"]
    assert cosine(g.w, BAYES) > 0.99
    # w = Sigma^-1 shift, b = -w.mean of the two means (equal classes); errors of order 1/sqrt(N) * few
    assert (g.w - BAYES).abs().max() < 0.35
    assert g.b == pytest.approx(-float(BAYES @ SHIFT) / 2, abs=0.35)
    best = min(history, key=lambda row: row["valid_loss"])
    assert best["selected"]
    assert sum(row["selected"] for row in history) == 1
    zt, yt = classes(20_000, 5)
    bayes_rate = torch.special.ndtr((BAYES @ SHIFT).sqrt() / 2)
    got = g.accuracy(zt, yt)
    assert got["accuracy"] == pytest.approx(float(bayes_rate), abs=0.012)
    assert got["balanced_accuracy"] == pytest.approx(float(bayes_rate), abs=0.012)


def test_the_kept_epoch_has_the_lowest_validation_loss():
    z, y = classes(N, 0)
    boundaries, history = fit(z, y, BoundaryTraining(epochs=30, learning_rate=1.0))  # jumps about
    losses = [row["valid_loss"] for row in history]
    assert int(np.argmin(losses)) not in (0, 29)
    zv, yv = classes(1500, 99)
    loss = binary_cross_entropy_with_logits(boundaries["g"].score(zv), torch.from_numpy(yv).float())
    assert float(loss) == pytest.approx(min(losses), rel=1e-5)


def test_one_step_is_adam_on_the_logistic_loss():
    z, y = classes(300, 1)
    start = fit(z, y, BoundaryTraining(epochs=1, batch_size=300, learning_rate=0.0))[0]["g"]
    after = fit(z, y, BoundaryTraining(epochs=1, batch_size=300, learning_rate=0.01))[0]["g"]
    w = start.w.clone().requires_grad_()
    b = torch.tensor(start.b, requires_grad=True)
    optimiser = torch.optim.Adam([w, b], lr=0.01)
    binary_cross_entropy_with_logits(z @ w + b, torch.from_numpy(y).float()).backward()
    optimiser.step()
    assert torch.allclose(after.w, w.detach(), atol=1e-6)
    assert after.b == pytest.approx(b.item(), abs=1e-6)
    assert start.w.abs().max() <= D**-0.5


def test_attributes_fitted_together_are_those_fitted_alone():
    z, y = classes(N, 0)
    brisk = BoundaryTraining(learning_rate=0.05)
    second = (z[:, 5] > 0).numpy()
    zv, yv = classes(1500, 99)
    both, history = fit_boundaries(
        z, np.column_stack([y, second]), zv, np.column_stack([yv, (zv[:, 5] > 0).numpy()]), ("g", "h"),
        brisk, seed=3,
    )  # fmt: skip
    alone, _ = fit(z, y, brisk, seed=3)
    assert torch.allclose(both["g"].w, alone["g"].w, atol=1e-5)
    assert both["h"].normal[5] > 0.9
    assert [row["attribute"] for row in history] == ["g"] * 3 + ["h"] * 3
    again, _ = fit(z, y, brisk, seed=3)
    assert torch.equal(again["g"].w, alone["g"].w)
    assert not torch.equal(fit(z, y, brisk, seed=4)[0]["g"].w, alone["g"].w)


def test_a_missing_class_is_named():
    z, y = classes(100, 0)
    with pytest.raises(
        StudyError, match="'h' needs faces with and without it, all 100 training faces are without"
    ):
        fit(z, np.column_stack([y, np.zeros(100)]), names=("g", "h"))
    with pytest.raises(StudyError, match="not finite"):
        fit(z * torch.nan, y)
    with pytest.raises(ValueError, match="do not fit"):
        fit(z, y, names=("g", "h"))


def test_accuracy_of_a_rare_attribute_is_told_from_a_constant():
    never = Boundary(torch.zeros(2), -1.0)
    y = np.arange(50) == 0
    assert never.accuracy(torch.zeros(50, 2), y) == {
        "accuracy": 0.98,
        "balanced_accuracy": 0.5,
        "majority": 0.98,
    }
    assert np.isnan(never.accuracy(torch.zeros(3, 2), np.zeros(3))["balanced_accuracy"])


def test_geometry_of_a_boundary():
    g = Boundary(torch.tensor([3.0, 4.0]), 10.0)
    assert torch.allclose(perpendicular(g), torch.tensor([0.6, 0.8]))
    assert g.offset == pytest.approx(2.0)
    assert torch.equal(g.score(torch.tensor([[1.0, 1.0]])), torch.tensor([17.0]))
    boundaries = Boundaries(("a", "b"), torch.eye(2), torch.tensor([1.0, 2.0]))
    assert boundaries["b"].b == 2.0
    assert torch.equal(boundaries["b"].w, torch.tensor([0.0, 1.0]))


def ramaswamy_setting():
    g = torch_stream(0, "ramaswamy")
    z = torch.randn(500, D, generator=g)
    return z, Boundary(torch.randn(D, generator=g), 0.7), Boundary(torch.randn(D, generator=g), -0.4)


def brute_force_displacements(z, boundary, task_boundary):
    """Solve, face by face, for the point with mirrored attribute score and equal task score, [N, d].

    The closest such point is z + x, x in the span of the two normals, found from a 2 x 2 system.
    """
    normals = torch.stack([boundary.normal, task_boundary.normal]).double()
    moves = []
    for row in z.double():
        wanted = torch.stack(
            [-2 * (normals[0] @ row + boundary.offset), torch.zeros((), dtype=torch.float64)]
        )
        moves.append(normals.T @ torch.linalg.solve(normals @ normals.T, wanted))
    return torch.stack(moves)


def test_ramaswamy_is_the_mean_length_of_the_displacements():
    z, g, t = ramaswamy_setting()
    moves = brute_force_displacements(z, g, t)
    a = ramaswamy(z, g, t)
    assert float(a.norm()) == pytest.approx(float(moves.norm(dim=1).mean()), rel=1e-5)
    # every displacement is along a, and a leads towards the attribute
    assert torch.allclose((moves @ a.double()).abs(), moves.norm(dim=1) * a.double().norm(), rtol=1e-5)
    assert a @ g.w > 0
    assert abs(cosine(a, t.w)) < 1e-6


def test_the_signed_average_is_the_mean_displacement_and_cancels():
    z, g, t = ramaswamy_setting()
    moves = brute_force_displacements(z, g, t)
    assert torch.allclose(ramaswamy_signed(z, g, t).double(), moves.mean(0), atol=1e-6)
    mirrored = torch.cat([z, z + moves.float()])  # every face and its mirror image: both sides equally
    assert ramaswamy_signed(mirrored, g, t).norm() < 1e-5 * ramaswamy(mirrored, g, t).norm()
    # a rare attribute: all on one side, so nothing cancels and the two kinds agree
    rare = Boundary(g.w, -100.0)
    assert torch.allclose(ramaswamy_signed(z, rare, t), ramaswamy(z, rare, t), rtol=1e-4)
    with pytest.raises(StudyError, match="task's own"):
        ramaswamy(z, g, Boundary(2 * g.w, 0.0))
