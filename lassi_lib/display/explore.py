"""One face at a time: moved along attribute vectors, and its certificate in every mode.

The explorers' widgets and the batch run's small multiples draw with the same functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from matplotlib.patches import Circle

from lassi_lib.display.faces import face_rows
from lassi_lib.display.style import (
    BAD,
    FAINT,
    GREY,
    INK,
    OUT_OF_RANGE,
    PAPER,
    StudyFigure,
    class_name,
    colours_of,
    words,
)

_FULL = 0.25  # a difference of a quarter of the range has the fullest colour
MODE_WORDS = {
    "monte_carlo": "Monte Carlo",
    "exact_smoothing": "exact smoothing",
    "exact_decision": "exact decision",
    "empirical": "empirical",
}


def glow_figure(original: np.ndarray, frames: Sequence[Any]) -> StudyFigure:
    """Show moved faces, what has changed, and which pixels no stored image can have.

    The first row shows the faces, clipped for the eye; the second the difference to the face itself,
    orange where it became lighter and purple where darker; the third, on the faded face, pixels of which some
    colour value is above its range (orange) or below it (blue).

    `original` is the face itself, D(z), float [3, S, S]; frames are those of `study.explore`.
    """
    if not frames:
        raise ValueError("no frame to show")
    images = np.stack([original, *(f.image for f in frames)])
    change = colormaps["PuOr_r"]((images - original).mean(1) / (2 * _FULL) + 0.5)[..., :3]
    rows = [_bytes(images + 0.5), _bytes(change.transpose(0, 3, 1, 2)), _marked(images)]
    captions = [
        ["the face", *(f.title for f in frames)],
        ["", *(f"{f.note}{f.distance:.1f} away" for f in frames)],
        ["", *(f"{f.outside:.1f} % outside" for f in frames)],
    ]
    return face_rows(rows, ["decoded", "difference", "out of range"], captions, widest=160)


def _bytes(values: np.ndarray) -> np.ndarray:
    return (values.clip(0, 1) * 255).round().astype(np.uint8)


def _marked(images: np.ndarray) -> np.ndarray:
    """Return faded faces [n, 3, S, S] with the pixels that leave the range in full colour."""
    from lassi_lib.data.preprocess import beyond_images

    faded = np.repeat(_bytes(0.8 + 0.2 * (images + 0.5).clip(0, 1)).mean(1, keepdims=True), 3, axis=1)
    for colour, lost in zip(OUT_OF_RANGE, beyond_images(images), strict=True):
        full = np.round(255 * np.array(to_rgb(colour)))
        faded = np.where(lost.any(1, keepdims=True), full[:, None, None], faded)
    return faded.astype(np.uint8)


def frames_text(frames: Sequence[Any]) -> str:
    """Say of every frame how far it was moved and how much of it no image can hold."""
    return "; ".join(
        f"{f.title}{f', {f.note}' if f.note else ': '}moved by {f.distance:.1f} ({f.spreads:.2f} spreads of the "
        f"latents), {f.outside:.1f} % of values out of range"
        for f in frames
    )


def certificate_figure(views: Sequence[Any]) -> StudyFigure:
    """Show each view's similar faces over the decision's margin, the smoothed certificate, and all answers.

    Left: faces D(z + t a), and under them, at the same t, the distance of R(z + t a) to the nearest boundary
    of the class at t = 0, a stroke at every kink; below zero another class is decided. Middle: the plane through the
    smoothed center (a cross) in which the classifier's boundary is seen edge on, with the curve of R (bold:
    the similarity set) and circles of radius d_cs and d_rs, both of exact smoothing: certified if the first lies
    inside the second. Right: what every mode says, and two faces that are treated differently where there are any.
    """
    if not views:
        raise ValueError("no view to show")
    figure = StudyFigure(figsize=(9.3, 3.5 * len(views)), facecolor=PAPER)
    figure.vector = True
    colours = colours_of(v.method for v in views)
    for place, view in enumerate(views):
        bottom, height = 1 - (place + 1) / len(views), 1 / len(views)

        def axes(
            x: float, y: float, w: float, h: float, bottom: float = bottom, height: float = height
        ) -> Any:
            return figure.add_axes((x, bottom + y * height, w, h * height))

        title = (
            f"{words(view.title)}, {view.method}: test face {view.index}, label "
            f"{class_name(view.label)}, epsilon {view.epsilon:g}, sigma_cs {view.sigma_cs:g}"
        )
        figure.text(0.012, bottom + 0.985 * height, title, va="top", fontsize=10)
        _draw_faces(axes(0.075, 0.70, 0.46, 0.20), view)
        _draw_margin(axes(0.075, 0.145, 0.46, 0.53), view, colours[view.method])
        _draw_plane(axes(0.592, 0.145, 0.2, 0.755), view, colours[view.method])
        _draw_answers(axes(0.81, 0.05, 0.185, 0.85), view)
    return figure


def _draw_faces(axes: Any, view: Any) -> None:
    """Stand every frame, square, over its t, without resampling it."""
    half = (view.t[1] - view.t[0]) / 2
    width, height = axes.get_position().size * axes.figure.get_size_inches()
    side = min(0.96 * width / len(view.t), height)  # inches
    reach = side * half * len(view.t) / width
    for t, image in zip(view.t, view.images, strict=True):
        box = (t - reach, t + reach, 0, side / height)
        axes.imshow(image.transpose(1, 2, 0), extent=box, aspect="auto", interpolation="none")
    axes.set(xlim=(view.t[0] - half, view.t[-1] + half), ylim=(0, 1))
    axes.axis("off")


def _draw_margin(axes: Any, view: Any, colour: str) -> None:
    half = (view.t[1] - view.t[0]) / 2
    inside = np.abs(view.nodes) <= view.epsilon
    ends = np.interp([-view.epsilon, view.epsilon], view.nodes, view.margin)
    t = np.concatenate([[-view.epsilon], view.nodes[inside], [view.epsilon]])
    margin = np.concatenate([ends[:1], view.margin[inside], ends[1:]])
    axes.plot(view.nodes, view.margin, color=colour, lw=1, ls=":")
    axes.plot(t, margin, color=colour, lw=1.8)
    axes.axhline(0, color=INK, lw=0.8)
    low = min(float(view.margin.min()), 0)
    spread = max(float(np.ptp([*view.margin, 0])), 1e-9)
    low, high = low - 0.12 * spread, max(float(view.margin.max()), 0) + 0.12 * spread
    stroke = np.stack([margin - 0.022 * spread, margin + 0.022 * spread, np.full_like(margin, np.nan)], 1)
    axes.plot(np.repeat(t, 3), stroke.ravel(), color=colour, lw=0.7)  # one path: thousands would swell a page
    axes.axhspan(low, 0, color=FAINT, lw=0)
    witness = view.answers.set_index("mode")["witness"].get("exact_decision", np.nan)
    if np.isfinite(witness):
        style = {"ms": 9, "mfc": BAD, "mec": INK, "mew": 0.7}
        axes.plot(witness, float(np.interp(witness, view.nodes, view.margin)), "v", **style)
    count = int((np.abs(view.nodes) < view.epsilon).sum())
    note = f"{count} kinks; shaded: another class is decided"
    axes.text(0.99, 0.02, note, transform=axes.transAxes, ha="right", fontsize=7.5, color=GREY)
    axes.set(xlim=(view.t[0] - half, view.t[-1] + half), ylim=(low, high))
    axes.set_xlabel("t", fontsize=9, labelpad=1)
    axes.set_ylabel("distance to the boundary", fontsize=8.5)
    axes.tick_params(labelsize=8)


def _draw_plane(axes: Any, view: Any, colour: str) -> None:
    t, x, y = view.path.T
    inside = np.abs(t) <= view.epsilon
    radii = [r for r in (view.d_cs, view.d_rs) if np.isfinite(r)]
    reach = 1.12 * max(*radii, float(np.abs(view.path[inside, 1:]).max()), 1e-9)
    axes.plot(x, y, color=colour, lw=0.8, ls=":")
    axes.plot(x[inside], y[inside], color=colour, lw=2)
    axes.plot(0, 0, "+", color=INK, ms=8, mew=1.5)
    axes.plot(np.interp(0, t, x), np.interp(0, t, y), "o", ms=4, mfc=PAPER, mec=INK, mew=0.8)
    if np.isfinite(view.d_rs):
        axes.axvspan(view.d_rs, reach, color=FAINT, lw=0)
        axes.axvline(view.d_rs, color=INK, lw=0.8)
        axes.add_patch(Circle((0, 0), view.d_rs, fill=False, ec=INK, lw=1.1))
    if np.isfinite(view.d_cs):
        axes.add_patch(Circle((0, 0), view.d_cs, fill=False, ec=colour, lw=1.4, ls="--"))
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), box_aspect=1)
    said = f"exact smoothing:\nd_cs {view.d_cs:.2f} (dashed), d_rs {view.d_rs:.2f}"
    axes.set_title(said, fontsize=8, loc="left", pad=3)
    axes.set_xlabel("towards the boundary", fontsize=8, labelpad=1)
    axes.tick_params(labelsize=7)


def _draw_answers(axes: Any, view: Any) -> None:
    axes.axis("off")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    for line, a in enumerate(view.answers.to_dict("records")):
        top = 1 - 0.135 * line
        radii = " (d_cs / d_rs)" if np.isfinite([a["d_cs"], a["d_rs"]]).all() else ""
        axes.text(0, top, MODE_WORDS[a["mode"]] + radii, va="top", fontsize=8, color=GREY)
        axes.text(0, top - 0.05, _said(a), va="top", fontsize=8.5)
    if view.pair is None:
        return
    for place, (image, k) in enumerate(zip(view.pair, view.classes, strict=True)):
        at = axes.inset_axes((0.52 * place, 0.0, 0.48, 0.33))
        at.imshow(image.transpose(1, 2, 0), interpolation="none")
        at.axis("off")
        t = view.answers.set_index("mode")["witness"]["exact_decision"] if place else 0.0
        shown = f"{t:+.2f}" if place else "0"
        at.set_title(f"t = {shown}: {class_name(k)}", fontsize=8, pad=2)
    axes.text(0, 0.42, "treated differently:", fontsize=8, color=GREY)


def _said(a: dict) -> str:
    status = a["status"].replace("_", " ").lower()
    radii = f", {a['d_cs']:.2f} / {a['d_rs']:.2f}" if np.isfinite([a["d_cs"], a["d_rs"]]).all() else ""
    witness = f" at t = {a['witness']:+.2f}" if np.isfinite(a["witness"]) else ""
    return f"{status}{radii}{witness}"


def certificate_text(view: Any, face: str = "") -> str:
    """Say in a sentence or two what `certificate_figure` shows of one view: its alt text.

    `face` is what the face is called, default: its number.
    """
    said = "; ".join(f"{MODE_WORDS[a['mode']]}: {_said(a)}" for a in view.answers.to_dict("records"))
    asked = f"epsilon {view.epsilon:g}, sigma_cs {view.sigma_cs:g}"
    text = f"{words(view.title)}, {view.method}, test face {face or view.index}, {asked}: {said}."
    if view.pair is not None:
        here, there = (class_name(k) for k in view.classes)
        text += f" Two similar faces are treated differently: {here} and {there}."
    return text
