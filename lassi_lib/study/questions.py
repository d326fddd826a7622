"""The questions of the page over all profiles: what was published on each, and which statement is judged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from lassi_lib.study.params import NOTEBOOKS
from lassi_lib.study.published import PAPERS, published
from lassi_lib.study.render import title_of
from lassi_lib.study.tables import span

ASKED_GAIN = 10.0  # points of certified fairness: `min_fairness_gain` of 01, 02 and 04 in every profile

# sentences whose numbers come from published_results.csv


def _of(metric: str, **filters: Any) -> str:
    return span(published(metric=metric, **filters)["value"])


def _gain(**filters: Any) -> str:
    """Say what LASSI gains over Naive, and how the accuracy changes, in a table of Merk et al."""
    rows = _by_method(published(source="merk2023", metric="accuracy", **filters))
    change = rows["LASSI"] - rows["Naive"]
    lassi, naive = (_of("certified_fairness", method=m, source="merk2023", **filters) for m in rows)
    small = _small(published(source="merk2023", metric="certified_fairness", **filters))
    return (
        f"LASSI certifies {lassi} % where Naive has {naive} %, at an accuracy {change.min():+.1f} to "
        f"{change.max():+.1f} points from Naive's ({len(rows)} rows{small})"
    )


def _by_method(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.pivot(index=["task", "sensitive", "vector_type"], columns="method", values="value")


def _small(rows: pd.DataFrame) -> str:
    """Say in how many rows LASSI's printed gain is less than what the rules here ask for ('' for none)."""
    by = _by_method(rows)
    small = (by["LASSI"] - by["Naive"] < ASKED_GAIN).sum()
    return (
        f", {small} of them with a gain below the {ASKED_GAIN:g} points that the rule here asks for"
        * bool(small)
    )


def _claim_1(table: str = "Table 1") -> str:
    celeba, fairface = (_gain(table=table, dataset=d) for d in ("CelebA", "FairFace"))
    return f"Merk et al., {table}. CelebA: {celeba}. FairFace: {fairface}."


def _claim_2() -> str:
    eccv = {"source": "eccv2022", "table": ["Supp. Table 17", "Supp. Table 18"]}
    fair = [f"{m} {_of('certified_fairness', method=m, **eccv)} %" for m in ("LASSI", "DataAug", "Naive")]
    kinds = ", ".join(published(**eccv)["vector_type"].unique())
    rows = published(metric="certified_fairness", **eccv)
    of = f"{len(rows[rows['method'] == 'LASSI'])} rows{_small(rows)}"
    return (
        f"Merk et al., Table 2: {_gain(table='Table 2')}. ECCV ({kinds}): certified {', '.join(fair)} ({of})."
    )


def _claim_3() -> str:
    rows = {"source": "merk2023", "table": ["Table 3", "Table 5"]}
    return (
        f"Merk et al., Tables 3 and 5: R trained without the task, {_of('certified_fairness', **rows)} % "
        f"certified, at accuracies of {_of('accuracy', **rows)} %."
    )


def _extension() -> str:
    return _claim_1("Table 4")


def _outliers() -> str:
    rows = published(table="Table 4", dataset="CelebA", method="LASSI", metric="certified_fairness")
    out = rows["value"] < 50
    names = [f"{r.task} with {r.sensitive} ({r.value:.1f} %)" for r in rows[out].itertuples()]
    return (
        f"Of {len(rows)} pairs in Table 4, {' and '.join(names)} are outliers; the others reach "
        f"{span(rows[~out]['value'])} %. Merk et al. explain them by how task and attribute go together "
        "(Table 8)."
    )


def _exactness() -> str:
    return (
        "Nothing exact. Tried at the ends of the similarity set, Naive treats "
        f"{_of('empirical_fairness', table='Supp. Table 13', method='Naive')} % of the faces alike; "
        f"certified are {_of('certified_fairness', table='Supp. Table 12', method='Naive')} % (ECCV)."
    )


