"""What the explorers show of one face: moved along attribute vectors, and certified in every mode.

Plain data for pure plotting functions; widgets and the batch run's figures ask the same questions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lassi_lib.certification.modes import MODES
from lassi_lib.errors import StudyError
from lassi_lib.similarity.kinds import KINDS, find_kind
from lassi_lib.study.exactness import one_attribute
from lassi_lib.study.experiment import Experiment, Question
from lassi_lib.study.study import Study
from lassi_lib.study.vectors import vector_stage

if TYPE_CHECKING:
    import torch

_KEPT = 1_000  # decoded frames that a `Line` or a `Judge` remembers
_BLOCK = 8  # steps of a slider that are decoded at once


@dataclass(frozen=True)
class Frame:
    """A moved face: the decoded image, float32 [3, S, S], not clipped, and how far its latent has gone.

    `distance` is ||z' - z||, `spreads` the same in units of the test latents' spread; `note` says at which t.
    """

    title: str
    note: str
    image: np.ndarray
    distance: float
    spreads: float

    @property
    def outside(self) -> float:
        """The percentage of values that no image can have."""
        from lassi_lib.data.preprocess import percent_beyond

        return percent_beyond(self.image)


def offered_kinds(study: Study, attribute: str, task: str = "") -> list[str]:
    """Return the kinds of vectors that an attribute can have here within seconds, the profile's first."""
    from lassi_lib.data.synthfaces import factor_of

    own = study.pipeline.vector_type
    if "codes" in find_kind(own).needs or study.n_classes(attribute) != 2:
        return [own] if "codes" in find_kind(own).needs else []
    have = {"y", "generator", "others", "boundary"} | ({"task_boundary"} if task else set())
    if study.pipeline.data.name == "synthfaces" and factor_of(attribute):
        have |= {"z_base", "z_counterfactual"}
    names = [k.replace("degraded", "degraded_60") for k, entry in KINDS.items() if set(entry.needs) <= have]
    return [own, *(k for k in names if k != own)] if set(find_kind(own).needs) <= have else names


class Line:
    """One face's way through latent space: sums of attribute vectors, each decoded once.

    The face is a test face's number or an own image, uint8 [3, S, S]; some kinds of vectors keep a `task`.
    """

    def __init__(self, study: Study, face: int | torch.Tensor, task: str = "") -> None:
        from lassi_lib.similarity.diagnostics import latent_spread

        self.study, self.task = study, task
        self.z = study.latents("test")[face] if isinstance(face, int) else study.encode(face[None])[0]
        self.spread = study.once("spread", lambda: latent_spread(study.latents("test")))
        self._images: dict[tuple, np.ndarray] = {}

    def displacement(self, t: Mapping[str, float], kind: str = "") -> torch.Tensor:
        """Return sum_k t_k epsilon a_k, float32 [d], with the papers' epsilon of the kind.

        So t = 1 is the end of the papers' similarity set for every kind.
        """
        import torch

        total, kind = torch.zeros_like(self.z), kind or self.study.pipeline.vector_type
        for attribute, value in t.items():
            if value:
                a = self.study.vector(attribute, kind, self.task)
                a = a if a.ndim == 1 else a[a.norm(dim=1).argmax()]
                total += value * find_kind(kind).epsilon * a
        return total

    def has(self, t: Mapping[str, float], kind: str = "") -> bool:
        """Return whether a frame is decoded already."""
        return self._key(t, kind) in self._images

    def unmade(self, t: Mapping[str, float], kind: str = "") -> list[str]:
        """Return the attributes whose vectors a frame needs and nobody has made yet."""
        study, kind = self.study, kind or self.study.pipeline.vector_type
        return [a for a, x in t.items() if x and not study.cache.has(vector_stage(study, a, kind, self.task))]

    def frame(
        self,
        t: Mapping[str, float],
        kind: str = "",
        along: Sequence[float] = (),
        title: str = "",
        note: str = "",
    ) -> Frame:
        """Return the face at z + sum_k t_k a_k, along vectors of a kind.

        Parameters
        ----------
        t : mapping
            Attribute -> its coefficient t_k, as in `displacement`; the last attribute is the one that moves.
        kind : str
            Kind of the vectors; default: the profile's.
        along : sequence of float
            Coefficients that the attribute that moves may take next: the neighbours are decoded with it.
        title, note : str
            The frame's texts.
        """
        moved = self.displacement(t, kind)
        key = self._key(t, kind)
        if key not in self._images:
            self._decode(self._neighbours(t, along) if len(along) and t else [t], kind)
        distance = float(moved.double().norm())
        return Frame(title, note, self._images[key], distance, distance / self.spread)

    def _neighbours(self, t: Mapping[str, float], along: Sequence[float]) -> list[dict[str, float]]:
        last, steps = list(t)[-1], np.asarray(along)
        start = int(np.abs(steps - t[last]).argmin()) // _BLOCK * _BLOCK
        return [dict(t), *({**t, last: float(x)} for x in steps[start : start + _BLOCK])]

    def _decode(self, points: list[Mapping[str, float]], kind: str) -> None:
        import torch

        points = list({key: t for t in points if (key := self._key(t, kind)) not in self._images}.values())
        if len(self._images) > _KEPT:
            self._images.clear()
        z = torch.stack([self.z + self.displacement(t, kind) for t in points])
        images = self.study.decode(z).numpy()
        self._images |= {self._key(t, kind): x for t, x in zip(points, images, strict=True)}

    @staticmethod
    def _key(t: Mapping[str, float], kind: str) -> tuple:
        return kind, *sorted((a, round(x, 6)) for a, x in t.items() if round(x, 6))


