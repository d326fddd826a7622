"""Modes side by side: rates, slack, radii, and the faces that are treated differently."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from lassi_lib.display.faces import face_rows
from lassi_lib.display.style import (
    DARK,
    GREY,
    INK,
    MODE_COLOURS,
    SHADE,
    StudyFigure,
    class_name,
    colours_of,
    grouped,
    marker_of,
    words,
)

# marker and size: where answers agree, the smaller marker lies on the larger
MODE_STYLE = {
    "empirical": ("o", 10),
    "exact_decision": ("D", 6),
    "monte_carlo": ("^", 10),
    "exact_smoothing": ("s", 5),
}


def mode_dots(table: pd.DataFrame) -> StudyFigure:
    """Show the share of fair points per pair, method and mode, with intervals (`fairness_by_mode`)."""
    pairs, colours = grouped(table), colours_of(table["method"])
    figure = StudyFigure(figsize=(9, 1.6 + 0.3 * len(pairs) * (len(colours) + 0.8)), layout="constrained")
    axes, ticks, names, y = figure.subplots(), [], [], 0.0
    for pair, here in pairs.items():
        for number, (method, colour) in enumerate(colours.items()):
            rows = here[here["method"] == method]
            axes.plot(rows["fair"], [y] * len(rows), color=colour, lw=5, alpha=0.35)
            for _, row in rows.sort_values("mode", key=lambda m: m.map(list(MODE_STYLE).index)).iterrows():
                marker, size = MODE_STYLE[row["mode"]]
                ends = [[row["fair"] - row["fair_low"]], [row["fair_high"] - row["fair"]]]
                axes.errorbar(row["fair"], y, xerr=np.clip(ends, 0, None), ecolor=colour, elinewidth=1)
                look = {"mfc": MODE_COLOURS[row["mode"]], "mec": INK, "ms": size}
                axes.plot(row["fair"], y, marker, clip_on=False, zorder=4, **look)
            ticks.append(y)
            names.append(method if number else f"{words(pair)}   {method}")
            y += 1.0
        y += 0.8
    axes.set(xlim=(-1, 101), ylim=(y - 0.9, -0.9), yticks=ticks, xlabel="judged fair (% of test points)")
    axes.set_yticklabels(names)
    axes.grid(axis="y", visible=False)
    shown = [m for m in MODE_STYLE if m in set(table["mode"])]
    handles = [
        axes.plot([], [], MODE_STYLE[m][0], mfc=MODE_COLOURS[m], mec=INK, ms=MODE_STYLE[m][1])[0]
        for m in shown
    ]
    figure.legend_above(handles, [words(m) for m in shown], ncols=4)
    return figure


def _panels(pairs: Collection[str]) -> tuple[StudyFigure, list]:
    """Return a figure and one titled panel per pair, three in a row, with shared axes."""
    columns = min(3, len(pairs))
    lines = -(-len(pairs) // columns)
    figure = StudyFigure(figsize=(9, 1.0 + 2.4 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, sharey=True, sharex=True, squeeze=False).ravel()
    for axes, pair in zip(panels, pairs, strict=False):
        axes.set_title(textwrap.fill(words(pair), 31), loc="left", fontsize=10)
    for axes in panels[len(pairs) :]:
        axes.remove()
    return figure, list(panels[: len(pairs)])


def slack_curves(rows: pd.DataFrame) -> StudyFigure:
    """Show the distribution of d_rs - d_cs: a panel per pair, a colour per method, a line per mode.

    `rows` need task, sensitive, method, mode and slack; what lies right of zero is certified.
    """
    pairs, colours = grouped(rows), colours_of(rows["method"])
    figure, panels = _panels(pairs)
    styles = {"monte_carlo": "--", "exact_smoothing": "-"}
    low, high = np.quantile(rows["slack"], [0.002, 0.998])
    for axes, here in zip(panels, pairs.values(), strict=True):
        axes.axvspan(0, max(high, 1.0), color=SHADE, lw=0)
        for method, colour in colours.items():
            for mode, line in styles.items():
                x = here.loc[(here["method"] == method) & (here["mode"] == mode), "slack"].sort_values()
                x = x.iloc[:: max(1, len(x) // 120)]  # enough for the eye, and a small file
                if len(x):
                    y = 100 * np.arange(1, len(x) + 1) / len(x)
                    axes.step(x, y, line, where="post", color=colour, lw=1.4)
        axes.set(xlim=(low, max(high, 1.0)), ylim=(0, 100))
    figure.supxlabel("d_rs - d_cs (shaded: certified)", fontsize=9)
    figure.supylabel("% of points below", fontsize=9)
    handles = [panels[0].plot([], [], color=colour, lw=3)[0] for colour in colours.values()]
    handles += [panels[0].plot([], [], styles[m], color=DARK, lw=1.4)[0] for m in styles]
    figure.legend_above(handles, [*colours, *(words(m) for m in styles)])
    return figure


def radius_lines(table: pd.DataFrame, at: float | None = None) -> StudyFigure:
    """Show the share of constant decisions over epsilon: a panel per pair, a line per method.

    `table` is that of `radius_sweep`; a stroke marks `at`, the radius that the encoders were trained for.
    """
    pairs, colours = grouped(table), colours_of(table["method"])
    figure, panels = _panels(pairs)
    for axes, here in zip(panels, pairs.values(), strict=True):
        for method, colour in colours.items():
            rows = here[here["method"] == method].sort_values("epsilon")
            ends = rows["fair_low"], rows["fair_high"]
            axes.fill_between(rows["epsilon"], *ends, color=colour, alpha=0.15, lw=0)
            style = {"marker": marker_of(method), "ms": 4, "color": colour, "label": method}
            axes.plot(rows["epsilon"], rows["fair"], **style)
        if at is not None:
            axes.axvline(at, color=GREY, lw=0.8, ls=":")
        axes.set(ylim=(0, 101))
    figure.supxlabel("epsilon, radius of the similarity set", fontsize=9)
    figure.supylabel("decision constant (% of points)", fontsize=9)
    figure.legend_above(*panels[0].get_legend_handles_labels())
    return figure


def counterexample_figure(pairs: Sequence[tuple[str, np.ndarray, np.ndarray, pd.DataFrame]]) -> StudyFigure:
    """Show faces above similar ones that get another class: (label, faces, similar, table) a double row.

    The parts are as `counterexamples_by_pair` returns them.
    """
    rows, labels, captions = [], [], []
    for label, faces, similar, table in pairs:
        if not len(table):
            continue
        rows += [np.asarray(faces), np.asarray(similar)]
        labels += [label, "similar" if len(table["t"].iloc[0]) == 1 else "similar (class, t)"]
        captions.append([class_name(k) for k in table["prediction"]])
        # several coefficients must fit under a face
        changes = [
            f"t = {t[0]:+z.2f}" if len(t) == 1 else " ".join(f"{x:+z.1f}" for x in t) for t in table["t"]
        ]
        captions.append(
            [f"{class_name(k)}  {t}" for k, t in zip(table["witness_class"], changes, strict=True)]
        )
    if not rows:
        raise ValueError("no counterexample to show")
    return face_rows(rows, labels, captions)
