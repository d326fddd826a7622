"""One attribute: the decision is that of a scan too fine to miss anything, up to ties."""

import math
import os

import numpy as np
import pandas as pd
import pytest
import torch

from lassi_lib.certification import exact_decision
from lassi_lib.certification.certify import certify
from lassi_lib.certification.exact_decision import certify_point
from lassi_lib.certification.line import trace
from lassi_lib.certification.margins import TOLERANCE, Decision
from lassi_lib.certification.network import Restriction
from lassi_lib.certification.spec import CertificationSpec
from lassi_lib.errors import StudyError
from lassi_lib.learning.representation import Representation, initialisation
from lassi_lib.numerics import threads
from lassi_lib.similarity.sets import SimilaritySet

from .decisions import WIDTHS, build, check, layers_by_hand, random_case
from .textbook import random_network


@pytest.fixture(autouse=True)
def one_thread():
    with threads(1):
        yield


def decide(case):
    return certify_point(case.problem, case.u0, 0)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("widths", WIDTHS)
def test_equals_a_fine_scan(widths, classes):
    t = np.linspace(-1, 1, 200_001)[:, None]
    seen = []
    for seed in range(26):
        case = random_case(widths, 1, classes, seed, scale=0.2 + 0.2 * (seed % 4))
        row, margins = decide(case), case.margins(t)
        check(case, row, margins)
        # the exact minimum lies at most half a step from a scanned point, and slopes are moderate
        assert -1e-9 < margins.min() - row["margin"] < 5e-5
        assert (row["status"] == "REFUTED") == (margins.min() < -1e-3)
        seen.append(row["status"])
    assert {"VERIFIED", "REFUTED"} <= set(seen)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("widths", WIDTHS[1:])
def test_pieces_are_those_of_the_polyline_and_blocks_of_kinks_do_not_matter(widths, seed, monkeypatch):
    case = random_case(widths, 1, 2, seed, scale=0.8)
    row = decide(case)
    nodes = trace(case.problem.encoder, case.u0, -1.0, 1.0).t
    assert row["n_cells"] == len(nodes) - 1
    monkeypatch.setattr(exact_decision, "_ROWS", 3)
    again = decide(case)
    assert again["status"] == row["status"]
    assert again["n_cells"] == row["n_cells"]
    assert again["margin"] == pytest.approx(row["margin"], abs=1e-12)


def roof(level):
    """R(t) = (relu(t + 0.5), relu(t - 0.25)), margin level - |...|: 1 - t - 0.5 up to 0.25, then rising.

    With w_0 - w_1 = (-1, 3) the margin is level on [-1, -0.5], falls to level - 0.75 at t = 0.25 and
    rises with slope 2 to level + 0.75 at 1; all of it over sqrt(10).
    """
    return build(
        layers_by_hand(([[1.0], [1.0]], [0.5, -0.25]), (np.eye(2), np.zeros(2))),
        [[1.0]], [[-0.5, 1.5], [0.5, -1.5]], [level, 0.0],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("level", "status"),
    [(0.75 + 1e-3, "VERIFIED"), (0.75 - 1e-3, "REFUTED"), (0.75 + 1e-7, "UNDECIDED"), (0.75, "UNDECIDED")],
)
def test_known_by_hand(level, status):
    row = decide(roof(level))
    assert row["status"] == status
    assert row["margin"] == pytest.approx((level - 0.75) / math.sqrt(10), abs=1e-12)
    assert row["n_cells"] == 3
    if status == "REFUTED":
        assert row["witness_1"] == pytest.approx(0.25, abs=1e-12)
        assert row["witness_class"] == 1


