"""Batches of points: the rows of one point at a time, whatever the batch, its order and the device."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from lassi_lib.certification import batched, exact_decision, line, monte_carlo
from lassi_lib.certification.batched import certify_batch
from lassi_lib.certification.clouds import Lines, Surfaces, smallest_medians, trace_lines
from lassi_lib.certification.network import Restriction
from lassi_lib.certification.problem import Problem

from .test_center import brute_force, wiggle
from .test_certify import SPEC, setting

DEPTHS = [(15, 8), (15, 40, 8), (15, 40, 25, 8), (15, 40, 30, 20, 8)]


def problem(n, widths=(15, 40, 25, 8), spec=SPEC, scale=0.2, classes=2, seed=0):
    """Return a problem and the first layers [60, h_1] of its points."""
    representation, classifier, similarity, z = setting(n, scale / n, widths, classes, seed)
    encoder = Restriction(representation, similarity.vectors)
    weight, bias = (p.detach().double().numpy() for p in (classifier.weight, classifier.bias))
    return Problem(encoder, similarity, weight, bias, spec, 0), encoder.first(z, rows=60)


def rows_of(parts, numbers=range(60), **options):
    given, u0 = parts
    options = {"mode": "monte_carlo", "budget": 2**28} | options
    return pd.DataFrame(
        certify_batch(given, u0[list(numbers)], list(numbers), **options), index=list(numbers)
    )


def one_by_one(parts, mode=monte_carlo):
    given, u0 = parts
    return pd.DataFrame([mode.certify_point(given, u, i) for i, u in enumerate(u0)])


def assert_same(rows, expected, rtol):
    """Statuses are equal and numbers agree; the smoothing error, a difference, to rtol of the radius."""
    assert list(rows.columns) == list(expected.columns)
    exact = ["prediction", "status", "mass_fraction"]
    pd.testing.assert_frame_equal(rows[exact], expected[exact])
    radii = ["d_cs", "d_rs", "p_A", "center_radius"]
    pd.testing.assert_frame_equal(rows[radii], expected[radii], rtol=rtol, atol=0)
    error = (rows["smoothing_error"] - expected["smoothing_error"]).abs()
    assert (error <= rtol * expected["center_radius"]).all()


@pytest.mark.parametrize("quantile", ["higher", "linear"])
@pytest.mark.parametrize("widths", DEPTHS)
def test_one_attribute_gives_the_rows_of_one_point_at_a_time(widths, quantile):
    parts = problem(1, widths, replace(SPEC, quantile=quantile))
    rows, expected = rows_of(parts), one_by_one(parts)
    assert len(set(expected["status"])) >= 3
    assert_same(rows, expected, 1e-9)
    assert (rows["n_pieces"] == expected["n_pieces"]).all()


@pytest.mark.parametrize("quantile", ["higher", "linear"])
@pytest.mark.parametrize(("n", "widths"), [(2, DEPTHS[0]), (2, DEPTHS[1]), (2, DEPTHS[2]), (3, DEPTHS[3])])
def test_more_attributes_give_the_rows_of_one_point_at_a_time(n, widths, quantile):
    """The engine for one point works in float32 relative to R(z)."""
    parts = problem(n, widths, replace(SPEC, quantile=quantile))
    expected = one_by_one(parts)
    assert len(set(expected["status"])) >= 3
    assert_same(rows_of(parts), expected, 1e-5)


def test_three_classes_and_the_binomial_bound():
    parts = problem(1, spec=replace(SPEC, bound="binomial"), classes=3, scale=0.05, seed=4)
    expected = one_by_one(parts)
    assert set(expected["prediction"]) == {-1, 0, 1}
    assert_same(rows_of(parts), expected, 1e-9)


def test_without_a_classifier_the_smoothed_points_are_given():
    """And judged afterwards they are the rows of the whole certificate."""
    given, u0 = problem(1)
    nobody = replace(given, weight=np.zeros((0, 8)), bias=np.zeros(0))
    points = certify_batch(nobody, u0, range(60), "monte_carlo")
    judged = [
        monte_carlo.judge(point, given.weight, given.bias, given.spec, given.seed, i)
        for i, point in enumerate(points)
    ]
    pd.testing.assert_frame_equal(pd.DataFrame(judged), rows_of((given, u0)), check_exact=True)


@pytest.mark.parametrize("n", [1, 2])
def test_neither_budget_nor_order_matter(n, monkeypatch):
    parts = problem(n)
    whole = rows_of(parts)
    split, counts = batched._batches, []

    def spy(*arguments):
        counts.append(len(split(*arguments)))
        return split(*arguments)

    monkeypatch.setattr(batched, "_batches", spy)
    for budget in (10**5, 2 * 10**6, 2**28):
        pd.testing.assert_frame_equal(rows_of(parts, budget=budget), whole, rtol=1e-9, atol=1e-12)
    assert counts[0] == 60 > counts[1] > counts[2] == 1  # one point at a time, some, all
    shuffled = np.random.default_rng(0).permutation(60)
    pd.testing.assert_frame_equal(rows_of(parts, shuffled).sort_index(), whole, rtol=1e-9, atol=1e-12)
    alone = pd.concat([rows_of(parts, [i]) for i in (0, 33)])
    pd.testing.assert_frame_equal(alone, whole.loc[[0, 33]], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("widths", DEPTHS)
def test_traces_are_those_of_single_points(widths):
    """Nodes, values and pieces, although the points of a batch have different numbers of kinks."""
    given, u0 = problem(1, widths, scale=1.0)
    low, high = torch.linspace(-3, -1, 60).double(), torch.linspace(1, 2, 60).double()
    lines = Lines(*trace_lines(given.encoder, u0, low, high))
    curves = [line.trace(given.encoder, *each) for each in zip(u0, low.tolist(), high.tolist(), strict=True)]
    pieces = [len(curve.t) - 1 for curve in curves]
    assert lines.pieces.tolist() == pieces
    assert len(widths) == 2 or max(pieces) > min(pieces) > 2
    t = torch.linspace(0, 1, 201, dtype=torch.float64)
    t = low[:, None] + t * (high - low)[:, None]
    cloud = lines.at(t)
    every = torch.arange(60)[:, None], torch.arange(201)
    ends = torch.arange(60), torch.full((60,), 17)
    points, distances = cloud.points(*every), cloud.distances(cloud.points(*ends))
    squared = cloud.squared(torch.arange(60), torch.full((60, 2), 17))
    for b, curve in enumerate(curves):
        single = curve.at(t[b])
        assert torch.allclose(lines.origin[b], curve.origin, rtol=0, atol=1e-12)
        assert torch.allclose(points[b], single.points(torch.arange(201)), rtol=0, atol=1e-12)
        expected = single.distances(single.point(17))
        assert torch.allclose(distances[b] ** 2, expected**2, rtol=0, atol=1e-12)
        assert torch.allclose(squared[b], (expected**2).expand(2, -1), rtol=0, atol=1e-11)


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize(("n", "k"), [(400, 2), (501, 3), (900, 80), (30, 4), (7, 1)])
def test_the_batched_search_equals_brute_force_on_clouds(n, k, average):
    g = torch.Generator().manual_seed(n)
    x = torch.randn(8, n, k, generator=g, dtype=torch.float64) * torch.rand(8, 1, k, generator=g)
    x += 2 * (torch.rand(8, n, 1, generator=g) < 0.3)
    rows, medians = smallest_medians(Surfaces(x), average=average, budget=10**6)
    expected = [brute_force(each, average) for each in x]
    assert rows.tolist() == [row for row, _ in expected]
    assert medians.tolist() == pytest.approx([median for _, median in expected], rel=1e-9)


@pytest.mark.parametrize("average", [False, True])
def test_the_batched_search_equals_brute_force_on_polylines(average):
    """Forty nodes, but for every third curve; padding must not be mistaken for one."""
    curves = [wiggle(seed, m=40 if seed % 3 else 25) for seed in range(9)]
    t, r = (torch.nn.utils.rnn.pad_sequence([getattr(c, name) for c in curves], True) for name in "tr")
    for b, curve in enumerate(curves):
        t[b, len(curve.t) :], r[b, len(curve.t) :] = curve.t[-1], curve.r[-1]
    draws = torch.randn(9, 1200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cloud = Lines(t, r).at(draws.clamp(-4, 4).sort(dim=1).values)
    rows, medians = smallest_medians(cloud, average=average, budget=2**24)
    every = cloud.points(torch.arange(9)[:, None], torch.arange(1200))
    expected = [brute_force(each, average) for each in every]
    assert rows.tolist() == [row for row, _ in expected]
    assert medians.tolist() == pytest.approx([median for _, median in expected], rel=1e-9)


def test_ties_go_to_the_smallest_row_and_coinciding_samples_end_the_search():
    g = torch.Generator().manual_seed(0)
    twice = torch.randn(3, 200, 2, generator=g, dtype=torch.float64).repeat(1, 2, 1)
    assert (smallest_medians(Surfaces(twice), average=False, budget=10**6)[0] < 200).all()
    rows, medians = smallest_medians(Surfaces(torch.zeros(3, 50, 2).double()), average=False, budget=10**6)
    assert rows.tolist() == [0, 0, 0]
    assert medians.tolist() == [0, 0, 0]


@pytest.mark.parametrize("n", [1, 2])
def test_a_network_blind_to_the_attributes_has_no_radius(n):
    rows = rows_of(problem(n, scale=0.0))
    assert (rows["center_radius"] == 0).all()
    assert (rows["d_cs"] == 0).all()
    assert (rows["n_pieces"] == n % 2).all()  # one piece, or no unit that bends


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("widths", DEPTHS)
def test_exact_decisions_are_those_of_one_point_at_a_time(widths, classes):
    parts = problem(1, widths, scale=1.0, classes=classes, seed=2)
    rows, expected = rows_of(parts, mode="exact_decision"), one_by_one(parts, exact_decision)
    assert {"VERIFIED", "REFUTED"} <= set(expected["status"])
    exact = ["prediction", "status", "witness_class"]
    pd.testing.assert_frame_equal(rows[exact], expected[exact])
    pd.testing.assert_frame_equal(rows, expected.assign(n_cells=rows["n_cells"]), rtol=0, atol=1e-9)
    if len(widths) > 2:  # a network without hidden layers has none, although its decision is a polyline's
        assert (rows["n_cells"] == expected["n_cells"]).all()
    small = rows_of(parts, mode="exact_decision", budget=10**5)
    pd.testing.assert_frame_equal(small, rows, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("shift", "status"), [(1e-3, "VERIFIED"), (0.0, "UNDECIDED"), (-1e-3, "REFUTED")])
def test_exact_decisions_near_a_tie(shift, status):
    """The boundary of C moves to the smallest margin of a point, and a little to either side of it."""
    given, u0 = problem(1, scale=1.0)
    rows = rows_of((given, u0), mode="exact_decision")
    point = rows[rows["status"] == "VERIFIED"].iloc[0]
    moved = given.bias.copy()
    gap = np.linalg.norm(given.weight[1] - given.weight[0])
    moved[point["prediction"]] -= (point["margin"] - shift) * gap
    parts = replace(given, bias=moved), u0
    again = rows_of(parts, mode="exact_decision")
    assert again.loc[point.name, "status"] == status
    pd.testing.assert_frame_equal(again, one_by_one(parts, exact_decision), rtol=0, atol=1e-9)


def test_an_exact_decision_needs_one_attribute_and_no_tie_at_z():
    given, u0 = problem(1)
    parts = replace(given, weight=0 * given.weight, bias=0 * given.bias), u0
    rows = rows_of(parts, mode="exact_decision")
    assert (rows["status"] == "UNDECIDED").all()
    pd.testing.assert_frame_equal(rows, one_by_one(parts, exact_decision))
    with pytest.raises(ValueError, match="batched for one attribute, not 2"):
        rows_of(problem(2), mode="exact_decision")


@pytest.mark.parametrize("mode", ["monte_carlo", "exact_decision"])
def test_no_points_no_rows(mode):
    given, u0 = problem(1)
    assert certify_batch(given, u0[:0], [], mode) == []


@pytest.mark.parametrize(("n", "mode"), [(1, "monte_carlo"), (2, "monte_carlo"), (1, "exact_decision")])
def test_every_tensor_is_made_on_the_device_of_the_inputs(n, mode):
    """With another default device, a tensor made without naming one could not meet the others."""
    parts = problem(n, scale=1.0)
    expected = rows_of(parts, mode=mode)
    with torch.device("meta"):
        rows = certify_batch(*parts, range(60), mode, budget=2**28)
    pd.testing.assert_frame_equal(pd.DataFrame(rows), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU")
@pytest.mark.parametrize("n", [1, 2, 3])
def test_cuda_gives_the_rows_of_the_cpu(n):
    parts = problem(n)
    for budget in (None, 5 * 10**6):
        assert_same(rows_of(parts, device="cuda", budget=budget), rows_of(parts), 1e-9)
        if n == 1:
            rows, expected = (
                rows_of(parts, mode="exact_decision", device=device, budget=budget)
                for device in ("cuda", "cpu")
            )
            pd.testing.assert_frame_equal(rows, expected, rtol=0, atol=1e-9)