def moved_frames(
    study: Study, attributes: Iterable[str], kinds: Sequence[str] = (), *, most: int = 3
) -> tuple[np.ndarray, list[Frame]]:
    """Return a test face, float32 [3, S, S], and its frames: attributes x kinds, at t = -1 and 1.

    Attributes without a vector, and kinds that an attribute cannot have here, are passed over, and after the
    first `most` attributes no more are taken; so the batch run shows for every profile what there is.
    """
    line, frames = Line(study, 1), []
    offered = {a: found for a in dict.fromkeys(attributes) if (found := offered_kinds(study, a))}
    for attribute in list(offered)[:most]:
        found = offered[attribute]
        for kind in [k for k in kinds if k in found] or found[:1]:
            words = (kind if len(kinds) > 1 else attribute).replace("_", " ")
            frames += [line.frame({attribute: float(x)}, kind, (), words, f"t={x:+g}: ") for x in (-1, 1)]
    return line.frame({}).image, frames


@dataclass(frozen=True)
class CertificateView:
    """One face, one trained model, every mode.

    The plane of `path` has the smoothed centre at its origin, and its first axis points to the nearest
    boundary, at x = d_rs.
    """

    title: str  # which pair
    method: str  # whose model
    index: int  # of the test face
    label: int
    epsilon: float  # radius and noise that were asked about
    sigma_cs: float
    t: np.ndarray  # [m] coefficients
    images: np.ndarray  # uint8 [m, 3, S, S], D(z + t a)
    nodes: np.ndarray  # [p] every t at which the unsmoothed margin bends, and the ends of the plot
    margin: np.ndarray  # [p] distance of R(z + t a) to the class's nearest boundary, negative beyond it
    path: np.ndarray  # [q, 3] t and the two coordinates of R(z + t a) in the plane
    d_cs: float  # of mode exact_smoothing
    d_rs: float
    answers: pd.DataFrame  # a row per mode: mode, status, prediction, d_cs, d_rs, witness (a t or NaN), note
    pair: np.ndarray | None  # uint8 [2, 3, S, S], D(z) and D(z + t a) at the witness, where there is one
    classes: tuple[int, int]  # the decisions on them


