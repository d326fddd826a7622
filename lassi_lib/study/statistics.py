"""Rates with intervals, paired differences, and our numbers against the published ones.

Every number of the study is a mean over a crossed design: the same n test points, judged by the
models of m training seeds. It would change with other seeds and with other faces; an interval that
forgets either is too short. The variance of the mean of outcomes [m, n] has two independent parts
(two-way random effects; Searle, Casella & McCulloch 1992, chapter 4):

- seeds: given the points, the m seed means are independent draws, so their sample variance over m
  estimates this part, with only m - 1 degrees of freedom: Student's t pays for that;
- points: the variance of the points' means over n, less the interaction of seed and point, which
  the seeds' part holds already. With hundreds of points the normal quantile serves.

The squared margin of error is t^2 V_seeds + z^2 V_points. At 95 % t is 12.7 for two seeds, 4.3 for
three, 2.8 for five: two trainings say little about a third, and the interval says so. One seed says
nothing about others: its interval counts points alone. ``seeds="fixed"`` asks this narrower question
for any m: these trained models, new faces. Where training either works or fails (Naive's certified
fairness in Supp. Table 12: 24.3 with a standard deviation of 35.6), a handful of seeds cannot show
it, and no interval from them covers 95 %.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import optimize, special

from lassi_lib.certification.modes import ABSTAINED, FAIR, STATUSES
from lassi_lib.errors import StudyError, nearest

RATES = {"accuracy": "correct", "certified_fairness": "certified", "certified_and_correct": "both"}
PAIR = ("dataset", "task", "sensitive", "vector_type")
EXPERIMENT = (*PAIR, "method")
MEASURES = (
    "n_seeds", "n_points", "certified_fairness", "certified_fairness_low", "certified_fairness_high",
    "certified_fairness_sd", "accuracy", "accuracy_low", "accuracy_high", "accuracy_sd", "majority_rate",
    "constant_would_do", "certified_and_correct", "certified_and_correct_low", "certified_and_correct_high",
    "certified_and_correct_sd", "balanced_accuracy", "predicted_positive", "predicted_majority", "abstained",
    "abstained_center", "abstained_classifier", "d_cs_mean", "d_cs_mean_low", "d_cs_mean_high", "d_cs_median",
    "d_rs_mean",
)  # fmt: skip


def clopper_pearson(k, n, confidence: float = 0.95):
    """Return the exact interval (Clopper & Pearson 1934) of a share of k among n, both ends in 0..1.

    k and n may be arrays, and need not be whole (effective sample sizes); n = 0 gives (0, 1).
    """
    k, n = np.broadcast_arrays(np.asarray(k, dtype=float), np.asarray(n, dtype=float))
    if np.any(k < 0) or np.any(k > n) or not 0 < confidence < 1:
        raise ValueError("need 0 <= k <= n and 0 < confidence < 1")
    tail = (1 - confidence) / 2
    low = np.where(k > 0, special.betaincinv(np.where(k > 0, k, 1.0), n - k + 1, tail), 0.0)
    high = np.where(k < n, special.betainccinv(k + 1, np.where(k < n, n - k, 1.0), tail), 1.0)
    return (float(low), float(high)) if low.ndim == 0 else (low, high)


def crossed_variance(outcomes: np.ndarray, seeds: str = "random"):
    """Return (mean, V_seeds, V_points) of outcomes [..., m seeds, n points], each of shape [...].

    With one seed, or ``seeds="fixed"``, V_seeds is 0 and V_points all that varies with the points.
    """
    if seeds not in ("random", "fixed"):
        raise StudyError(f"seeds='{seeds}' is unknown{nearest(seeds, ('random', 'fixed'))}")
    y = np.asarray(outcomes, dtype=float)
    m, n = y.shape[-2:]
    of_seed, of_point, mean = y.mean(-1), y.mean(-2), y.mean((-2, -1))
    v_points = of_point.var(-1) / n
    if m == 1 or seeds == "fixed":
        return mean, np.zeros_like(mean), v_points
    residual = y - of_seed[..., :, None] - of_point[..., None, :] + mean[..., None, None]
    interaction = (residual**2).sum((-2, -1)) / ((m - 1) * max(n - 1, 1)) / (m * n)
    return mean, of_seed.var(-1, ddof=1) / m, np.maximum(v_points - interaction, 0.0)


def _margin_squared(tail: float, v_seeds, v_points, m: int):
    """Squared margin of error that leaves the probability `tail` on each side."""
    return special.stdtrit(max(m - 1, 1), tail) ** 2 * v_seeds + special.ndtri(tail) ** 2 * v_points


def rate_interval(outcomes: np.ndarray, confidence: float = 0.95, seeds: str = "random"):
    """Return (low, high) in 0..1 for the mean of 0/1 outcomes [..., m seeds, n points].

    Korn & Graubard (1998), customary for rates from complex samples: the margin of error gives the
    effective number n* of points whose binomial has that margin, and Clopper-Pearson is taken at n*.
    So the interval stays within [0, 1], leans the right way near its ends, and since n* <= n it is
    never narrower than the exact interval on the points; for one seed it is that interval.
    Simulated with 2 to 5 seeds and 300 to 2,000 points it covers 94 to 100 % at nominal 95 %, 89 to 95 %
    where the seeds' rates are very skewed (91 +- 12); the bimodal case of the module's text is worse.
    """
    mean, v_seeds, v_points = crossed_variance(outcomes, seeds)
    m, n = np.shape(outcomes)[-2:]
    tail = (1 - confidence) / 2
    squared = _margin_squared(tail, v_seeds, v_points, m)
    binomial = special.ndtri(tail) ** 2 * mean * (1 - mean)
    effective = np.where(squared * n > binomial, binomial / np.where(squared > 0, squared, 1.0), n)
    return clopper_pearson(mean * effective, effective, confidence)


def jackknife_margin(values: np.ndarray, confidence: float = 0.95) -> np.ndarray:
    """Return the margin of error of a statistic's mean over m seeds, for other seeds and points: [...].

    Parameters
    ----------
    values : numpy.ndarray
        [m, 1 + G, ...]: first the statistic of all points, then without each of G groups of them.
    confidence : float
        Two-sided. Points: Student's t with G - 1 degrees of freedom (delete-a-group jackknife, Kott 2001);
        seeds: with m - 1, and left out if there is but one.
    """
    tail, (m, groups) = (1 - confidence) / 2, (len(values), values.shape[1] - 1)
    without = values[:, 1:].mean(0)
    v_points = (groups - 1) * without.var(0)
    v_seeds = values[:, 0].var(0, ddof=1) / m if m > 1 else 0.0
    t_seeds, t_points = (special.stdtrit(max(k - 1, 1), tail) ** 2 for k in (m, groups))
    return np.sqrt(t_seeds * v_seeds + t_points * v_points)


def mean_interval(values: np.ndarray, confidence: float = 0.95, seeds: str = "random"):
    """Return (low, high) for the mean of numbers [m seeds, n points] that are >= 0, NaN where there is none.

    All numbers count for its center, only points that have one for every seed for its width. NaN where there
    are fewer than two of those, or an infinite number. Symmetric: simulated at nominal 95 % with 300 points
    and more it covers 95 % of lognormal numbers up to sd(log) = 0.5, 94 % at 1, 89 % at 1.5 (then too low).
    """
    whole = values[:, ~np.isnan(values).any(0)]
    if whole.shape[1] < 2 or np.isinf(values).any():
        return np.nan, np.nan
    _, v_seeds, v_points = crossed_variance(whole, seeds)
    margin = np.sqrt(_margin_squared((1 - confidence) / 2, v_seeds, v_points, len(values)))
    mean = np.nanmean(values)
    return max(mean - margin, 0.0), mean + margin


def with_ends(name: str, value: float, low: float, high: float) -> dict[str, float]:
    """Return a value and the ends of its interval as columns of a row: `name`, ``_low``, ``_high``."""
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def rated(name: str, outcomes: np.ndarray, confidence: float = 0.95, seeds: str = "random"):
    """Return the mean of 0/1 outcomes with `rate_interval` as columns of a row, in percent."""
    low, high = rate_interval(outcomes, confidence, seeds)
    return with_ends(name, 100 * outcomes.mean(), 100 * low, 100 * high)


def parts_of(rows: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Yield the values of the columns `by` and the rows that have them, in the order of first occurrence."""
    for key, part in rows.groupby(list(by), sort=False):
        yield dict(zip(by, key, strict=True)), part


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Return Holm's (1979) adjusted p-values, in the given order: the family-wise error is kept."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted


