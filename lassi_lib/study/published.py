"""The published numbers, read from one table of facts; nothing here is typed by hand.

`published_results.csv` holds one number a row, as printed: Merk et al. 2023 (source 'merk2023'), the
ECCV 2022 paper with its supplement ('eccv2022'), the ICLR 2022 workshop text ('iclr2022') and one
later headline ('fls2025'). Values are in percent unless the metric says otherwise; `std` is the
standard deviation over `n_seeds` seeds, where one was printed.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pandas as pd

from lassi_lib.errors import StudyError, nearest

FACTS = Path(__file__).with_name("published_results.csv")
WHOLE_NUMBERS = {"image_size": "Int64", "n_seeds": "Int64", "n_eval": "Int64"}
Names = str | Iterable[str] | None
PAPERS = {"merk2023": "Merk et al. 2023", "eccv2022": "ECCV 2022", "iclr2022": "ICLR 2022"}
METHODS = ["Naive", "DataAug", "LASSI"]
CELL = ["task", "sensitive", "vector_type", "method", "metric"]


@cache
def _facts() -> pd.DataFrame:
    return pd.read_csv(FACTS, dtype=WHOLE_NUMBERS)


def published(
    *,
    table: Names = None,
    dataset: Names = None,
    task: Names = None,
    sensitive: Names = None,
    method: Names = None,
    metric: Names = None,
    source: Names = None,
) -> pd.DataFrame:
    """Return the published numbers that match every filter.

    Columns source, table, dataset, image_size, task, sensitive, vector_type, method, metric, sigma_cs,
    sigma_rs, lambda2, value, std, n_seeds, split, n_eval, note.

    Parameters
    ----------
    table, dataset, task, sensitive, method, metric, source : str or iterable of str, optional
        Filters: what the column of that name may hold, a name or several. Default: anything.

    Raises
    ------
    StudyError
        If a name is unknown (the nearest is suggested), or if known names never occur together.

    Examples
    --------
    >>> cell = dict(task="Smiling", sensitive="Young", method="LASSI", metric="certified_fairness")
    >>> published(source="merk2023", table="Table 1", **cell)["value"].item()
    98.6
    """
    given = {"source": source, "table": table, "dataset": dataset, "task": task}
    given |= {"sensitive": sensitive, "method": method, "metric": metric}
    given = {k: [v] if isinstance(v, str) else list(v) for k, v in given.items() if v is not None}
    facts = rows = _facts()
    for column, names in given.items():
        known = list(facts[column].dropna().unique())
        for name in names:
            if name not in known:
                raise StudyError(f"published(): {column} '{name}' is unknown{nearest(name, known)}")
        rows = rows[rows[column].isin(names)]
    if rows.empty:
        wish = ", ".join(f"{k}={'/'.join(v)}" for k, v in given.items())
        raise StudyError(f"published(): no published number has {wish}: leave out one of these filters")
    return rows.reset_index(drop=True)


def merk_beside_eccv(
    table: str,
    supplements: Iterable[str] = (),
    *,
    dataset: str = "CelebA",
    every: bool = False,
    image_size: int = 64,
) -> pd.DataFrame:
    """Return a table of Merk et al. beside its quotations and the ECCV paper's supplement, one row per cell.

    Merk et al. quote the original values (5 seeds) beside their own (2 seeds). A quotation is checked against
    the supplement, which alone prints standard deviations and DataAug: where the two disagree it is followed
    and `note` says so. Columns task, sensitive, vector_type, method, metric, merk, eccv, eccv_std, eccv_quoted
    (percent; NaN where not printed), merk_seeds, eccv_seeds, note.

    Parameters
    ----------
    table : str
        A table of Merk et al.: 'Table 1'.
    supplements : iterable of str
        Tables of the supplement that answer the same question ('Supp. Table 17').
    dataset : str
        Data set of both papers' numbers.
    every : bool
        Whether the supplements' pairs that Merk et al. left out come too.
    image_size : int
        Edge of the images in pixels. At 128 the supplement alone has numbers (Supp. Table 14, with `every`).
    """
    merk = published(source="merk2023", table=table, dataset=dataset)
    original = published(source="eccv2022", dataset=dataset)
    merk, original = (rows[rows["image_size"] == image_size] for rows in (merk, original))
    quoted = original[original["table"].str.endswith(f"(quoted in Merk {table})")]
    supplement = original[original["table"].isin(list(supplements))]
    pairs = merk[["task", "sensitive"]].drop_duplicates()
    if every:
        pairs = pd.concat([pairs, supplement[["task", "sensitive"]]]).drop_duplicates()
    supplement = supplement.merge(pairs, on=["task", "sensitive"])

    cells = pd.concat([merk, supplement])[CELL].drop_duplicates()
    for rows, names in (
        (merk, {"value": "merk", "n_seeds": "merk_seeds"}),
        (quoted, {"value": "eccv_quoted", "n_seeds": "quoted_seeds"}),
        (supplement, {"value": "eccv", "std": "eccv_std", "n_seeds": "eccv_seeds"}),
    ):
        cells = cells.merge(rows[[*CELL, *names]].rename(columns=names), on=CELL, how="left")
    both = cells["eccv"].notna() & cells["eccv_quoted"].notna()
    slip = (
        "Merk quotes "
        + cells["eccv_quoted"].astype(str)
        + ", the supplement prints "
        + cells["eccv"].astype(str)
    )
    cells["note"] = slip.where(both & (cells["eccv"] != cells["eccv_quoted"]), "")
    cells["eccv"] = cells["eccv"].fillna(cells["eccv_quoted"])
    cells["eccv_seeds"] = cells["eccv_seeds"].fillna(cells["quoted_seeds"])
    place = {tuple(pair): i for i, pair in enumerate(pairs.to_numpy())}
    cells["pair"] = [place[p] for p in zip(cells["task"], cells["sensitive"], strict=True)]
    order = [*METHODS, *(m for m in cells["method"].unique() if m not in METHODS)]
    cells["rank"] = cells["method"].map(order.index)
    cells = cells.sort_values(["pair", "rank", "metric"], ignore_index=True)
    return cells[[*CELL, "merk", "eccv", "eccv_std", "eccv_quoted", "merk_seeds", "eccv_seeds", "note"]]


def published_side_by_side(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the cells of `merk_beside_eccv` with one row per pair and method.

    Columns task, sensitive, vector_type, method, then merk_accuracy, merk_certified_fairness,
    eccv_accuracy, eccv_certified_fairness (percent; NaN where nothing was printed).
    """
    keys = ["task", "sensitive", "vector_type", "method"]
    out = cells[keys].drop_duplicates()
    for source in ("merk", "eccv"):
        for metric in ("accuracy", "certified_fairness"):
            values = cells.loc[cells["metric"] == metric, [*keys, source]]
            out = out.merge(values.rename(columns={source: f"{source}_{metric}"}), on=keys, how="left")
    return out


def with_published(summary: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Return a summary of experiments with the columns of `published_side_by_side` beside its own."""
    keys = ["task", "sensitive", "vector_type", "method"]
    return summary.merge(published_side_by_side(cells), on=keys, how="left")
