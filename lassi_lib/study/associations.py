"""How sensitive attributes and tasks go together in the labels, and beside it the printed table.

Merk et al. (2023) explain outliers of their extension by such a table (their Table 8): per attribute
and task a percentage, a ratio, and the task's base rate. The table prints no formula. Here every cell
is recomputed from labels under several definitions, and those that reproduce printed cells are found
by counting. With n images, of which ``both`` have attribute and task:

- rate_with = P(task | attribute), rate_without = P(task | no attribute), base_rate = P(task), in
  percent; intervals are Clopper and Pearson's.
- ratio = rate_with / base_rate. For rare tasks it is large for small differences, so beside it stands
- phi, Pearson's correlation of the two 0/1 variables. Its interval is Fisher's z with the variance of
  multinomial counts by the delta method (Bishop, Fienberg & Holland 1975, section 11.3):
  ``z = atanh(phi) -+ 1.96 sd(phi) / (1 - phi^2)``, after adding 1/2 to each of the four counts, so that an
  empty cell has an interval too. Fisher's own variance 1/(n - 3) is for normal variables, and is wrong
  for rare attributes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product

import numpy as np
import pandas as pd
from scipy import special

from lassi_lib.errors import StudyError, nearest
from lassi_lib.study.published import published
from lassi_lib.study.statistics import clopper_pearson

COUNTS = ("both", "attribute_only", "task_only", "neither")


def associations(
    labels: pd.DataFrame, attributes: Iterable[str], tasks: Iterable[str], confidence: float = 0.95
) -> pd.DataFrame:
    """Return one row per attribute and task, which are columns of `labels` [N, names], 0 and 1.

    Columns attribute, task, n, the four counts `COUNTS`, attribute_rate, base_rate, rate_with, rate_without
    (percent, with _low and _high), ratio, phi, phi_low, phi_high. What is undefined is NaN.

    Raises
    ------
    StudyError
        If a name is no column, or a column is not binary.
    """
    attributes, tasks = list(attributes), list(tasks)
    for name in (*attributes, *tasks):
        if name not in labels:
            raise StudyError(f"associations: '{name}' is not in the label table{nearest(name, labels)}")
        if not labels[name].isin([0, 1]).all():
            raise StudyError(
                f"associations: '{name}' has more than two classes: name attributes of 0 and 1 only"
            )
    rows = []
    for attribute, task in product(attributes, tasks):
        a, t = (labels[name].to_numpy(bool) for name in (attribute, task))
        counts = [int((x & y).sum()) for x, y in ((a, t), (a, ~t), (~a, t), (~a, ~t))]
        rows.append((attribute, task, len(a), *counts))
    return _with_rates(rows, confidence)


def celeba_associations(
    attributes: Iterable[str], tasks: Iterable[str], confidence: float = 0.95
) -> pd.DataFrame:
    """Return `associations` over all of CelebA's official labels, without the label file.

    The counts are those behind the shares that are shipped for the law of rendered faces' labels: six
    decimals of shares of 202,599 images determine each count.
    """
    from lassi_lib.data.label_law import celeba_label_law

    law, n = celeba_label_law(), int(published(table="Table 8", source="merk2023")["n_eval"].iloc[0])
    rows = []
    for attribute, task in product(attributes, tasks):
        for name in (attribute, task):
            if name not in law.names:
                raise StudyError(
                    f"associations: '{name}' is not in the shipped table{nearest(name, law.names)}"
                )
        i, j = law.names.index(attribute), law.names.index(task)
        both, a, t = (round(n * x) for x in (law.joint[i, j], law.joint[i, i], law.joint[j, j]))
        rows.append((attribute, task, n, both, a - both, t - both, n - a - t + both))
    return _with_rates(rows, confidence)


def _with_rates(rows: list[tuple], confidence: float) -> pd.DataFrame:
    """Return the table of attribute, task, n and four counts, with what follows from the counts."""
    table = pd.DataFrame(rows, columns=["attribute", "task", "n", *COUNTS])
    both, only, other, _ = (table[c].to_numpy(float) for c in COUNTS)
    n = table["n"].to_numpy(float)
    table = table.assign(
        attribute_rate=_percent(both + only, n),
        base_rate=_percent(both + other, n),
        rate_with=_percent(both, both + only),
        rate_without=_percent(other, n - both - only),
    )
    for name, k, m in (("rate_with", both, both + only), ("rate_without", other, n - both - only)):
        low, high = clopper_pearson(k, m, confidence)
        table[f"{name}_low"], table[f"{name}_high"] = 100 * np.atleast_1d(low), 100 * np.atleast_1d(high)
    table["ratio"] = _divide(table["rate_with"], table["base_rate"])
    table["phi"], low, high = phi_coefficient(*(table[c] for c in COUNTS), confidence=confidence)
    return table.assign(phi_low=low, phi_high=high)


def phi_coefficient(both, attribute_only, task_only, neither, confidence: float = 0.95):
    """Return (phi, low, high) of 2x2 counts; NaN where a variable is constant.

    Parameters
    ----------
    both, attribute_only, task_only, neither : float or array_like
        Counts of images with both labels, one of them alone, neither; arrays give arrays.
    confidence : float
        Of the two-sided interval.
    """
    counts = [np.asarray(c, dtype=float) for c in (both, attribute_only, task_only, neither)]
    phi, _ = _phi_and_deviation(*counts)
    center, deviation = _phi_and_deviation(*(c + 0.5 for c in counts))
    margin = -special.ndtri((1 - confidence) / 2) * deviation / (1 - center**2)
    low, high = (np.tanh(np.arctanh(center) + side * margin) for side in (-1, 1))
    undefined = np.isnan(phi)
    low, high = np.fmin(low, phi), np.fmax(high, phi)  # 1/2 a cell pulls a perfect association inwards
    return phi, np.where(undefined, np.nan, low), np.where(undefined, np.nan, high)


def _phi_and_deviation(a, b, c, d):
    """phi and its standard deviation for multinomial counts [[a, b], [c, d]]."""
    n = a + b + c + d
    row, column = (a + b) / n, (a + c) / n
    spread = row * (1 - row) * column * (1 - column)
    phi = _divide(a / n - row * column, np.sqrt(spread))
    u, v = 2 * row - 1, 2 * column - 1
    variance = (
        1
        - phi**2
        + phi * (1 + phi**2 / 2) * _divide(u * v, np.sqrt(spread))
        - 0.75 * phi**2 * (_divide(u**2, row * (1 - row)) + _divide(v**2, column * (1 - column)))
    )
    return phi, np.sqrt(np.maximum(variance, 0) / n)


def _percent(k, n):
    return 100 * _divide(k, n)


def _divide(x, y):
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    return np.divide(x, y, out=np.full(np.broadcast(x, y).shape, np.nan), where=y != 0)


# ---- the printed table --------------------------------------------------------------------------------

# What a printed percentage could be, from counts of attribute and task.
PERCENTAGES: dict[str, Callable[[pd.DataFrame], np.ndarray]] = {
    "P(task | attribute)": lambda t: t["rate_with"].to_numpy(),
    "2 P(task | attribute)": lambda t: 2 * t["rate_with"].to_numpy(),
    "P(task | no attribute)": lambda t: t["rate_without"].to_numpy(),
    "P(attribute | task)": lambda t: _percent(t["both"], t["both"] + t["task_only"]),
    "P(attribute | no task)": lambda t: _percent(t["attribute_only"], t["attribute_only"] + t["neither"]),
    "P(attribute and task)": lambda t: _percent(t["both"], t["n"]),
    "P(task | attribute) of the sum with P(task | no attribute)": lambda t: _percent(
        t["rate_with"], t["rate_with"] + t["rate_without"]
    ),
}
# What a printed ratio could be; those of `_OF_CELLS` can also be had from the printed percentages.
_OF_CELLS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "percentage / base rate": lambda p, b: _divide(p, b),
    "base rate / percentage": lambda p, b: _divide(b, p),
    "the larger of percentage / base rate and its inverse": lambda p, b: np.fmax(
        _divide(p, b), _divide(b, p)
    ),
}
_OF_COUNTS: dict[str, Callable[[pd.DataFrame], np.ndarray]] = {
    "P(task | attribute) / P(task | no attribute)": lambda t: _divide(t["rate_with"], t["rate_without"]),
    "P(attribute | task) / P(attribute | no task)": lambda t: _divide(
        PERCENTAGES["P(attribute | task)"](t), PERCENTAGES["P(attribute | no task)"](t)
    ),
    "odds ratio": lambda t: _divide(t["both"] * t["neither"], t["attribute_only"] * t["task_only"]),
}


def printed_cells() -> pd.DataFrame:
    """Return Merk et al.'s Table 8: attribute, task, percent, ratio, base_rate, as printed."""
    cells = published(source="merk2023", table="Table 8").rename(columns={"sensitive": "attribute"})
    base = cells[cells["metric"] == "base_rate"].set_index("task")["value"]
    pairs = cells[cells["metric"] != "base_rate"].pivot(
        index=["attribute", "task"], columns="metric", values="value"
    )
    order = cells.loc[cells["metric"] == "percent", ["attribute", "task"]]
    table = pairs.loc[list(order.itertuples(index=False, name=None))].reset_index()
    return table.assign(base_rate=table["task"].map(base)).rename_axis(columns=None)