def outcomes(rows: pd.DataFrame, value: str) -> np.ndarray:
    """Return one experiment's 0/1 outcomes [n_seeds, n_points], seeds and points in rising order.

    `value`: 'correct' (an abstention is an error, as in the papers), 'certified' (any status of
    `modes.FAIR`), or 'both'.

    Raises
    ------
    StudyError
        If `value` or a status is unknown, a status contradicts its prediction, or the rows are not one
        for every pair of seed and point.
    """
    for name, known in ((value, tuple(RATES.values())), *((s, STATUSES) for s in rows["status"].unique())):
        if name not in known:
            raise StudyError(f"certificate rows: '{name}' is no value or status{nearest(name, known)}")
    if ((rows["prediction"] < 0) != rows["status"].isin(ABSTAINED)).any():
        raise StudyError(
            "certificate rows: prediction -1 and status ABSTAINED_* must go together: certify again"
        )
    m, n = rows["seed"].nunique(), rows["index"].nunique()
    if rows.empty or len(rows) != m * n or rows.duplicated(["seed", "index"]).any():
        raise StudyError(
            f"certificate rows: {len(rows)} rows are not {m} seeds x {n} points, each once: "
            "select one experiment, with the same test points for every seed"
        )
    if rows.groupby("index")["label"].nunique().max() > 1:
        raise StudyError("certificate rows: a test point has two labels: select the rows of one task")
    correct, certified = rows["prediction"] == rows["label"], rows["status"].isin(FAIR)
    flag = {"correct": correct, "certified": certified, "both": correct & certified}[value]
    order = np.lexsort((rows["index"], rows["seed"]))
    return flag.to_numpy(dtype=float)[order].reshape(m, n)


