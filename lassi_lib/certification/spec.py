"""The numbers of the certificate: noise, sample sizes, failure probabilities, and what they allow."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from scipy.special import ndtr, ndtri

from lassi_lib.errors import StudyError

QUANTILES = ("higher", "linear")


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

    def validate(self) -> CertificationSpec:
        """Return the spec itself if a point can pass with these numbers.

        Raises
        ------
        StudyError
            Naming the setting, why no point could ever be certified, and the smallest value that works.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.startswith("n_") and not (isinstance(value, int) and value >= 1):
                raise StudyError(f"certification: {field.name} = {value} must be a whole number, at least 1")
            if field.name in ("epsilon", "sigma_cs", "sigma_rs") and not 0 < value < math.inf:
                raise StudyError(f"certification: {field.name} = {value} must be a positive number")
        for name, top in (("alpha_cs", 1), ("alpha_rs", 0.5), ("delta", 0.5)):
            if not 0 < getattr(self, name) < top:
                raise StudyError(
                    f"certification: {name} = {getattr(self, name)} must lie between 0 and {top}"
                )
        if self.quantile not in QUANTILES:
            raise StudyError(
                f"certification: quantile = {self.quantile!r} must be one of {', '.join(QUANTILES)}"
            )
        if self.n_center < required_n_center(self):
            raise StudyError(
                f"certification: n_center = {self.n_center} gives Delta_1 = {delta_1(self):.4f} > delta = "
                f"{self.delta}, so every point would abstain: use at least {required_n_center(self)}"
            )
        if required_n_radius(self) == math.inf:
            raise StudyError(
                f"certification: epsilon / sigma_cs = {self.epsilon / self.sigma_cs:.3g} is too large for "
                f"any number of samples: use a larger sigma_cs"
            )
        if self.n_radius < required_n_radius(self):
            raise StudyError(
                f"certification: n_radius = {self.n_radius} asks for the quantile q = "
                f"{radius_quantile(self):.4f} > 1, so no radius exists: "
                f"use at least {required_n_radius(self)}"
            )
        if d_rs_ceiling(self) <= 0:
            least = math.floor(math.log(self.alpha_rs) / math.log(0.5)) + 1
            raise StudyError(
                f"certification: with n_votes = {self.n_votes} the ceiling of d_rs is 0 (sigma_rs * "
                f"Phi^-1(alpha_rs^(1/n_votes))), so no point can be certified: use at least {least}"
            )
        return self


def delta_1(spec: CertificationSpec) -> float:
    """Return Delta_1 = sqrt(ln(2/alpha_1) / (2 n_0)), Hoeffding's error of the center's mass."""
    return math.sqrt(math.log(2 / (spec.alpha_cs / 2)) / (2 * spec.n_center))


def required_n_center(spec: CertificationSpec) -> int:
    """Return the smallest n_0 with Delta_1 <= Delta; below it every point abstains."""
    return math.ceil(math.log(2 / (spec.alpha_cs / 2)) / (2 * spec.delta**2))


def covered_mass(spec: CertificationSpec) -> float:
    """Return p = Phi(Phi^-1(1/2 + Delta) + epsilon / sigma_cs): the mass d_cs must hold at x."""
    return float(ndtr(ndtri(0.5 + spec.delta) + spec.epsilon / spec.sigma_cs))


def radius_quantile(spec: CertificationSpec) -> float:
    """Return q = p + sqrt(ln(1/alpha_2) / (2 n)), the quantile of the sampled distances to take."""
    return covered_mass(spec) + math.sqrt(math.log(1 / (spec.alpha_cs / 2)) / (2 * spec.n_radius))


def required_n_radius(spec: CertificationSpec) -> float:
    """Return the smallest n with q <= 1 (infinity where p is 1 in floating point)."""
    rest = 1 - covered_mass(spec)
    return math.ceil(math.log(1 / (spec.alpha_cs / 2)) / (2 * rest**2)) if rest > 0 else math.inf


def d_rs_ceiling(spec: CertificationSpec) -> float:
    """Return the largest possible d_rs, when all votes agree: sigma_rs Phi^-1(alpha_rs^(1/N))."""
    return spec.sigma_rs * float(ndtri(spec.alpha_rs ** (1 / spec.n_votes)))