def _ground_truth() -> str:
    rows = {m: {"table": "Supp. Table 19", "method": m} for m in ("Naive", "LASSI")}
    each = [
        f"{m} certifies {_of('certified_fairness', **r)} % and is unfair to {_of('emp_unfair', **r)} %"
        for m, r in rows.items()
    ]
    return f"ECCV, Supp. Table 19, true variations of 3D Shapes: {'; '.join(each)}."


def _sensitivity() -> str:
    rows = published(table="Supp. Table 10", metric="certified_fairness", method="LASSI")
    task, sensitive = rows.groupby(["task", "sensitive"])["lambda2"].nunique().idxmax()  # the longest line
    rows = rows[(rows["task"] == task) & (rows["sensitive"] == sensitive)]
    best = rows.groupby("lambda2")["value"].max()
    jump = best.diff().idxmax()
    below = best[best.index < jump]
    return (
        f"ECCV, Supp. Table 10, {task} with {sensitive}: up to lambda_2 = {below.index[-1]:g} at most "
        f"{below.max():.1f} % are certified, whatever sigma_rs; at {jump:g} up to {best[jump]:.1f} %."
    )


def _training_length() -> str:
    tables = {"LASSI": "Supp. Table 12", "LASSI_transfer": "Supp. Table 16"}
    certified = [
        f"{m.replace('_', ' ')} {_of('certified_fairness', table=t, method=m)} %" for m, t in tables.items()
    ]
    return (
        f"One number of epochs (ECCV, {' and '.join(tables.values())}: certified {', '.join(certified)}). The original "
        "code keeps the epoch of the lowest validation loss; no paper describes that choice or varies either."
    )


def _base() -> str:
    rows = {m: published(table=t, method="ResNet18", metric=m) for m, t in
            (("accuracy", "Supp. Table 6"), ("empirical_fairness", "Supp. Table 7"))}  # fmt: skip
    test = {m: span(r.loc[r["split"] == "test", "value"]) for m, r in rows.items()}
    return (
        f"ECCV, Supp. Tables 6 and 7: a ResNet-18 without any fairness is right on {test['accuracy']} % of "
        f"the test faces and constant on a grid of similar ones for {test['empirical_fairness']} %."
    )


def _audit() -> str:
    n = len(published(source=list(PAPERS)))
    return f"{n} numbers in the two papers and the workshop text before them, {len(published()) - n} in a newer one; Merk et al. sum up that theirs lie within 5 % of the originals."


def _own() -> str:
    return "Nothing: it is asked about your own images and classifier; the runs here audit rendered faces."


# Number of the notebook -> what was published on its question; in the order of the page.
SENTENCES: dict[str, Callable[[], str]] = {
    "01": _claim_1,
    "02": _claim_2,
    "03": _claim_3,
    "04": _extension,
    "05": _outliers,
    "07": _exactness,
    "06": _ground_truth,
    "08": _sensitivity,
    "12": _training_length,
    "09": _base,
    "10": _audit,
    "11": _own,
}


# Number of the notebook -> the statement that its verdict is on; thresholds stand in its parameters.
JUDGED = {
    "01": "for every pair LASSI certifies far more faces than Naive, at about the same accuracy",
    "02": "claim 1 holds along every kind of vector",
    "03": "encoders that know no task certify nearly all faces for every task",
    "04": "claim 1 holds for these attributes, too",
    "05": "the published explanations hold: label correlation and poor vectors",
    "07": "claim 1 holds for exact decisions, too",
    "06": "certified answers stay the same for true counterfactuals",
    "08": "fairness jumps at the published step of lambda_2 while accuracy stays",
    "12": "kept at the last epoch of a longer training, LASSI certifies far more faces, at about the same accuracy",
    "09": "ordinary classifiers treat a good share of faces differently from similar ones",
    "10": "every number that can be checked is possible",
    "11": "nearly all faces of the audited folder are treated like all similar ones",
}


def titles() -> dict[str, str]:
    """Return each notebook's question, which is its heading, by its number."""
    return {number: title_of(next(NOTEBOOKS.glob(f"{number}_*.ipynb"))) for number in SENTENCES}
