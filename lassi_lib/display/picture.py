"""A figure as a widget: with its alt text, clicks given back in the data's own coordinates, and dropped files."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import anywidget
import traitlets
from matplotlib.figure import Figure

from lassi_lib.display.style import StudyFigure

_SHOW = """
function render({ model, el }) {
  const image = document.createElement("img");
  image.style.maxWidth = "100%";
  const draw = () => {
    image.src = model.get("src");
    image.alt = model.get("alt");
    image.style.cursor = model.get("clickable") ? "pointer" : "default";
  };
  model.on("change", draw);
  image.addEventListener("click", (event) => {
    const box = image.getBoundingClientRect();
    model.send([(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height]);
  });
  if (model.get("most_bytes")) {
    el.addEventListener("dragover", (event) => event.preventDefault());
    el.addEventListener("drop", async (event) => {
      event.preventDefault();
      event.stopPropagation();
      const file = event.dataTransfer.files[0];
      if (!file) return;
      const fits = file.size <= model.get("most_bytes");
      model.send({ name: file.name, size: file.size }, undefined, fits ? [await file.arrayBuffer()] : []);
    });
  }
  draw();
  el.append(image);
}
export default { render };
"""


class Picture(anywidget.AnyWidget):
    """Shows one figure at a time, in an element of class `name`.

    Whatever a click or a dropped file can do must have a control beside it, for those who use no mouse.

    Parameters
    ----------
    name : str
        Class of the element.
    clicked : callable, optional
        ``clicked(axes number, x, y)`` hears of clicks.
    dropped : callable, optional
        ``dropped(name, size, content)`` hears of a file that is dropped on the figure; one larger than
        `most_bytes` stays where it is, and content is empty.
    most_bytes : int
        See `dropped`.
    """

    _esm = _SHOW
    src = traitlets.Unicode().tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    clickable = traitlets.Bool(False).tag(sync=True)
    most_bytes = traitlets.Int(0).tag(sync=True)

    def __init__(
        self,
        name: str,
        clicked: Callable[[int, float, float], None] | None = None,
        dropped: Callable[[str, int, bytes], None] | None = None,
        most_bytes: int = 0,
    ) -> None:
        super().__init__(clickable=clicked is not None, most_bytes=most_bytes if dropped else 0)
        self.add_class(name)
        self.figure: Figure | None = None
        self._clicked, self._dropped = clicked, dropped
        self.on_msg(self._heard)

    def _heard(self, _: Any, content: Any, buffers: list) -> None:
        if isinstance(content, list):
            self.click(*content)
        elif self._dropped is not None:
            self._dropped(content["name"], content["size"], bytes(buffers[0]) if buffers else b"")

    def show(self, figure: StudyFigure, alt: str) -> None:
        """Show a figure, and say what is seen on it."""
        figure.alt = alt
        (kind, content), self.figure = figure.encoded(quick=True), figure
        with self.hold_sync():
            self.src = f"data:{kind};base64,{base64.b64encode(content).decode()}"
            self.alt = alt

    def click(self, x: float, y: float) -> None:
        """Hear of a click at fractions x, y of the picture, from its upper left corner."""
        if self.figure is None or self._clicked is None:
            return
        at = x * self.figure.bbox.width, (1 - y) * self.figure.bbox.height
        for number, axes in enumerate(self.figure.axes):
            if axes.bbox.contains(*at):
                self._clicked(number, *map(float, axes.transData.inverted().transform(at)))
                return
