"""One look for every figure (colours, marks, names, legends), and one way to save it: equal data, equal bytes."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from PIL import Image

from lassi_lib.files import whole

# Okabe & Ito's palette, told apart by all common kinds of colour vision; markers differ as well.
METHOD_COLOURS = {"Naive": "#E69F00", "DataAug": "#009E73", "LASSI": "#0072B2"}
_MARKERS = {"Naive": "o", "DataAug": "s", "LASSI": "^"}
CLASSES = ("no", "yes")  # what the classes 0 and 1 are called
_OTHERS = ("#CC79A7", "#56B4E9", "#D55E00", "#000000")
RATES = {"certified_fairness": "certified fairness (%)", "accuracy": "accuracy (%)"}  # what axes call them
INK, PAPER = "black", "white"  # marks and words, and what they stand on
DARK, GREY = "#333333", "#555555"  # intervals and tick labels; strokes and notes
PALE = "#999999"  # a key's fill that stands for every method
SHADE, FAINT = "#eef3f8", "#eeeeee"  # behind what is certified or expected; behind another class
GOOD, BAD = "#0072B2", "#D55E00"  # what agrees, and what disagrees or is refuted
OUT_OF_RANGE = "#0072B2", "#E69F00"  # values below and above those that an image can hold
MODE_COLOURS = {"empirical": PAPER, "exact_decision": "#111111"}
MODE_COLOURS |= {"monte_carlo": "#d9d9d9", "exact_smoothing": "#8c8c8c"}
DPI = 100
_MAX_SVG = 450_000  # bytes; a larger drawing is shown as PNG
_METADATA = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}


class StudyFigure(Figure):
    """A figure that needs no pyplot and shows itself in a notebook together with its alt text."""

    alt = ""
    vector = False  # set where there are pictures among lines: kept as SVG too, pictures as they are

    def legend_above(self, handles: Sequence, names: Sequence[str], ncols: int = 6, **look: Any) -> Any:
        """Put the legend above all panels, in as many columns (of at most `ncols`) as the figure is wide."""
        inches = 0.6 + 0.085 * max(map(len, names), default=0)  # of one entry: its mark, and 9-point letters
        ncols = min(ncols, max(1, int(self.get_figwidth() / inches)))
        return self.legend(handles, names, loc="outside upper center", ncols=ncols, frameon=False, **look)

    def encoded(self, quick: bool = False) -> tuple[str, bytes]:
        """Return media type and content: small SVG, else PNG; `quick` has the same pixels in more bytes."""
        svg = b"" if has_images(self) else _render(self, "svg")
        if 0 < len(svg) <= _MAX_SVG:
            return "image/svg+xml", svg
        return "image/png", _quick_png(self) if quick else _render(self, "png")

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict, dict]:
        kind, content = self.encoded()
        shown = content.decode() if kind == "image/svg+xml" else content
        return {kind: shown, "text/plain": self.alt or "A figure"}, {"alt": self.alt}


def use_style() -> None:
    """Set the study's theme for all figures that follow, and let tables be shown whole."""
    import seaborn

    pd.set_option("display.max_colwidth", None, "display.max_rows", None, "display.max_columns", None)

    rc = {"axes.titlesize": 11, "axes.labelsize": 10, "xtick.labelsize": 9, "ytick.labelsize": 9}
    rc |= {"legend.fontsize": 9, "figure.dpi": DPI, "savefig.dpi": DPI, "grid.color": "#e4e4e4"}
    seaborn.set_theme(
        context="notebook", style="whitegrid", palette=[*METHOD_COLOURS.values(), *_OTHERS], rc=rc
    )


def colours_of(methods: Iterable[str]) -> dict[str, str]:
    """Return each method once, with its colour: the fixed ones, and the palette's rest for unknown methods."""
    methods = list(dict.fromkeys(methods))
    unknown = [m for m in methods if m not in METHOD_COLOURS]
    return {m: METHOD_COLOURS.get(m) or _OTHERS[unknown.index(m) % len(_OTHERS)] for m in methods}


def marker_of(method: str) -> str:
    """Return a method's marker."""
    return _MARKERS.get(method, "D")


def words(name: object) -> str:
    """Return a name as people read it: 'Pale Skin + Young' for 'Pale_Skin+Young'."""
    return str(name).replace("_", " ").replace("+", " + ")


