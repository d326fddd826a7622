"""Intervals of rank correlations: they cover, and shared attributes and tasks do not pass for evidence."""

import numpy as np
import pytest

from lassi_lib.study.rankings import RankCorrelation, correlate, rank_correlation


def world(rng, attributes=7, tasks=5, n=22, of_attribute=1.0, of_task=0.0):
    """Pairs of an outcome with an effect of attribute and task, and a predictor of the attribute without any."""
    cells = rng.permutation(attributes * tasks)[:n]
    a, t = cells // tasks, cells % tasks
    y = of_attribute * rng.standard_normal(attributes)[a] + of_task * rng.standard_normal(tasks)[t]
    return rng.standard_normal(attributes)[a], y + rng.standard_normal(n), a, t


def test_independent_pairs_are_covered_and_found_with_the_power_that_is_said():
    rng, n = np.random.default_rng(0), 22
    true = RankCorrelation(0.0, 1.06 / (n - 3), np.inf).detectable()  # Fieller et al. (1957)
    rho = 2 * np.sin(np.pi * true / 6)  # of normal pairs with that rank correlation
    z = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], size=(1500, n))
    found = [correlate(*s.T) for s in z]
    ends = np.array([c.interval() for c in found])
    assert 0.93 < np.mean((ends[:, 0] < true) & (true < ends[:, 1])) < 0.975
    assert np.mean(ends[:, 0] > 0) == pytest.approx(0.8, abs=0.05)
    assert [c.rho for c in found[:9]] == [rank_correlation(*s.T) for s in z[:9]]


@pytest.mark.parametrize(("of_attribute", "of_task"), [(1.0, 0.0), (1.5, 1.0), (2.0, 0.5)])
def test_what_pairs_share_is_no_evidence(of_attribute, of_task):
    rng, misses = np.random.default_rng(0), []
    for _ in range(300):
        x, y, a, t = world(rng, of_attribute=of_attribute, of_task=of_task)
        found = correlate(x, y), correlate(x, y, a, t)
        misses.append(
            [c.interval(level)[0] * c.interval(level)[1] > 0 for c in found for level in (0.95, 0.9875)]
        )
    as_independent, at_bonferroni, shared, shared_at_bonferroni = np.mean(misses, axis=0)
    # 300 worlds: an error rate of 5 % shows as more than 8 % in about 1 of 70 repetitions
    assert as_independent > 0.09 and at_bonferroni > 0.025
    assert shared < 0.08 and shared_at_bonferroni < 0.03


def test_a_strong_effect_of_the_attribute_is_still_found():
    rng, hits = np.random.default_rng(1), []
    for _ in range(100):
        x, noise, a, t = world(rng, attributes=14, n=40, of_attribute=0.3)
        hits.append(correlate(x, 3 * x + noise, a, t).interval()[0] > 0)
    assert np.mean(hits) > 0.9


def test_the_order_of_the_pairs_and_the_names_of_the_clusters_do_not_count():
    x, y, a, t = world(np.random.default_rng(2), of_task=1.0)
    order = np.random.default_rng(3).permutation(len(x))
    one, other = (
        correlate(x, y, a, t),
        correlate(x[order], y[order], [f"A{i}" for i in a[order]], 9 - t[order]),
    )
    assert other.rho == pytest.approx(one.rho) and other.variance == pytest.approx(one.variance)
    assert other.freedom == one.freedom and one.interval(0.99)[0] < one.interval(0.9)[0]


def test_the_variance_is_never_that_of_more_than_independent_pairs():
    rng = np.random.default_rng(4)
    for _ in range(50):
        x, y, a, t = world(rng)
        assert correlate(x, y, a, t).variance >= correlate(x, y).variance


def test_a_correlation_that_rests_on_one_attribute_alone_is_unknown():
    a = np.repeat([0, 1, 2], 4)
    found = correlate((a == 1).astype(float), np.arange(12.0), a, np.tile([0, 1, 2, 3], 3))
    assert found.interval() == (-1.0, 1.0) and found.detectable() == 1.0


def test_one_cluster_says_nothing_and_too_few_pairs_neither():
    x, y = np.arange(8.0), np.array([2.0, 1, 3, 4, 6, 5, 7, 8])
    assert correlate(x, y, ["A"] * 8, ["T"] * 8) == correlate(x, y)
    assert correlate(x, x).interval()[1] < 1 and correlate(x, x).interval()[0] > 0.7
    assert np.isnan(correlate(x[:3], y[:3]).interval()).all() and correlate(x[:3], y[:3]).detectable() == 1
    assert np.isnan(rank_correlation([1, 1, 1, 1], [1, 2, 3, 4]))
