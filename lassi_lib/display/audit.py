"""The audit in pictures: reproduced means against intervals, accuracies against majority, Table 8."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lassi_lib.display.style import (
    BAD,
    DARK,
    GOOD,
    GREY,
    INK,
    SHADE,
    StudyFigure,
    colours_of,
    grouped,
    heatmap,
    margins,
    marker_of,
    words,
)


def prediction_figure(positions: pd.DataFrame, t_quantile: float, bound: float) -> StudyFigure:
    """Show how far each reproduced mean lies from the original, in deviations over seeds (`relative_position`).

    `t_quantile` is the prediction interval's end, `bound` the most that a repetition of the same seeds could
    be off, in the same unit.
    """
    table = positions.sort_values("in_seed_sd", kind="stable", ignore_index=True)
    figure = StudyFigure(figsize=(9, 1.4 + 0.17 * len(table)), layout="constrained")
    axes = figure.subplots()
    y = np.arange(len(table))
    axes.axvspan(-t_quantile, t_quantile, color=SHADE, lw=0, label="prediction interval")
    for side in (-bound, bound):
        label = "bound for the same seeds" if side > 0 else None
        axes.axvline(side, color=GREY, lw=1, ls="--", label=label)
    for outside, colour, marker, name in (
        (False, GOOD, "o", "inside"),
        (True, BAD, "D", "outside the prediction interval"),
    ):
        here = (table["outside"] == outside).to_numpy()
        axes.plot(
            table["in_seed_sd"][here], y[here], marker, color=colour, ms=4.5, ls="none", label=name, zorder=3
        )
    axes.set(
        ylim=(-0.8, len(table) - 0.2),
        yticks=y,
        xlabel="reproduced minus original mean, in published sd (rounding granted)",
    )
    axes.set_yticklabels(
        [f"{words(r)}: {words(m)}" for r, m in zip(table["row"], table["metric"], strict=True)], fontsize=7
    )
    axes.grid(axis="y", visible=False)
    figure.legend_above(*axes.get_legend_handles_labels(), ncols=4)
    return figure


def majority_figure(table: pd.DataFrame) -> StudyFigure:
    """Show accuracies above or below the majority rate of the same images (`accuracy_margins`).

    There is a panel per published table.
    """
    parts = grouped(table, table["table"])
    heights = [max(len(part), 2) for part in parts.values()]
    figure = StudyFigure(figsize=(9, 1.3 + 0.19 * sum(heights) + 0.3 * len(parts)), layout="constrained")
    panels = figure.subplots(len(parts), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    colours = colours_of(table["method"])
    for axes, (name, part) in zip(panels, parts.items(), strict=True):
        here = part.reset_index(drop=True)
        middle, ends = here["accuracy"] - here["majority_rate"], margins(here, "accuracy")
        axes.axvline(0, color=INK, lw=1)
        for method in dict.fromkeys(here["method"]):
            mine = (here["method"] == method).to_numpy()
            axes.errorbar(
                middle[mine], np.flatnonzero(mine), xerr=ends[:, mine], color=colours[method], ms=5,
                fmt=marker_of(method), elinewidth=1, capsize=2, label=method,
            )  # fmt: skip
        below = (here["verdict"] == "not above the majority rate").to_numpy()
        axes.set(yticks=range(len(here)), ylim=(len(here) - 0.4, -0.6))
        axes.set_yticklabels([words(r) for r in here["row"]], fontsize=7)
        for label, wrong in zip(axes.get_yticklabels(), below, strict=True):
            label.set_color(BAD if wrong else DARK)
        axes.set_title(name, loc="left", fontsize=10)
        axes.grid(axis="y", visible=False)
    panels[-1].set_xlabel(
        "accuracy minus majority rate, points (ends: one-sided bounds over the faces of one run)"
    )
    labelled = {}
    for axes in panels:  # a method may be missing from some panels
        labelled |= dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    figure.legend_above(list(labelled.values()), list(labelled), ncols=4)
    return figure


def association_dumbbells(beside: pd.DataFrame) -> StudyFigure:
    """Show printed percentages beside recomputed ones (`beside_printed`), a row per attribute and task."""
    order = {task: i for i, task in enumerate(dict.fromkeys(beside["task"]))}
    table = beside.sort_values("task", key=lambda t: t.map(order), kind="stable", ignore_index=True)
    figure = StudyFigure(figsize=(8.5, 1.3 + 0.28 * len(table)), layout="constrained")
    axes = figure.subplots()
    y = np.arange(len(table)) + 0.6 * table["task"].map(order).to_numpy()
    wrong = table["percent_disagrees"].to_numpy(bool)
    axes.hlines(y[wrong], table["rate_with"][wrong], table["printed_percent"][wrong], color=BAD, lw=2)
    axes.plot(table["base_rate"], y, "|", color=INK, ms=11, mew=1.5, ls="none", label="base rate of the task")
    axes.plot(
        table["rate_with"], y, "o", color=GOOD, ms=7, ls="none", label="P(task | attribute), recomputed"
    )
    for disagrees, name in ((False, "printed, agrees"), (True, "printed, disagrees")):
        here = wrong == disagrees
        style = {"mfc": "none" if not disagrees else BAD, "mec": INK if not disagrees else BAD}
        axes.plot(table["printed_percent"][here], y[here], "D", ms=5, ls="none", label=name, **style)
    axes.set(xscale="log", xlabel="% of faces with the attribute", yticks=y, ylim=(y.max() + 0.7, -0.7))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_yticklabels(
        [f"{words(t)} given {words(a)}" for t, a in zip(table["task"], table["attribute"], strict=True)]
    )
    axes.grid(axis="y", visible=False)
    figure.legend_above(*axes.get_legend_handles_labels(), ncols=4)
    return figure


def association_heatmap(table: pd.DataFrame) -> StudyFigure:
    """Show phi of attributes (rows) and tasks (`associations`); a star marks intervals that exclude 0."""
    tasks, attributes = (list(dict.fromkeys(table[c])) for c in ("task", "attribute"))
    grid = table.pivot(index="attribute", columns="task", values="phi").loc[attributes, tasks]
    sure = (table["phi_low"] > 0) | (table["phi_high"] < 0)
    stars = (
        table.assign(sure=sure).pivot(index="attribute", columns="task", values="sure").loc[attributes, tasks]
    )
    figure = StudyFigure(
        figsize=(2.4 + 1.15 * len(tasks), 1.6 + 0.42 * len(attributes)), layout="constrained"
    )
    axes = figure.subplots()
    limit = max(float(np.nanmax(np.abs(grid.to_numpy()), initial=0.0)), 0.1)
    text = [
        [f"{value:+.2f}{'*' if star else ''}" for value, star in zip(*row, strict=True)]
        for row in zip(grid.to_numpy(), stars.to_numpy(), strict=True)
    ]
    image = heatmap(axes, grid, text, cmap="PuOr_r", vmin=-limit, vmax=limit)
    figure.colorbar(image, ax=axes, label="phi")
    return figure
