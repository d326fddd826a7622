"""What changes with the length of a training: losses on validation faces, and what is certified."""

from __future__ import annotations

import pandas as pd
from matplotlib.ticker import MaxNLocator

from lassi_lib.display.style import INK, PAPER, RATES, StudyFigure, colours_of, grouped, margins, words

_LOSSES = {
    "valid_cls": "classification loss",
    "valid_rec": "reconstruction loss",
    "valid_adv": "adversarial loss",
    "valid_loss": "total loss",
}


def loss_curves(history: pd.DataFrame) -> StudyFigure:
    """Show the validation losses of each longest training: a row of panels per loss, a line per seed.

    `history` is that of `training_history`; columns of panels are pairs and methods. A dot marks the epoch of
    the lowest total loss. A loss that a method does not have leaves its panel empty.
    """
    longest = history[history["kept"] == "last epoch"]
    key = ["method", "task", "sensitive"]
    longest = longest[longest["epochs"] == longest.groupby(key)["epochs"].transform("max")]
    shown = {name: text for name, text in _LOSSES.items() if name in longest and longest[name].notna().any()}
    has = {
        name: [bool(part[name].notna().any()) for _, part in longest.groupby(key, sort=False)]
        for name in shown
    }
    parts, colours = list(longest.groupby(key, sort=False)), colours_of(longest["method"])
    size = (max(7.5, 3.6 * len(parts)), 0.8 + 1.8 * len(shown))
    figure = StudyFigure(figsize=size, layout="constrained")
    panels = figure.subplots(len(shown), len(parts), sharex="col", squeeze=False)
    for column, ((method, task, sensitive), part) in enumerate(parts):
        for row, (name, text) in enumerate(shown.items()):
            axes = panels[row, column]
            if row == 0:
                axes.set_title(f"{words(method)}\n{words(task)}, {words(sensitive)}", loc="left", fontsize=10)
            if not has[name][column]:
                axes.set_axis_off()
                continue
            if column == has[name].index(True):
                axes.set_ylabel(text, fontsize=9)
            for _, seed in part.groupby("seed", sort=False):
                axes.plot(seed["epoch"], seed[name], lw=1.3, color=colours[method])
                lowest = seed.loc[seed["valid_loss"].idxmin()]
                axes.plot(lowest["epoch"], lowest[name], "o", ms=5, color=INK, clip_on=False)
            axes.set_ylim(bottom=0)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        panels[-1, column].set_xlabel("epoch", fontsize=9)
    return figure


def length_dots(table: pd.DataFrame) -> StudyFigure:
    """Show certified fairness and accuracy of each length, with intervals: a line per pair, method and length.

    `table` is that of `length_table`. Hollow dots are epochs that the original rule keeps, diamonds (and dotted
    lines through the lengths of a method) the published rates, strokes the rate of the majority class.
    """
    colours, shown, references = colours_of(table["method"]), {}, {}
    figure = StudyFigure(figsize=(9, 1.2 + 0.25 * (len(table) + len(grouped(table)))), layout="constrained")
    panels, ticks, names, y = figure.subplots(1, 2, sharey=True), [], [], 0
    for pair, of_pair in grouped(table).items():
        for method, part in of_pair.groupby("method", sort=False):
            lines, colour = [y + i for i in range(len(part))], colours[method]
            for axes, value in zip(panels, RATES, strict=True):
                ends = margins(part, value)
                axes.errorbar(part[value], lines, xerr=ends, ls="none", ecolor=colour, elinewidth=1.6)
                for (_, row), at in zip(part.iterrows(), lines, strict=True):
                    best = row["kept"].startswith("best")
                    (dot,) = axes.plot(row[value], at, "o", ms=7, mec=colour, mfc=PAPER if best else colour)
                    shown[f"{method}, {'best' if best else 'last'} epoch"] = dot
                printed = part[f"eccv_{value}"].dropna()
                if len(printed):
                    axes.plot([printed.iloc[0]] * 2, [y, lines[-1]], ":", color=colour, lw=1.2, zorder=1)
                    (mark,) = axes.plot(printed.iloc[0], y, "D", ms=6, mec=INK, mfc=PAPER, zorder=4)
                    references["published (5 seeds)"] = mark
            ticks += lines
            names += [
                f"{kept.split(' ')[0]} of {n}" for kept, n in zip(part["kept"], part["epochs"], strict=True)
            ]
            names[-len(part)] = f"{words(method)}   {names[-len(part)]}"
            y += len(part)
        names[-len(of_pair)] = f"{words(pair)}   {names[-len(of_pair)]}"
        span = [y - len(of_pair) - 0.4, y - 0.6]
        (stroke,) = panels[1].plot([of_pair["majority_rate"].iloc[0]] * 2, span, color=INK, lw=1)
        references["majority rate"] = stroke
        y += 1
    for axes, text in zip(panels, RATES.values(), strict=True):
        axes.set(ylim=(y - 1.2, -0.8), yticks=ticks, xlabel=text)
        axes.grid(axis="y", visible=False)
    panels[0].set_xlim(-2, 102)
    panels[0].set_yticklabels(names)
    shown |= references
    figure.legend_above(list(shown.values()), list(shown), ncols=4)
    return figure
