"""Checks against the official label files: sample sizes, majority rates, attribute rates, Table 8."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from lassi_lib.study.annotations import Annotations
from lassi_lib.study.associations import associations, beside_printed, celeba_associations, printed_cells
from lassi_lib.study.findings import judged
from lassi_lib.study.statistics import clopper_pearson

Found = Mapping[str, Annotations]
_ABSENT = "official label file not at hand"


def _subset(found: Found, r: object) -> tuple[pd.DataFrame | None, str]:
    """Return the labels of a fact's images, or None and why not."""
    if r.dataset not in found:
        return None, _ABSENT
    if pd.isna(r.n_eval):
        return None, "the number of images is not stated"
    labels = found[r.dataset].subset(r.split, int(r.n_eval))
    return labels, "" if labels is not None else "no every-k-th subset has so many images"


def sample_sizes(facts: pd.DataFrame, found: Found) -> pd.DataFrame:
    """Check that every stated number of images is every k-th image of its split, k as in the papers.

    One row per source, data set, split and number.
    """
    rows = facts[facts["n_eval"].notna() & facts["dataset"].isin(["CelebA", "FairFace"])]
    rows = rows.drop_duplicates(["source", "dataset", "split", "n_eval"]).copy()
    rows["metric"], rows["printed"] = "images", rows["n_eval"].astype(int).map("{:,}".format)
    rows["row"] = rows["dataset"] + ", " + rows["split"]

    def judge(r: Any) -> tuple[str, str, float]:
        if r.dataset not in found:
            return _ABSENT, "not checked", 0.0
        k, size = found[r.dataset].stride(r.split, int(r.n_eval)), len(found[r.dataset].of_split(r.split))
        words = f"1 in {k} of {size:,}" if k and k > 1 else f"{size:,} images in the split"
        return words, "consistent" if k else "contradicted", 0.0

    out = judged("sample size", rows, judge)
    return out.assign(fact=-1)  # a sample size is no number of the file's value column


def printed_rates(facts: pd.DataFrame, found: Found) -> pd.DataFrame:
    """Check printed majority classes and attribute rates against the labels of the same images."""

    def judge(r: Any) -> tuple[str, str, float]:
        if r.metric != "majority_class" and pd.isna(r.n_eval) and r.dataset in found:
            labels, why = found[r.dataset].of_split(r.split), ""  # a whole split, whatever its size
        else:
            labels, why = _subset(found, r)
        if labels is None:
            return why, "not checked", 0.0
        largest = r.metric == "majority_class"
        share = 100 * labels[r.task if largest else r.sensitive].value_counts(normalize=True)
        ours = float(share.max() if largest else share.get(int(r.metric == "pos_rate"), 0.0))
        off = abs(r.value - ours) - r.half
        words = f"{ours:.2f} of {len(labels):,} images"
        return words, "contradicted" if off > 1e-9 else "consistent", off

    rows = facts[facts["metric"].isin(["majority_class", "pos_rate", "neg_rate"])]
    return judged("rate of labels", rows, judge)


def majority_rate_of(facts: pd.DataFrame, found: Found, r: object) -> tuple[float, str]:
    """Return (the rate of the largest class among a fact's images in percent or NaN, where it is from)."""
    labels, why = _subset(found, r)
    if labels is not None and r.task in labels:
        return 100 * float(labels[r.task].value_counts(normalize=True).max()), "labels"
    printed = facts[
        (facts["metric"] == "majority_class")
        & (facts["dataset"] == r.dataset)
        & (facts["task"] == r.task)
        & (facts["split"] == r.split)
        & (facts["n_eval"] == r.n_eval)
    ]
    if len(printed):
        return float(printed["value"].iloc[0]), printed["table"].iloc[0]
    return np.nan, why or "task not in the label file"


