"""True counterfactuals in pictures: what is drawn beside what the flow makes, and who keeps the decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from lassi_lib.display.faces import face_rows
from lassi_lib.display.style import DARK, PAPER, StudyFigure, colours_of, marker_of, pair_names, words


def kept_dots(table: pd.DataFrame) -> StudyFigure:
    """Show the share of points that keep their decision on true counterfactuals, with intervals.

    `table` is that of `truth_table`: a panel per mode, a line per pair, attribute and method; filled marks
    are points found fair, hollow ones all others. A line without marks has no such points.
    """
    modes, methods = list(dict.fromkeys(table["mode"])), list(dict.fromkeys(table["method"]))
    differs = table["attribute"] != table["sensitive"]
    added = (" (" + table["attribute"] + ")").where(differs, "")
    names = [pair + more for pair, more in zip(pair_names(table), added, strict=True)]
    pairs = list(dict.fromkeys(names))
    colours = colours_of(methods)
    figure = StudyFigure(figsize=(9, 1.6 + 0.26 * len(pairs) * (len(methods) + 0.6)), layout="constrained")
    panels = figure.subplots(1, len(modes), sharex=True, sharey=True, squeeze=False)[0]
    y = np.array([pairs.index(n) for n in names]) * (len(methods) + 0.6)
    y = y + np.array([methods.index(m) for m in table["method"]])
    for axes, mode in zip(panels, modes, strict=True):
        for row, at in zip(table.to_dict("records"), y, strict=True):
            if row["mode"] != mode:
                continue
            for group, lift in (("fair", -0.16), ("others", 0.16)):
                x, low, high = (row[f"kept_{group}{end}"] for end in ("", "_low", "_high"))
                if np.isnan(x):
                    continue
                colour = colours[row["method"]]
                axes.plot([low, high], [at + lift] * 2, color=colour, lw=1.2)
                axes.plot(x, at + lift, marker_of(row["method"]), ms=6, mec=colour, clip_on=False,
                          mfc=colour if group == "fair" else PAPER, zorder=4)  # fmt: skip
        axes.set_title(words(mode), loc="left", fontsize=10)
        axes.grid(axis="y", visible=False)
    ends = table[["kept_fair_low", "kept_others_low"]].min().min()
    axes.set(xlim=(max(0, 5 * np.floor(np.nan_to_num(ends) / 5)), 100.5))
    middle = (len(methods) - 1) / 2 + np.arange(len(pairs)) * (len(methods) + 0.6)
    panels[0].set_yticks(middle, [words(p) for p in pairs])
    panels[0].set_ylim(y.max() + 0.7, -0.7)
    figure.supxlabel("keep their decision on all true counterfactuals (% of points)", fontsize=9)
    handles = [panels[0].plot([], [], marker_of(m), color=colours[m])[0] for m in methods]
    handles += [panels[0].plot([], [], "o", mec=DARK, mfc=c)[0] for c in (DARK, PAPER)]
    figure.legend_above(handles, [*methods, "found fair", "all others"])
    return figure


def true_strips(
    drawn: Mapping[str, np.ndarray], decoded: Mapping[str, np.ndarray], values: Sequence, t: Sequence[float]
) -> StudyFigure:
    """Show, per attribute, images drawn with v values of its factor above m latents decoded along its vector.

    Attribute -> uint8 [v, 3, S, S] and [m, 3, S, S]; `t` are the coefficients.
    """
    rows, labels, captions = [], [], []
    for name, images in drawn.items():
        rows += [np.asarray(images), np.asarray(decoded[name])]
        labels += [f"{words(name)}, drawn", "z + t a, decoded"]
        captions += [[f"{v:g}" for v in values], [f"t = {x:+.2g}" for x in t]]
    return face_rows(rows, labels, captions)
