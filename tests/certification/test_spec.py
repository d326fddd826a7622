"""The constants of the published setting, and what a spec refuses."""

import math
from dataclasses import replace

import pytest
from scipy.stats import binom

from lassi_lib.certification import spec as s
from lassi_lib.certification.spec import CertificationSpec
from lassi_lib.errors import StudyError

PAPER = CertificationSpec(epsilon=1.0, sigma_cs=0.65, sigma_rs=10.0)
BINOMIAL = replace(PAPER, bound="binomial")


def test_constants_of_the_published_setting():
    assert s.covered_mass(PAPER) == pytest.approx(0.951956, abs=1e-6)
    assert s.radius_quantile(PAPER) == pytest.approx(0.968232, abs=1e-6)
    assert s.delta_1(PAPER) == pytest.approx(0.017308, abs=1e-6)
    # abstain iff 1/2 - (fraction - Delta_1) > Delta
    assert 0.5 + s.delta_1(PAPER) - PAPER.delta == pytest.approx(0.467308, abs=1e-6)


@pytest.mark.parametrize(
    ("sigma", "q"), [(0.5, 0.99951), (0.55, 0.99032), (0.6, 0.97974), (0.7, 0.95621), (0.75, 0.94399)]
)
def test_quantiles_of_other_noise(sigma, q):
    assert s.radius_quantile(CertificationSpec(1.0, sigma, 10.0)) == pytest.approx(q, abs=1e-5)


@pytest.mark.parametrize(
    ("sigma", "ceiling"),
    [
        (0.1, 0.381),
        (0.25, 0.953),
        (0.5, 1.906),
        (1, 3.811),
        (2.5, 9.529),
        (5, 19.06),
        (10, 38.11),
        (25, 95.29),
    ],
)
def test_ceilings_of_d_rs(sigma, ceiling):
    assert s.d_rs_ceiling(CertificationSpec(1.0, 0.65, sigma)) == pytest.approx(ceiling, rel=3e-3, abs=5e-4)


@pytest.mark.parametrize(("n", "ceiling"), [(10_000, 3.199), (10**6, 4.347), (10**7, 4.828)])
def test_ceilings_of_other_vote_counts(n, ceiling):
    assert s.d_rs_ceiling(CertificationSpec(1.0, 0.65, 1.0, n_votes=n)) == pytest.approx(ceiling, abs=1e-3)


def test_smallest_sample_sizes_are_exact():
    n = s.required_n_center(PAPER)
    assert s.delta_1(CertificationSpec(1, 0.65, 1, n_center=n)) <= 0.05
    assert s.delta_1(CertificationSpec(1, 0.65, 1, n_center=n - 1)) > 0.05
    n = s.required_n_radius(PAPER)
    assert s.radius_quantile(CertificationSpec(1, 0.65, 1, n_radius=n)) <= 1
    assert s.radius_quantile(CertificationSpec(1, 0.65, 1, n_radius=n - 1)) > 1


def test_order_statistics_of_the_published_setting():
    assert s.radius_rank(PAPER) == 9683
    assert s.radius_rank(BINOMIAL) == 9575
    assert s.required_mass(PAPER) == 4674
    assert s.required_mass(BINOMIAL) == 4641
    assert binom.sf(9574, 10_000, s.covered_mass(PAPER)) == pytest.approx(0.0045, abs=5e-5)


@pytest.mark.parametrize("n", [1, 2, 7, 200, 5001])
@pytest.mark.parametrize("p", [0.05, 0.5, 0.93])
@pytest.mark.parametrize("alpha", [1e-6, 0.005, 0.3])
def test_the_smallest_count_is_the_smallest(n, p, alpha):
    k = s.smallest_count(n, p, alpha)
    assert k == n + 1 or binom.sf(k - 1, n, p) <= alpha * (1 + 1e-9)
    assert binom.sf(k - 2, n, p) > alpha


