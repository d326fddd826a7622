"""Effective rank and linear probes at their known extremes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lassi_lib.learning.diagnostics import auc, effective_rank, linear_probe


def orthonormal(n, k, seed=0):
    """Return [n, k] centred orthonormal columns."""
    x = torch.randn(n, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.linalg.qr(x - x.mean(0)).Q


def test_effective_rank_counts_directions_that_are_filled_alike():
    for m in (1, 3, 8):
        r = orthonormal(200, 8)[:, :m] @ orthonormal(8 + 20, 8).T[:m]
        assert effective_rank(r) == pytest.approx(m, rel=1e-6)
        assert effective_rank(100 * r + 7) == pytest.approx(m, rel=1e-6)


def test_effective_rank_of_unequal_directions_is_the_stated_formula():
    r = orthonormal(100, 2) * torch.tensor([3.0, 1.0])
    p = np.array([0.75, 0.25])
    assert effective_rank(r) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-9)
    assert effective_rank(r.float()) == pytest.approx(effective_rank(r), rel=1e-5)


def test_coordinates_of_unit_variance_can_still_be_copies_of_one():
    x = torch.randn(500, 1, generator=torch.Generator().manual_seed(2))
    copies = (x - x.mean()) / x.std() * torch.ones(1, 64)
    assert effective_rank(copies) == pytest.approx(1, abs=1e-3)
    assert effective_rank(torch.full((30, 5), 0.1)) == effective_rank(torch.ones(1, 4)) == 0


def data(n=4000, k=6, seed=0, rate=0.5):
    """Return representations and three attributes: coordinate 0, its noisy copy, and noise."""
    rng = np.random.default_rng(seed)
    r = rng.standard_normal((n, k)) + 3
    cut = np.quantile(r[:, 0], 1 - rate)
    clear = r[:, 0] > cut
    noisy = r[:, 0] + rng.standard_normal(n) > cut
    return torch.from_numpy(r).float(), np.stack([clear, noisy, rng.random(n) < rate], 1).astype(int)


def read(fit, test):
    """Return the AUC of each attribute as a probe reads it."""
    return [auc(score, y) for score, y in zip(linear_probe(*fit, test[0]).T, test[1].T, strict=True)]


def test_a_probe_reads_what_is_there_and_nothing_else():
    clear, noisy, noise = read(data(), data(seed=1))
    assert clear > 0.999 and 0.8 < noisy < 0.9
    assert noise == pytest.approx(0.5, abs=0.05)
    assert read(data(rate=0.03), data(seed=1, rate=0.03))[0] > 0.98


def test_one_attribute_is_a_column_of_many_and_ridge_zero_is_least_squares():
    (r, y), (r_test, y_test) = data(n=300), data(n=200, seed=1)
    scores = linear_probe(r, y, r_test, ridge=0.0)
    for k in range(3):
        alone = linear_probe(r, y[:, k], r_test, ridge=0.0)
        assert alone[:, 0] == pytest.approx(scores[:, k], rel=1e-12)
    design, test = (np.column_stack([x.double().numpy(), np.ones(len(x))]) for x in (r, r_test))
    assert scores == pytest.approx(test @ np.linalg.lstsq(design, y.astype(float), rcond=None)[0], abs=1e-9)
    pairs = scores[y_test[:, 1] == 1, 1][:, None] > scores[y_test[:, 1] == 0, 1]
    assert auc(scores[:, 1], y_test[:, 1]) == pytest.approx(pairs.mean(), abs=1e-12)


def test_ties_count_half():
    assert auc(np.array([0.0, 1.0, 1.0, 2.0]), np.array([0, 0, 1, 1])) == pytest.approx(3.5 / 4)


def test_a_representation_without_the_attribute_is_read_at_chance():
    (r, y), (r_test, y_test) = data(), data(seed=1)
    assert read((r[:, 1:], y), (r_test[:, 1:], y_test))[0] == pytest.approx(0.5, abs=0.05)
    assert read((torch.ones(40, 3), y[:40]), (torch.ones(30, 3), y_test[:30])) == [0.5] * 3


def test_a_class_that_is_missing_leaves_no_number():
    (r, y), (r_test, y_test) = data(n=200), data(n=50, seed=1)
    y_test[:, 0], y[:, 1] = 1, 0
    assert np.isnan(read((r, y), (r_test, y_test))).tolist() == [True, True, False]


def test_labels_that_are_no_binary_attributes_are_refused():
    r, y = data(n=50)
    for bad, message in ((y + 1, "0 and 1"), (y[:-1], "number")):
        with pytest.raises(ValueError, match=message):
            linear_probe(r, bad, r)
