"""Tables of vectors on cases worked out by hand."""

import numpy as np
import pytest
import torch
from scipy import optimize

from lassi_lib.similarity.diagnostics import cosines, describe_vectors, distance_to_set, latent_spread
from lassi_lib.similarity.sets import SimilaritySet

VECTORS = {"x": torch.tensor([2.0, 0.0]), "diagonal": torch.tensor([3.0, 3.0])}


def test_lengths_and_cosines():
    table = describe_vectors(VECTORS, spread=4.0)
    assert list(table.columns) == ["vector", "norm", "norm / spread", "cos x", "cos diagonal"]
    assert np.allclose(table["norm"], [2, 18**0.5])
    assert np.allclose(table["norm / spread"], [0.5, 18**0.5 / 4])
    assert np.allclose(table["cos x"], [1, 0.5**0.5])
    assert np.allclose(cosines(torch.eye(2), torch.tensor([[1.0, 1.0]])), [[0.5**0.5], [0.5**0.5]])


def test_spread_of_latents():
    z = torch.randn(5000, 30, generator=torch.Generator().manual_seed(0)) * 2 + 7
    assert latent_spread(z) == pytest.approx(2 * 30**0.5, rel=0.01)
    assert latent_spread(torch.tensor([[0.0, 0.0], [6.0, 8.0]])) == pytest.approx(5)


def test_distance_from_a_segment_is_that_of_its_nearest_point():
    segment = SimilaritySet(torch.tensor([[2.0, 0.0]]), 1.5)  # from (-3, 0) to (3, 0)
    found = distance_to_set(torch.tensor([[1.0, 0.0], [2.0, 5.0], [-6.0, 4.0]]), segment)
    assert found["distance"] == pytest.approx([0, 5, 5], abs=1e-9)
    assert found["outside"] == pytest.approx([0, 5, 4], abs=1e-9)
    assert found["needed"] == pytest.approx([0.5, 1, 3])
    assert found["length"] == pytest.approx([1, 29**0.5, 52**0.5])


def test_distance_from_a_ball_of_dependent_vectors_is_a_constrained_minimum():
    generator = torch.Generator().manual_seed(3)
    three = torch.randn(3, 6, generator=generator) * torch.tensor([[4.0], [1.0], [0.3]])
    ball = SimilaritySet(torch.cat([three, three[:1] - three[1:2]]), 0.8)
    delta = torch.randn(8, 6, generator=generator) * torch.linspace(0.1, 4, 8)[:, None]
    found, A = distance_to_set(delta, ball), ball.vectors.double().numpy()
    within = {"type": "ineq", "fun": lambda t: 0.8**2 - t @ t, "jac": lambda t: -2 * t}
    for point, distance in zip(delta.double().numpy(), found["distance"], strict=True):
        best = optimize.minimize(
            lambda t, point=point: ((point - t @ A) ** 2).sum(),
            np.zeros(4),
            jac=lambda t, point=point: -2 * A @ (point - t @ A),
            constraints=within,
            options={"ftol": 1e-14, "maxiter": 500},
        )
        assert distance == pytest.approx(best.fun**0.5, rel=1e-5)
    assert (found["needed"] > 0.8).any() and (found["needed"] < 0.8).any()
    assert (found["outside"] <= found["distance"] + 1e-12).all()
    assert (found["distance"] <= found["length"] + 1e-12).all()