def summarise(
    rows: pd.DataFrame, by: Sequence[str] = EXPERIMENT, confidence: float = 0.95, seeds: str = "random"
) -> pd.DataFrame:
    """Return one row per experiment (over its seeds): columns `by`, then `MEASURES`, in percent.

    Rates count every test point: an abstention is an error and not fair, as in the papers. ``_low`` and
    ``_high`` are `rate_interval` over seeds and points; ``_sd`` is the standard deviation over seeds
    (ddof 1; NaN for one seed). balanced_accuracy averages the accuracy of the classes; majority_rate is
    what a constant classifier reaches on the same points, and `constant_would_do` marks rows whose
    accuracy's interval does not exceed it. predicted_positive (two classes only) and
    predicted_majority are shares of the predictions made. d_cs, d_rs: over points that have one (`mean_interval`).
    """
    for column in by:
        if column not in rows:
            raise StudyError(
                f"summarise(): the rows have no column '{column}'{nearest(column, rows.columns)}"
            )
    # modes that judge without radii have none
    rows = rows.reindex(columns=dict.fromkeys([*rows.columns, "d_cs", "d_rs"]))
    table = [key | _measures(part, confidence, seeds) for key, part in parts_of(rows, by)]
    return pd.DataFrame(table, columns=[*by, *MEASURES])


def _measures(rows: pd.DataFrame, confidence: float, seeds: str) -> dict[str, float]:
    out: dict[str, float] = {}
    for name, value in RATES.items():
        y = outcomes(rows, value)
        out |= rated(name, y, confidence, seeds)
        out[f"{name}_sd"] = 100 * y.mean(1).std(ddof=1) if len(y) > 1 else np.nan
    label, prediction, status = rows["label"], rows["prediction"], rows["status"]
    majority = 100 * label.value_counts(normalize=True).max()
    made = prediction[prediction >= 0]
    binary = max(label.max(), prediction.max()) <= 1
    d_cs = rows["d_cs"].astype(float)
    by_seed = rows.assign(d_cs=d_cs).pivot(index="seed", columns="index", values="d_cs").to_numpy()
    return out | {
        "n_seeds": rows["seed"].nunique(),
        "n_points": rows["index"].nunique(),
        "balanced_accuracy": 100 * (prediction == label).groupby(label).mean().mean(),
        "majority_rate": majority,
        "constant_would_do": bool(out["accuracy_low"] <= majority),
        "predicted_positive": 100 * (made == 1).mean() if binary else np.nan,
        "predicted_majority": 100 * made.value_counts(normalize=True).max(),
        "abstained": 100 * status.isin(ABSTAINED).mean(),
        "abstained_center": 100 * (status == "ABSTAINED_CENTER").mean(),
        "abstained_classifier": 100 * (status == "ABSTAINED_CLASSIFIER").mean(),
        **with_ends("d_cs_mean", d_cs.mean(), *mean_interval(by_seed, confidence, seeds)),
        "d_cs_median": d_cs.median(),
        "d_rs_mean": rows["d_rs"].mean(),
    }


