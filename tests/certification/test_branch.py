"""Two and three attributes: never against a scan or an attack, and decided but for ties."""

import math

import numpy as np
import pytest
import torch

from lassi_lib.certification import branch
from lassi_lib.certification.exact_decision import certify_point
from lassi_lib.certification.margins import Ball, lowered, split
from lassi_lib.certification.network import Restriction
from lassi_lib.numerics import threads
from lassi_lib.similarity.sets import SimilaritySet

from .decisions import WIDTHS, build, check, in_ball, layers_by_hand, random_case, smallest_margin
from .textbook import forward, random_network


@pytest.fixture(autouse=True)
def one_thread():
    with threads(1):
        yield


def decide(case):
    return certify_point(case.problem, case.u0, 0)


def scan(n):
    """Return a dense grid of the unit ball with its surface."""
    axis = np.linspace(-1, 1, 201 if n == 2 else 35)
    t = np.stack(np.meshgrid(*[axis] * n), axis=-1).reshape(-1, n)
    t = t[np.linalg.norm(t, axis=1) <= 1]
    return np.concatenate([t, in_ball(n, 1.0, 6000, np.random.default_rng(0))])


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("n", [2, 3])
def test_agrees_with_a_dense_scan(n, widths, classes):
    t, seen = scan(n), []
    for seed in range(12):
        case = random_case(widths, n, classes, seed, scale=0.15 + 0.15 * (seed % 4))
        row, margins = decide(case), case.margins(t)
        check(case, row, margins)
        assert row["status"] != "UNDECIDED"
        seen.append(row["status"])
    assert {"VERIFIED", "REFUTED"} <= set(seen)


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("widths", [*WIDTHS[1:], (6, 40, 30, 8)])
def test_networks_that_just_touch_the_boundary(widths, n):
    """Shift the classifier so that the smallest margin found is what we want: decided, or a tie."""
    statuses = {1e-3: "VERIFIED", 1e-7: "UNDECIDED", -1e-7: "UNDECIDED", -1e-3: "REFUTED"}
    for seed in range(3):
        case = random_case(widths, n, 2, seed, scale=0.3)
        least = smallest_margin(case, np.random.default_rng(seed))
        assert least < case.margins(np.zeros((1, n)))[0] - 0.01
        for target, status in statuses.items():
            row = decide(case.shifted(target - least))
            assert row["status"] == status
            assert row["margin"] <= max(target, 0) + 1e-9


def attack(network, similarity, weight, bias, z, rng):
    """Attack many latents: random points, then gradient steps from the worst. Smallest margins [N]."""
    A, n = similarity.vectors.double(), similarity.n
    difference = torch.from_numpy(weight[0] - weight[1]) / np.linalg.norm(weight[0] - weight[1])
    shift = (bias[0] - bias[1]) / np.linalg.norm(weight[0] - weight[1])

    def margins(t):
        values = forward(network, (z[:, None] + t @ A).flatten(0, 1)) @ difference + shift
        return sign[:, None] * values.unflatten(0, t.shape[:2])

    sign = torch.ones(len(z), dtype=torch.float64)
    sign = margins(torch.zeros(len(z), 1, n, dtype=torch.float64))[:, 0].sign()
    t = torch.from_numpy(np.stack([in_ball(n, 1.0, 300, rng) for _ in range(len(z))]))
    found = margins(t)
    least, order = found.amin(1), found.argsort(dim=1)[:, :5]
    t = t.gather(1, order[..., None].expand(-1, -1, n))
    for step in 0.3 * 0.8 ** np.arange(30):
        t.requires_grad_()
        values = margins(t)
        (gradient,) = torch.autograd.grad(values.sum(), t)
        least = torch.minimum(least, values.detach().amin(1))
        t = t.detach() - step * gradient / gradient.norm(dim=2, keepdim=True).clamp(min=1e-300)
        t = t / t.norm(dim=2, keepdim=True).clamp(min=1)
    return torch.minimum(least, margins(t).amin(1)).numpy()


