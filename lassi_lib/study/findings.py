"""What a check of published numbers returns: one row per number, with what was printed and expected.

A check is a pure function of the published facts (`prepared_facts`) and, for some, of official annotations.
Its table has the columns `COLUMNS`:

- check: its name; source, table, row, metric: which number; printed: as printed; expected: in words;
- verdict: one of `VERDICTS`; size: by how many points the number is off, beyond what rounding explains;
- p_value: of a check that chance can fail, else NaN; p_holm: adjusted within the check (Holm 1979);
- about: 'number' (can it be right?), 'meaning' (does it say anything?) or 'comparison' (of two papers);
- fact: the number's row in published_results.csv, from 0 (-1: not one number of that file);
- doubt: what the file says of a number that is not legible or not certain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd

from lassi_lib.study.published import published
from lassi_lib.study.statistics import holm

COLUMNS = (
    "check", "source", "table", "row", "metric", "printed", "expected", "verdict", "size", "p_value",
    "p_holm", "about", "fact", "doubt",
)  # fmt: skip
# What can be said of a number, and how sure it is. "certain" rests on arithmetic, on another printed
# number or on official labels, and on no chance; "question" is odd, but has a harmless explanation.
VERDICTS = {
    "consistent": "",
    "no power": "",  # (nearly) every number would have passed
    "not checked": "",  # something needed is not there
    "impossible": "certain",
    "contradicted": "certain",
    "too far for the same runs": "certain",
    "not above the majority rate": "certain",
    "outside the interval": "chance",
    "not shown above the majority rate": "chance",
    "unexplained": "question",
}
SHARES = ("accuracy", "certified_fairness", "empirical_fairness", "emp_unfair", "majority_class")
_DOUBTS = ("uncertain", "legible", "one was dropped", "second-hand", "text at hand", "does not say")


def prepared_facts(facts: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return published facts with what checks need: fact, row, printed, decimals, half, doubt.

    The file keeps numbers and not their text, so the digits printed are those of the most precise
    number of the same table and metric; `half` is half a unit of the last digit.
    """
    facts = published() if facts is None else facts
    text = facts["value"].map(lambda v: np.format_float_positional(v, trim="-"))
    digits = text.str.partition(".")[2].str.len()
    decimals = digits.groupby([facts["source"], facts["table"], facts["metric"]]).transform("max")
    notes = facts["note"].fillna("")
    return facts.assign(
        fact=facts.get("fact", facts.index),
        row=[_row(r) for r in facts.to_dict("records")],
        decimals=decimals,
        printed=[f"{v:.{d}f}" for v, d in zip(facts["value"], decimals, strict=True)],
        half=0.5 * 10.0**-decimals,
        doubt=[next((p for p in n.split("; ") if any(d in p for d in _DOUBTS)), "") for n in notes],
    )


def _row(fact: dict) -> str:
    """Name a number's row: 'Smiling / Pale_Skin, perpendicular, LASSI, valid'."""

    def given(x: object) -> bool:
        return not pd.isna(x) and x != ""

    parts = [" / ".join(str(fact[c]) for c in ("task", "sensitive") if given(fact[c]))]
    if given(fact["vector_type"]) and fact["vector_type"] != "mean_difference":
        parts.append(str(fact["vector_type"]))
    parts += [str(fact["method"])] if given(fact["method"]) else []
    if given(fact["image_size"]) and fact["image_size"] == 128:
        parts.append("128 pixels")
    if fact["split"] == "valid":
        parts.append("valid")
        grid = {"sigma_cs": fact["sigma_cs"], "sigma_rs": fact["sigma_rs"], "lambda_2": fact["lambda2"]}
        parts += [f"{name} {value:g}" for name, value in grid.items() if given(value)]
    return ", ".join(p for p in parts if p)


def judged(
    check: str, facts: pd.DataFrame, judge: Callable[[Any], tuple[str, str, float]], about: str = "number"
) -> pd.DataFrame:
    """Return a check's table, with what ``judge(fact)`` says of each number: expected, verdict, size."""
    said = [judge(fact) for fact in facts.itertuples()]
    return finding_rows(check, facts, *(zip(*said, strict=True) if said else ((), (), ())), about=about)


def finding_rows(
    check: str,
    facts: pd.DataFrame,
    expected: Iterable[str],
    verdict: Iterable[str],
    size: Iterable[float],
    p_value: Iterable[float] | None = None,
    about: str = "number",
) -> pd.DataFrame:
    """Return a check's table for `prepared_facts`, one row each; p-values are adjusted within it.

    Parameters
    ----------
    check : str
        Name of the check.
    facts : pandas.DataFrame
        n rows of `prepared_facts`.
    expected : iterable of str
        [n], in words.
    verdict : iterable of str
        [n], each one of `VERDICTS`.
    size : iterable of float
        [n], by how many points a number is off. It counts only where the verdict finds fault; elsewhere it is
        set to 0.
    p_value : iterable of float, optional
        [n], NaN where chance has no say. Default: NaN everywhere.
    about : {'number', 'meaning', 'comparison'}
        What the check is about, see the module's text.
    """
    out = facts[["source", "table", "row", "metric", "printed", "fact", "doubt"]].reset_index(drop=True)
    out["check"], out["about"] = check, about
    out["expected"], out["verdict"] = list(expected), list(verdict)
    unknown = set(out["verdict"]) - VERDICTS.keys()
    if unknown:
        raise ValueError(f"unknown verdicts: {unknown}")
    faulty = out["verdict"].map(VERDICTS) != ""
    out["size"] = np.where(faulty, np.maximum(np.asarray(list(size), dtype=float), 0.0), 0.0)
    out["p_value"] = np.nan if p_value is None else np.asarray(list(p_value), dtype=float)
    out["p_holm"] = np.nan
    tested = out["p_value"].notna()
    out.loc[tested, "p_holm"] = holm(out.loc[tested, "p_value"])
    return out[list(COLUMNS)]
