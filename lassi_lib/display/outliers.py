"""Hard pairs in pictures: faces along a vector with their certificates, ratios over what may explain them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import TwoSlopeNorm
from matplotlib.patches import Rectangle

from lassi_lib.display.style import (
    DPI,
    GREY,
    INK,
    PAPER,
    StudyFigure,
    class_name,
    colours_of,
    heatmap,
    marker_of,
    words,
)

_AXES = {
    "abs_phi": "|phi| of attribute and task in the labels",
    "log_positives": "positives of the attribute in training",
    "norm_to_spread": "||a|| / spread of latents",
    "abs_cos": "|cos(a, normal of the task's boundary)|",
}
_GAP = 2  # pixels between frames


def strip_figure(strips: Sequence[Any]) -> StudyFigure:
    """Show each of `strips` along its vector and, below, each method's decisions and certificate.

    Below the frames a dot says that the unsmoothed class is that of the face itself (t = 0), a cross that
    it is not; a triangle stands at the coefficient t that refutes the exact decision.
    """
    if not strips:
        raise ValueError("no strip to show")
    size, m = strips[0].images.shape[-1], len(strips[0].t)
    zoom = -(-64 // size)
    wide, line, text = m * (size + _GAP) * zoom, 19, 430  # pixels: frames, a method's line, words beside
    heights = [size * zoom + line * len(s.answers) + 16 for s in strips]
    width, height = wide + text + 12, sum(heights) + 24
    figure = StudyFigure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=PAPER)
    figure.vector = True
    colours = colours_of(x for s in strips for x in s.answers["method"])
    top = height - 22
    for number, strip in enumerate(strips):
        frame = figure.add_axes((6 / width, (top - size * zoom) / height, wide / width, size * zoom / height))
        padded = np.pad(strip.images, ((0, 0), (0, 0), (0, 0), (0, _GAP)), constant_values=255)
        row = np.concatenate(list(padded.transpose(0, 2, 3, 1)), axis=1)
        frame.imshow(row, interpolation="none", aspect="auto")  # "nearest" enlarges what an SVG holds
        frame.axis("off")
        if number == 0:
            for j, t in enumerate(strip.t):
                shown = f"{'t = ' if j == 0 else ''}{t:+.2f}"
                frame.text((j + 0.45) * (size + _GAP), -3, shown, ha="center", fontsize=8)
        beside = f"{words(strip.pair)}\ntest face {strip.index}, label {class_name(strip.label)}"
        frame.text(1.02, 0.5, beside, transform=frame.transAxes, va="center", fontsize=9, linespacing=1.5)
        rows = len(strip.answers)
        marks = figure.add_axes(
            (6 / width, (top - size * zoom - line * rows) / height, wide / width, line * rows / height)
        )
        step, start = strip.t[1] - strip.t[0], strip.t[0]
        for y, a in enumerate(strip.answers.to_dict("records")):
            same, place = np.array(a["classes"]) == a["classes"][m // 2], np.arange(m)
            style = {"color": colours[a["method"]], "ls": "none"}
            marks.plot(place[same], np.full(same.sum(), y), "o", ms=5, **style)
            marks.plot(place[~same], np.full((~same).sum(), y), "x", ms=7, mew=2.2, **style)
            if np.isfinite(a["t"]):
                marks.plot((a["t"] - start) / step, y - 0.3, "v", ms=6, mec=INK, mew=0.7, **style)
            marks.text(m - 0.36, y, _certificate(a), va="center", fontsize=8)
        marks.set(xlim=(-0.5, m - 0.5), ylim=(rows - 0.4, -0.75))
        marks.axis("off")
        top -= heights[number]
    return figure


def _certificate(a: dict) -> str:
    radii = (
        f"d_cs {a['d_cs']:.2f}, d_rs {a['d_rs']:.2f}: " if np.isfinite([a["d_cs"], a["d_rs"]]).all() else ""
    )
    exact = f" at t = {a['t']:+.2f}" if np.isfinite(a["t"]) else ""
    return f"{a['method']}: {radii}{words(a['status']).lower()}; exactly {a['decision'].lower()}{exact}"


def outlier_scatter(means: pd.DataFrame, fits: pd.DataFrame, labelled: Iterable[str]) -> StudyFigure:
    """Show d_cs / d_rs over each predictor (`pair_means`): a panel per predictor, a marker per pair and method.

    Rank correlations are those of `regress`, of the log ratio. Pairs `labelled`, 'Task/Attribute', are named
    at the last method's marker.
    """
    methods = list(dict.fromkeys(means["method"]))
    colours, figure = colours_of(methods), StudyFigure(figsize=(9.5, 8), layout="constrained")
    panels = figure.subplots(2, 2, sharey=True).ravel()
    means = means[np.isfinite(means["ratio"])]
    pairs = means["task"] + "/" + means["sensitive"]
    for axes, (name, label) in zip(panels, _AXES.items(), strict=True):
        axes.axhline(1, color=GREY, lw=0.8, ls=":")
        values, said = np.exp(means[name]) if name == "log_positives" else means[name], []
        for method in methods:
            mine = means["method"] == method
            style = {"color": colours[method], "ms": 6, "ls": "none", "label": method}
            axes.plot(values[mine], means["ratio"][mine], marker_of(method), **style)
            fit = fits[(fits["method"] == method) & (fits["predictor"] == name)].iloc[0]
            rho, low, high = fit[["spearman", "spearman_low", "spearman_high"]]
            known = np.isfinite(rho)
            said.append(
                f"{method} {rho:.2f} [{low:.2f}, {high:.2f}]" if known else f"{method}: too few pairs"
            )
        middle = values.median()
        named = means.index[pairs.isin(list(labelled)) & (means["method"] == methods[-1])]
        for k, i in enumerate(sorted(named, key=means["ratio"].get)):  # the lower half is named below
            x, y = values[i], means.loc[i, "ratio"]
            axes.plot(x, y, "o", mfc="none", mec=INK, ms=11)
            side = "right" if x > middle else "left"  # names stay inside the panel
            style = {"textcoords": "offset points", "ha": side, "fontsize": 8}
            style["arrowprops"] = {"arrowstyle": "-", "color": GREY, "lw": 0.7, "shrinkB": 5}
            axes.annotate(
                words(pairs[i]).replace("/", " / "),
                (x, y),
                (0, -17 if 2 * k + 1 < len(named) else 9),
                **style,
            )
        axes.set(yscale="log", xlabel=label, xscale="log" if name == "log_positives" else "linear")
        axes.set_title("rank correlation: " + ", ".join(said), loc="left", fontsize=8)
        axes.margins(0.12)
    figure.supylabel("d_cs / d_rs, median over test points (below 1: most are certified)", fontsize=9)
    figure.legend_above(*panels[0].get_legend_handles_labels(), ncols=4)
    return figure


# column of `pair_means` -> what its panel is called, and the format of a cell
_PANELS = {
    "ratio": ("d_cs / d_rs, median (purple, below 1: most are certified)", "{:.3g}"),
    "certified_fairness": ("certified fairness, % of faces", "{:.0f}"),
    "phi": ("phi of attribute and task in the labels (orange: positive)", "{:+z.2f}"),
    "cos_task": ("cos(a, normal of the task's boundary; orange: positive)", "{:+z.2f}"),
}


def _reach(values: np.ndarray, share: float) -> float:
    """Return how far a colour scale has to reach for so large a share of the values."""
    return max(float(np.quantile(values, share)) if len(values) else 0.0, 0.1)


def outlier_matrix(means: pd.DataFrame, method: str, chosen: tuple[str, str] | None = None) -> StudyFigure:
    """Show every attribute (rows) and task (columns) of a method in four heat maps; missing pairs stay empty.

    `means` are `pair_means`; a cell (task, attribute) may be `chosen`: it is framed in every panel.
    """
    means = means[means["method"] == method]
    tasks, attributes = (list(dict.fromkeys(means[c])) for c in ("task", "sensitive"))
    size = 2.2 + 1.1 * len(tasks), 1.25 + 0.34 * len(attributes)
    figure = StudyFigure(figsize=(min(max(2 * size[0], 9.3), 10.5), 2 * size[1]), layout="constrained")
    for axes, (name, (title, form)) in zip(figure.subplots(2, 2).ravel(), _PANELS.items(), strict=True):
        grid = (
            means.pivot(index="sensitive", columns="task", values=name).loc[attributes, tasks].astype(float)
        )
        text = [[form.format(v) for v in row] for row in grid.to_numpy()]
        if name == "certified_fairness":
            colours = {"cmap": "cividis", "vmin": 0, "vmax": 100}
        else:
            known = grid.to_numpy()[np.isfinite(grid.to_numpy())]
            low = high = _reach(np.abs(known), 1.0)
            if name == "ratio":  # 1 is the middle, on a logarithmic scale; a few may lie far out
                grid, known = np.log(grid.clip(1e-6, 1e6)), np.log(known.clip(1e-6, 1e6))
                low, high = (_reach(side, 0.9) for side in (-known[known < 0], known[known > 0]))
            colours = {"cmap": "PuOr_r", "norm": TwoSlopeNorm(0.0, -low, high)}
        heatmap(axes, grid, text, **colours)
        axes.set_title(title, loc="left", fontsize=9.5)
        if chosen is not None:
            cell = tasks.index(chosen[0]) - 0.5, attributes.index(chosen[1]) - 0.5
            axes.add_patch(Rectangle(cell, 1, 1, fill=False, ec=INK, lw=3, clip_on=False))
            axes.add_patch(Rectangle(cell, 1, 1, fill=False, ec=PAPER, lw=1.2, clip_on=False))
    return figure
