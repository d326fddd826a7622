"""Samplers of the similarity set against the distributions they claim."""

import numpy as np
import pytest
import torch
from scipy import stats

from lassi_lib.similarity.sets import SimilaritySet
from lassi_lib.streams import torch_stream


def ball(n, epsilon=1.0, d=6):
    return SimilaritySet(torch.eye(n, d), epsilon)


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_samples_are_uniform_in_the_ball(n):
    t = ball(n, 2.0).sample((200, 100), torch_stream(0, f"ball {n}")).reshape(-1, n)
    radius = t.norm(dim=1) / 2.0
    assert radius.max() <= 1
    # the share within radius r is r^n: (radius^n) is uniform
    assert stats.kstest((radius**n).numpy(), "uniform").pvalue > 1e-3
    assert t.mean(0).abs().max() < 4 * 2.0 / 20_000**0.5
    covariance = torch.cov(t.T).reshape(n, n)
    assert torch.allclose(covariance, torch.eye(n) * 4 / (n + 2), atol=0.06)


def test_one_attribute_is_uniform_on_the_interval():
    t = ball(1, 0.5).sample((5000,), torch_stream(1, "line"))
    assert stats.kstest(t[:, 0].numpy(), "uniform", args=(-0.5, 1.0)).pvalue > 1e-3


def test_gaussian_coefficients_have_the_stated_law_and_stream():
    rng = np.random.default_rng(0)
    t = ball(2).gaussian(20_000, 0.65, rng)
    assert t.shape == (20_000, 2)
    for column in t.T:
        assert stats.kstest(column, "norm", args=(0, 0.65)).pvalue > 1e-3
    assert np.array_equal(t, ball(2).gaussian(20_000, 0.65, np.random.default_rng(0)))


def test_a_normal_draw_of_exactly_zero_is_a_point_and_not_nan(monkeypatch):
    monkeypatch.setattr(torch, "randn", lambda *shape, **_: torch.zeros(*shape))
    assert (ball(1).sample((10,), torch_stream(0, "zero")) == 0).all()


@pytest.mark.parametrize(("n", "points"), [(1, 9), (2, 9), (3, 15)])
def test_grids_have_the_papers_points(n, points):
    grid = ball(n, 2.0).grid()
    assert grid.shape == (points, n)
    norms = grid.norm(dim=1)
    assert (norms == 0).sum() == 1
    assert norms.max() == pytest.approx(2.0)
    if n > 1:
        assert torch.allclose(norms[norms > 0], torch.full((points - 1,), 2.0))
    else:
        assert torch.allclose(grid[:, 0], torch.linspace(-2, 2, 9))
    assert len({tuple(p) for p in grid.tolist()}) == points


def test_endpoints():
    s = ball(3, 1.5)
    ends = s.endpoints()
    assert ends.shape == (6, 3)
    assert (ends != 0).sum() == 6
    assert torch.equal(ends.abs().sum(1), torch.full((6,), 1.5))


def test_points_lie_in_the_plane_through_z():
    vectors = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 3.0]])
    points = SimilaritySet(vectors, 1.0).points(torch.ones(3), torch.tensor([[0.0, 0.0], [1.0, -1.0]]))
    assert torch.equal(points, torch.tensor([[1.0, 1.0, 1.0], [2.0, 3.0, -2.0]]))


def test_impossible_sets_are_refused():
    with pytest.raises(ValueError, match="shape"):
        SimilaritySet(torch.zeros(3), 1.0)
    with pytest.raises(ValueError, match="epsilon"):
        SimilaritySet(torch.zeros(1, 3), 0.0)


def test_many_vectors_have_a_grid_without_diagonals():
    many = SimilaritySet(torch.randn(49, 60, generator=torch.Generator().manual_seed(0)), 1.0)
    assert many.grid().shape == (1 + 2 * 49, 49)
    assert SimilaritySet(many.vectors[:3], 1.0).grid().shape == (15, 3)
