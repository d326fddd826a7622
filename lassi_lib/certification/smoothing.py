"""Randomized smoothing of the linear classifier C at a representation (Cohen et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv, ndtr, ndtri

from lassi_lib.certification.spec import CertificationSpec


@dataclass(frozen=True)
class Smoothed:
    """The smoothed class and its bounds; `d_rs` is None where the classifier abstains (p_A < 1/2)."""

    prediction: int
    p_A: float
    d_rs: float | None


def clopper_pearson_lower(k: int, n: int, alpha: float) -> float:
    """Return the one-sided Clopper-Pearson bound: p is above it with confidence 1 - alpha."""
    return float(betaincinv(k, n - k + 1, alpha)) if k > 0 else 0.0


def linear_radius(logits: np.ndarray, weight: np.ndarray) -> float:
    """Return the exact l2 radius of a linear classifier: min_j margin_j / ||w_i - w_j||.

    Two classes: also the exact radius of the Gaussian-smoothed classifier, whatever sigma_rs, so
    d_rs approaches it from below.

    Parameters
    ----------
    logits : numpy.ndarray
        [K] logits at the representation.
    weight : numpy.ndarray
        [K, k] the classifier's weights.
    """
    top = int(np.argmax(logits))
    margin = logits[top] - np.delete(logits, top)
    gap = np.linalg.norm(weight[top] - np.delete(weight, top, axis=0), axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):  # equal weights: margin alone decides
        radius = np.where(gap > 0, margin / gap, np.where(margin > 0, np.inf, 0.0))
    return float(radius.min())


def vote(
    logits: np.ndarray, weight: np.ndarray, sigma: float, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Count `count` votes argmax C(r + N(0, sigma^2 I)) per class, int [K].

    C is linear, so the noise on the logits is Gaussian with covariance sigma^2 W W^T and no noisy
    representation is ever drawn; the law is the same. Two classes: each vote is for class 1 with
    probability Phi(margin / (sigma ||w_1 - w_0||)), hence one binomial draw. More: with the QR
    factors W^T = Q R the noise W xi equals R^T (Q^T xi), and Q^T xi is standard normal.

    Parameters
    ----------
    logits : numpy.ndarray
        [K] logits at the representation r.
    weight : numpy.ndarray
        [K, k] the classifier's weights W.
    sigma : float
        Standard deviation of the noise, in units of the representation.
    count : int
        Number of votes.
    rng : numpy.random.Generator
        What the noise is drawn from.
    """
    if len(logits) == 2:
        margin, gap = logits[1] - logits[0], np.linalg.norm(weight[1] - weight[0])
        p = float(ndtr(margin / (sigma * gap))) if gap > 0 else float(margin > 0)
        ones = int(rng.binomial(count, p))
        return np.array([count - ones, ones])
    R = np.linalg.qr(weight.T, mode="r")
    votes = (logits + sigma * rng.standard_normal((count, len(R))) @ R).argmax(1)
    return np.bincount(votes, minlength=len(logits))


def smooth_classifier(
    logits: np.ndarray,
    weight: np.ndarray,
    spec: CertificationSpec,
    guess: np.random.Generator,
    count: np.random.Generator,
) -> Smoothed:
    """Smooth C at one representation and certify it (Cohen et al. 2019, algorithm CERTIFY).

    `n_class` votes guess the class (ties: the smallest), `n_votes` fresh ones bound its probability
    from below by p_A; d_rs = sigma_rs Phi^-1(p_A), the rivals being bounded by 1 - p_A.

    Parameters
    ----------
    logits : numpy.ndarray
        [K] logits at the representation.
    weight : numpy.ndarray
        [K, k] the classifier's weights.
    spec : CertificationSpec
        Its `sigma_rs`, `n_class`, `n_votes` and `alpha_rs` matter.
    guess, count : numpy.random.Generator
        What the noise of the votes that guess and of those that count is drawn from.
    """
    prediction = int(vote(logits, weight, spec.sigma_rs, spec.n_class, guess).argmax())
    k = int(vote(logits, weight, spec.sigma_rs, spec.n_votes, count)[prediction])
    p_A = clopper_pearson_lower(k, spec.n_votes, spec.alpha_rs)
    return Smoothed(prediction, p_A, spec.sigma_rs * float(ndtri(p_A)) if p_A >= 0.5 else None)