@pytest.mark.parametrize(("slope", "status"), [(1.0, "VERIFIED"), (-1.0, "REFUTED")])
def test_a_unit_that_is_zero_at_the_left_end(slope, status):
    """relu(t + 1) through a second layer: the margin is 1.5 + slope (t + 1), from t = -1 on."""
    layers = ([[1.0]], [1.0]), ([[1.0]], [0.0]), ([[slope]], [0.0])
    row = decide(build(layers_by_hand(*layers), [[1.0]], [[0.5], [-0.5]], [0.75, -0.75]))
    assert (row["prediction"], row["status"]) == (0, status)
    assert row["margin"] == pytest.approx(1.5 if slope > 0 else -0.5, abs=1e-12)


def bump(width, height, at=1 / 3):
    """Return a case whose margin is 1, but for a dip by `height` of half width `width`."""
    hidden = ([[1.0]] * 3, [width - at, -at, -width - at])
    return build(
        layers_by_hand(hidden, (np.array([[1.0, -2.0, 1.0]]) * height / width, [0.0])),
        [[1.0]], [[-0.5], [0.5]], [0.5, -0.5],
    )  # fmt: skip


def test_a_violation_too_narrow_for_a_grid():
    case = bump(1e-5, 1.001)  # margin below 0 on 2e-8: a scan of 200,001 points sees nothing
    assert case.margins(np.linspace(-1, 1, 200_001)[:, None]).min() > 0
    row = decide(case)
    assert row["status"] == "REFUTED"
    assert row["witness_1"] == pytest.approx(1 / 3, abs=1e-12)
    assert row["margin"] == pytest.approx(-0.001, abs=1e-6)
    assert decide(bump(1e-3, 0.95))["status"] == "VERIFIED"


@pytest.mark.parametrize("widths", WIDTHS)
def test_networks_that_just_touch_the_boundary(widths):
    """Shift the classifier so that the smallest margin is what we want: decided, or a tie."""
    tried = 0
    for seed in range(20):
        case = random_case(widths, 1, 2, seed)
        least = decide(case)["margin"]
        if case.margins([[0.0]])[0] < least + 2e-3:
            continue  # the smallest margin is that of z itself, where there would be no decision to keep
        for target, status in [
            (1e-3, "VERIFIED"), (1e-7, "UNDECIDED"), (-1e-7, "UNDECIDED"), (-1e-3, "REFUTED")
        ]:  # fmt: skip
            shifted = case.shifted(target - least)
            row = decide(shifted)
            assert row["margin"] == pytest.approx(target, abs=1e-9)
            assert row["status"] == status
            tried += 1
    assert tried > 60


def test_ties_between_classes():
    """Equal weights: the biases decide, the margin is a difference of logits; or nothing does."""
    network = random_network((6, 20, 5), 0)
    weight, vectors = np.ones((3, 5)), 0.3 * np.ones((1, 6))
    sure = decide(build(network, vectors, weight, [0.0, 2.0, -1.0]))
    assert (sure["prediction"], sure["status"]) == (1, "VERIFIED")
    assert sure["margin"] == pytest.approx(2.0, abs=1e-12)
    for bias in ([2.0, 2.0, 0.0], [2.0, 2.0 + 1e-6, 0.0]):
        row = decide(build(network, vectors, weight, bias))
        assert row["status"] == "UNDECIDED"
        assert row["n_cells"] == 0
        assert abs(row["margin"]) < 2e-6


def test_a_network_that_does_not_see_the_attribute():
    case = random_case((6, 20, 16, 5), 1, 2, 3, scale=0.0)
    row = decide(case)
    assert (row["status"], row["n_cells"]) == ("VERIFIED", 1)
    assert row["margin"] == pytest.approx(case.margins([[0.0]])[0], abs=1e-12)


def test_a_tie_at_the_latent_itself_is_undecided():
    row = decide(bump(0.1, 1.0, at=0.0))
    assert row["status"] == "UNDECIDED"
    assert abs(row["margin"]) < 1e-12


def test_four_attributes_are_refused():
    with pytest.raises(StudyError, match=r"one to three attributes, not 4: use mode empirical"):
        decide(random_case((6, 20, 5), 4, 2, 0))


