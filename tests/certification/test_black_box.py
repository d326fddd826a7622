"""An encoder that can only be called gives the answers of one whose layers are known."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from lassi_lib.certification.black_box import Samples, certify_point
from lassi_lib.certification.center import smallest_median
from lassi_lib.certification.certify import certify
from lassi_lib.certification.problem import Problem
from lassi_lib.certification.spec import CertificationSpec
from lassi_lib.errors import StudyError
from lassi_lib.learning.representation import Representation, initialisation
from lassi_lib.similarity.sets import SimilaritySet

SPEC = CertificationSpec(1.0, 0.65, 0.5, n_center=1300, n_radius=1300, n_class=200, n_votes=2000)


@pytest.fixture(scope="module")
def models():
    """A random encoder and head, ten latents and two vectors."""
    with initialisation(3, "test"):
        representation, head = Representation(12, (16,), 5).eval(), nn.Linear(5, 3)
        z, vectors = 2 * torch.randn(10, 12), 0.4 * torch.randn(2, 12)
    return representation, head.requires_grad_(False), z, vectors


def rows(encoder, models, mode, n):
    _, head, z, vectors = models
    similarity = SimilaritySet(vectors[:n], 1.0)
    return certify(encoder, head, similarity, z, [0] * 10, SPEC, seed=1, indices=range(10), mode=mode)


@pytest.mark.parametrize("n", [1, 2])
def test_calls_and_layers_agree_in_every_mode_that_needs_no_layers(models, n):
    def called(z):
        return models[0](z)

    known, unknown = (rows(e, models, "empirical", n) for e in (models[0], called))
    assert set(known["status"]) == {"PASSED", "REFUTED"}  # or the test would see one of them alone
    shared = [c for c in unknown if c.startswith("witness_") or c in ("prediction", "status", "label")]
    for column in shared:
        assert np.array_equal(known[column], unknown[column], equal_nan=known[column].dtype.kind == "f")
    known, unknown = (rows(e, models, "monte_carlo", n) for e in (models[0], called))
    assert list(known["status"]) == list(unknown["status"])
    assert np.allclose(known["d_cs"], unknown["d_cs"], rtol=1e-3, equal_nan=True)
    assert np.allclose(known["d_rs"], unknown["d_rs"], rtol=2e-2, equal_nan=True)
    assert (known["prediction"] == unknown["prediction"]).all() and known["d_cs"].notna().any()


def test_exact_modes_say_what_they_need(models):
    with pytest.raises(StudyError, match="needs an encoder of known layers: use empirical or monte_carlo"):
        rows(lambda z: models[0](z), models, "exact_decision", 1)


def test_the_center_of_samples_is_found_as_by_trying_all():
    points = torch.randn(301, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    cloud = Samples(points)
    distances = torch.cdist(points, points).sort(dim=1).values[:, 150]
    row, radius = smallest_median(cloud)
    assert row == int(distances.argmin()) and radius == pytest.approx(float(distances.min()))
    assert torch.equal(cloud.point(7), points[7]) and len(cloud) == 301
    assert float(cloud.distances(points[7])[7]) == 0.0


def test_a_value_that_is_not_finite_is_an_error_and_a_tie_is_unfair(models):
    _, _, z, vectors = models
    problem = Problem(None, SimilaritySet(vectors[:1], 1.0), np.eye(2), np.zeros(2), SPEC, 0)
    cpu = torch.device("cpu")

    def overflow(points):
        return points[:, :2] / (points == z[0]).all(1, keepdim=True).float()

    with pytest.raises(StudyError, match="near face 4 is not finite"):
        certify_point(overflow, problem, z[0], 4, "empirical", cpu)
    row = certify_point(lambda points: torch.ones(len(points), 2), problem, z[0], 4, "empirical", cpu)
    assert (row["status"], row["prediction"], row["witness_class"]) == ("REFUTED", 0, 1)
    constant = certify_point(
        lambda points: torch.tensor([[1.0, 0.0]]).expand(len(points), 2), problem, z[0], 4, "empirical", cpu
    )
    assert (constant["status"], constant["witness_class"]) == ("PASSED", -1)
    assert math.isnan(constant["witness_1"])
