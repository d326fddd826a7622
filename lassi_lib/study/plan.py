"""The plan of a run: every stage that is needed, once, in an order in which it can be computed.

A `Step` is one stage with the way to compute it. The union of what all notebooks ask for is planned
before anything starts, so `--dry-run` can show it, and one process or a cluster can work through it
(`engine`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from itertools import product
from statistics import median
from typing import TYPE_CHECKING, Any

from lassi_lib.certification.modes import MODES
from lassi_lib.errors import StudyError, nearest
from lassi_lib.similarity.kinds import find_kind
from lassi_lib.study import vectors
from lassi_lib.study.cache import Stage
from lassi_lib.study.experiment import Experiment, Question, experiments_of, questions_of
from lassi_lib.study.params import Pipeline

if TYPE_CHECKING:
    from lassi_lib.study.study import Study


# the module whose `wanted` names a notebook's certificates, where `asked` here does not
WANTED = {
    "05_outlier_analysis": "causes",
    "08_sensitivity": "sensitivity",
    "12_training_length": "training_length",
}
# and the module whose `steps` names stages of other kinds
OTHER = {
    "06_ground_truth": "ground_truth",
    "08_sensitivity": "sensitivity",
    "09_base_classifiers": "base_fairness",
}


@dataclass(frozen=True)
class Step:
    """One stage to compute: `verb` and `args` say how, `pipeline` for which profile."""

    stage: Stage
    verb: str
    args: tuple[Any, ...]
    pipeline: Pipeline

    def __str__(self) -> str:
        shown = [a.label if isinstance(a, Experiment) else a for a in self.args]
        shown = [a.mode if isinstance(a, Question) else a for a in shown]
        return " ".join([self.verb, *(str(a) for a in shown if a != "")])


def steps_of_notebooks(study: Study, params: dict[str, dict[str, Any]]) -> list[Step]:
    """Return the steps that the parameters of all notebooks ask for, each once.

    Flow and latents are always among them: every run records what they are.
    """
    wanted = []
    for name, given in params.items():
        of = import_module(f"lassi_lib.study.{WANTED[name]}").wanted if name in WANTED else asked
        wanted += of(study, given)
    steps = steps_of(study, [])
    steps += [step for sub, e, question in wanted for step in steps_of(sub, [(e, question)])]
    for name in filter(OTHER.__contains__, params):
        others = import_module(f"lassi_lib.study.{OTHER[name]}").steps(study, params[name])
        steps += [Step(stage, verb, args, sub.pipeline) for sub, stage, verb, args in others]
    return list({step.stage.key: step for step in steps}.values())


def asked(study: Study, given: dict[str, Any]) -> Iterator[tuple[Study, Experiment, Question]]:
    """Yield the certificates of pairs x methods x seeds in every mode that is offered for them."""
    for e, question in product(experiments_of(study.pipeline, given), questions_of(given)):
        if _sensible(e, question):
            yield study, e, question


def _sensible(e: Experiment, question: Question) -> bool:
    """Whether a mode is offered for so many attributes; other radii are asked of single ones alone."""
    return len(e.sensitive) <= (MODES[question.mode] if question.epsilon is None else 1)


def steps_of(study: Study, wanted: Iterable[tuple[Experiment, Question]]) -> list[Step]:
    """Return the stages behind certificates, parents before children, each once."""
    found: dict[str, Step] = {}

    def add(stage: Stage, verb: str, *args: Any) -> None:
        found.setdefault(stage.key, Step(stage, verb, args, study.pipeline))

    if not study.pipeline.glow.checkpoint:
        add(study.glow_stage(), "glow")
    for split in study.splits:
        add(study.latents_stage(split), "latents", split)
    for e, question in wanted:
        kind = find_kind(e.vector_type)
        if {"boundary", "task_boundary"} & set(kind.needs):
            add(vectors.boundaries_stage(study), "boundaries")
        if "predict" in kind.needs:
            base = (study.pipeline.discovery_classifier, e.task, vectors.BOUNDARY_SEED)
            add(vectors.base_classifier_stage(study, *base), "base", *base)
            search = (e.vector_type, e.task)
            add(vectors.discovery_stage(study, *search), "discovery", *search)
        for attribute in e.sensitive:
            named = (attribute, e.vector_type, e.task)
            add(vectors.vector_stage(study, *named), "vector", *named)
        add(study.encoder_stage(e), "encoder", e)
        add(study.classifier_stage(e), "classifier", e)
        if centers := study.centers_stage(e, question):
            add(centers, "centers", e, question)
        add(study.certificates_stage(e, question), "certificates", e, question)
    return list(found.values())


def missing(study: Study, steps: Iterable[Step]) -> list[Step]:
    """Return the steps whose stage is not kept yet; a damaged one counts as missing (with a warning)."""
    return [step for step in steps if not study.cache.has(step.stage)]


def following(steps: list[Step], verb: str) -> list[Step]:
    """Return the steps of a verb and all that are made from them."""
    verbs = sorted({step.verb for step in steps})
    if verb not in verbs:
        raise StudyError(
            f"--force {verb}: this run has no such stage{nearest(verb, verbs)}; it has {', '.join(verbs)}"
        )
    found: dict[str, Step] = {}
    for step in steps:
        if step.verb == verb or found.keys() & set(step.stage.parents):
            found[step.stage.key] = step
    return list(found.values())


def describe_notebooks(study: Study, needed: dict[str, list[Step]]) -> str:
    """Return, for notebooks by name, how many experiments each needs, and of how many stages how many are kept."""
    lines = []
    for name, steps in needed.items():
        n, kept = len({step.args[0] for step in steps if step.verb == "certificates"}), len(steps)
        kept -= len(missing(study, steps))
        lines.append(f"  {name:36s}{n:4d} experiments, {kept:4d} of {len(steps):4d} stages kept")
    return "\n".join(lines)


def describe(study: Study, steps: list[Step], again: Iterable[Step] = ()) -> str:
    """Return the plan in words: per kind of stage how many are kept and how long the others may take.

    Minutes are those of `expected_seconds`, on one process.
    """
    todo = {step.stage.key for step in [*missing(study, steps), *again]}
    kinds: dict[tuple[str, str], list[Step]] = {}
    for step in steps:
        kinds.setdefault(_kind(step), []).append(step)
    expected, lines, total, unknown = expected_seconds(study, steps), [], 0.0, False
    for (verb, mode), own in kinds.items():
        left = [expected[step.stage.key] for step in own if step.stage.key in todo]
        minutes, guessed = sum(filter(None, left)) / 60, None in left
        total, unknown = total + minutes, unknown or guessed
        known = "minutes not known yet" if guessed and not minutes else f"about {minutes:.1f} min"
        known += " and what is not known yet" if guessed and minutes else ""
        lines.append(
            f"  {verb} {mode}".ljust(34) + f"{len(own):5d} stages, {len(left):5d} to compute, {known}"
        )
    told = total >= 0.5 or not unknown
    known = f"about {total:.0f} min on one process" if told else "minutes not known yet"
    more = ", and what is not known yet" if told and unknown else ""
    return "\n".join([*lines, f"  in all {known}{more}"])


def expected_seconds(study: Study, steps: Iterable[Step]) -> dict[str, float | None]:
    """Return, by the steps' keys, the median of what the kept stages most like each took (None: not known).

    Alike are stages of one kind on the same data (a parent in common, or else the same parameters), with as
    many parents (more attributes take longer) and as many equal parameters as can be had.
    """
    took = {name: study.cache.seconds(name) for name in {step.stage.name for step in steps}}
    return {step.stage.key: _typical(step, took[step.stage.name]) for step in steps}


def _typical(step: Step, took: Iterable[tuple[dict, list[str], float]]) -> float | None:
    stage, alike = step.stage, {}
    own = {name: value for name, value in stage.params.items() if name != "seed"}
    for params, parents, seconds in took:
        if step.verb == "certificates" and params.get("mode", "monte_carlo") != step.args[1].mode:
            continue
        common = len(set(parents) & set(stage.parents))
        equal = sum(params.get(k) == v for k, v in own.items())
        # a classifier's one parent is an encoder that nothing else shares
        if common or len(stage.parents) == 1 or equal == len(own):
            alike.setdefault((len(parents) == len(stage.parents), common, equal), []).append(seconds)
    return median(alike[max(alike)]) if alike else None


def _kind(step: Step) -> tuple[str, str]:
    """Return a step's verb, and the mode of its certificates: what steps of like duration share."""
    return step.verb, step.args[1].mode if step.verb == "certificates" else ""


def compute(study: Study, step: Step) -> None:
    """Compute one step's stage into the cache of a study of the step's pipeline."""
    verbs = {
        "glow": study.glow,
        "latents": study.latents,
        "boundaries": lambda: vectors.boundaries(study),
        "base": lambda *args: vectors.base_classifier(study, *args),
        "discovery": lambda *args: vectors.discovered(study, *args),
        "vector": study.vector,
        "encoder": study.representation,
        "classifier": study.classifier,
        "centers": study.centers,
        "certificates": study.certificates,
        "truth": lambda *args: import_module("lassi_lib.study.ground_truth").answers(study, *args),
        "decisions": lambda *args: import_module("lassi_lib.study.base_fairness").decisions(study, *args),
        "endpoints": lambda e: import_module("lassi_lib.study.base_fairness").endpoint_predictions(study, e),
    }
    verbs[step.verb](*step.args)