def real_size(seed, classes, hidden=(2048, 1024), d=1000, collapse=False):
    """Return a random encoder of the papers' size with lived-in statistics, and a classifier."""
    with initialisation(seed, "test"), torch.no_grad():
        representation, classifier = Representation(d, hidden), torch.nn.Linear(512, classes)
        if collapse:  # nearly one-dimensional representations: sums that cancel
            last = representation.linears[-1].weight
            last.copy_(last.mean(0, keepdim=True) + 1e-2 * last)
        for norm in representation.norms[:-1]:
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(0, 0.3)
        for norm in representation.norms:
            norm.momentum = None
        representation(torch.randn(600, d))
        return representation.eval(), classifier


@pytest.mark.parametrize(
    ("classes", "change"),
    [(2, "none"), (9, "none"), (2, "collapse"), (3, "deep"), (2, "similar classes"), (2, "large biases")],
)
@torch.no_grad()
def test_float32_agrees_outside_the_band_of_ties(classes, change):
    """The deployed model's margins differ from ours by a small part of what counts as a tie."""
    hidden = (1024, 1024, 512) if change == "deep" else (2048, 1024)
    representation, classifier = real_size(0, classes, hidden, collapse=change == "collapse")
    if change == "similar classes":
        classifier.weight.copy_(classifier.weight[:1] + 1e-3 * classifier.weight)
    if change == "large biases":
        classifier.bias.add_(1e4)
    g = torch.Generator().manual_seed(1)
    worst = 0.0
    for _ in range(3):
        z, a = torch.randn(1, 1000, generator=g), 0.3 * torch.randn(1, 1000, generator=g)
        t = torch.linspace(-1, 1, 200)[:, None]
        deployed = classifier(representation(z + t * a)).double()
        encoder = Restriction(representation, a)
        decision = Decision(
            encoder, classifier.weight.double().numpy(), classifier.bias.detach().double().numpy()
        )
        h = decision.last(encoder.first(z) + t.double() * encoder.U)
        i = int(decision.logits(h)[100].argmax())
        head = decision.head(i)
        margin, size = head(h).chunk(2, dim=1)
        w = classifier.weight.double()
        gap = (w[i] - w[head.rivals]).norm(dim=1)
        difference = (deployed[:, [i]] - deployed[:, head.rivals]) / gap - margin
        worst = max(worst, float((difference.abs() / size).max()))
    assert worst < 0.05 * TOLERANCE
    assert worst > 1e-9  # it is float32 that was run


@pytest.mark.parametrize("mode", ["exact_decision", "empirical"])
@pytest.mark.parametrize("n", [1, 2])
def test_as_a_mode_of_certify(n, mode, monkeypatch):
    monkeypatch.setitem(os.environ, "LASSI_QUIET", "1")
    g = torch.Generator().manual_seed(0)
    classifier = torch.nn.utils.skip_init(torch.nn.Linear, 8, 2)
    with torch.no_grad():
        classifier.weight.copy_(torch.randn(2, 8, generator=g))
        classifier.bias.zero_()
    network, similarity = (
        random_network((15, 40, 25, 8), 0),
        SimilaritySet(0.3 * torch.randn(n, 15, generator=g), 1.0),
    )
    z = torch.randn(40, 15, generator=g)

    spec = CertificationSpec(1.0, 0.65, 1.0)

    def run(rows, workers=1):
        return certify(
            network, classifier, similarity, z[rows], np.zeros(len(rows), int), spec,
            seed=0, indices=rows, mode=mode, workers=workers,
        )  # fmt: skip

    whole = run(np.arange(40))
    assert list(whole.columns)[:4] == ["index", "label", "prediction", "status"]
    assert {f"witness_{k}" for k in range(1, n + 1)} <= set(whole.columns)
    assert whole["status"].nunique() == 2
    assert whole.to_csv() == run(np.arange(40), workers=2).to_csv()
    back = run(np.arange(40)[::-1].copy()).sort_values("index").reset_index(drop=True)
    pd.testing.assert_frame_equal(whole, back, rtol=1e-9)
