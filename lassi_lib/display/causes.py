"""Experiments on causes in pictures: fairness over the dialled correlation, and per kind of vector."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator, NullFormatter

from lassi_lib.display.style import (
    GREY,
    SHADE,
    StudyFigure,
    colours_of,
    grouped,
    margins,
    marker_of,
    pair_names,
    words,
)

_PANELS = {
    "certified_fairness": "certified fairness (%)",
    "exact_fairness": "exactly decided fairness (%)",
    "ratio_percent": "d_cs in % of d_rs",
}


def phi_lines(summary: pd.DataFrame) -> StudyFigure:
    """Show fairness and d_cs/d_rs over phi, of `causes.dialled`: a row per pair, a line per method.

    A dotted stroke marks CelebA's own phi; what lies in the shaded part of the last panel is certified.
    """
    pairs = grouped(summary)
    figure, grid = _grid(len(pairs), 2.4)
    for line, (pair, here) in zip(grid, pairs.items(), strict=True):
        for axes, column in zip(line, _PANELS, strict=True):
            for x in here.loc[here["celebas"], "phi"].unique():
                axes.axvline(x, color=GREY, lw=0.8, ls=":")
            _draw(axes, here, column, "phi", {x: x for x in here["phi"]}, "-")
            axes.margins(x=0.1)
            axes.locator_params(axis="x", nbins=4)
        line[0].set_title(words(pair), loc="left", fontsize=10)
    figure.supxlabel(
        "phi of the two labels (dotted: CelebA's); intervals of the ratio may be cut", fontsize=9
    )
    figure.legend_above(*grid[0][0].get_legend_handles_labels())
    return figure


def kind_dots(summary: pd.DataFrame) -> StudyFigure:
    """Show fairness and d_cs/d_rs along each kind of vector, of `causes.swapped`: a row per pair and kind."""
    names = [f"{p}, phi {x:.2f}" for p, x in zip(pair_names(summary), summary["phi"], strict=True)]
    blocks = grouped(summary, names)
    most = max(part["vector_type"].nunique() for part in blocks.values())
    figure, grid = _grid(len(blocks), 0.7 + 0.36 * most)
    for line, (block, here) in zip(grid, blocks.items(), strict=True):
        place = {kind: float(y) for y, kind in enumerate(here["vector_type"].unique())}
        for axes, column in zip(line, _PANELS, strict=True):
            _draw(axes, here, column, "vector_type", place, "")
            axes.set(ylim=(len(place) - 0.4, -0.6), yticks=list(place.values()), yticklabels=[])
            axes.grid(axis="y", visible=False)
        line[0].set_yticklabels([words(kind) for kind in place])
        line[0].set_title(words(block), loc="left", fontsize=10)
    figure.legend_above(*grid[0][0].get_legend_handles_labels())
    return figure


def _grid(lines: int, height: float):
    figure = StudyFigure(figsize=(9, 0.9 + height * lines), layout="constrained")
    return figure, figure.subplots(lines, len(_PANELS), squeeze=False)


def _draw(axes, table: pd.DataFrame, column: str, by: str, place: dict, line: str) -> None:
    """Draw one quantity with intervals, methods side by side; `by` runs along x if it is phi, else along y."""
    colours, ratio, across = colours_of(table["method"]), column == "ratio_percent", by == "phi"
    span = max(place.values()) - min(place.values())
    for j, (method, colour) in enumerate(colours.items()):
        rows = table[table["method"] == method]
        shift = (j - (len(colours) - 1) / 2) * (0.012 * span if across else 0.24)
        at, value = rows[by].map(place).to_numpy(float) + shift, rows[column].to_numpy(float)
        ends = margins(rows, column)
        look = {"color": colour, "marker": marker_of(method), "ms": 5, "capsize": 2}
        look |= {"ls": line or "none", "lw": 1.4, "elinewidth": 1, "label": method, "clip_on": ratio}
        if across:
            axes.errorbar(at, value, yerr=ends, **look)
        else:
            axes.errorbar(value, at, xerr=ends, **look)
    low, high = table[column].min() / 2, table[column].max() * 2  # longer intervals are cut
    limits = {"scale": "log", "lim": (np.fmin(low, 50), np.fmax(high, 200))} if ratio else {"lim": (-3, 103)}
    axes.set(**{("y" if across else "x") + name: value for name, value in limits.items()})
    if ratio:
        axis = axes.yaxis if across else axes.xaxis
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
        (axes.axhspan if across else axes.axvspan)(limits["lim"][0], 100, color=SHADE, lw=0, zorder=0)
    (axes.set_ylabel if across else axes.set_xlabel)(_PANELS[column], fontsize=9)