@pytest.mark.parametrize(("n", "count", "scale"), [(1, 3000, 0.3), (2, 2000, 0.2), (3, 1000, 0.12)])
def test_a_strong_attack_finds_nothing_against_verified_points(n, count, scale):
    network = random_network((8, 40, 24, 6), n)
    rng = np.random.default_rng(n)
    z = torch.from_numpy(rng.standard_normal((count, 8)))
    vectors = torch.from_numpy(scale * rng.standard_normal((n, 8)))
    weight, bias = rng.standard_normal((2, 6)), np.zeros(2)
    least = attack(network, SimilaritySet(vectors, 1.0), weight, bias, z, rng)
    problem = build(network, vectors, weight, bias).problem
    u0 = torch.cat([Restriction(network, vectors).first(part) for part in z.split(32)])
    rows = [certify_point(problem, first, 0) for first in u0]
    status = np.array([row["status"] for row in rows])
    margin = np.array([row["margin"] for row in rows])
    verified = status == "VERIFIED"
    assert (least[verified] > 0).all()
    assert (margin[verified] <= least[verified] + 1e-9).all()
    assert 0.5 * count < verified.sum() < 0.95 * count
    assert (status[least < -1e-3] == "REFUTED").all()
    assert (status == "UNDECIDED").sum() < 3
    # nearly all refuted points are refuted by the attack, too: they are not what is left over
    assert (least[status == "REFUTED"] < 0).mean() > 0.95


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize(("gap", "status"), [(1e-3, "VERIFIED"), (0.0, "UNDECIDED"), (-1e-3, "REFUTED")])
def test_a_linear_encoder_is_known_in_closed_form(n, gap, status):
    """The margin m + g t is smallest at t = -epsilon g / ||g||, where only a ball touches."""
    rng = np.random.default_rng(n)
    W, A = rng.standard_normal((5, 6)), rng.standard_normal((n, 6))
    weight, epsilon = rng.standard_normal((2, 5)), 0.7
    g = (weight[0] - weight[1]) @ W @ A.T
    case = build(
        layers_by_hand((W, np.zeros(5))), A, weight, [epsilon * np.linalg.norm(g) + gap, 0.0], epsilon
    )
    row = decide(case)
    assert (row["prediction"], row["status"]) == (0, status)
    if status == "REFUTED":
        witness = np.array([row[f"witness_{k}"] for k in range(1, n + 1)])
        assert np.linalg.norm(witness + epsilon * g / np.linalg.norm(g)) < 0.1
        assert row["margin"] >= gap / np.linalg.norm(weight[0] - weight[1]) - 1e-9


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize(("height", "status"), [(1.001, "REFUTED"), (0.999, "VERIFIED")])
def test_a_violation_too_small_for_a_grid(n, height, status):
    """The margin is 1 but for a spike, 1 - height at its tip; below 0 only within 1e-3 of its half width."""
    width, at = (0.01 if n == 2 else 0.1), 1 / 3
    first = np.repeat(np.eye(n), 3, axis=0)
    tents = np.kron(np.eye(n), [[1.0, -2.0, 1.0]]) / width  # a tent of height 1 for every coordinate
    spike = ([[*tents.sum(0)]], [-(n - 1.0)])  # relu(sum of tents - (n - 1)) is the spike
    network = layers_by_hand((first, np.tile([width - at, -at, -width - at], n)), spike, ([[height]], [0.0]))
    case = build(network, np.eye(n), [[-0.5], [0.5]], [0.5, -0.5])
    assert case.margins(scan(n)).min() > 0
    row = decide(case)
    assert row["status"] == status
    if status == "REFUTED":
        check(case, row, case.margins(scan(n)))
        assert max(abs(row[f"witness_{k}"] - at) for k in range(1, n + 1)) < 1e-3 * width


