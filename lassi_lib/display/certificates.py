"""Certificates in pictures: rates per pair with intervals, d_cs against d_rs, training curves, norms."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.patches import Patch

from lassi_lib.display.style import (
    DARK,
    GREY,
    INK,
    PALE,
    PAPER,
    SHADE,
    StudyFigure,
    colours_of,
    grouped,
    margins,
    marker_of,
    pair_names,
    words,
)


def fairness_bars(summary: pd.DataFrame, published: Mapping[str, str] | None = None) -> StudyFigure:
    """Show certified fairness per pair and method, with intervals and the published values.

    `published` says which columns of the summary hold published values, and what the legend calls them; by
    default it is 'published_certified_fairness', where it is there. Where some rates come from one seed
    (`n_seeds`) and others from several, the former are hatched: their intervals count the points alone.
    """
    return _rate_bars(summary, "certified_fairness", "certified fairness (% of test points)", published)


def accuracy_bars(summary: pd.DataFrame, published: Mapping[str, str] | None = None) -> StudyFigure:
    """Show accuracy as `fairness_bars` does; a stroke marks the majority rate, if that column is there."""
    return _rate_bars(summary, "accuracy", "accuracy (% of test points)", published)


def constant_bars(table: pd.DataFrame) -> StudyFigure:
    """Show the share of constant decisions (`constant` with ``_low``, ``_high``) as `fairness_bars` does."""
    return _rate_bars(table, "constant", "decision constant (% of points)", {"eccv": "ECCV 2022"})


def _rate_bars(
    summary: pd.DataFrame, value: str, label: str, published: Mapping[str, str] | None
) -> StudyFigure:
    published = {f"published_{value}": "published"} if published is None else published
    pairs = list(dict.fromkeys(pair_names(summary)))
    colours = colours_of(summary["method"])
    if _one_seed(summary):
        label += "; one seed, intervals of the points alone"
    thick = 0.8 / len(colours)
    figure = StudyFigure(figsize=(9, 1.3 + len(pairs) * (0.22 + 0.17 * len(colours))), layout="constrained")
    axes = figure.subplots()
    for j, method in enumerate(colours):
        rows = summary[summary["method"] == method]
        y = np.array([pairs.index(p) for p in pair_names(rows)]) + (j - (len(colours) - 1) / 2) * thick
        mean = rows[value].to_numpy(float)
        bars = axes.barh(y, mean, 0.9 * thick, color=colours[method], label=method)
        for bar, single in zip(bars, _single(summary, rows), strict=True):
            if single:
                bar.set(hatch="///", edgecolor=PAPER, linewidth=0)
        axes.errorbar(mean, y, xerr=margins(rows, value), fmt="none", ecolor=DARK, elinewidth=1, capsize=2)
        if value == "accuracy" and "majority_rate" in rows:
            name = "majority rate" if j == 0 else None
            axes.plot(rows["majority_rate"], y, "|", color=INK, ms=9, mew=2, label=name)
        for marker, (column, name) in zip("DsoP", published.items(), strict=False):
            if column in rows and rows[column].notna().any():
                shown = {"mfc": PAPER, "mec": INK, "mew": 1.2, "ms": 5.5, "ls": "none", "zorder": 5}
                axes.plot(rows[column], y, marker, label=name if j == 0 else None, clip_on=False, **shown)
    axes.set(xlim=(0, 100.8), ylim=(len(pairs) - 0.45, -0.55), xlabel=label, yticks=range(len(pairs)))
    axes.set_yticklabels([words(p) for p in pairs])
    axes.grid(axis="y", visible=False)
    handles, names = axes.get_legend_handles_labels()
    first = sorted(range(len(names)), key=lambda i: names[i] not in colours)  # methods before markers
    if _single(summary, summary).any():
        handles.append(Patch(facecolor=PALE, edgecolor=PAPER, hatch="///", linewidth=0))
        names.append("one seed: interval of the points alone")
        first.append(len(names) - 1)
    figure.legend_above([handles[i] for i in first], [names[i] for i in first])
    return figure


def _one_seed(summary: pd.DataFrame) -> bool:
    return "n_seeds" in summary and bool((summary["n_seeds"] == 1).all())


def _single(summary: pd.DataFrame, rows: pd.DataFrame) -> np.ndarray:
    """Return which rows rest on one seed, where others of the summary do not."""
    if "n_seeds" not in summary or _one_seed(summary):
        return np.zeros(len(rows), bool)
    return (rows["n_seeds"] == 1).to_numpy()


def radius_scatter(rows: pd.DataFrame) -> StudyFigure:
    """Show d_cs against d_rs for every test point, a panel per pair; above the diagonal is certified.

    Abstentions (NaN) have no place in a panel: their share stands under its title.
    """
    pairs, colours = grouped(rows), colours_of(rows["method"])
    columns = min(3, len(pairs))
    lines, edge = -(-len(pairs) // columns), min(4.0, 7.4 / columns)  # inches
    figure = StudyFigure(figsize=(edge * columns + 1.6, 1.2 + lines * (edge + 0.7)), layout="constrained")
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
    radii = rows[["d_cs", "d_rs"]].to_numpy(float)
    positive = radii[radii > 0]
    low, high = (positive.min() / 1.5, positive.max() * 1.5) if positive.size else (0.1, 10.0)
    for axes, (pair, here) in zip(panels, pairs.items(), strict=False):
        axes.fill_between([low, high], [low, high], high, color=SHADE, lw=0)
        axes.plot([low, high], [low, high], color=GREY, lw=1)
        lost = []
        for method, colour in colours.items():
            mine = here[here["method"] == method]
            seen = mine[["d_cs", "d_rs"]].dropna().clip(lower=low)
            lost.append(100 * (1 - len(seen) / len(mine)) if len(mine) else 0.0)
            style = {"s": 9, "alpha": 0.45, "lw": 0, "rasterized": True, "color": colour}
            axes.scatter(seen["d_cs"], seen["d_rs"], marker=marker_of(method), label=method, **style)
        axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), box_aspect=1)
        axes.set_title(f"{textwrap.fill(words(pair), 31)}\n", loc="left", fontsize=10)
        shares = " / ".join(f"{share:.1f}" for share in lost)
        axes.text(0, 1.02, f"abstained: {shares} %", transform=axes.transAxes, fontsize=8, color=GREY)
    for axes in panels[len(pairs) :]:
        axes.remove()
    for axes in panels[max(len(pairs) - columns, 0) : len(pairs)]:  # the lowest of each column
        axes.tick_params(labelbottom=True)
    note = "Shaded: certified, d_cs < d_rs. Abstentions in the order of the legend."
    figure.supxlabel(f"d_cs, how far similar points can lie apart\n{note}", fontsize=9)
    figure.supylabel("d_rs, how far the class is stable", fontsize=9)
    legend = figure.legend_above(*panels[0].get_legend_handles_labels(), markerscale=2)
    for handle in legend.legend_handles:
        handle.set_alpha(1)
    return figure


def history_curve(
    history: pd.DataFrame | Sequence[Mapping], x: str, y: str, *, xlabel: str = "", ylabel: str = ""
) -> StudyFigure:
    """Show one column of a training history over another; rows without a value are passed over.

    Parameters
    ----------
    history : pandas.DataFrame or sequence of mapping
        A row per step or epoch.
    x, y : str
        Columns of the history.
    xlabel, ylabel : str
        What stands at the axes; default: the columns' names in words.
    """
    table = pd.DataFrame(history)[[x, y]].dropna()
    figure = StudyFigure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(table[x], table[y], color=colours_of(["LASSI"])["LASSI"], lw=1.5)
    axes.set(xlabel=xlabel or words(x), ylabel=ylabel or words(y))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    if len(table):
        axes.annotate(f"{table[y].iloc[-1]:.2f}", (table[x].iloc[-1], table[y].iloc[-1]), (0, 6),
                      textcoords="offset points", ha="right", fontsize=9)  # fmt: skip
    return figure


def norm_bars(vectors: pd.DataFrame) -> StudyFigure:
    """Show the length of each attribute vector (columns attribute and norm, in latent units)."""
    figure = StudyFigure(figsize=(7, 0.9 + 0.32 * len(vectors)), layout="constrained")
    axes = figure.subplots()
    names = [words(a) for a in vectors["attribute"]]
    bars = axes.barh(names, vectors["norm"], 0.7, color=colours_of(["LASSI"])["LASSI"])
    labels = [f"{n:.1f}" for n in vectors["norm"]]
    if "norm / spread" in vectors:
        labels = [
            f"{n:.1f} = {s:.2f} spreads"
            for n, s in zip(vectors["norm"], vectors["norm / spread"], strict=True)
        ]
    axes.bar_label(bars, labels, padding=4, fontsize=9)
    axes.set(
        xlabel="length ||a|| of the attribute vector, in latent units", xlim=(0, 1.4 * vectors["norm"].max())
    )
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    return figure
