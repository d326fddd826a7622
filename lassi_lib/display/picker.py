"""Parts of the explorers: where a test face is chosen, and the line that says what is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import ipywidgets as w
import numpy as np

from lassi_lib.display.faces import face_at, montage
from lassi_lib.display.picture import Picture
from lassi_lib.errors import StudyError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lassi_lib.study.study import Study

WIDE = {"description_width": "initial"}
PER_PAGE = 24  # faces to choose from
_COLUMNS, _WIDEST = 12, 72


def called(study: Study, index: int) -> str:
    """Return a test face's number, with its id in the data set where that is another one."""
    name = str(study.dataset("test").ids[index])
    return str(index) if name == str(index) else f"{index} ({name})"


class Said(w.HTML):
    """One line of text below a figure; users' mistakes stand there too."""

    def say(self, text: str, bad: bool = False) -> None:
        """Show a text, in bold if something is wrong."""
        self.value = f"<b>{escape(text)}</b>" if bad else escape(text)

    @contextmanager
    def mistakes(self) -> Iterator[None]:
        """Say a `StudyError` instead of raising it."""
        try:
            yield
        except StudyError as error:
            self.say(str(error), bad=True)


class FacePicker(w.VBox):
    """Chooses a test face: by a click, by number or id, at random, within a group; `chosen(index)` hears of it.

    `groups` are names of groups and the faces in them; `title(index)` is what stands under a face. An id is
    the data set's own name of a face (CelebA's 000105.jpg), with or without its ending.
    """

    def __init__(
        self,
        study: Study,
        groups: Mapping[str, Sequence[int]],
        chosen: Callable[[int], None],
        title: Callable[[int], str] = str,
    ) -> None:
        self._study, self._chosen, self._title = study, chosen, title
        self._random = np.random.default_rng()
        last = len(study.latents("test")) - 1
        self.group = w.Dropdown(description="faces", style=WIDE)
        self.page = w.BoundedIntText(1, min=1, description="page", style=WIDE, layout={"width": "8em"})
        self.number = w.BoundedIntText(
            0, min=0, max=last, description="face number", style=WIDE, layout={"width": "11em"}
        )
        self.random = w.Button(description="random face", layout={"width": "8em"})
        ids = study.dataset("test").ids
        self._ids = {str(name): i for i, name in enumerate(ids[: last + 1]) if str(name) != str(i)}
        self.id = w.Text(description="or id", continuous_update=False, style=WIDE, layout={"width": "12em"})
        self.said = Said()
        self.picture = Picture("lassi-faces", self._clicked)
        chosen_by = [self.group, self.page, self.number, *([self.id] if self._ids else []), self.random]
        super().__init__([w.HBox(chosen_by), self.said, self.picture])
        self.group.observe(self._regroup, "value")
        self.page.observe(lambda _: self._draw(), "value")
        self.number.observe(lambda change: self._chosen(change["new"]), "value")
        self.id.observe(lambda change: self._named(change["new"].strip()), "value")
        self.random.on_click(lambda _: self.choose(int(self._random.choice(self._members()))))
        self.offer(groups)

    def offer(self, groups: Mapping[str, Sequence[int]]) -> None:
        """Offer other groups; empty ones are left out."""
        self._groups = {f"{name} ({len(found)})": list(found) for name, found in groups.items() if len(found)}
        options, kept = list(self._groups), str(self.group.value).rpartition(" (")[0]
        self.group.options = options  # chooses the first
        self.group.value = next((o for o in options if o.rpartition(" (")[0] == kept), options[0])
        self._draw()

    def first(self) -> int:
        """Return the first face of the group."""
        return self._members()[0]

    def choose(self, index: int) -> None:
        """Choose a face."""
        if index == self.number.value:
            self._chosen(index)
        self.number.value = index

    def _named(self, name: str) -> None:
        """Choose the face with an id."""
        found = [i for known, i in self._ids.items() if name in (known, PurePath(known).stem)]
        self.said.say("")
        if found:
            self.choose(found[0])
        elif name:
            self.said.say(f"id '{name}' is not among the test faces{nearest(name, self._ids)}", bad=True)

    def _members(self) -> list[int]:
        return self._groups[self.group.value]

    def _shown(self) -> list[int]:
        start = PER_PAGE * (self.page.value - 1)
        return self._members()[start : start + PER_PAGE]

    def _regroup(self, _: Any) -> None:
        if self.group.value is not None:
            self.page.max = -(-len(self._members()) // PER_PAGE)
            self.page.value = 1
            self._draw()

    def _draw(self) -> None:
        shown = self._shown()
        images, titles = self._study.dataset("test").images[shown], [self._title(i) for i in shown]
        figure = montage(images, _COLUMNS, titles, widest=_WIDEST)
        self.picture.show(figure, f"Test faces to choose from: {', '.join(titles)}")

    def _clicked(self, _: int, x: float, y: float) -> None:
        shown = self._shown()
        canvas = self.picture.figure.axes[0].images[0].get_array()
        place = face_at(x, y, len(shown), _COLUMNS, canvas.shape)
        if place is not None:
            self.choose(shown[place])