@dataclass(frozen=True)
class PairedDifference:
    """Method minus baseline on the same points and seeds, in percentage points.

    `better` and `worse` count the (seed, point) pairs where only the method, only the baseline, has
    the value. The interval is ``center +- sqrt(t^2 v_seeds + z^2 v_points)``: differences D [m, n] in
    {-1, 0, 1} are one crossed design, in which what both methods share (a hard face) cancels. Two
    imagined points, one for either side, are added first (Bonett & Price 2012, whose interval this is
    for one seed): without them the variance vanishes when no point differs, or all do.
    """

    better: int
    worse: int
    n_seeds: int
    n_points: int
    center: float
    v_seeds: float
    v_points: float
    confidence: float = 0.95

    @classmethod
    def of(cls, d: np.ndarray, confidence: float = 0.95, seeds: str = "random") -> PairedDifference:
        """Build it from differences D [..., m seeds, n points] in {-1, 0, 1}."""
        ones = np.ones((*d.shape[:-1], 1))
        center, v_seeds, v_points = crossed_variance(np.concatenate([d, ones, -ones], axis=-1), seeds)
        count = (d > 0).sum((-2, -1)), (d < 0).sum((-2, -1)), *d.shape[-2:]
        return cls(*count, 100 * center, 1e4 * v_seeds, 1e4 * v_points, confidence)

    @property
    def difference(self) -> float:
        """The plain difference of the two rates."""
        return 100 * (self.better - self.worse) / (self.n_seeds * self.n_points)

    @property
    def interval(self) -> tuple[float, float]:
        """Two-sided interval at `confidence`."""
        return self.bounds((1 - self.confidence) / 2)

    @property
    def p_value(self) -> float:
        """Two-sided p-value of no difference: McNemar's exact test for one seed, else the pivot's."""
        if self.n_seeds > 1:
            return 2 * min(self.p_above(0.0), 1 - self.p_above(0.0))
        differ = int(self.better + self.worse)
        return min(2 * float(special.bdtr(min(self.better, self.worse), differ, 0.5)), 1.0) if differ else 1.0

    def bounds(self, tail: float) -> tuple[float, float]:
        """Lower and upper bound, each wrong with probability at most `tail` < 1/2."""
        margin = np.sqrt(_margin_squared(tail, self.v_seeds, self.v_points, self.n_seeds))
        return np.maximum(self.center - margin, -100.0), np.minimum(self.center + margin, 100.0)

    def p_above(self, threshold: float = 0.0) -> float:
        """One-sided p-value against "at most `threshold` points": the tail whose lower bound is there."""
        gap, smallest = self.center - threshold, -300.0  # of log p: smaller ones are reported as e^-300

        def excess(log_p: float) -> float:
            return _margin_squared(np.exp(log_p), self.v_seeds, self.v_points, self.n_seeds) - gap**2

        if abs(gap) < 1e-9:
            return 0.5
        log_p = optimize.brentq(excess, smallest, np.log(0.5)) if excess(smallest) > 0 else smallest
        return float(np.exp(log_p)) if gap > 0 else 1 - float(np.exp(log_p))


