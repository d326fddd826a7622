"""A figure as a widget: with its alt text, and clicks given back in the data's own coordinates."""

from __future__ import annotations

import base64
from collections.abc import Callable

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
  draw();
  el.append(image);
}
export default { render };
"""


class Picture(anywidget.AnyWidget):
    """Shows one figure at a time, in an element of class `name`; `clicked(axes number, x, y)` hears of clicks.

    Whatever a click can do must have a control beside it, for those who use no mouse.
    """

    _esm = _SHOW
    src = traitlets.Unicode().tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    clickable = traitlets.Bool(False).tag(sync=True)

    def __init__(self, name: str, clicked: Callable[[int, float, float], None] | None = None) -> None:
        super().__init__(clickable=clicked is not None)
        self.add_class(name)
        self.figure: Figure | None = None
        self._clicked = clicked
        self.on_msg(lambda _widget, content, _buffers: self.click(*content))

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