def class_name(k: int) -> str:
    """Return what a class is called: 'none' for an abstention."""
    return CLASSES[k] if 0 <= k < len(CLASSES) else "none" if k < 0 else str(k)


def pair_names(table: pd.DataFrame) -> list[str]:
    """Return 'task / sensitive' of every row."""
    return [f"{t} / {s}" for t, s in zip(table["task"], table["sensitive"], strict=True)]


def grouped(table: pd.DataFrame, names: Sequence[str] = ()) -> dict[str, pd.DataFrame]:
    """Return the rows of each of `names` (default: `pair_names`), in the order of first occurrence."""
    of_row = np.array(list(names) or pair_names(table), dtype=object)
    return {name: table[of_row == name] for name in dict.fromkeys(of_row)}


def margins(rows: pd.DataFrame, value: str) -> np.ndarray:
    """Return how far the interval of a column reaches down and up, [2, n], as `errorbar` takes it."""
    middle = rows[value].to_numpy(float)
    return np.stack([middle - rows[f"{value}_low"], rows[f"{value}_high"] - middle]).clip(0)


def heatmap(axes: Axes, grid: pd.DataFrame, text: Sequence[Sequence[str]], **colours: Any) -> QuadMesh:
    """Draw a grid of values with a text in every cell that has one, black or white as its colour asks."""
    edges = (np.arange(n + 1) - 0.5 for n in reversed(grid.shape))
    shown = np.ma.masked_invalid(grid.to_numpy(float))
    image = axes.pcolormesh(*edges, shown, edgecolors=PAPER, linewidth=1, **colours)  # vectors, no picture
    axes.invert_yaxis()
    for i, row in enumerate(grid.to_numpy(float)):
        for j, value in enumerate(row):
            known = bool(np.isfinite(value))
            light = np.dot(image.cmap(image.norm(value if known else 0.0))[:3], (0.299, 0.587, 0.114))
            style = {"ha": "center", "va": "center", "fontsize": 9, "color": INK if light > 0.5 else PAPER}
            axes.text(j, i, text[i][j] if known else "", **style)
    axes.set(xticks=range(grid.shape[1]), yticks=range(grid.shape[0]))
    axes.set_xticklabels([words(c) for c in grid.columns], rotation=20, ha="right")
    axes.set_yticklabels([words(r) for r in grid.index])
    axes.grid(visible=False)
    return image


def has_images(figure: Figure) -> bool:
    """Whether a figure is one of pictures (kept as PNG only) rather than of lines."""
    return any(axes.images for axes in figure.axes) and not getattr(figure, "vector", False)


def save_figure(figure: Figure, folder: str | Path, name: str, alt: str) -> str:
    """Save a figure as folder/<name>.png, and lines as .svg too; close it.

    `alt` says what it shows, for those who cannot see it. Returns the PNG's path relative to the results,
    'figures/<name>.png'.
    """
    if not alt.strip():
        raise ValueError(f"figure {name} needs an alt text that says what it shows")
    folder = Path(folder)
    for kind in ("png",) if has_images(figure) else ("png", "svg"):
        with whole(folder / f"{name}.{kind}") as draft:
            draft.write_bytes(_render(figure, kind))
    figure.alt = alt
    if not isinstance(figure, StudyFigure):
        from matplotlib import pyplot

        pyplot.close(figure)
    return f"{folder.name}/{name}.png"


def _render(figure: Figure, kind: str) -> bytes:
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # keep this layout: a second one would differ in the last digits
    content = io.BytesIO()
    with rc_context({"svg.hashsalt": "lassi", "svg.fonttype": "path"}):
        figure.savefig(content, format=kind, dpi=DPI, metadata=_METADATA[kind])
    if kind == "png":  # opaque, so a tenth of the bytes can go
        opaque, content = Image.open(content).convert("RGB"), io.BytesIO()
        opaque.save(content, "PNG", optimize=True, dpi=(DPI, DPI))
    return content.getvalue()


def _quick_png(figure: Figure) -> bytes:
    """Draw once and encode once: a widget's picture is looked at for a moment, its size is no matter."""
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    opaque = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba()).convert("RGB")
    content = io.BytesIO()
    opaque.save(content, "PNG", compress_level=1)
    return content.getvalue()
