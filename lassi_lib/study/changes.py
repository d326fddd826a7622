"""What a run changed: the numbers of the results that it replaced, beside its own."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MOST = 40  # cells that are listed of one notebook; the others are counted
_CIRCUMSTANCES = ("device", "computing minutes")  # rows of a first table that are no result


@dataclass(frozen=True)
class Change:
    """One cell of a table (or its size) that is not what it was."""

    table: str
    row: str
    column: str
    before: str
    now: str


def changes(before: str | Path, now: str | Path, name: str) -> list[Change]:
    """Return the cells in which two results folders differ in the tables of the notebook ``NN_question``.

    Verdicts come first. Of a table with other rows or columns than before only the size is compared. Where and
    in how many minutes a run was made is no result.
    """
    number = name.partition("_")[0]
    paths = sorted(Path(now, "tables").glob(f"{number}_*.csv"), key=lambda p: (not _judges(p), p.name))
    found = []
    for path in paths:
        old = Path(before, "tables", path.name)
        if old.is_file() and old.read_bytes() != path.read_bytes():
            found += _cells(old, path)
    return found


def _judges(path: Path) -> bool:
    return path.stem.endswith("_verdict")


def _cells(old: Path, new: Path) -> list[Change]:
    import pandas as pd

    try:
        a, b = (pd.read_csv(path, dtype=str, keep_default_na=False) for path in (old, new))
    except ValueError:  # a damaged one of an older run
        return [Change(new.stem, "", "", "unreadable", "")]
    words = [c for c in a if c in b and not (_numbers(a[c]) or _numbers(b[c]))]
    same = [c for c in words if list(a[c]) == list(b[c])]
    if list(a) != list(b) or len(a) != len(b) or (words and not same):
        return [Change(new.stem, "", "", *(f"{len(t)} rows, {t.shape[1]} columns" for t in (a, b)))]
    found = []
    for i in range(len(a)):
        row = " / ".join(b[c][i] for c in same[:5] if b[c][i]) or f"row {i + 1}"
        if row.startswith(_CIRCUMSTANCES):
            continue
        for column in b:
            if a[column][i] != b[column][i] and not _equal(a[column][i], b[column][i]):
                found.append(Change(new.stem, row, column, *_shown(a[column][i], b[column][i])))
    return found


def _numbers(column: Any) -> bool:
    import pandas as pd

    return bool(pd.to_numeric(column.replace("", "0"), errors="coerce").notna().all())


def _equal(one: str, other: str) -> bool:
    """Whether two numbers differ in the last digits alone, which another summation order changes."""
    try:
        return math.isclose(float(one), float(other), rel_tol=1e-9, abs_tol=1e-12)
    except ValueError:
        return False


def _shown(*values: str) -> list[str]:
    """Return numbers with as many digits as tell them apart."""
    for digits in (4, 7, 10):
        try:
            short = [f"{float(v):.{digits}g}" if v else "" for v in values]
        except ValueError:
            break
        if len(set(short)) == len(values):
            return short
    return list(values)


def previous(old_run: dict[str, Any], run: dict[str, Any], found: list[Change]) -> dict[str, Any]:
    """Return what the replaced run said of one notebook, for previous.json; empty where nothing differs.

    `old_run` and `run` are its entries in run.json.
    """
    said = {key: old_run.get(key, "") for key in ("status", "outcome", "verdict")}
    if not old_run or (not found and all(said[key] == run[key] for key in said)):
        return {}
    made = {key: old_run.get(key, "unknown") for key in ("commit", "started")}
    return made | said | {"cells": len(found), "listed": [asdict(c) for c in found[:MOST]]}
