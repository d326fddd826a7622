"""What a notebook leaves behind: is each file what its name says, and which files are whose?

A file's form is checked by its ending, a table's content by the names of its columns, which mean the same
in every table of the study. So a notebook needs no schema of its own, and a new one is checked as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_FOLDERS = ("tables", "figures", "certificates", "verdicts")
_RATES = (
    "accuracy", "balanced_accuracy", "majority_rate", "certified_fairness", "certified_and_correct",
    "abstained", "accuracy_baseline", "certified_fairness_baseline",
)  # fmt: skip
_COUNTS = ("n_seeds", "n_points")
NOTHING = "nothing certified"  # a row whose rule has nothing to judge (notebook 06)


def fault_of(path: str | Path) -> str:
    """Return what is wrong with a file by its ending and content, in a few words, or ''.

    Tables (.csv, .csv.gz) must hold rows; rates must be there and lie in 0 to 100, statuses and outcomes
    must be words of the study, and a verdict's table has an outcome in every row. Pictures must decode
    to their end, .json, .svg and .html must be whole; a verdict (verdicts/*.json) names an outcome, a
    sentence and, where it names a picture, one that exists, with its text.
    """
    path = Path(path)
    if not path.is_file() or not path.stat().st_size:
        return "is missing or empty"
    check = {".csv": _table, ".gz": _table, ".png": _picture, ".svg": _svg, ".json": _json, ".html": _page}
    try:
        return check[path.suffix](path) if path.suffix in check else ""
    except Exception as error:  # whatever a parser says of a damaged file
        return f"cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:120]})"


def _table(path: Path) -> str:
    import pandas as pd

    from lassi_lib.certification.modes import STATUSES

    table = pd.read_csv(path, low_memory=False)
    if table.empty:
        return "holds no rows"
    for column in table.columns.intersection([*_RATES, *_COUNTS]):
        values = pd.to_numeric(table[column], errors="coerce")
        low, high = (1, float("inf")) if column in _COUNTS else (0, 100)
        if not values.between(low, high).all():  # false for NaN as well
            return f"has a value of {column} that is missing or outside {low} to {high:g}"
    words = {"status": STATUSES} if path.parent.name == "certificates" else {}
    if path.stem.endswith("_verdict"):
        if "outcome" not in table:
            return "is a verdict's table without a column outcome"
        known = (*_outcomes(), NOTHING)
        words = {column: known for column in table if column.startswith("outcome")}
    for column, known in words.items():
        unknown = table.loc[~table[column].isin(known), column] if column in table else []
        if len(unknown):
            return f"has the {column} '{unknown.iloc[0]}', which is none of the study's"
    return ""


def _outcomes() -> tuple[str, ...]:
    from lassi_lib.study.verdicts import OUTCOMES

    return OUTCOMES


def _picture(path: Path) -> str:
    from PIL import Image

    with Image.open(path) as picture:
        picture.load()  # to its last byte
    return ""


def _svg(path: Path) -> str:
    from xml.etree import ElementTree

    root = ElementTree.parse(path).getroot()
    return "" if root.tag.endswith("svg") else f"is <{root.tag}> and no SVG"


def _json(path: Path) -> str:
    content = json.loads(path.read_text(encoding="utf-8"))
    return _verdict(content, path) if path.parent.name == "verdicts" else ""


def _verdict(said: Any, path: Path) -> str:
    if not isinstance(said, dict) or not said.get("text") or said.get("outcome") not in _outcomes():
        return "is no verdict: outcome (supported, not supported or inconclusive) and text are needed"
    picture = said.get("picture", "")
    if picture and not (path.parents[1] / picture).is_file():
        return f"names a picture that is not there: {picture}"
    return f"names {picture} without a text for those who do not see it" * bool(picture and not said["alt"])


def _page(path: Path) -> str:
    text = path.read_text(encoding="utf-8").rstrip().lower()
    whole = not text.startswith("<!doctype") or text.endswith("</html>")
    return "" if whole else "ends before </html>"


def files_of(folder: str | Path, name: str, declared: Iterable[str] = ()) -> list[Path]:
    """Return every file in a results folder that belongs to the notebook ``NN_question``.

    Its executed form and page, and in tables/, figures/, certificates/ and verdicts/ whatever its number
    stands before, with what it declares: a run removes them all before it starts, so that nothing older
    stands beside its results.
    """
    folder, number = Path(folder), name.partition("_")[0]
    found = [folder / f"{name}{ending}" for ending in (".html", ".failed.html", ".ipynb", ".failed.ipynb")]
    found += [path for kind in _FOLDERS for path in sorted((folder / kind).glob(f"{number}_*"))]
    return list(dict.fromkeys(p for p in [*found, *(folder / d for d in declared)] if p.is_file()))