@pytest.mark.parametrize("delta", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("bound", s.BOUNDS)
def test_the_fewest_fresh_samples_within_rho(bound, delta):
    spec = replace(PAPER, bound=bound, delta=delta)
    k = s.required_mass(spec)
    if bound == "binomial":
        assert (
            binom.sf(k - 1, 10_000, 0.5 - delta) <= spec.alpha_cs / 4 < binom.sf(k - 2, 10_000, 0.5 - delta)
        )
    elif s.delta_1(spec) > delta:
        assert k == 10_001  # nothing is enough
    else:
        assert k == math.ceil(10_000 * (0.5 + s.delta_1(spec) - delta))


@pytest.mark.parametrize("n", [101, 500, 785])
def test_the_error_of_the_median_ball(n):
    spec = replace(BINOMIAL, n_center=n)
    assert s.approximation_error(spec) == pytest.approx(binom.cdf(math.ceil(n / 2) - 1, n, 0.55), rel=1e-9)


@pytest.mark.parametrize("alpha", [0.2, 0.01, 1e-4])
@pytest.mark.parametrize("delta", [0.02, 0.05, 0.3, 0.49])
def test_smallest_sample_sizes_of_the_binomial_bound_are_exact(delta, alpha):
    """And from there on every size works, odd or even."""
    spec = replace(BINOMIAL, delta=delta, alpha_cs=alpha, epsilon=0.5)
    n = s.required_n_center(spec)
    errors = [s.approximation_error(replace(spec, n_center=m)) for m in range(max(n - 1, 1), n + 60)]
    assert all(e <= alpha / 4 for e in errors[n > 1 :])
    assert n == 1 or errors[0] > alpha / 4
    assert n <= s.required_n_center(replace(spec, bound="hoeffding"))
    n = s.required_n_radius(spec)
    assert s.radius_rank(replace(spec, n_radius=n)) == n
    assert s.radius_rank(replace(spec, n_radius=n - 1)) == n
    assert n <= s.required_n_radius(replace(spec, bound="hoeffding"))


@pytest.mark.parametrize("name", ["n_center", "n_radius"])
def test_the_smallest_sizes_the_messages_name_do_suffice(name):
    n = getattr(s, f"required_{name}")(BINOMIAL)
    replace(BINOMIAL, **{name: n}).validate()
    with pytest.raises(StudyError, match=f"{name} = {n - 1} .*use at least {n}$"):
        replace(BINOMIAL, **{name: n - 1}).validate()


def test_validate_passes_the_published_settings():
    assert PAPER.validate() is PAPER
    assert CertificationSpec(0.5, 0.325, 0.1, quantile="linear").validate().quantile == "linear"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_center": 500}, ["n_center = 500", "at least 1199"]),
        ({"n_radius": 500}, ["n_radius = 500", "at least 1148"]),
        ({"sigma_cs": 0.05}, ["epsilon / sigma_cs = 20", "larger sigma_cs"]),
        ({"n_votes": 5}, ["n_votes = 5", "ceiling of d_rs", "at least 10"]),
        ({"n_class": 0}, ["n_class = 0", "at least 1"]),
        ({"n_center": 1e4}, ["n_center = 10000.0", "whole number"]),
        ({"sigma_rs": -1.0}, ["sigma_rs = -1.0", "positive"]),
        ({"epsilon": math.nan}, ["epsilon = nan", "positive"]),
        ({"alpha_cs": 1.0}, ["alpha_cs = 1.0", "between 0 and 1"]),
        ({"delta": 0.5}, ["delta = 0.5", "between 0 and 0.5"]),
        ({"quantile": "lower"}, ["quantile = 'lower'", "higher, linear"]),
        ({"bound": "binomal"}, ["bound = 'binomal'", "hoeffding, binomial"]),
        ({"bound": "binomial", "quantile": "linear"}, ["bound = 'binomial'", "quantile = 'higher'"]),
        ({"bound": "binomial", "n_center": 500}, ["n_center = 500", "at least 784"]),
        ({"bound": "binomial", "n_radius": 50}, ["n_radius = 50", "at least 108"]),
    ],
)
def test_impossible_numbers_are_one_line_with_the_remedy(change, words):
    with pytest.raises(StudyError) as error:
        CertificationSpec(**({"epsilon": 1.0, "sigma_cs": 0.65, "sigma_rs": 10.0} | change)).validate()
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words)


def test_the_fewest_votes_the_message_names_do_suffice():
    CertificationSpec(1.0, 0.65, 1.0, n_votes=10).validate()
    with pytest.raises(StudyError):
        CertificationSpec(1.0, 0.65, 1.0, n_votes=9).validate()
