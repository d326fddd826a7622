"""How an encoder's losses on validation faces change with the epochs, and where the original rule stops."""

from __future__ import annotations

import pandas as pd
from matplotlib.ticker import MaxNLocator

from lassi_lib.display.style import INK, StudyFigure, colours_of, words

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
