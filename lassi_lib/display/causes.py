"""Experiments on causes in pictures: fairness over the dialled correlation, and per kind of vector."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lassi_lib.display.certificates import _pairs, _words
from lassi_lib.display.style import METHOD_MARKERS, StudyFigure, colours_of

_PANELS = {
    "certified_fairness": "certified fairness (%)",
    "exact_fairness": "exactly decided fairness (%)",
    "ratio_percent": "d_cs in % of d_rs",
}


def phi_lines(summary: pd.DataFrame) -> StudyFigure:
    """Show fairness and d_cs/d_rs over phi, of `causes.dialled`: a row per pair, a line per method.

    A dotted stroke marks CelebA's own phi; what lies in the shaded part of the last panel is certified.
    """
    pairs = list(dict.fromkeys(_pairs(summary, unique=False)))
    of_pair = np.array(_pairs(summary, unique=False), dtype=object)
    figure, grid = _grid(len(pairs), 2.4)
    for line, pair in zip(grid, pairs, strict=True):
        here = summary[of_pair == pair]
        for axes, column in zip(line, _PANELS, strict=True):
            for x in here.loc[here["celebas"], "phi"].unique():
                axes.axvline(x, color="#555555", lw=0.8, ls=":")
            _draw(axes, here, column, "phi", {x: x for x in here["phi"]}, "-")
            axes.margins(x=0.1)
            axes.locator_params(axis="x", nbins=4)
        line[0].set_title(_words(pair), loc="left", fontsize=10)
    figure.supxlabel(
        "phi of the two labels (dotted: CelebA's); intervals of the ratio may be cut", fontsize=9
    )
    return _with_legend(figure, grid)


def kind_dots(summary: pd.DataFrame) -> StudyFigure:
    """Show fairness and d_cs/d_rs along each kind of vector, of `causes.swapped`: a row per pair and kind."""
    names = [f"{p}, phi {x:.2f}" for p, x in zip(_pairs(summary, unique=False), summary["phi"], strict=True)]
    blocks, of_block = list(dict.fromkeys(names)), np.array(names, dtype=object)
    most = summary.groupby(of_block)["vector_type"].nunique().max()
    figure, grid = _grid(len(blocks), 0.7 + 0.36 * most)
    for line, block in zip(grid, blocks, strict=True):
        here = summary[of_block == block]
        place = {kind: float(y) for y, kind in enumerate(here["vector_type"].unique())}
        for axes, column in zip(line, _PANELS, strict=True):
            _draw(axes, here, column, "vector_type", place, "")
            axes.set(ylim=(len(place) - 0.4, -0.6), yticks=list(place.values()), yticklabels=[])
            axes.grid(axis="y", visible=False)
        line[0].set_yticklabels([_words(kind) for kind in place])
        line[0].set_title(_words(block), loc="left", fontsize=10)
    return _with_legend(figure, grid)


def _grid(lines: int, height: float):
    figure = StudyFigure(figsize=(9, 0.9 + height * lines), layout="constrained")
    return figure, figure.subplots(lines, len(_PANELS), squeeze=False)


def _draw(axes, table: pd.DataFrame, column: str, by: str, place: dict, line: str) -> None:
    """Draw one quantity with intervals, methods side by side; `by` runs along x if it is phi, else along y."""
    methods, ratio, across = list(dict.fromkeys(table["method"])), column == "ratio_percent", by == "phi"
    colours, span = colours_of(methods), max(place.values()) - min(place.values())
    for j, method in enumerate(methods):
        rows = table[table["method"] == method]
        shift = (j - (len(methods) - 1) / 2) * (0.012 * span if across else 0.24)
        at, value = rows[by].map(place).to_numpy(float) + shift, rows[column].to_numpy(float)
        ends = np.stack([value - rows[f"{column}_low"], rows[f"{column}_high"] - value]).clip(0)
        look = {"color": colours[method], "marker": METHOD_MARKERS.get(method, "D"), "ms": 5, "capsize": 2}
        look |= {"ls": line or "none", "lw": 1.4, "elinewidth": 1, "label": method, "clip_on": ratio}
        if across:
            axes.errorbar(at, value, yerr=ends, **look)
        else:
            axes.errorbar(value, at, xerr=ends, **look)
    low, high = table[column].min() / 2, table[column].max() * 2  # longer intervals are cut
    limits = {"scale": "log", "lim": (np.fmin(low, 50), np.fmax(high, 200))} if ratio else {"lim": (-3, 103)}
    axes.set(**{("y" if across else "x") + name: value for name, value in limits.items()})
    if ratio:
        (axes.axhspan if across else axes.axvspan)(limits["lim"][0], 100, color="#eef3f8", lw=0, zorder=0)
    (axes.set_ylabel if across else axes.set_xlabel)(_PANELS[column], fontsize=9)


def _with_legend(figure: StudyFigure, grid) -> StudyFigure:
    handles, names = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=6, frameon=False)
    return figure
