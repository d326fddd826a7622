"""Empirical fairness against predictions whose answer is known on paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lassi_lib.learning.empirical import constant_on_grid
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
    prediction, constant = constant_on_grid(sign, along(0), z)
    fair = (z[:, 0].abs() > 0.8).numpy()
    assert np.array_equal(constant, fair) and 0.2 < fair.mean() < 0.8
    assert np.array_equal(prediction, sign(z).numpy())
    assert constant.dtype == bool and constant.shape == (400,)


def test_an_attribute_that_the_prediction_ignores_is_fair():
    assert constant_on_grid(sign, along(1, 2), latents())[1].all()


def test_the_grid_sees_what_its_end_points_miss():
    z = torch.zeros(3, 5)
    z[:, 0] = torch.tensor([0.4, 0.05, 2.0])  # crosses the band; starts in it; never meets it
    ends = torch.stack([band(z + t * torch.eye(5)[0]) for t in (-0.8, 0.8)])
    assert (ends == 0).all()
    prediction, constant = constant_on_grid(band, along(0), z)
    assert prediction.tolist() == [0, 1, 0]
    assert constant.tolist() == [False, False, True]


def test_diagonal_points_of_two_attributes_count():
    def corner(z):
        return (z[:, 0] + z[:, 1] > 1.0).long()

    z = torch.zeros(2, 5)
    z[1, 0] = 0.1  # the axis points reach 0.9, the diagonal 0.1 + 2 * 0.8 / sqrt(2) = 1.23
    assert constant_on_grid(corner, along(0, 1), z)[1].tolist() == [False, False]
    assert constant_on_grid(corner, along(0), z)[1].all() and constant_on_grid(corner, along(1), z)[1].all()


@pytest.mark.parametrize(("axes", "visits"), [((0,), 9), ((0, 1), 9), ((0, 1, 2), 15)])
def test_every_coefficient_is_visited_once_in_batches_of_the_asked_size(axes, visits):
    z, seen = latents(50), []

    def predict(points):
        seen.append(len(points))
        return sign(points).numpy()

    constant = constant_on_grid(predict, along(*axes), z, batch_size=40)[1]
    assert sum(seen) == 50 * visits and max(seen) <= 40
    assert np.array_equal(constant, constant_on_grid(sign, along(*axes), z, batch_size=10_000)[1])
    seen.clear()
    constant_on_grid(predict, along(*axes), z, batch_size=1)
    assert seen == [visits] * 50


def test_nothing_to_examine_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        constant_on_grid(sign, along(0), latents(0))
