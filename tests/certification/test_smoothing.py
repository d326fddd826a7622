"""Randomized smoothing of a linear classifier: laws, bounds and the exact radius."""

import math

import numpy as np
import pytest
from scipy.stats import binom, chi2_contingency
from scipy.stats import norm as gauss

from lassi_lib.certification.smoothing import clopper_pearson_lower, linear_radius, smooth_classifier, vote
from lassi_lib.certification.spec import CertificationSpec

SPEC = CertificationSpec(1.0, 0.65, sigma_rs=2.0)


def rng(seed):
    return np.random.default_rng(seed)


def test_clopper_pearson_inverts_the_binomial_tail():
    for k, n, alpha in [(1, 10, 0.05), (50, 60, 0.001), (99_000, 100_000, 0.001), (60, 60, 0.01)]:
        p = clopper_pearson_lower(k, n, alpha)
        assert binom.sf(k - 1, n, p) == pytest.approx(alpha, rel=1e-6)
    assert clopper_pearson_lower(0, 10, 0.05) == 0.0
    assert clopper_pearson_lower(60, 60, 0.01) == pytest.approx(0.01 ** (1 / 60))


def test_clopper_pearson_covers():
    k = rng(0).binomial(200, 0.7, size=4000)
    misses = sum(clopper_pearson_lower(int(x), 200, 0.05) > 0.7 for x in k)
    assert misses <= binom.ppf(0.9999, 4000, 0.05)
    assert misses > binom.ppf(0.0001, 4000, 0.02)  # and is not vacuous


def test_the_fewest_votes_that_do_not_abstain():
    assert clopper_pearson_lower(50_490, 100_000, 0.001) >= 0.5
    assert clopper_pearson_lower(50_489, 100_000, 0.001) < 0.5


def test_two_classes_vote_with_the_analytic_probability():
    weight, logits = np.array([[1.0, 0.0, 2.0], [0.0, 2.0, 2.0]]), np.array([0.3, 1.5])
    p = gauss.cdf(1.2 / (2.0 * math.sqrt(5)))
    ones = [vote(logits, weight, 2.0, 1000, rng(i))[1] for i in range(400)]
    assert np.mean(ones) == pytest.approx(1000 * p, abs=4 * math.sqrt(1000 * p * (1 - p) / 400))
    assert np.var(ones) == pytest.approx(1000 * p * (1 - p), rel=0.3)


@pytest.mark.parametrize("classes", [2, 3, 9])
def test_votes_have_the_law_of_noise_on_the_representation(classes):
    g = rng(classes)
    weight, r, bias = g.standard_normal((classes, 5)), g.standard_normal(5), g.standard_normal(classes)
    ours = vote(weight @ r + bias, weight, 1.5, 20_000, rng(1))
    noisy = (r + 1.5 * rng(2).standard_normal((20_000, 5))) @ weight.T + bias
    direct = np.bincount(noisy.argmax(1), minlength=classes)
    assert ours.sum() == 20_000
    both = np.array([ours, direct])
    assert chi2_contingency(both[:, both.sum(0) > 20]).pvalue > 1e-3


def test_more_classes_than_dimensions_and_equal_weights():
    weight = np.array([[1.0], [2.0], [-1.0]])
    assert vote(np.array([0.0, 0.1, 0.0]), weight, 1.0, 500, rng(0)).sum() == 500
    same = np.ones((2, 3))
    assert vote(np.array([0.0, 0.1]), same, 1.0, 10, rng(0)).tolist() == [0, 10]
    assert vote(np.array([0.1, 0.1]), same, 1.0, 10, rng(0)).tolist() == [10, 0]  # tie: smallest class


def test_linear_radius_is_the_distance_to_the_nearest_boundary():
    weight, r = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]), np.array([3.0, 1.0])
    radius = linear_radius(weight @ r, weight)
    assert radius == pytest.approx(2 / math.sqrt(2))
    direction = (weight[1] - weight[0]) / math.sqrt(2)
    assert (weight @ (r + 0.999 * radius * direction)).argmax() == 0
    assert (weight @ (r + 1.001 * radius * direction)).argmax() == 1
    assert linear_radius(np.array([1.0, 0.0]), np.ones((2, 3))) == math.inf
    assert linear_radius(np.array([1.0, 1.0]), np.ones((2, 3))) == 0.0


@pytest.mark.parametrize("margin", [0.5, 2.0, 5.0])
def test_d_rs_approaches_the_exact_radius_from_below(margin):
    weight = np.array([[0.0, 0.0], [1.0, 0.0]])
    logits = np.array([0.0, margin])
    found = [smooth_classifier(logits, weight, SPEC, rng(i), rng(10_000 + i)).d_rs for i in range(200)]
    exact = linear_radius(logits, weight)
    assert np.mean(found) == pytest.approx(exact, rel=0.02, abs=0.05)
    assert np.mean(found) < exact
    assert sum(d > exact for d in found) <= binom.ppf(0.9999, 200, SPEC.alpha_rs)


def test_unanimous_votes_reach_the_ceiling_and_no_more():
    weight = np.array([[0.0], [1.0]])
    smoothed = smooth_classifier(np.array([0.0, 1000.0]), weight, SPEC, rng(0), rng(1))
    assert smoothed.prediction == 1
    assert smoothed.d_rs == pytest.approx(2.0 * 3.8115, abs=1e-3)


def test_no_margin_abstains():
    weight = np.array([[0.0], [1.0]])
    smoothed = [smooth_classifier(np.zeros(2), weight, SPEC, rng(i), rng(1000 + i)) for i in range(100)]
    kept = [s for s in smoothed if s.d_rs is not None]
    assert len(kept) <= binom.ppf(0.9999, 100, 2 * SPEC.alpha_rs)
    assert all(s.p_A < 0.5 for s in smoothed if s.d_rs is None)


def test_a_tied_guess_is_the_smallest_class():
    class Half:  # every vote count is exactly one half
        def binomial(self, n, p):
            return n // 2

    smoothed = smooth_classifier(np.array([0.0, 0.1]), np.array([[0.0], [1.0]]), SPEC, Half(), rng(0))
    assert smoothed.prediction == 0
