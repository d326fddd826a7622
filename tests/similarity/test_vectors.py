"""Mean difference vectors against their definition."""

import numpy as np
import pytest
import torch

from lassi_lib.errors import StudyError
from lassi_lib.similarity.vectors import attribute_vector


def test_mean_difference_is_the_difference_of_class_means():
    z = torch.randn(5000, 7, generator=torch.Generator().manual_seed(0))
    y = np.random.default_rng(0).integers(0, 2, 5000)
    expected = z[y == 1].double().mean(0) - z[y == 0].double().mean(0)
    a = attribute_vector(z, y)
    assert a.dtype == torch.float32
    assert torch.allclose(a.double(), expected, atol=1e-7)


def test_it_recovers_a_shift_between_the_classes():
    shift = torch.tensor([1.0, -2.0, 0.0])
    y = np.arange(20_000) % 4 == 0
    z = (
        torch.randn(20_000, 3, generator=torch.Generator().manual_seed(1))
        + torch.from_numpy(y).float()[:, None] * shift
    )
    # standard error: sqrt(1/5000 + 1/15000) = 0.016
    assert (attribute_vector(z, y) - shift).abs().max() < 0.065


def test_mistakes_are_one_line():
    z = torch.zeros(3, 2)
    with pytest.raises(StudyError, match="with and without"):
        attribute_vector(z, np.ones(3))
    with pytest.raises(StudyError, match="did you mean 'mean_difference'"):
        attribute_vector(z, np.array([0, 1, 1]), "mean_diference")
