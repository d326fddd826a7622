"""Empirical fairness against predictions whose answer is known on paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lassi_lib.learning.empirical import empirical_fairness
from lassi_lib.similarity.sets import SimilaritySet


def latents(n=400, d=5):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(1))


def along(*axes, d=5, epsilon=0.8):
    return SimilaritySet(torch.eye(d)[list(axes)], epsilon)


def sign(z):
    return (z[:, 0] > 0).long()


def band(z):
    """Class 1 in a narrow band: a path through it starts and ends in class 0."""
    return (z[:, 0].abs() < 0.1).long()


def test_a_linear_prediction_changes_where_the_boundary_is_nearer_than_epsilon():
    z = latents()
    result = empirical_fairness(sign, along(0), z)
    fair = (z[:, 0].abs() > 0.8).numpy()
    assert np.array_equal(result.constant["endpoints"], fair)
    assert np.array_equal(result.constant["grid"], fair)
    assert np.array_equal(result.prediction, sign(z).numpy())
    assert result.share == {"endpoints": fair.mean(), "grid": fair.mean()} and 0.2 < fair.mean() < 0.8
    assert result.constant["grid"].dtype == bool and result.constant["grid"].shape == (400,)


def test_an_attribute_that_the_prediction_ignores_is_fair():
    assert empirical_fairness(sign, along(1, 2), latents()).share == {"endpoints": 1.0, "grid": 1.0}


def test_the_grid_sees_what_the_end_points_miss():
    z = torch.zeros(3, 5)
    z[:, 0] = torch.tensor([0.4, 0.05, 2.0])  # crosses the band; starts in it; never meets it
    result = empirical_fairness(band, along(0), z)
    assert result.prediction.tolist() == [0, 1, 0]
    assert result.constant["endpoints"].tolist() == [True, False, True]
    assert result.constant["grid"].tolist() == [False, False, True]


def test_diagonal_points_of_two_attributes_count():
    def corner(z):
        return (z[:, 0] + z[:, 1] > 1.0).long()

    z = torch.zeros(2, 5)
    z[1, 0] = 0.1  # the axis points reach 0.9, the diagonal 0.1 + 2 * 0.8 / sqrt(2) = 1.23
    result = empirical_fairness(corner, along(0, 1), z)
    assert result.constant["endpoints"].tolist() == [True, True]
    assert result.constant["grid"].tolist() == [False, False]


@pytest.mark.parametrize(("axes", "visits"), [((0,), 9), ((0, 1), 9), ((0, 1, 2), 15)])
def test_every_coefficient_is_visited_once_in_batches_of_the_asked_size(axes, visits):
    z, seen = latents(50), []

    def predict(points):
        seen.append(len(points))
        return sign(points).numpy()

    result = empirical_fairness(predict, along(*axes), z, batch_size=40)
    assert sum(seen) == 50 * visits and max(seen) <= 40
    whole = empirical_fairness(sign, along(*axes), z, batch_size=10_000)
    assert np.array_equal(result.constant["grid"], whole.constant["grid"])
    seen.clear()
    empirical_fairness(predict, along(*axes), z, sets=("endpoints",), batch_size=1)
    assert seen == [1 + 2 * len(axes)] * 50


def test_images_are_decoded_before_they_are_classified():
    z, shapes = latents(20, d=12), []

    def decode(points):
        shapes.append(points.shape)
        return points.reshape(-1, 3, 2, 2) - 1.0

    def predict(x):
        assert x.shape[1:] == (3, 2, 2)
        return (x[:, 0, 0, 0] > 0).long()

    result = empirical_fairness(predict, along(0, d=12), z, decode=decode)
    assert np.array_equal(result.prediction, (z[:, 0] > 1.0).long().numpy())
    assert np.array_equal(result.constant["grid"], ((z[:, 0] - 1.0).abs() > 0.8).numpy())
    assert sum(s[0] for s in shapes) == 20 * 9


def test_many_vectors_have_end_points_alone():
    similarity = SimilaritySet(torch.eye(49), epsilon=0.5)
    z = latents(30, d=49)
    result = empirical_fairness(sign, similarity, z, sets=("endpoints",))
    assert set(result.constant) == {"endpoints"}
    assert np.array_equal(result.constant["endpoints"], (z[:, 0].abs() > 0.5).numpy())


def test_nothing_to_examine_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        empirical_fairness(sign, along(0), latents(0))
    with pytest.raises(ValueError, match="at least one"):
        empirical_fairness(sign, along(0), latents(3), sets=())
