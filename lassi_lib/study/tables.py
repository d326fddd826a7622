"""Tables as people read them (`present`) and as they are kept (`save_table`: csv, md and tex)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from lassi_lib.errors import StudyError
from lassi_lib.files import whole

# What a table of experiments always shows, in this order, whatever the profile.
SHOWN = (
    "task", "sensitive", "method", "n_seeds", "n_points", "certified_fairness", "accuracy", "majority_rate",
    "constant_would_do", "certified_and_correct", "balanced_accuracy", "predicted_majority", "abstained",
)  # fmt: skip
HEADINGS = {
    "n_seeds": "seeds",
    "n_points": "points",
    "merk": "Merk et al.",
    "eccv": "ECCV 2022",
    "eccv_std": "ECCV 2022 sd",
    "random": "along a random vector",
    "eccv_quoted": "ECCV 2022 as quoted",
    "predicted_majority": "most predicted class",
}
# columns that are no percentages: one decimal would say too little
FORMATS = {
    "phi": ".3f",
    **dict.fromkeys(("factor", "factor_low", "factor_high"), ".2f"),
    "ratio": ".2f",
    "bits/dim": ".2f",
    "norm / spread": ".2f",
    **dict.fromkeys(("cos start", "change first", "change last"), ".3f"),
    "largest reconstruction error": ".1e",
    **dict.fromkeys(("norm_to_spread", "cos_task", "robust_z", "d_cs", "d_rs"), ".2f"),
    **dict.fromkeys(
        ("spearman", "spearman_in_tasks", "slope", "slope_boot_low", "slope_boot_high", "vif"), ".2f"
    ),
    **dict.fromkeys(("spearman_variance", "spearman_freedom"), ".3g"),
    **dict.fromkeys(("r2_alone", "r2_lost", "model_r2", "model_left_out_r2"), ".2f"),
}


def span(values: Iterable[float], digits: int = 1) -> str:
    """Return '5.6 to 98.9', or one number where all are the same."""
    low, high = (f"{v:z,.{digits}f}" for v in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def ranges(table: pd.DataFrame, by: list[str], column: str, unit: str = " %") -> str:
    """Say how far a column goes for each value of others: 'Naive 65.5 to 97.0 %, LASSI 91.3 to 99.5 %'.

    What the first of several names tells apart is named once: 'certified: Naive 0.0 %; plain: Naive 74.7 %'.
    """
    first, *rest = by
    parts = table.dropna(subset=[column]).groupby(first, sort=False)
    if rest:
        said = (f"{_plain(name)}: {ranges(part, rest, column, unit)}" for name, part in parts)
        return "; ".join(said)
    return ", ".join(f"{_plain(name)} {span(part[column])}{unit}" for name, part in parts)


def _plain(name: object) -> str:
    return str(name).replace("_", " ")


def _cell(value: object, column: str = "") -> str:
    """One value as text: one decimal, four for p-values, yes or no, nothing for what is missing."""
    if pd.isna(value):
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float):
        if column in FORMATS or column.startswith("cos "):
            return format(value, "z" + FORMATS.get(column, ".2f"))  # z turns -0.00 into 0.00
        if column.startswith("p_"):
            return "< 0.0001" if value < 1e-4 else f"{value:.4f}"
        return f"{value:z.1f}"
    return str(value)


def _heading(column: str) -> str:
    source, _, rest = column.partition("_")
    if column not in HEADINGS and rest and source in HEADINGS:
        return f"{_plain(rest)}, {HEADINGS[source]}"  # eccv_accuracy
    return HEADINGS.get(column, _plain(column))


def present(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of strings for reading: headings in words, '97.3 [96.4, 98.1]' in one cell.

    A summary of experiments (`summarise`) is cut to `SHOWN`, in that order, with `vector_type` where there
    are several; any other table keeps its columns, but for empty ones. ``x_low`` and ``x_high`` are folded into ``x`` (``low`` and ``high`` into ``ours``); ``x_sd``
    beside them is left to the csv.
    """
    ends = {c: ("low", "high") if c == "ours" else (f"{c}_low", f"{c}_high") for c in table}
    ends = {c: pair for c, pair in ends.items() if set(pair) <= set(table.columns)}
    hidden = {name for c, pair in ends.items() for name in (*pair, f"{c}_sd")}
    text, columns = {}, list(table.columns)
    if set(SHOWN) <= set(columns):
        columns = list(SHOWN)
        if "vector_type" in table and table["vector_type"].nunique() > 1:
            columns.insert(2, "vector_type")
    for column in columns:
        if column in hidden:
            continue
        cells = [_cell(v, column) for v in table[column]]
        if column in ends:
            bounds = zip(*([_cell(v, column) for v in table[name]] for name in ends[column]), strict=True)
            cells = [f"{c} [{a}, {b}]" if c else "" for c, (a, b) in zip(cells, bounds, strict=True)]
        if any(cells) or not cells:
            text[_heading(column)] = cells
    return pd.DataFrame(text, index=[""] * len(table), dtype=object)  # row numbers would say nothing