@pytest.mark.parametrize("vectors", ["one is zero", "two are equal", "all are zero"])
@pytest.mark.parametrize("n", [2, 3])
def test_attributes_that_span_less(vectors, n):
    for seed in range(6):
        case = random_case((6, 20, 16, 5), n, 2, seed, scale=0.4)
        A = case.problem.similarity.vectors.clone()
        A[1] = A[0] if vectors == "two are equal" else 0.0
        case = build(
            case.network, A * (vectors != "all are zero"), case.problem.weight, case.problem.bias, z=case.z
        )
        row = decide(case)
        check(case, row, case.margins(scan(n)))
        assert row["status"] in ("VERIFIED", "REFUTED")


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("n", [2, 3])
def test_bounds_hold_on_every_cell_and_become_tight(n, widths):
    rng = np.random.default_rng(n)
    case = random_case(widths, n, 3, 5, scale=0.8)
    decision = case.problem.decision
    u0 = decision.first(case.u0)
    head = decision.head(case.prediction())
    ball = Ball(decision, head, u0, 1.0)
    *inner, last = ball.layers
    splits = [*map(split, inner), split(lowered(last))]
    gaps = []
    for width in (0.5, 0.05, 0.005):
        vertices = branch.Vertices(ball, 1.0)
        middles = torch.from_numpy(0.7 * in_ball(n, 1.0, 200, rng))
        t = middles[:, None] + width * torch.from_numpy(rng.uniform(-1, 1, (200, n + 1, n)))
        cells = vertices.add(t.flatten(0, 1)).view(200, n + 1)
        bounds = branch._bounds(cells, vertices, ball, splits, 1.0).numpy()
        shares = np.concatenate(
            [np.eye(n + 1)[None].repeat(200, 0), rng.dirichlet(np.ones(n + 1), (200, 400))], 1
        )
        samples = shares @ t.numpy()
        margins = case.margins(samples.reshape(-1, n)).reshape(200, -1)
        margins[np.linalg.norm(samples, axis=2) > 1] = math.inf
        least = margins.min(axis=1)
        assert (bounds <= least + 1e-12).all()
        seen = np.isfinite(least)
        gaps.append(np.median(least[seen] - bounds[seen]))
    # down to what ties allow, here up to 3e-4
    assert gaps[1] < 0.2 * gaps[0] + 3e-4
    assert gaps[2] < 0.2 * gaps[1] + 3e-4


def test_cells_cover_the_ball_and_halves_cover_cells():
    case = random_case((6, 20, 5), 3, 2, 0)
    decision = case.problem.decision
    ball = Ball(decision, decision.head(case.prediction()), case.u0, 2.0)
    vertices = branch.Vertices(ball, 2.0)
    cells = branch._cover(vertices, 2.0)
    t = torch.from_numpy(in_ball(3, 2.0, 3000, np.random.default_rng(0)))
    for _ in range(6):
        corners = torch.cat([vertices.t[cells], torch.ones(*cells.shape, 1, dtype=torch.float64)], dim=2)
        points = torch.cat([t, torch.ones(len(t), 1, dtype=torch.float64)], dim=1)
        shares = torch.einsum("cij,mi->cmj", torch.linalg.inv(corners), points)
        assert ((shares >= -1e-9).all(2).sum(0) >= 1).all()
        assert float(torch.det(corners).abs().sum()) == pytest.approx(8 * (2 * 3**0.5) ** 3, rel=1e-6)
        cells = branch._halves(cells, vertices, torch.eye(3, dtype=torch.float64))


def test_the_budget_ends_the_search(monkeypatch):
    case = random_case((6, 40, 30, 8), 3, 2, 1, scale=0.3)
    least = smallest_margin(case, np.random.default_rng(0))
    case = case.shifted(1e-4 - least)
    monkeypatch.setattr(branch, "BUDGET", 100)
    row = decide(case)
    assert row["status"] == "UNDECIDED"
    assert 100 <= row["n_cells"] < 100 + 2 * branch._BATCH
    check(case, row, case.margins(scan(3)))
