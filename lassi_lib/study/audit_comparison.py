"""The reproduction's numbers (Merk et al. 2023) against the original ones (ECCV 2022).

"Within 5 %" is a tolerance, and no test: it forgives a shift of four standard deviations where seeds
hardly differ, and forbids chance where they differ much. With a mean x of k seeds and their standard
deviation s published, the mean y of m other seeds lies within ``t_{k-1} s sqrt(1/k + 1/m)`` of x with
the stated confidence, if seeds are independent draws of a normal variable (prediction interval).

Merk et al.'s seeds 42 and 0 are the first two of the original five. Had the five runs been repeated
exactly, y would be the mean of m of the same k numbers, for which more holds, and without chance:

    |y - x| <= s sqrt((k - 1) (k - m) / (k m))            (equality: m equal numbers, k - m equal ones)

since with a = the sum of the m deviations from x, the rest sums to -a, and by Cauchy and Schwarz
``(k - 1) s^2 >= a^2 / m + a^2 / (k - m)``. For 2 of 5 the bound is sqrt(1.2) s = 1.095 s.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import special

from lassi_lib.study.findings import finding_rows, prepared_facts
from lassi_lib.study.published import published
from lassi_lib.study.statistics import clopper_pearson

_ABOUT = "comparison"
_CELL = ["dataset", "image_size", "task", "sensitive", "vector_type", "method", "metric", "split", "n_eval"]


def pairs_quoted(facts: pd.DataFrame) -> pd.DataFrame:
    """Return Merk et al.'s numbers with the original as they quote it: columns of `facts`, original."""
    merk = facts[facts["source"] == "merk2023"]
    quoted = facts[facts["table"].str.contains("quoted")][[*_CELL, "value"]]
    return merk.merge(quoted.rename(columns={"value": "original"}), on=_CELL)


def pairs_with_deviation(facts: pd.DataFrame) -> pd.DataFrame:
    """Return Merk et al.'s numbers whose original is printed with a standard deviation over seeds.

    Columns of `facts`, then original, original_sd, original_seeds, original_half, original_doubt.
    """
    merk = facts[facts["source"] == "merk2023"]
    known = facts[(facts["source"] == "eccv2022") & facts["std"].notna()]
    names = {"value": "original", "std": "original_sd", "n_seeds": "original_seeds"}
    names |= {"half": "original_half", "doubt": "original_doubt"}
    return merk.merge(known[[*_CELL, *names]].rename(columns=names), on=_CELL)


def within_tolerance(facts: pd.DataFrame, tolerance: float = 5.0) -> pd.DataFrame:
    """Check "within 5 %" for every pair that the reproduction prints, in points and relative to the original.

    `size` is the excess over the tolerance, in points of the number in both readings.
    """
    rows = pairs_quoted(facts)
    off = (rows["value"] - rows["original"]).round(9)
    limits = {"points": np.full(len(rows), tolerance), "relative": tolerance / 100 * rows["original"]}
    tables = []
    for reading, limit in limits.items():
        excess = np.round(off.abs() - limit, 9)
        percent = np.divide(100 * off, rows["original"], out=np.zeros(len(rows)), where=rows["original"] > 0)
        words = [
            f"within {x:.2g} of {o:g} (off by {d:+.1f} points, {r:+.1f} %)"
            for o, x, d, r in zip(rows["original"], limit, off, percent, strict=True)
        ]
        verdict = np.where(excess > 0, "contradicted", "consistent")
        tables.append(
            finding_rows(f"within {tolerance:g} %, {reading}", rows, words, verdict, excess, about=_ABOUT)
        )
    return pd.concat(tables, ignore_index=True)