class Judge:
    """One trained model and its similarity set (one attribute), ready to be asked about any test face at once."""

    def __init__(self, study: Study, experiment: Experiment) -> None:
        from lassi_lib.certification.network import Restriction
        from lassi_lib.certification.problem import weights_of

        if len(experiment.sensitive) > 1:
            raise StudyError(f"'{'+'.join(experiment.sensitive)}' spans no line: name one attribute")
        self.study, self.experiment = study, experiment
        self.line = study.similarity(experiment.sensitive, experiment.vector_type, experiment.task)
        self.encoder = Restriction(study.representation(experiment), self.line.vectors)
        self.linear = weights_of(study.classifier(experiment))
        self.labels = study.labels("test", experiment.task)
        self._images: dict[tuple[int, float], np.ndarray] = {}

    def problem(self, epsilon: float | None = None, sigma_cs: float | None = None) -> Any:
        """Return what is asked, for a radius and a noise in the profile's units."""
        from lassi_lib.certification.problem import Problem

        own = self.study.pipeline.certification
        epsilon = own.epsilon if epsilon is None else epsilon
        sigma_cs = own.sigma_cs if sigma_cs is None else sigma_cs
        scale = self.line.epsilon / own.epsilon  # unit vectors: 10
        spec = self.study.spec(self.experiment.method, "", self.experiment.task, self.experiment.sensitive)
        spec = replace(spec, epsilon=scale * epsilon, sigma_cs=scale * sigma_cs)
        similarity = replace(self.line, epsilon=spec.epsilon)
        return Problem(self.encoder, similarity, *self.linear, spec, self.experiment.seed)

    @cached_property
    def faces(self) -> list[int]:
        """The test faces that certificates are about."""
        last, every = len(self.study.latents("test")), self.study.pipeline.certification.test_every
        return list(range(0, last, every))

    @cached_property
    def decided(self) -> dict[int, str]:
        """The exact decisions that are known: those of kept rows, if there are any, and those asked for since."""
        question = Question("exact_decision")
        if not self.study.cache.has(self.study.certificates_stage(self.experiment, question)):
            return {}
        rows = self.study.certificates(self.experiment, question)
        return dict(zip(rows["index"].tolist(), rows["status"], strict=True))

    def decide(self, faces: Iterable[int]) -> None:
        """Work out the exact decisions that are not known: some milliseconds a face."""
        from lassi_lib.certification.exact_decision import certify_point

        unknown = [i for i in faces if i not in self.decided]
        if unknown:
            problem, z = self.problem(), self.study.latents("test")
            self.decided |= {i: certify_point(problem, self._first(z[i]), i)["status"] for i in unknown}

    def _first(self, z: torch.Tensor) -> torch.Tensor:
        return self.encoder.first(z[None])[0]

    def view(
        self, index: int, epsilon: float | None = None, sigma_cs: float | None = None, steps: int = 9
    ) -> CertificateView:
        """Return everything about one test face: milliseconds, but for the decoding of `steps` + 1 faces."""
        import torch

        e, problem = self.experiment, self.problem(epsilon, sigma_cs)
        z = self.study.latents("test")[index]
        u0 = self._first(z)
        with torch.no_grad():
            rows = {mode: self._answer(problem, u0, index, mode) for mode in MODES}
            smooth, exact = rows["exact_smoothing"], rows["exact_decision"]
            t = np.linspace(-problem.similarity.epsilon, problem.similarity.epsilon, steps)
            witness = exact.get("witness_1", np.nan)
            shown = np.append(t, [0.0, witness] if np.isfinite(witness) else [])
            images = self._decoded(index, shown)
            nodes, margin = self._margin(problem, u0, exact["prediction"], t)
            path = self._plane(problem, u0, smooth)
        return CertificateView(
            title=f"{e.task} / {e.sensitive[0]}",
            method=e.method,
            index=index,
            label=int(self.labels[index]),
            epsilon=problem.similarity.epsilon,
            sigma_cs=problem.spec.sigma_cs,
            t=t,
            images=images[:steps],
            nodes=nodes,
            margin=margin,
            path=path,
            d_cs=smooth["d_cs"],
            d_rs=smooth["d_rs"],
            answers=_answers(rows),
            pair=images[steps:] if np.isfinite(witness) else None,
            classes=(exact["prediction"], exact.get("witness_class", -1)),
        )

    def _decoded(self, index: int, t: np.ndarray) -> np.ndarray:
        """Return D(z + t a), uint8 [m, 3, S, S]; what was decoded for another epsilon or sigma serves again."""
        import torch

        from lassi_lib.data.preprocess import to_uint8

        if len(self._images) > _KEPT:
            self._images.clear()
        new = [x for x in t.tolist() if (index, round(x, 9)) not in self._images]
        if new:
            z = self.study.latents("test")[index]
            latents = z + torch.tensor(new, dtype=z.dtype)[:, None] * self.line.vectors
            images = to_uint8(self.study.decode(latents)).numpy()
            self._images |= {(index, round(x, 9)): image for x, image in zip(new, images, strict=True)}
        return np.stack([self._images[index, round(x, 9)] for x in t.tolist()])

    def _answer(self, problem: Any, u0: torch.Tensor, index: int, mode: str) -> dict[str, Any]:
        from importlib import import_module

        try:
            if mode == "monte_carlo":
                problem.spec.validate()
            return import_module(f"lassi_lib.certification.{mode}").certify_point(problem, u0, index)
        except StudyError as error:  # no number of samples is enough for this epsilon and sigma
            return {"prediction": -1, "status": "IMPOSSIBLE", "note": str(error)}

    def _margin(
        self, problem: Any, u0: torch.Tensor, prediction: int, t: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return where the smallest margin bends, a frame's width beyond the set, and its values."""
        from lassi_lib.certification.line import trace

        reach = float(t[-1] + (t[1] - t[0]) / 2)
        curve = trace(self.encoder, u0, -reach, reach)
        weight, bias = problem.weight, problem.bias
        logits = (curve.origin + curve.r).numpy() @ weight.T + bias
        gap = np.linalg.norm(weight[prediction] - np.delete(weight, prediction, 0), axis=1)
        margins = (logits[:, [prediction]] - np.delete(logits, prediction, 1)) / np.where(gap > 0, gap, 1)
        return curve.t.numpy(), margins.min(1)

    def _plane(self, problem: Any, u0: torch.Tensor, smooth: dict[str, Any]) -> np.ndarray:
        """Project the curve: towards the boundary nearest to the smoothed centre, and where it spreads most."""
        import torch

        from lassi_lib.certification.line import trace

        reach = max(2.5 * problem.spec.sigma_cs, problem.similarity.epsilon)
        center_t = smooth["center_t"]
        curve = trace(self.encoder, u0, min(-reach, center_t), max(reach, center_t))
        center = curve.at(torch.tensor([center_t], dtype=torch.float64)).point(0).numpy()
        r, t, weight, i = curve.r.numpy() - center, curve.t.numpy(), problem.weight, smooth["prediction"]
        logits = weight @ (curve.origin.numpy() + center) + problem.bias
        rivals = [j for j in range(len(weight)) if j != i]
        gaps = [np.linalg.norm(weight[i] - weight[j]) or 1.0 for j in rivals]
        j = rivals[int(np.argmin([(logits[i] - logits[j]) / g for j, g in zip(rivals, gaps, strict=True)]))]
        normal = weight[j] - weight[i]
        normal = normal / (np.linalg.norm(normal) or 1.0)
        x = r @ normal
        rest = r - x[:, None] * normal
        inside = np.abs(t) <= problem.similarity.epsilon
        spread = rest[inside] - rest[inside].mean(0)
        second = np.linalg.svd(spread, full_matrices=False)[2][0]
        y = rest @ second
        return np.column_stack([t, x, y * (1 if y[-1] >= y[0] else -1)])


def _answers(rows: Mapping[str, dict[str, Any]]) -> pd.DataFrame:
    """Return one row per mode, with the columns that a view shows."""
    table = [
        {"mode": mode, "status": row["status"], "prediction": row["prediction"]}
        | {name: row.get(name, np.nan) for name in ("d_cs", "d_rs")}
        | {"witness": row.get("witness_1", np.nan), "note": row.get("note", "")}
        for mode, row in rows.items()
    ]
    return pd.DataFrame(table)


def certificate_views(
    study: Study, experiments: Iterable[Experiment], face: str = "median", **asked: float
) -> list[CertificateView]:
    """Return one view per method of the first pair with one sensitive attribute, of the first seed's models.

    All methods show the same face, chosen by a rule: 'median' of the last method's d_rs - d_cs (abstentions
    last), or 'refuted', the first method's deepest violation of the exact decision (the median where there
    is none). What is `asked` is epsilon, sigma_cs, steps: see `Judge.view`.
    """
    single = one_attribute(experiments)
    if not single:
        raise StudyError("certificate_views(): no pair has a single sensitive attribute: add one to pairs")
    first = single[0]
    group = [e for e in single if replace(e, method=first.method) == first]
    chosen = None
    if face == "refuted":
        rows = study.certificates(group[0], Question("exact_decision"))
        refuted = rows[rows["status"] == "REFUTED"]
        chosen = refuted.loc[refuted["margin"].idxmin(), "index"] if len(refuted) else None
    if chosen is None:
        rows = study.certificates(group[-1])
        slack = (rows["d_rs"] - rows["d_cs"]).fillna(-np.inf).sort_values(kind="stable", ascending=False)
        chosen = rows.loc[slack.index[(len(slack) - 1) // 2], "index"]
    return [Judge(study, e).view(int(chosen), **asked) for e in group]
