"""Widgets for looking and trying; each shows one pure function's figure, which the batch run draws too.

glow_explorer         glow_figure           moves a face along attribute vectors
certificate_explorer  certificate_figure    one face, one model, every mode
outlier_explorer      outlier_matrix        all pairs; a cell opens its faces (strip_figure)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ipywidgets as w
import numpy as np
import pandas as pd

from lassi_lib.data.own_image import MAX_BYTES, check_size, read_face
from lassi_lib.display.explore import certificate_figure, certificate_text, frames_text, glow_figure
from lassi_lib.display.outliers import outlier_matrix, strip_figure
from lassi_lib.display.picker import PER_PAGE, WIDE, FacePicker, Said, called
from lassi_lib.display.picture import Picture
from lassi_lib.display.style import StudyFigure, words
from lassi_lib.errors import StudyError
from lassi_lib.study.exactness import one_attribute
from lassi_lib.study.experiment import Experiment, experiments_by
from lassi_lib.study.explore import Judge, Line, offered_kinds
from lassi_lib.study.strips import strips

if TYPE_CHECKING:
    from lassi_lib.study.study import Study

_STEPS = np.round(np.linspace(-2, 2, 41), 1)
_MARKS = {"REFUTED": "x", "VERIFIED": "ok", "UNDECIDED": "?"}


class GlowExplorer(w.VBox):
    """Moves a face, one of the test split or an own image, along attribute vectors.

    Parameters
    ----------
    study : Study
        The study.
    attributes : iterable of str
        A slider each, in units of the attribute's vector; those without a vector are passed over.
    kinds : sequence of str
        Kinds of vectors shown side by side at first; default: the profile's.
    task : str
        For the kinds of vectors that keep a task; without it these are not offered.
    """

    def __init__(
        self, study: Study, attributes: Iterable[str], kinds: Sequence[str] = (), task: str = ""
    ) -> None:
        self._study, self._task = study, task
        offered = {a: offered_kinds(study, a, task) for a in attributes}
        names = [a for a, found in offered.items() if found]
        if not names:
            raise StudyError("glow_explorer(): none of the attributes has a vector: name others")
        common = [k for k in offered[names[0]] if all(k in offered[a] for a in names)]
        self.kinds = w.SelectMultiple(
            options=common,
            value=[k for k in kinds if k in common] or common[:1],
            rows=5,
            description="vectors",
        )
        self.sliders = {
            a: w.SelectionSlider(
                options=[(f"{x:+.1f}", float(x)) for x in _STEPS],
                value=0.0,
                description=words(a),
                style=WIDE,
                layout={"width": "24em"},
            )
            for a in names
        }
        self.play = w.Play(min=0, max=len(_STEPS) - 1, value=len(_STEPS) // 2, interval=150)
        self.played = w.Dropdown(options=names, description="play", style=WIDE)
        self.reset = w.Button(description="back to t = 0")
        self.upload = w.FileUpload(accept="image/png,image/jpeg,image/webp", description="own image")
        self.picture, self.said = Picture("lassi-glow", None, self._dropped, MAX_BYTES), Said()
        groups = {"all": range(len(study.latents("test")))}
        for a in names:
            labels = study.labels("test", a)
            groups[words(a)] = np.flatnonzero(labels == 1).tolist()
            groups[f"not {words(a)}"] = np.flatnonzero(labels == 0).tolist()
        self.faces = FacePicker(study, groups, self._take)
        for widget in (self.kinds, *self.sliders.values()):
            widget.observe(self._draw, "value")
        self.play.observe(self._played, "value")
        self.played.observe(lambda _: self._follow(), "value")
        self.upload.observe(self._uploaded, "value")
        self.reset.on_click(lambda _: self._to_zero())
        self._moving = names[0]
        self._take(0)
        own = w.HBox([self.upload, w.Label("or drop an image file on the picture")])
        controls = w.VBox([*self.sliders.values(), w.HBox([self.play, self.played]), self.reset])
        super().__init__([self.faces, w.HBox([controls, w.VBox([self.kinds, own])]), self.picture, self.said])

    def _take(self, face: Any) -> None:
        own = not isinstance(face, int)
        if own:
            self.said.say("working: encoding the own image")
        self._line = Line(self._study, face, self._task)
        self._face = "own image (not stored)" if own else f"test face {called(self._study, face)}"
        self._draw()

    def _uploaded(self, change: dict) -> None:
        if change["new"]:
            file = change["new"][0]
            self._dropped(file["name"], len(file["content"]), bytes(file["content"]))
            self.upload.value = ()  # the file is not kept

    def _dropped(self, name: str, size: int, content: bytes) -> None:
        with self.said.mistakes():
            check_size(size, name)
            self._take(read_face(content, self._study.pipeline.data.image_size, name))

    def _played(self, change: dict) -> None:
        self.sliders[self.played.value].value = float(_STEPS[change["new"]])

    def _follow(self) -> None:
        """Let playing go on from where the slider stands."""
        self.play.value = int(np.abs(_STEPS - self.sliders[self.played.value].value).argmin())

    def _to_zero(self) -> None:
        for slider in self.sliders.values():
            slider.value = 0.0

    def _draw(self, change: dict | None = None) -> None:
        if change and change["owner"] is not self.kinds:
            self._moving = next(a for a, s in self.sliders.items() if s is change["owner"])
            self._follow()
        order = [a for a in self.sliders if a != self._moving] + [self._moving]
        t = {a: self.sliders[a].value for a in order}
        self._say_what_takes_time(t)
        with self.said.mistakes():
            frames = [self._line.frame(t, k, _STEPS, words(k)) for k in self.kinds.value]
            if not frames:
                raise StudyError("choose at least one kind of vectors")
            where = ", ".join(f"{words(a)} {x:+.1f}" for a, x in t.items() if x) or "t = 0"
            text = f"{self._face}, {where}: {frames_text(frames)}"
            self.picture.show(glow_figure(self._line.frame({}).image, frames), text)
            self.said.say(text)

    def _say_what_takes_time(self, t: Mapping[str, float]) -> None:
        kinds = self.kinds.value
        unmade = [f"{words(k)} of {words(a)}" for k in kinds for a in self._line.unmade(t, k)]
        if unmade:
            self.said.say(f"working: making vectors: {', '.join(unmade)}")
        elif not all(self._line.has(t, k) for k in kinds):
            self.said.say(f"working: decoding {self._face}")


class CertificateExplorer(w.VBox):
    """One face and one trained model: similar faces, exact margin, smoothed certificate, every mode.

    Only experiments with one sensitive attribute are offered. The groups of faces go by the exact decision at
    the profile's epsilon: of all test faces where a notebook has asked for it, else of the first page's until a
    button asks for the others; epsilon and sigma_cs of the sliders are asked about the chosen face alone. sigma_rs is
    not offered: the classifier is trained with noise of that size, so another sigma_rs is another model, which
    would have to be trained first.
    """

    def __init__(self, study: Study, experiments: Iterable[Experiment]) -> None:
        self._study = study
        single = one_attribute(experiments)
        if not single:
            raise StudyError(
                "certificate_explorer(): no pair has a single sensitive attribute: add one to pairs"
            )
        self._experiments = {(e.task, e.sensitive[0], e.method, e.vector_type, e.seed): e for e in single}
        names = ("task", "attribute", "method", "vectors", "seed")
        self.choices = {
            name: w.Dropdown(
                options=list(dict.fromkeys(k[i] for k in self._experiments)), description=name, style=WIDE
            )
            for i, name in enumerate(names)
        }
        own = study.pipeline.certification
        self.epsilon, self.sigma_cs = (
            w.FloatSlider(
                value,
                min=value / 10,
                max=most * value,
                step=value / 20,
                description=name,
                readout_format=form,
                continuous_update=False,
                style=WIDE,
                layout={"width": "24em"},
            )
            for name, value, most, form in (
                ("epsilon", own.epsilon, 3, ".2f"),
                ("sigma_cs", own.sigma_cs, 4, ".3f"),
            )
        )
        self.picture, self.said = Picture("lassi-certificate"), Said()
        self.decide = w.Button(description="decide all faces")
        self._judges: dict[Experiment, Judge] = {}
        self._face = 0
        self._judge = self._judged()
        self.faces = FacePicker(study, self._groups(), self._take, self._title)
        self.decide.on_click(lambda _: self._decide_all())
        for widget in self.choices.values():
            widget.observe(self._change, "value")
        for widget in (self.epsilon, self.sigma_cs):
            widget.observe(lambda _: self._draw(), "value")
        super().__init__(
            [w.HBox(list(self.choices.values())[:3]), w.HBox([c for n, c in self.choices.items() if n in ("vectors", "seed") and len(c.options) > 1]),
             w.HBox([self.epsilon, self.sigma_cs, self.decide]), self.faces, self.picture, self.said]
        )  # fmt: skip
        self.faces.choose(self.faces.first())

    def _experiment(self) -> Experiment:
        key = tuple(c.value for c in self.choices.values())
        if key not in self._experiments:
            raise StudyError(
                f"{' / '.join(map(str, key))} was not asked for by this notebook: choose another"
            )
        return self._experiments[key]

    def _judged(self) -> Judge:
        """Return the chosen model's judge, who has decided a page of faces at least."""
        e = self._experiment()
        if e not in self._judges:
            self.said.say(f"working: the exact decision of {PER_PAGE} test faces, {e.label}")
            self._judges[e] = Judge(self._study, e)
            if not self._judges[e].decided:
                self._judges[e].decide(self._judges[e].faces[:PER_PAGE])
        self.decide.disabled = len(self._judges[e].decided) >= len(self._judges[e].faces)
        return self._judges[e]

    def _decide_all(self) -> None:
        faces = self._judge.faces
        for done in range(0, len(faces), PER_PAGE):
            self.said.say(f"working: the exact decision of {done} of {len(faces)} test faces is known")
            self._judge.decide(faces[done : done + PER_PAGE])
        self.decide.disabled = True
        self.faces.offer(self._groups())
        self._draw()

    def _groups(self) -> dict[str, list[int]]:
        decided = self._judge.decided
        found = {s.lower(): [i for i in sorted(decided) if decided[i] == s] for s in _MARKS}
        return found | {"all": self._judge.faces}

    def _title(self, index: int) -> str:
        self._judge.decide([index])
        return f"{index} {_MARKS[self._judge.decided[index]]}"

    def _take(self, index: int) -> None:
        self._face = index
        self._draw()

    def _change(self, _: Any) -> None:
        with self.said.mistakes():
            self._judge = self._judged()
            self.faces.offer(self._groups())
            self._draw()

    def _draw(self) -> None:
        with self.said.mistakes():
            self._experiment()  # an odd combination of choices is said
            self.said.say(f"working: certificates of test face {self._face}")
            view = self._judge.view(self._face, self.epsilon.value, self.sigma_cs.value)
            text = certificate_text(view, called(self._study, self._face))
            self.picture.show(certificate_figure([view]), text)
            notes = " ".join(dict.fromkeys(n for n in view.answers["note"] if n))
            self.said.say(f"{text} {notes}".strip())


