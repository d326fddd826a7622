"""Rank correlations over pairs of task and attribute, with intervals that know what pairs share.

Pairs of one attribute share its vector, pairs of one task its classifier: 22 pairs of 7 attributes are no 22
observations. Taken as such, an interval at 95 % misses 0 in a tenth to a quarter of worlds without any effect
(the tests repeat this). So Fisher's z gets the largest of these variances: that of independent pairs (Bonett and
Wright 2000), the jackknife's that leaves out one attribute after the other, or one task, and both combined
(Cameron, Gelbach and Miller 2011: attributes + tasks - pairs); and Student's quantiles with as many degrees
of freedom as clusters of the more variable kind, less one. All hold roughly where clusters are few.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

POWER = 0.8  # what a study is customarily asked for


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rho of n values with the variance of its Fisher z and that variance's degrees of freedom."""

    rho: float
    variance: float
    freedom: float
    n: float = math.inf

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Return both ends; NaN where there is no correlation, -1 and 1 where it rests on one cluster alone."""
        if np.isnan(self.rho):
            return np.nan, np.nan
        if np.isinf(self.variance):
            return -1.0, 1.0
        margin = self._quantile(confidence) * np.sqrt(self.variance)
        z = np.arctanh(_inside(self.rho, self.n))
        return float(np.tanh(z - margin)), float(np.tanh(z + margin))

    def detectable(self, confidence: float = 0.95) -> float:
        """Return the rank correlation that 80 % of repetitions would find, were intervals as wide as this."""
        if not np.isfinite(self.variance):
            return 1.0
        quantiles = self._quantile(confidence) + special.ndtri(POWER)
        return float(np.tanh(quantiles * np.sqrt(self.variance)))

    def _quantile(self, confidence: float) -> float:
        return float(stats.t.ppf((1 + confidence) / 2, self.freedom))


def rank_correlation(x, y) -> float:
    """Return Spearman's rho, NaN where a variable is constant or there are fewer than four values."""
    if len(x) < 4:
        return np.nan
    x, y = stats.rankdata(x), stats.rankdata(y)
    return float(np.corrcoef(x, y)[0, 1]) if np.ptp(x) and np.ptp(y) else np.nan


def correlate(x, y, attributes: Sequence | None = None, tasks: Sequence | None = None) -> RankCorrelation:
    """Return the rank correlation of x [n] and y [n], whose values share attributes and tasks.

    Without both the values count as independent. A kind with one cluster only says nothing about how
    clusters differ, and is left out.
    """
    x, y, n = np.asarray(x, float), np.asarray(y, float), len(x)
    rho = rank_correlation(x, y)
    if np.isnan(rho):
        return RankCorrelation(np.nan, np.nan, np.inf)
    independent = (1 + _inside(rho, n) ** 2 / 2) / (n - 3)
    kinds = [
        np.unique(np.asarray(k, str), return_inverse=True)[1] for k in (attributes, tasks) if k is not None
    ]
    one_way = [(_jackknife(x, y, kind), int(kind.max())) for kind in kinds if kind.max() > 0]
    if not one_way:
        return RankCorrelation(rho, independent, np.inf, n)
    variance, freedom = max(one_way)
    if len(one_way) == 2 and np.isfinite(variance):
        variance = max(variance, one_way[0][0] + one_way[1][0] - _jackknife(x, y, np.arange(n)))
    return RankCorrelation(rho, max(variance, independent), float(freedom), n)


def _inside(rho: float, n: float) -> float:
    """Return rho, at most half a step from 1 (or -1), whose Fisher z is infinite."""
    highest = 1 - 6 / (n * (n**2 - 1)) if n < math.inf else 1
    return float(np.clip(rho, -highest, highest))


def _jackknife(x: np.ndarray, y: np.ndarray, cluster: np.ndarray) -> float:
    """Return the variance of Fisher's z by leaving out clusters; infinite where one carries the correlation alone."""
    z = []
    for left_out in np.unique(cluster):
        kept = cluster != left_out
        z.append(np.arctanh(_inside(rank_correlation(x[kept], y[kept]), max(int(kept.sum()), 2))))
    g = len(z)
    return np.inf if np.isnan(z).any() else float((g - 1) / g * np.square(z - np.mean(z)).sum())
