"""Empirical checks: the decision at end points, on the grid, at random points, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lassi_lib.certification.empirical import certify_point, points
from lassi_lib.certification.exact_decision import certify_point as decide
from lassi_lib.numerics import threads
from lassi_lib.similarity.sets import SimilaritySet
from lassi_lib.streams import numpy_stream

from .decisions import WIDTHS, build, layers_by_hand, random_case


@pytest.fixture(autouse=True)
def one_thread():
    with threads(1):
        yield


@pytest.mark.parametrize(("n", "grid"), [(1, 9), (2, 9), (3, 15)])
def test_the_points_are_those_of_the_tables(n, grid):
    similarity = SimilaritySet(torch.ones(n, 4), 0.1)
    found = points(similarity, numpy_stream(0, "empirical", 7))
    assert [len(t) for t in found.values()] == [2 * n, grid, 100]
    size = torch.cat(list(found.values())).norm(dim=1)
    assert float(size.max()) <= 0.1 * (1 + 1e-15)
    assert torch.allclose(found["endpoints"].norm(dim=1), torch.tensor(0.1, dtype=torch.float64))
    assert torch.allclose(found["grid"], similarity.grid().double(), atol=1e-8)
    again = points(similarity, numpy_stream(0, "empirical", 7))
    other = points(similarity, numpy_stream(0, "empirical", 8))
    assert torch.equal(found["random"], again["random"])
    assert not torch.equal(found["random"], other["random"])


def test_random_points_are_uniform_in_the_ball():
    similarity = SimilaritySet(torch.ones(3, 4), 2.0)
    t = torch.cat([points(similarity, numpy_stream(0, "empirical", i))["random"] for i in range(100)])
    share = (t.norm(dim=1) / 2) ** 3  # uniform on [0, 1]
    assert np.allclose(np.quantile(share, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.02)  # 4 sd
    assert float(t.mean(0).abs().max()) < 4 * 2 * (0.2 / 10_000) ** 0.5


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_every_flag_is_the_network_run_plainly(n, classes):
    seen = []
    for widths in WIDTHS:
        for seed in range(8):
            case = random_case(widths, n, classes, seed, scale=0.3)
            row = certify_point(case.problem, case.u0, seed)
            sets = points(case.problem.similarity, numpy_stream(seed, "empirical", seed))
            fair = {name: case.logits(t).argmax(1) == case.prediction() for name, t in sets.items()}
            for name, same in fair.items():
                assert row[f"fair_{name}"] == same.all()
            everywhere = np.concatenate(list(fair.values()))
            assert row["prediction"] == case.prediction()
            assert row["status"] == ("PASSED" if everywhere.all() else "REFUTED")
            witness = [row[f"witness_{k}"] for k in range(1, n + 1)]
            if everywhere.all():
                assert np.isnan(witness).all()
                assert row["witness_class"] == -1
            else:
                first = torch.cat(list(sets.values()))[int(everywhere.argmin())]
                assert witness == first.tolist()
                assert row["witness_class"] == case.logits(first[None])[0].argmax() != row["prediction"]
            seen.append(row["status"])
    assert set(seen) == {"PASSED", "REFUTED"}


@pytest.mark.parametrize("n", [1, 2, 3])
def test_never_contradicts_a_proof(n):
    verified = 0
    for seed in range(60):
        case = random_case((6, 20, 16, 5), n, 2, seed, scale=0.25)
        if decide(case.problem, case.u0, 0)["status"] == "VERIFIED":
            verified += 1
            assert certify_point(case.problem, case.u0, 0)["status"] == "PASSED"
    assert verified > 20


def test_what_it_misses_and_what_counts_as_different():
    """Margins below zero near t = 0.26, between the grid's points; then a tie at t = 0.25, on the grid."""
    network = layers_by_hand(([[1.0], [-1.0]], [-0.26, 0.26]), (np.eye(2), np.zeros(2)))
    case = build(network, [[1.0]], [[0.5, 0.5], [-0.5, -0.5]], [-0.005, 0.0])
    row = certify_point(case.problem, case.u0, 0)
    assert (row["fair_endpoints"], row["fair_grid"]) == (True, True)
    on_grid = layers_by_hand(([[1.0], [-1.0]], [-0.25, 0.25]), (np.eye(2), np.zeros(2)))
    tie = build(on_grid, [[1.0]], [[0.5, 0.5], [-0.5, -0.5]], [0.0, 0.0])
    row = certify_point(tie.problem, tie.u0, 0)
    assert (row["fair_endpoints"], row["fair_grid"], row["status"]) == (True, False, "REFUTED")
    assert (row["prediction"], row["witness_1"], row["witness_class"]) == (0, 0.25, 1)
    off = replace(tie.problem, bias=np.array([0.001, 0.0]))
    assert certify_point(off, tie.u0, 0)["fair_grid"]
