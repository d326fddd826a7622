"""The numbers of the certificate: noise, sample sizes, failure probabilities, and what they allow."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, fields, replace

from scipy.special import betainc, ndtr, ndtri

from lassi_lib.errors import StudyError, about

QUANTILES = ("higher", "linear")
BOUNDS = ("hoeffding", "binomial")


@dataclass(frozen=True)
class CertificationSpec:
    """Settings of center smoothing and randomized smoothing (ECCV 2022, supplement, Table 11).

    Attributes
    ----------
    epsilon : float
        Radius of the similarity set in coefficient space.
    sigma_cs, sigma_rs : float
        Standard deviation of center smoothing (on coefficients t) and of randomized smoothing (on
        representations).
    n_center, n_radius : int
        Samples n_0 that find the center (and as many fresh ones that check its mass) and samples n
        that give d_cs.
    alpha_cs, delta : float
        Failure probability of center smoothing, half of it for the mass check and half for the
        radius, and Delta, the allowed deviation of that mass from one half.
    n_class, n_votes : int
        Votes that guess the class and fresh votes that bound its probability.
    alpha_rs : float
        Failure probability of randomized smoothing.
    quantile : {'higher', 'linear'}
        ``higher``: the quantile is the ceil(q n)-th smallest distance and the median the n/2-th, so
        both proofs hold to the letter. ``linear``: NumPy's interpolation, as in the reference code;
        it can fall below the order statistic that Hoeffding's bound covers (on average by a relative
        3e-4) and its median is the mean of the two middle distances.
    bound : {'hoeffding', 'binomial'}
        How samples bound probabilities. ``hoeffding``: as published. ``binomial``: the same statements
        with the same failure probabilities from exact binomial tails (`required_mass`,
        `approximation_error`, `radius_rank`): d_cs is smaller by some 5 %.

    Notes
    -----
    Where each failure probability is spent (Kumar & Goldstein 2021, Theorems 1 and 2). Take similar z
    and z' and write p = Phi(Phi^-1(1/2 + Delta) + epsilon / sigma_cs), see `covered_mass`.

    1. At z, alpha_2: n fresh samples give a ball B(r_cs, R) of mass above p (`radius_rank`). Gaussian
       noise around z' gives that ball a mass above 1/2 + Delta.
    2. At z', half of alpha_1: n_0 fresh samples show that the ball B(r_cs', rho') holds at least
       1/2 - Delta (`required_mass`), or z' abstains. The two masses exceed 1, so the balls meet:
       ||r_cs - r_cs'|| <= R + rho'.
    3. At z', the other half of alpha_1: at least half of the n_0 candidates lie in B(r_cs, R)
       (`approximation_error`). Each of those has all the others within 2 R, so the smallest median
       distance is rho' <= 2 R.

    Together the sampled centers differ by at most R + rho' <= 3 R = d_cs. Steps 2 and 3 are the same
    computation at every point, so Delta is one number chosen in advance: Delta_1 <= Delta settles
    step 3 for Hoeffding's bound. The ideal smoothed map needs neither: its ball of mass 1/2 at z' is
    no larger than B(r_cs, R) and meets it, so its center lies within 2 R.
    """

    epsilon: float
    sigma_cs: float
    sigma_rs: float
    n_center: int = 10_000
    n_radius: int = 10_000
    alpha_cs: float = 0.01
    delta: float = 0.05
    n_class: int = 2_000
    n_votes: int = 100_000
    alpha_rs: float = 0.001
    quantile: str = "higher"
    bound: str = "hoeffding"

    def validate(self) -> CertificationSpec:
        """Return the spec itself if a point can pass with these numbers.

        Raises
        ------
        StudyError
            Naming the setting, why no point could ever be certified, and the smallest value that works.
        """
        with about("certification"):
            _check_values(self)
            _check_sizes(self)
        return self


def _check_values(spec: CertificationSpec) -> None:
    """Refuse a setting that is impossible by itself."""
    for field in fields(spec):
        value = getattr(spec, field.name)
        if field.name.startswith("n_") and not (isinstance(value, int) and value >= 1):
            raise StudyError(f"{field.name} = {value} must be a whole number, at least 1")
        if field.name in ("epsilon", "sigma_cs", "sigma_rs") and not 0 < value < math.inf:
            raise StudyError(f"{field.name} = {value} must be a positive number")
    for name, top in (("alpha_cs", 1), ("alpha_rs", 0.5), ("delta", 0.5)):
        if not 0 < getattr(spec, name) < top:
            raise StudyError(f"{name} = {getattr(spec, name)} must lie between 0 and {top}")
    for name, known in (("quantile", QUANTILES), ("bound", BOUNDS)):
        if getattr(spec, name) not in known:
            raise StudyError(f"{name} = {getattr(spec, name)!r} must be one of {', '.join(known)}")
    if spec.bound == "binomial" and spec.quantile != "higher":
        raise StudyError(
            "bound = 'binomial' is about one order statistic, which quantile = "
            f"{spec.quantile!r} does not take: use quantile = 'higher'"
        )


def _check_sizes(spec: CertificationSpec) -> None:
    """Refuse samples that are too few for any point to pass."""
    hoeffding = spec.bound == "hoeffding"
    if spec.n_center < required_n_center(spec):
        why = (
            f"Delta_1 = {delta_1(spec):.4f} > delta = {spec.delta}"
            if hoeffding
            else f"too few samples to tell masses apart that differ by delta = {spec.delta}"
        )
        raise StudyError(
            f"n_center = {spec.n_center} gives {why}, so every point would abstain: "
            f"use at least {required_n_center(spec)}"
        )
    if required_n_radius(spec) == math.inf:
        raise StudyError(
            f"epsilon / sigma_cs = {spec.epsilon / spec.sigma_cs:.3g} is too large for any number of samples: "
            "use a larger sigma_cs"
        )
    if spec.n_radius < required_n_radius(spec):
        why = (
            f"asks for the quantile q = {radius_quantile(spec):.4f} > 1"
            if hoeffding
            else f"leaves even the largest distance below the {covered_mass(spec):.4f}-quantile too often"
        )
        raise StudyError(
            f"n_radius = {spec.n_radius} {why}, so no radius exists: use at least {required_n_radius(spec)}"
        )
    if d_rs_ceiling(spec) <= 0:
        least = math.floor(math.log(spec.alpha_rs) / math.log(0.5)) + 1
        raise StudyError(
            f"with n_votes = {spec.n_votes} the ceiling of d_rs is 0 (sigma_rs * Phi^-1(alpha_rs^(1/n_votes))), "
            f"so no point can be certified: use at least {least}"
        )


def smallest_count(n: int, p: float, alpha: float) -> int:
    """Return the smallest k with P(Binom(n, p) >= k) <= alpha; n + 1 if there is none.

    The tail is the regularised incomplete beta function, so this is Clopper & Pearson's bound read
    backwards: k is the fewest successes that show, with confidence 1 - alpha, a probability above p.
    """
    return bisect_left(range(1, n + 1), True, key=lambda k: betainc(k, n - k + 1, p) <= alpha) + 1


def delta_1(spec: CertificationSpec) -> float:
    """Return Delta_1 = sqrt(ln(2/alpha_1) / (2 n_0)), Hoeffding's error of the center's mass."""
    return math.sqrt(math.log(2 / (spec.alpha_cs / 2)) / (2 * spec.n_center))


def required_mass(spec: CertificationSpec) -> int:
    """Return the fewest of n_0 fresh samples that must lie within rho, or the point abstains.

    Hoeffding, as published: with Delta_2 = 1/2 - (fraction - Delta_1), max(Delta_1, Delta_2) <= Delta.
    Binomial: so many that the mass is at least 1/2 - Delta with confidence 1 - alpha_1 / 2; the ball
    is fixed before the samples are drawn, so their number in it is binomial. At the papers' sizes
    these are 4,674 and 4,641 of 10,000.
    """
    n = spec.n_center
    if spec.bound == "binomial":
        return smallest_count(n, 0.5 - spec.delta, spec.alpha_cs / 4)
    error = delta_1(spec)
    return bisect_left(range(n + 1), True, key=lambda k: max(error, 0.5 - (k / n - error)) <= spec.delta)


def approximation_error(spec: CertificationSpec) -> float:
    """Return P(Binom(n_0, 1/2 + Delta) < n_0 / 2), exactly.

    The probability that a ball of mass 1/2 + Delta holds less than half of the candidates; otherwise
    the sampled median distance is at most twice that ball's radius.
    """
    n = spec.n_center
    k = (n + 1) // 2
    return float(betainc(n - k + 1, k, 0.5 - spec.delta))


def required_n_center(spec: CertificationSpec) -> int:
    """Return the smallest n_0 from which on a center can be certified; below it every point abstains.

    Hoeffding: Delta_1 <= Delta. Binomial: `approximation_error` <= alpha_1 / 2, the other half being
    for the mass check. That error falls from each odd n_0 to the next, and rises from an even one, where a
    tie is good enough, to the odd one after it; so the answer is one below the first odd n_0 that works.
    """
    enough = math.ceil(math.log(2 / (spec.alpha_cs / 2)) / (2 * spec.delta**2))
    if spec.bound == "hoeffding":
        return enough
    odd = range(1, 2 * enough, 2)
    found = bisect_left(
        odd, True, key=lambda n: approximation_error(replace(spec, n_center=n)) <= spec.alpha_cs / 4
    )
    return max(2 * found, 1)


def covered_mass(spec: CertificationSpec) -> float:
    """Return p = Phi(Phi^-1(1/2 + Delta) + epsilon / sigma_cs): the mass d_cs must hold at x."""
    return float(ndtr(ndtri(0.5 + spec.delta) + spec.epsilon / spec.sigma_cs))


def radius_quantile(spec: CertificationSpec) -> float:
    """Return q = p + sqrt(ln(1/alpha_2) / (2 n)), the quantile of the sampled distances to take."""
    return covered_mass(spec) + math.sqrt(math.log(1 / (spec.alpha_cs / 2)) / (2 * spec.n_radius))


def radius_rank(spec: CertificationSpec) -> int:
    """Return k: the k-th smallest of n distances holds a mass above p with confidence 1 - alpha_2.

    Hoeffding: ceil(q n). Binomial: the smallest k with P(Binom(n, p) >= k) <= alpha_2. The mass F within
    the k-th smallest distance is at least the k-th smallest of n uniform variables (equal to it where F is
    continuous), and that is at most p iff k or more of them are. At the papers' sizes k is 9,683
    (failing with probability 3e-16) and 9,575 (0.0045).
    """
    if spec.bound == "binomial":
        return smallest_count(spec.n_radius, covered_mass(spec), spec.alpha_cs / 2)
    return math.ceil(radius_quantile(spec) * spec.n_radius)


def required_n_radius(spec: CertificationSpec) -> float:
    """Return the smallest n with a k <= n (infinity where p is 1 in floating point).

    Hoeffding: q <= 1. Binomial: even the largest distance misses p with probability p^n <= alpha_2.
    """
    p, alpha_2 = covered_mass(spec), spec.alpha_cs / 2
    if p >= 1:
        return math.inf
    if spec.bound == "binomial":
        return math.ceil(math.log(alpha_2) / math.log(p))
    return math.ceil(math.log(1 / alpha_2) / (2 * (1 - p) ** 2))


def d_rs_ceiling(spec: CertificationSpec) -> float:
    """Return the largest possible d_rs, when all votes agree: sigma_rs Phi^-1(alpha_rs^(1/N))."""
    return spec.sigma_rs * float(ndtri(spec.alpha_rs ** (1 / spec.n_votes)))
