"""Rates over one hyperparameter, with intervals and the published points beside."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lassi_lib.display.style import PAPER, RATES, StudyFigure, colours_of, grouped, words

_STYLES = ("-", "--", ":", "-.")


def setting_lines(
    table: pd.DataFrame, setting: str, values: Mapping[str, str] = RATES, ceilings: bool = False
) -> StudyFigure:
    """Show values over one setting: a column of panels per pair, a colour per method, a line per certificate.

    The table has task, sensitive, method, certificate, the setting as text (its values stand at equal
    distances, since one may be 0), the values with ``_low`` and ``_high`` (a band) and ``eccv_...`` (diamonds),
    where there are such columns. `values` are columns to show, each in a row of panels, and what they are
    called. `ceilings` mark the sigma_rs at which the largest possible d_rs equals the mean d_cs: left of it
    about half of the points or more cannot be certified.
    """
    certificates, colours = list(dict.fromkeys(table["certificate"])), colours_of(table["method"])
    ticks = sorted(table[setting].unique(), key=float)
    by_setting = {"by": setting, "key": lambda column: column.astype(float), "kind": "stable"}
    pairs = {pair: part.sort_values(**by_setting) for pair, part in grouped(table).items()}
    size = (max(7.5, 4.3 * len(pairs)), 1.2 + 2.2 * len(values))
    figure = StudyFigure(figsize=size, layout="constrained")
    panels = figure.subplots(len(values), len(pairs), sharex=True, sharey="row", squeeze=False)
    shown: dict[str, object] = {}
    for (row, value), (column, pair) in ((r, c) for r in enumerate(values) for c in enumerate(pairs)):
        axes = panels[row, column]
        for (method, certificate), part in pairs[pair].groupby(["method", "certificate"], sort=False):
            x, colour = [ticks.index(t) for t in part[setting]], colours[method]
            style = _STYLES[certificates.index(certificate)]
            name = f"{method}, {words(certificate)}" if len(certificates) > 1 else method
            (shown[name],) = axes.plot(x, part[value], style, marker="o", ms=3, lw=1.4, color=colour)
            if f"{value}_low" in part:
                ends = part[f"{value}_low"], part[f"{value}_high"]
                axes.fill_between(x, *ends, color=colour, alpha=0.12, lw=0)
            if f"eccv_{value}" in part and part[f"eccv_{value}"].notna().any():
                (shown[f"{method}, published"],) = axes.plot(
                    x, part[f"eccv_{value}"], "D", ms=5, mfc=PAPER, mec=colour, ls="none", clip_on=False
                )
            if ceilings and row == 0 and part["ceiling"].notna().all():
                at = (part["d_cs_mean"] * part[setting].astype(float) / part["ceiling"]).iloc[0]
                known = np.log([float(t) for t in ticks])
                place = np.interp(np.log(at), known, range(len(ticks)), left=np.nan, right=np.nan)
                axes.axvline(place, color=colour, lw=1, ls=style)
        if value == "certified_fairness":
            axes.set_ylim(-1, 101)
        elif value == "accuracy":
            axes.set_ylim(max(axes.get_ylim()[0] - 5, 0), min(axes.get_ylim()[1] + 5, 100))
        axes.set_xticks(range(len(ticks)), ticks)
        if row == 0:
            axes.set_title(words(pair), loc="left", fontsize=10)
        if column == 0:
            axes.set_ylabel(values[value], fontsize=9)
    figure.supxlabel(setting, fontsize=9)
    figure.legend_above(list(shown.values()), list(shown), ncols=3)
    return figure