class OutlierExplorer(w.VBox):
    """All pairs of attribute and task; a chosen cell opens its faces and what is known of the pair.

    `means` are `pair_means` of the experiments; a cell opens so many `faces`.
    """

    def __init__(
        self, study: Study, means: pd.DataFrame, experiments: Iterable[Experiment], faces: int = 2
    ) -> None:
        self._study, self._means, self._count = study, means, faces
        single = one_attribute(experiments)
        self._experiments = experiments_by(single, lambda e: (e.task, e.sensitive[0]))
        methods = list(dict.fromkeys(means["method"]))
        self.method = w.Dropdown(options=methods, value=methods[-1], description="method", style=WIDE)
        pairs = list(dict.fromkeys(zip(means["task"], means["sensitive"], strict=True)))
        named = [(words(f"{t} / {a}"), (t, a)) for t, a in pairs]
        self.pair = w.Dropdown(options=named, description="pair", style=WIDE)
        self.matrix, self.strips = Picture("lassi-matrix", self._clicked), Picture("lassi-strips")
        self.said = Said()
        for widget in (self.method, self.pair):
            widget.observe(lambda _: self._draw(), "value")
        super().__init__([w.HBox([self.method, self.pair]), self.matrix, self.said, self.strips])
        self._draw()

    def _clicked(self, _: int, x: float, y: float) -> None:
        means = self._means[self._means["method"] == self.method.value]
        tasks, attributes = (list(dict.fromkeys(means[c])) for c in ("task", "sensitive"))
        row, column = round(y), round(x)
        if 0 <= row < len(attributes) and 0 <= column < len(tasks):
            cell = tasks[column], attributes[row]
            if cell in [value for _, value in self.pair.options]:
                self.pair.value = cell

    def _draw(self) -> None:
        task, attribute = self.pair.value
        means, method = self._means, self.method.value
        mine = means[
            (means["method"] == method) & (means["task"] == task) & (means["sensitive"] == attribute)
        ]
        chosen = (task, attribute) if len(mine) else None
        alt = "Heat maps of all pairs: d_cs / d_rs, certified fairness, phi, cosine"
        self.matrix.show(outlier_matrix(means, method, chosen), f"{alt}; framed: {task} / {attribute}")
        if not len(mine):
            self.said.say(f"{task} / {attribute} was not asked of {method}: choose another", bad=True)
            return
        row = mine.iloc[0]
        self.said.say(
            f"{words(f'{task} / {attribute}')}, {method}: certified {row['certified_fairness']:.1f} % of faces, d_cs / d_rs {row['ratio']:.2f} in "
            f"the median; phi of the labels {row['phi']:+.2f}, cosine of the vector with the task's normal "
            f"{row['cos_task']:+.2f}, its length {row['norm_to_spread']:.2f} spreads of the latents, "
            f"{row['positives']:.0f} training positives. Below: faces from the smallest d_cs / d_rs to the largest."
        )
        self.strips.show(StudyFigure(figsize=(4, 0.3)), "working: exact decisions of this pair")
        group = self._experiments[task, attribute]
        found = strips(self._study, [e for e in group if e.seed == group[0].seed], self._count)
        self.strips.show(
            strip_figure(found), f"Faces of {task} / {attribute} along the vector, with certificates"
        )


# as notebooks call them, like the functions that draw
glow_explorer, certificate_explorer, outlier_explorer = GlowExplorer, CertificateExplorer, OutlierExplorer
