"""Faces in rows: every pixel of an image is one (or zoom x zoom) of the picture, nothing is resampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lassi_lib.display.style import DPI, PAPER, StudyFigure, words

_GAP, _PAGE = 2, 900  # pixels between images, width of a page


def montage(
    images: np.ndarray, columns: int, titles: Sequence[str] | None = None, widest: int = _PAGE
) -> StudyFigure:
    """Show images, uint8 [N, 3, S, S], in rows of `columns`, each with a short text under it if there are titles.

    Few faces are enlarged, up to a width of `widest` pixels on the page.
    """
    images = np.asarray(images)
    rows = [images[i : i + columns] for i in range(0, len(images), columns)]
    captions = [list(titles[i : i + columns]) for i in range(0, len(images), columns)] if titles else None
    return face_rows(rows, captions=captions, widest=widest)


def reconstruction_figure(originals: np.ndarray, reconstructions: np.ndarray) -> StudyFigure:
    """Show x above D(E(x)), both uint8 [N, 3, S, S]."""
    return face_rows([np.asarray(originals), np.asarray(reconstructions)], ["x", "D(E(x))"])


def traversal_figure(strips: Mapping[str, np.ndarray], t: Sequence[float]) -> StudyFigure:
    """Show a row per attribute, uint8 [m, 3, S, S]: the decoded latents z + t a at m values of t."""
    names = [words(name) for name in strips]
    bottom = [f"t = {v:g}" if i == 0 else f"{v:g}" for i, v in enumerate(np.round(np.asarray(t), 3) + 0.0)]
    return face_rows([np.asarray(s) for s in strips.values()], names, [*[[]] * (len(names) - 1), bottom])


def face_at(x: float, y: float, count: int, columns: int, shape: tuple[int, ...]) -> int | None:
    """Return which of the faces of a `montage` (from 0) lies at (x, y) of its picture, None where none does.

    Parameters
    ----------
    x, y : float
        A point of the picture, in its pixels from the top left.
    count : int
        How many faces the montage has.
    columns : int
        As in `montage`.
    shape : tuple of int
        The picture's, [height, width, ...].
    """
    rows, columns = -(-count // columns), min(columns, count)
    pitch = ((shape[0] + _GAP) / rows, (shape[1] + _GAP) / columns)  # every row has captions, or none
    number = int(y // pitch[0]) * columns + int(x // pitch[1])
    return number if 0 <= number < count else None


_LETTER = 6  # pixels of a caption's letter, on average


def face_rows(
    rows: list[np.ndarray],
    labels: Sequence[str] = (),
    captions: list[list[str]] | None = None,
    widest: int = _PAGE,
) -> StudyFigure:
    """Draw rows of images [m, 3, S, S], each `widest` pixels at most, with labels before rows and captions."""
    size, columns = rows[0].shape[-1], max(len(row) for row in rows)
    text = [any(c) for c in captions] if captions else [False] * len(rows)
    longest = max((len(c) for texts in captions or [] for c in texts), default=0)
    zoom = max(1, min(_PAGE // (columns * (size + _GAP)), widest // size))
    if columns > 1:  # captions side by side must not overlap
        zoom = max(zoom, -(-_LETTER * longest // (size + _GAP)))
    line = -(-16 // zoom)  # height of a line of captions, in image pixels
    tops = np.cumsum([0] + [size + _GAP + line * t for t in text])
    canvas = np.full((tops[-1] - _GAP, columns * (size + _GAP) - _GAP, 3), 255, np.uint8)
    for row, top in zip(rows, tops, strict=False):
        for column, image in enumerate(row):
            left = column * (size + _GAP)
            canvas[top : top + size, left : left + size] = image.transpose(1, 2, 0)
    margin = 8 + 7 * max((len(label) for label in labels), default=-1)  # pixels, for the labels
    height, width = zoom * canvas.shape[0], zoom * canvas.shape[1]
    figure = StudyFigure(figsize=((width + margin) / DPI, height / DPI), dpi=DPI, facecolor=PAPER)
    axes = figure.add_axes((margin / (width + margin), 0, width / (width + margin), 1))
    axes.imshow(
        canvas, interpolation="nearest", extent=(0, canvas.shape[1], canvas.shape[0], 0), aspect="auto"
    )
    axes.axis("off")
    for label, top in zip(labels, tops, strict=False):
        axes.text(-6 / zoom, top + size / 2, label, ha="right", va="center", fontsize=9)
    for top, texts in zip(tops, captions or [], strict=False):
        for column, caption in enumerate(texts):
            centre = column * (size + _GAP) + size / 2
            axes.text(centre, top + size + line / 2, caption, ha="center", va="center", fontsize=8)
    return figure