def side_by_side(table: pd.DataFrame, across: str, value: str, keys: Iterable[str]) -> pd.DataFrame:
    """Return one row per `keys`, and a column of `value [low, high]` for every entry of `across`.

    Rows and columns keep the order in which they first occur; what is missing stays empty.
    """
    text = present(table[[*keys, across, value, f"{value}_low", f"{value}_high"]])
    names = [_heading(k) for k in (*keys, across, value)]
    *first, over, shown = names
    wide = text[first].drop_duplicates()
    for name, part in text.groupby(over, sort=False):
        wide = wide.merge(part[[*first, shown]].rename(columns={shown: name}), on=first, how="left")
    return wide.fillna("")


def markdown(text: pd.DataFrame, right: Collection[str] = (), *, escaped: bool = True) -> str:
    """Return a table of texts as Markdown; the columns `right` are set flush right.

    Unless `escaped` is switched off (for cells that are Markdown themselves) a cell shows what it holds.
    """

    def line(cells: Iterable[str]) -> str:
        if escaped:
            cells = (c.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|") for c in cells)
        return f"| {' | '.join(cells)} |\n"

    rule = ["---:" if column in right else "---" for column in text.columns]
    return "".join(map(line, [text.columns, rule, *text.to_numpy()]))


def _latex(text: pd.DataFrame) -> str:
    """A booktabs tabular; cells in braces, lest one that begins with '[' be read as an option."""
    special = {c: f"\\{c}" for c in "&%$#_{}"} | {"<": "$<$", ">": "$>$", "\\": r"\textbackslash{}"}
    special |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}

    def line(cells: Iterable[str]) -> str:
        return " & ".join("{" + "".join(special.get(x, x) for x in c) + "}" for c in cells) + " \\\\\n"

    begin, end = f"\\begin{{tabular}}{{{'l' * text.shape[1]}}}\n\\toprule\n", "\\bottomrule\n\\end{tabular}\n"
    return begin + line(text.columns) + "\\midrule\n" + "".join(map(line, text.to_numpy())) + end


def save_table(table: pd.DataFrame, folder: str | Path, name: str) -> list[Path]:
    """Write <name>.csv (every column, full precision), <name>.md and <name>.tex (as `present` shows it).

    Raises
    ------
    StudyError
        If `name` is not a plain file name, or a file cannot be written.
    """
    if not name or Path(name).name != name or name.startswith("."):
        raise StudyError(f"save_table(): '{name}' is not a plain file name: use letters, digits and _")
    shown = present(table)
    texts = {
        "csv": table.to_csv(index=False, lineterminator="\n"),
        "md": markdown(shown),
        "tex": _latex(shown),
    }
    paths = [Path(folder) / f"{name}.{ending}" for ending in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        try:
            with whole(path) as draft:
                draft.write_text(text, encoding="utf-8", newline="\n")
        except OSError as error:
            reason = f"{error.strerror}: choose another folder with --output"
            raise StudyError(f"table '{path}' cannot be written: {reason}") from None
    return paths