def above_majority(facts: pd.DataFrame, found: Found, confidence: float = 0.95) -> pd.DataFrame:
    """Check that each accuracy is above what a constant classifier reaches on the same images.

    A constant classifier is always certified fair, so fairness beside such an accuracy says little
    (that the classifier *is* near-constant is inferred: its predictions were not published). An
    accuracy above the majority rate whose binomial interval reaches down to it is not shown to be
    above (`expected` gives the one-sided p-value; it counts the faces of one run).
    """

    def judge(r: Any) -> tuple[str, str, float]:
        rate, where = majority_rate_of(facts, found, r)
        if np.isnan(rate) or pd.isna(r.n_eval):
            return where or "the number of images is not stated", "not checked", 0.0
        n = int(r.n_eval)
        k = round(r.value / 100 * n)
        low, _ = clopper_pearson(k, n, 2 * confidence - 1)  # its lower end is a one-sided bound
        p = float(special.bdtrc(k - 1, n, rate / 100)) if k else 1.0
        words = f"above {rate:.2f} ({where}); a run's lower bound is {100 * low:.1f}, p {p:.2g}"
        if r.value <= rate:
            return words, "not above the majority rate", rate - r.value
        shown = 100 * low > rate
        return words, "consistent" if shown else "not shown above the majority rate", rate - 100 * low

    accuracies = (facts["metric"] == "accuracy") & facts["task"].notna()
    rows = facts[accuracies & ~facts["table"].str.contains("quoted")]
    return judged("above the majority rate", rows, judge, about="meaning")


def table_8(facts: pd.DataFrame, found: Found) -> pd.DataFrame:
    """Check every cell of Merk et al.'s Table 8 against CelebA's labels, and its ratios within the row.

    Counts are from the label file, or where it is not at hand from the shipped aggregates of it. A
    ratio is judged twice: against the labels, and (check 'Table 8, ratio of its row') against the
    percentage and base rate printed beside it. Sizes of ratios are in points of the percentage that
    the printed ratio implies.
    """
    rows = facts[(facts["source"] == "merk2023") & (facts["table"] == "Table 8")]
    ours = table_8_cells(found)
    return pd.concat([_cells_against_labels(rows, ours), _ratios_of_rows(rows, ours)], ignore_index=True)


def table_8_cells(found: Found, confidence: float = 0.95) -> pd.DataFrame:
    """Return Table 8 recomputed, beside the printed cells (`beside_printed`)."""
    cells = printed_cells()
    names = cells["attribute"].unique(), cells["task"].unique()
    celeba = found.get("CelebA")
    if celeba is None:
        table = celeba_associations(*names, confidence)
    else:
        table = associations(celeba.labels, *names, confidence)
    return beside_printed(table, cells)


def _cells_against_labels(rows: pd.DataFrame, ours: pd.DataFrame) -> pd.DataFrame:
    found = ours.set_index(["attribute", "task"])

    def judge(r: Any) -> tuple[str, str, float]:
        of_task = r.metric == "base_rate"
        cell = ours[ours["task"] == r.task].iloc[0] if of_task else found.loc[(r.sensitive, r.task)]
        verdict = "contradicted" if cell[f"{r.metric}_disagrees"] else "consistent"
        if r.metric == "ratio":
            more = "" if cell["ratio"] >= 1 else f", turned over {1 / cell['ratio']:.2f}"
            implied = cell["base_rate"] * r.value, cell["base_rate"] / r.value  # either way round
            off = min(abs(x - cell["rate_with"]) for x in implied) - cell["base_rate"] * r.half
            return f"{cell['ratio']:.2f}{more}", verdict, max(off, 0.0)
        expected = cell["base_rate" if of_task else "rate_with"]
        counts = "" if of_task else f" ({cell['both']:,} of {cell['both'] + cell['attribute_only']:,})"
        return f"{expected:.2f}{counts}", verdict, abs(r.value - expected) - r.half

    return judged("Table 8, labels", rows, judge)


def _ratios_of_rows(rows: pd.DataFrame, ours: pd.DataFrame) -> pd.DataFrame:
    found = ours.set_index(["attribute", "task"])

    def judge(r: Any) -> tuple[str, str, float]:
        cell = found.loc[(r.sensitive, r.task)]
        p, b = cell["printed_percent"], cell["printed_base_rate"]
        verdict = "contradicted" if cell["ratio_disagrees_with_row"] else "consistent"
        return f"{max(p / b, b / p):.2f} from {p:g} and {b:g}", verdict, abs(r.value - max(p / b, b / p)) * b

    return judged("Table 8, ratio of its row", rows[rows["metric"] == "ratio"], judge)