def beside_printed(table: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Return `associations` beside the printed cells of the same attributes and tasks.

    Columns of `associations`, then printed_percent, printed_base_rate, printed_ratio, percent_factor
    (printed / ours) and what disagrees by more than half a unit of the last printed digit:
    percent_disagrees, base_rate_disagrees; ratio_disagrees_with_row (the ratio is not the one of
    printed percentage and base rate), ratio_disagrees (it is not that of the recomputed ones). A ratio may be
    any that its two inputs allow, each within half a unit, turned over where that makes it exceed 1.
    direction_disagrees: printed, the attribute makes the task likelier and recomputed less likely, or
    the reverse.
    """
    printed = cells.rename(columns={c: f"printed_{c}" for c in ("percent", "ratio", "base_rate")})
    out = table.merge(printed, on=["attribute", "task"], how="inner", validate="one_to_one")
    out["percent_factor"] = _divide(out["printed_percent"], out["rate_with"])
    for name, ours in (("percent", "rate_with"), ("base_rate", "base_rate")):
        out[f"{name}_disagrees"] = ~_rounds_to(out[ours], out[f"printed_{name}"], 0.05)
    more_printed = out["printed_percent"] > out["printed_base_rate"]
    out["direction_disagrees"] = more_printed != (out["rate_with"] > out["base_rate"])
    folded = "the larger of percentage / base rate and its inverse"
    for name, p, b in (
        ("ratio_disagrees_with_row", "printed_percent", "printed_base_rate"),
        ("ratio_disagrees", "rate_with", "base_rate"),
    ):
        out[name] = ~_ratio_possible(folded, out["printed_ratio"], out[p], out[b])
    return out


def definitions_tried(beside: pd.DataFrame) -> pd.DataFrame:
    """Return how many printed cells each definition reproduces, the best first; of `beside_printed`.

    Columns printed ('percentage' or 'ratio'), definition, computed_from ('labels' or 'printed cells'),
    reproduced, cells, exceptions ('attribute/task: printed, expected'; at most four are named).
    """
    rows = []
    for name, definition in PERCENTAGES.items():
        ours = definition(beside)
        rows.append(("percentage", name, "labels", ours, _rounds_to(ours, beside["printed_percent"], 0.05)))
    for name, of_cells in _OF_CELLS.items():
        for source, p, b in (
            ("labels", "rate_with", "base_rate"),
            ("printed cells", "printed_percent", "printed_base_rate"),
        ):
            hit = _ratio_possible(name, beside["printed_ratio"], beside[p], beside[b])
            rows.append(
                ("ratio", name, source, of_cells(beside[p].to_numpy(float), beside[b].to_numpy(float)), hit)
            )
    for name, of_counts in _OF_COUNTS.items():
        ours = of_counts(beside)
        turned = np.fmax(ours, _divide(1, ours))
        for label, value in ((name, ours), (f"the larger of {name} and its inverse", turned)):
            rows.append(("ratio", label, "labels", value, _rounds_to(value, beside["printed_ratio"], 0.005)))
    out = []
    for printed, name, source, ours, hit in rows:
        column = "printed_percent" if printed == "percentage" else "printed_ratio"
        misses = [
            f"{a}/{t}: {p:g}, expected {x:.2f}"
            for a, t, p, x, h in zip(
                beside["attribute"], beside["task"], beside[column], ours, hit, strict=True
            )
            if not h
        ]
        more = f"; and {len(misses) - 4} more" if len(misses) > 4 else ""
        out.append((printed, name, source, int(hit.sum()), len(beside), "; ".join(misses[:4]) + more))
    names = ["printed", "definition", "computed_from", "reproduced", "cells", "exceptions"]
    found = pd.DataFrame(out, columns=names)
    return found.sort_values(["printed", "reproduced"], ascending=[True, False], kind="stable").reset_index(
        drop=True
    )


def common_factors(beside: pd.DataFrame) -> pd.DataFrame:
    """Return, per task, the factors by which every printed percentage may exceed P(task | attribute).

    Columns task, cells, factor_low, factor_high, and cell_factors, each cell's own printed / ours. A
    printed p allows (p -+ 0.05) / ours. All cells of a column share a factor exactly if
    factor_low <= factor_high.
    """
    low = _divide(beside["printed_percent"] - 0.05, beside["rate_with"])
    high = _divide(beside["printed_percent"] + 0.05, beside["rate_with"])
    groups = beside.assign(low=low, high=high).groupby("task", sort=False)
    out = groups.agg(cells=("task", "size"), factor_low=("low", "max"), factor_high=("high", "min"))
    out["cell_factors"] = groups["percent_factor"].apply(lambda f: ", ".join(f"{x:.2f}" for x in f))
    return out.reset_index()


def table_8_text(beside: pd.DataFrame) -> str:
    """Say what the printed table gets right and wrong, in sentences whose every number is computed."""
    tried, factors = definitions_tried(beside), common_factors(beside)
    off = factors[(factors["factor_low"] > 1) | (factors["factor_high"] < 1)]
    best = tried.groupby("printed").first()
    text = [
        f"Read as {best.loc['percentage', 'definition']}, the best of the definitions tried, "
        f"{best.loc['percentage', 'reproduced']} of {len(beside)} printed percentages agree with the labels.",
    ]
    for row in off.itertuples():
        own = beside.loc[beside["task"] == row.task, "percent_factor"]
        text.append(
            f"Those of {row.task} are off by nearly one factor: printed / recomputed is {own.min():.2f} to "
            f"{own.max():.2f} in its {row.cells} cells."
        )
    text.append(
        f"{int(beside['base_rate_disagrees'].groupby(beside['task']).any().sum())} of "
        f"{beside['task'].nunique()} base rates disagree. The ratio column follows "
        f"'{best.loc['ratio', 'definition']}', computed from {best.loc['ratio', 'computed_from']}, in "
        f"{best.loc['ratio', 'reproduced']} of {len(beside)} cells"
        + (f" ({best.loc['ratio', 'exceptions']})." if best.loc["ratio", "exceptions"] else ".")
    )
    turned = beside[beside["direction_disagrees"]]
    if len(turned):
        pairs = ", ".join(f"{t} given {a}" for a, t in zip(turned["attribute"], turned["task"], strict=True))
        text.append(f"In {len(turned)} cells the direction turns over: {pairs}.")
    wrong = beside[beside["ratio_disagrees"]]
    folded = pd.Series(np.fmax(beside["ratio"], _divide(1, beside["ratio"])))
    text.append(
        f"{len(wrong)} of {len(beside)} ratios disagree with the labels; recomputed and turned over, the largest "
        + ", ".join(
            f"{beside.loc[i, 'attribute']}/{beside.loc[i, 'task']} {folded[i]:.2f} (printed "
            f"{beside.loc[i, 'printed_ratio']:.2f})"
            for i in folded.sort_values(ascending=False, kind="stable").index[:4]
        )
        + "."
    )
    return "\n".join(text)


def strongest_text(table: pd.DataFrame) -> str:
    """Say which attributes and tasks go together most, and how many hardly (`associations`)."""
    size = table["phi"].abs()
    most = table.loc[size.sort_values(ascending=False, kind="stable").index[:3]]
    named = ", ".join(f"{r.attribute} with {r.task} ({r.phi:+.2f})" for r in most.itertuples())
    return f"Strongest: {named}. In {(size < 0.1).sum()} of {len(table)} cells |phi| is below 0.1."


def readable_beside(beside: pd.DataFrame) -> pd.DataFrame:
    """Return `beside_printed` for a page: "printed / recomputed" in one cell, and what disagrees.

    A recomputed ratio below 1 is also given turned over, as printed ratios are.
    """
    flags = {
        "percent_disagrees": "percentage", "base_rate_disagrees": "base rate", "ratio_disagrees": "ratio",
        "ratio_disagrees_with_row": "ratio with its row", "direction_disagrees": "direction",
    }  # fmt: skip
    text = pd.DataFrame({"attribute": beside["attribute"], "task": beside["task"]})
    for name, printed, ours, digits in (
        ("percentage", "printed_percent", "rate_with", 1),
        ("base rate", "printed_base_rate", "base_rate", 1),
        ("ratio", "printed_ratio", "ratio", 2),
    ):
        pairs = zip(beside[printed], beside[ours], strict=True)
        cells = [f"{p:.{digits}f} / " + (f"{x:.2f}" if pd.notna(x) else "-") for p, x in pairs]
        text[f"{name}, printed / recomputed"] = cells
    turned = [f" = 1/{1 / r:.2f}" if 0 < r < 1 else "" for r in beside["ratio"]]
    text["ratio, printed / recomputed"] += turned
    wrong = [[w for c, w in flags.items() if row[c]] for row in beside[list(flags)].to_dict("records")]
    return text.assign(disagrees=[", ".join(w) for w in wrong])


def _rounds_to(value, printed, half: float) -> np.ndarray:
    """Whether `value` may be printed as `printed`; a tie may go either way."""
    return np.abs(np.asarray(value, float) - np.asarray(printed, float)) <= half + 1e-9


def _ratio_possible(definition: str, printed, percent, base) -> np.ndarray:
    """Whether a ratio (two decimals) can come from percentages within half a unit (0.05) of those given."""
    p, b = np.asarray(percent, float), np.asarray(base, float)
    of_cells = _OF_CELLS[definition]
    ends = np.stack([of_cells(p + i, b + j) for i in (-0.05, 0.05) for j in (-0.05, 0.05)])
    printed = np.asarray(printed, float)
    return (ends.min(0) - 0.005 - 1e-9 <= printed) & (printed <= ends.max(0) + 0.005 + 1e-9)
