"""What a representation holds: its effective rank, and what a linear probe reads from it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata


def effective_rank(r: torch.Tensor) -> float:
    """Return the effective rank of representations [N, k] (Roy & Vetterli 2007).

    exp(H(p)), where p_i = s_i / sum_j s_j, H(p) = -sum_i p_i ln p_i, and s are the singular values
    of R(z) minus its mean over the N points. It is m for a cloud that fills m directions alike and
    1 for points on a line, whatever the scale; 0 for one point.

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
    r_fit: torch.Tensor,
    y_fit: np.ndarray,
    r_test: torch.Tensor,
    y_test: np.ndarray,
    names: Iterable[str],
    ridge: float = 1e-3,
) -> pd.DataFrame:
    """Fit binary attributes to representations by ridge regression, and test how well they are read.

    The weights (C + ridge tr(C)/k I)^-1 c, with C the covariance of R(z) and c that of R(z) with
    the attribute, are one solve for all attributes. Their direction is Fisher's discriminant, so two
    thresholds are asked for: 1/2 for `accuracy`, and the middle between the class means, which
    treats both classes alike however rare one is, for `balanced_accuracy`.

    Parameters
    ----------
    r_fit, y_fit, r_test, y_test : torch.Tensor and numpy.ndarray
        [N, k] with [N, m] of 0 and 1 ([N] for one attribute), and M points of the same form.
    names : iterable of str
        The m attributes.
    ridge : float
        Penalty in units of the mean variance of a coordinate.

    Returns
    -------
    pandas.DataFrame
        One row per attribute: attribute, positives (in the test data), accuracy, majority (accuracy
        of the constant classifier), balanced_accuracy and auc (chance that a positive scores above
        a negative). NaN: the last two if the test data hold one class only, all three scores if the
        training data do.
    """
    y_fit, y_test = (np.asarray(y, dtype=np.float64).reshape(len(y), -1) for y in (y_fit, y_test))
    names = list(names)
    if y_fit.shape[1] != len(names) or y_test.shape[1] != len(names):
        raise ValueError(f"{len(names)} names for {y_fit.shape[1]} and {y_test.shape[1]} columns of labels")
    if len(r_fit) != len(y_fit) or len(r_test) != len(y_test):
        raise ValueError("representations and labels differ in number")
    if not np.isin(y_fit, (0, 1)).all() or not np.isin(y_test, (0, 1)).all():
        raise ValueError("a linear probe reads binary attributes: labels must be 0 and 1")
    fit, test = (r.double().cpu().numpy() for r in (r_fit, r_test))
    centre, rate = fit.mean(0), y_fit.mean(0)
    fit, test = fit - centre, test - centre
    covariance = fit.T @ fit / len(fit)
    penalty = ridge * max(np.trace(covariance) / len(covariance), 1e-12) * np.eye(len(covariance))
    weights = np.linalg.solve(covariance + penalty, fit.T @ (y_fit - rate) / len(fit))
    scores, fit_scores = test @ weights + rate, fit @ weights + rate
    rows = []
    for name, y0, y1, s0, s1 in zip(names, y_fit.T, y_test.T, fit_scores.T, scores.T, strict=True):
        share = y1.mean()
        row = {"attribute": name, "positives": int(y1.sum()), "majority": max(share, 1 - share)}
        if 0 < y0.mean() < 1:
            middle = (s0[y0 == 1].mean() + s0[y0 == 0].mean()) / 2
            row |= {"accuracy": ((s1 > 0.5) == y1).mean()}
            if 0 < share < 1:
                recall = ((s1 > middle) == y1)[y1 == 1].mean(), ((s1 > middle) == y1)[y1 == 0].mean()
                row |= {"balanced_accuracy": np.mean(recall), "auc": _auc(s1, y1)}
        rows.append(row)
    columns = ["attribute", "positives", "accuracy", "majority", "balanced_accuracy", "auc"]
    return pd.DataFrame(rows, columns=columns)


def _auc(score: np.ndarray, y: np.ndarray) -> float:
    """Return the chance that a positive scores above a negative (ties count half)."""
    positives = int(y.sum())
    ranks = rankdata(score)[y == 1].sum() - positives * (positives + 1) / 2
    return float(ranks / (positives * (len(y) - positives)))