def paired_difference(
    rows: pd.DataFrame,
    method: str,
    baseline: str,
    value: str = "certified",
    confidence: float = 0.95,
    seeds: str = "random",
) -> PairedDifference:
    """Compare two methods on one pair of task and sensitive attribute.

    Parameters
    ----------
    rows : pandas.DataFrame
        Certificate rows of that pair: both methods, on the same seeds and points.
    method, baseline : str
        The difference is method minus baseline.
    value : {'certified', 'correct', 'both'}
        As in `outcomes`.
    confidence : float
        Of the two-sided interval.
    seeds : {'random', 'fixed'}
        'fixed' leaves the chance of training out: these trained models alone.

    Raises
    ------
    StudyError
        If a method is missing, the two differ in seeds or points, or `rows` holds several pairs.
    """
    known = list(rows["method"].unique())
    for name in (method, baseline):
        if name not in known:
            raise StudyError(f"paired_difference(): no rows of method '{name}'{nearest(name, known)}")
    if len(rows[[c for c in PAIR if c in rows]].drop_duplicates()) > 1:
        raise StudyError(
            "paired_difference(): the rows hold several pairs: select one task and sensitive first"
        )
    one, two = (rows[rows["method"] == name] for name in (method, baseline))
    if any(set(one[c]) != set(two[c]) for c in ("seed", "index")):
        raise StudyError(f"paired_difference(): '{method}' and '{baseline}' differ in seeds or test points")
    return PairedDifference.of(outcomes(one, value) - outcomes(two, value), confidence, seeds)


def compare(summary: pd.DataFrame, published_rows: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Return published against ours: a row per experiment, metric and published number.

    Matched by task, sensitive, vector_type and method, not by data set: a reader of rendered faces wants
    the published number too. `within_interval`: the published value lies in our interval.
    `within_prediction`: from the published mean over k seeds and their standard deviation s, is our mean
    over m seeds where a repetition would fall, that is

        |ours - published|^2 <= t^2 s^2 (1/k + 1/m) + z^2 q (1 - q) (1/n + 1/n'),

    t with k - 1 degrees of freedom? The second term is for other test points (n ours, n' theirs; wide
    where some are the same); q is the published rate after two successes and two failures more
    (Agresti & Coull 1998). <NA> where no s was published.

    Raises
    ------
    StudyError
        If one table of one source has several numbers for a cell.
    """
    keys, metrics = [*PAIR[1:], "method", "metric"], ["accuracy", "certified_fairness"]
    names = {"dataset": "published_dataset", "value": "published", "std": "published_sd"}
    names |= {"n_seeds": "published_seeds", "n_eval": "published_points"}
    theirs = published_rows[published_rows["metric"].isin(metrics)]
    theirs = theirs[[*keys, "source", "table", *names]].rename(columns=names)
    if theirs.duplicated([*keys, "source", "table"]).any():
        raise StudyError(
            "compare(): several published numbers for one cell: filter published() by dataset or table"
        )
    ends = {"": "ours", "_low": "low", "_high": "high"}
    ours = [
        summary[[*EXPERIMENT, "n_seeds", "n_points"]].assign(
            metric=metric,
            row=range(len(summary)),
            **{new: summary[metric + end] for end, new in ends.items()},
        )
        for metric in metrics
    ]
    out = pd.concat(ours).merge(theirs, on=keys, how="left")
    out = out.sort_values(["row", "metric", "source", "table"], ignore_index=True).drop(columns="row")
    out["difference"] = out["ours"] - out["published"]
    k, k_points = (out[c].astype(float) for c in ("published_seeds", "published_points"))
    tail = (1 - confidence) / 2
    squared = (special.stdtrit(k.where(k > 1) - 1, tail) * out["published_sd"]) ** 2 * (
        1 / k + 1 / out["n_seeds"]
    )
    q = (out["published"] / 100 * k_points + 2) / (k_points + 4)
    squared += (100 * special.ndtri(tail)) ** 2 * q * (1 - q) * (1 / k_points + 1 / out["n_points"])
    out["prediction_margin"] = np.sqrt(squared)
    inside = (out["low"] <= out["published"]) & (out["published"] <= out["high"])
    out["within_interval"] = inside.astype("boolean").where(out["published"].notna())
    inside = out["difference"].abs() <= out["prediction_margin"]
    out["within_prediction"] = inside.astype("boolean").where(out["prediction_margin"].notna())
    first = [*EXPERIMENT, "metric", "source", "table", "published", "published_sd", "ours", "low", "high"]
    return out[[*first, *(c for c in out if c not in first)]]
