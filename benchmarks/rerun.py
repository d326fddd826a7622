"""What a second run of one profile changes: rates and outcomes of two results folders, side by side.

    python -m benchmarks.rerun OLD/results/demo results/demo --table benchmarks/rerun.md

Meant for runs on machines of different make: there float sums differ in their last digits, training
carries that on, and the encoders come out as other seeds' would.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from lassi_lib.errors import StudyError
from lassi_lib.study.tables import markdown

RATES = {"certified_fairness": "certified", "accuracy": "accuracy"}
OUTCOMES = {"outcome": "outcomes", "outcome_these_models": "as trained"}
KEYS = ("dataset", "task", "sensitive", "vector_type", "attribute", "method", "explanation")


def changes(old: Path, new: Path) -> pd.DataFrame:
    """Return a row per notebook whose verdict is a table: how much rates (in points) and outcomes changed.

    Raises
    ------
    StudyError
        If the folders share no such table, or one has other rows than the other.
    """
    table = []
    for path in sorted((new / "tables").glob("[0-9][0-9]_verdict.csv")):
        if not (old / "tables" / path.name).is_file():
            continue
        after, before = pd.read_csv(path), pd.read_csv(old / "tables" / path.name)
        keys = [k for k in KEYS if k in after]
        if not keys or after[keys].astype(str).ne(before.get(keys, after[:0]).astype(str)).any(axis=None):
            raise StudyError(
                f"{path.name} has other rows in {old} than in {new}: compare runs of one version"
            )
        row = {"notebook": path.name[:2], "pairs": len(after)}
        for column, name in RATES.items():
            moved = (after[column] - before[column]).abs() if column in after else pd.Series(dtype=float)
            row |= {f"{name}, median change": moved.median(), f"{name}, largest": moved.max()}
        for column, name in OUTCOMES.items():
            changed = str((after[column] != before[column]).sum()) if column in after else ""
            row[f"{name} that changed"] = changed
        table.append(row)
    if not table:
        raise StudyError(f"{old} and {new} share no table of verdicts")
    return pd.DataFrame(table)


def written(table: pd.DataFrame) -> str:
    """Return the table as Markdown, changes with a digit after the point."""
    table = table.astype(object).where(table.notna(), "")
    return markdown(table.map(lambda v: f"{v:.1f}" if isinstance(v, float) else str(v)), list(table)[1:])


def main(argv: list[str] | None = None) -> int:
    """Compare two folders, print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--table", type=Path, help="write the Markdown table there")
    args = parser.parse_args(argv)
    try:
        found = changes(args.old, args.new)
    except StudyError as error:
        parser.error(str(error))
    text = written(found)
    print(text)
    if args.table:
        args.table.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
