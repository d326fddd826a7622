"""What a representation holds: its effective rank, and what a linear probe reads from it."""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import rankdata


def effective_rank(r: torch.Tensor) -> float:
    """Return the effective rank of representations [N, k] (Roy & Vetterli 2007).

    exp(H(p)), where p_i = s_i / sum_j s_j, H(p) = -sum_i p_i ln p_i, and s are the singular values
    of R(z) minus its mean over the N points. It is m for a cloud that fills m directions alike and
    1 for points on a line, whatever the scale; 0 for one point. Few points show fewer directions than there
    are: 300 of an encoder with 150 may show 100.

    The per-coordinate BatchNorm at R's output cannot prevent this from falling: coordinates that
    are copies of each other all have unit variance.
    """
    r = r.double().cpu()
    s = torch.linalg.svdvals(r - r.mean(0))
    s = s[s > 1e-7 * r.norm()]  # below float32's resolution there is rounding, not a direction
    if not len(s):
        return 0.0
    p = s / s.sum()
    return float(torch.exp(-(p * p.log()).sum()))


def linear_probe(
    r_fit: torch.Tensor, y_fit: np.ndarray, r_test: torch.Tensor, ridge: float = 1e-3
) -> np.ndarray:
    """Fit binary attributes to representations by ridge regression, and return test points' scores.

    The weights (C + ridge tr(C)/k I)^-1 c, with C the covariance of R(z) and c that of R(z) with
    the attribute, are one solve for all attributes. Their direction is Fisher's discriminant.

    Parameters
    ----------
    r_fit, y_fit : torch.Tensor and numpy.ndarray
        [N, k] with [N, m] of 0 and 1 ([N] for one attribute).
    r_test : torch.Tensor
        [M, k].
    ridge : float
        Penalty in units of the mean variance of a coordinate.

    Returns
    -------
    numpy.ndarray
        float64 [M, m] scores, higher for points that look as if they had the attribute; NaN where all or
        none of the training points have it.
    """
    y = np.asarray(y_fit, dtype=np.float64).reshape(len(y_fit), -1)
    if len(r_fit) != len(y):
        raise ValueError("representations and labels differ in number")
    if not np.isin(y, (0, 1)).all():
        raise ValueError("a linear probe reads binary attributes: labels must be 0 and 1")
    fit, test = (r.double().cpu().numpy() for r in (r_fit, r_test))
    centre, rate = fit.mean(0), y.mean(0)
    fit, test = fit - centre, test - centre
    covariance = fit.T @ fit / len(fit)
    penalty = ridge * max(np.trace(covariance) / len(covariance), 1e-12) * np.eye(len(covariance))
    weights = np.linalg.solve(covariance + penalty, fit.T @ (y - rate) / len(fit))
    return np.where((rate > 0) & (rate < 1), test @ weights + rate, np.nan)


def auc(score: np.ndarray, y: np.ndarray) -> float:
    """Return the chance that a positive scores above a negative (ties count half).

    Scores [N] and labels [N] of 0 and 1; NaN if there is one class only, or no score.
    """
    return float(placements(score, y)[0].mean()) if both_classes(y) else np.nan


def both_classes(y: np.ndarray) -> bool:
    """Say whether labels [N] of 0 and 1 hold either."""
    return 0 < int(np.sum(y)) < len(y)


def placements(score: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each positive the share of negatives below it, for each negative that of positives above it.

    Scores [N] and labels [N] of 0 and 1 with both classes; ties count half.
    """
    one = y == 1
    ranks, among, others = rankdata(score), rankdata(score[one]), rankdata(score[~one])
    return (ranks[one] - among) / (~one).sum(), 1 - (ranks[~one] - others) / one.sum()