def prediction_intervals(facts: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Check the reproduction's means against intervals from the original mean and deviation over seeds.

    p_value is two-sided, from Student's t of (y - x) / (s sqrt(1/k + 1/m)). Rounding is granted: both means
    and the deviation may be off by half a unit of the last digit. A subset of the original seeds
    would vary less (see `seed_subset_bound`), so the interval is lenient.
    """
    rows = pairs_with_deviation(facts)
    t, _ = standardised(rows)
    freedom = rows["original_seeds"].astype(float) - 1
    margin = -special.stdtrit(freedom, (1 - confidence) / 2) * _scale(rows)
    rounding, off = _rounding(rows), np.abs(_off(rows))
    p = 2 * special.stdtr(freedom, -np.abs(t))
    words = [
        f"{max(o - x, 0):.1f} to {min(o + x, 100):.1f} ({o:g} with sd {s:g})"
        for o, x, s in zip(rows["original"], margin + rounding, rows["original_sd"], strict=True)
    ]
    verdict = np.where(p < 1 - confidence, "outside the interval", "consistent")
    return finding_rows("prediction interval", rows, words, verdict, off - margin, p, _ABOUT)


def standardised(pairs: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return (y - x) in prediction standard deviations and in seeds' standard deviations, rounding granted."""
    off = _off(pairs)
    return off / _scale(pairs), off / _deviation(pairs)


def _rounding(pairs: pd.DataFrame) -> np.ndarray:
    """Return by how much a difference of two printed means may be off."""
    return (pairs["half"] + pairs["original_half"]).to_numpy(float)


def _off(pairs: pd.DataFrame) -> np.ndarray:
    """Return y - x, as near to 0 as rounding allows."""
    off = (pairs["value"] - pairs["original"]).to_numpy(float)
    return np.sign(off) * np.maximum(np.round(np.abs(off) - _rounding(pairs), 9), 0)


def _deviation(pairs: pd.DataFrame) -> np.ndarray:
    """Return the published deviation over seeds, as large as rounding allows."""
    return (pairs["original_sd"] + pairs["original_half"]).to_numpy(float)


def _scale(pairs: pd.DataFrame) -> np.ndarray:
    k, m = pairs["original_seeds"].to_numpy(float), pairs["n_seeds"].to_numpy(float)
    return _deviation(pairs) * np.sqrt(1 / k + 1 / m)


def expected_by_chance(table: pd.DataFrame, confidence: float = 0.95) -> dict[str, float]:
    """Return how many of a check's numbers chance would fail, and how likely that many or more are.

    Keys tested, outside, expected, chance (binomial, numbers taken as independent, which rows that
    share a naive model are not), significant (numbers with a Holm-adjusted p below 1 - confidence).
    """
    p = table["p_value"].dropna()
    alpha, outside = 1 - confidence, int((p < 1 - confidence).sum())
    chance = 1.0 if outside == 0 else float(special.bdtrc(outside - 1, len(p), alpha))
    counts = {"tested": len(p), "outside": outside, "expected": alpha * len(p), "chance": chance}
    return counts | {"significant": int((table["p_holm"] < alpha).sum())}


def subset_bound(k: int, m: int) -> float:
    """Return the largest |mean of m - mean of all k| in units of the k numbers' standard deviation.

    The papers do not say how they computed it: divided by k (this bound) or by k - 1 (then it is smaller).
    """
    return float(np.sqrt((k - m) / m))


def limits_in_sd(confidence: float = 0.95) -> tuple[float, float]:
    """Return (prediction interval's end, bound for repeated seeds) in published deviations over seeds."""
    pairs = pairs_with_deviation(prepared_facts())
    ((k, m),) = pairs[["original_seeds", "n_seeds"]].drop_duplicates().astype(int).to_numpy()
    quantile = -special.stdtrit(k - 1, (1 - confidence) / 2)
    return float(quantile * np.sqrt(1 / k + 1 / m)), subset_bound(k, m)


def seed_subset_bound(facts: pd.DataFrame) -> pd.DataFrame:
    """Check whether the reproduction's mean can be that of two of the original five runs, repeated.

    Rounding is granted: both means and the deviation may be off by half a unit of the last digit.
    """
    rows = pairs_with_deviation(facts)
    seeds = zip(rows["original_seeds"], rows["n_seeds"], strict=True)
    factor = np.array([subset_bound(int(k), int(m)) for k, m in seeds])
    limit, off = factor * _deviation(rows), np.abs(_off(rows))
    excess = np.round(off - limit, 9)
    words = [
        f"within {x:.2f} of {o:g} (off by {d / s:.1f} sd, bound {f:.3f} sd)"
        for o, x, d, s, f in zip(rows["original"], limit, off, _deviation(rows), factor, strict=True)
    ]
    verdict = np.where(excess > 0, "too far for the same runs", "consistent")
    return finding_rows("repeated seeds", rows, words, verdict, excess, about=_ABOUT)


def binomial_intervals(facts: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Say what one run on n images can tell: Clopper and Pearson's interval around the reproduction's number.

    Where the original is printed without a standard deviation, and only there, it is also judged by
    this interval: p_value is the two-sided exact binomial test of the original rate. It counts faces
    alone, no seeds, and both papers use the same faces, so it is a rough guide.
    """
    merk = facts[(facts["source"] == "merk2023") & facts["n_eval"].notna() & facts["n_seeds"].notna()]
    quoted = pairs_quoted(facts).set_index("fact")["original"]
    with_sd = set(pairs_with_deviation(facts)["fact"])
    original = np.where(merk["fact"].isin(with_sd), np.nan, merk["fact"].map(quoted).astype(float))
    n = merk["n_eval"].to_numpy(float)
    k = np.round(merk["value"].to_numpy(float) / 100 * n)
    low, high = clopper_pearson(k, n, confidence)
    q = original / 100
    p = 2 * np.minimum(special.bdtr(k, n.astype(int), q), special.bdtrc(k - 1, n.astype(int), q))
    p = np.where(np.isnan(q), np.nan, np.minimum(p, 1.0))
    outside = (100 * low > original) | (original > 100 * high)
    verdict = np.where(np.isnan(q), "no power", np.where(outside, "outside the interval", "consistent"))
    gap = np.fmax(100 * low - original, original - 100 * high)
    words = [
        f"{100 * a:.1f} to {100 * b:.1f}" + ("" if np.isnan(o) else f"; original {o:g}")
        for a, b, o in zip(low, high, original, strict=True)
    ]
    return finding_rows("binomial interval", merk, words, verdict, gap, p, _ABOUT)


def resolution(confidence: float = 0.95) -> pd.DataFrame:
    """Return what one run can tell at the reproduction's sample sizes: n_images, rate, low, high (percent)."""
    merk = published(source="merk2023", metric="accuracy")
    rows = []
    for n in sorted(merk["n_eval"].dropna().astype(int).unique()):
        for rate in (50, 85, 98):
            low, high = clopper_pearson(round(rate / 100 * n), n, confidence)
            rows.append((n, float(rate), 100 * low, 100 * high))
    return pd.DataFrame(rows, columns=["n_images", "rate", "rate_low", "rate_high"])
