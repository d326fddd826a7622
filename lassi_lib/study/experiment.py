"""What one experiment is: data set, task, sensitive attributes, vector type, method, seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any

from lassi_lib.certification.modes import MODES
from lassi_lib.errors import StudyError, nearest
from lassi_lib.similarity.kinds import DISCOVERED_NAMES, find_kind
from lassi_lib.study.params import Pipeline

_SEEDS = ("seeds", "base_seeds", "cause_seeds")  # parameters that list training seeds
ASKED = ("pairs", "methods", "seeds", "vector_types", "seeds_of")


@dataclass(frozen=True)
class Experiment:
    """One trained encoder and classifier with the certificates of the whole test split."""

    dataset: str
    task: str
    sensitive: tuple[str, ...]
    vector_type: str
    method: str
    seed: int

    @property
    def label(self) -> str:
        """A short name for progress bars: 'Smiling/Pale_Skin LASSI seed 42', and the kind of an unusual vector."""
        kind = "" if self.vector_type == "mean_difference" else f" {self.vector_type}"
        return f"{self.task}/{'+'.join(self.sensitive)}{kind} {self.method} seed {self.seed}"

    @property
    def attributes(self) -> tuple[str, ...]:
        """The data set's attributes that it needs: discovered directions have names of their own."""
        return tuple(a for a in (self.task, *self.sensitive) if a not in DISCOVERED_NAMES)

    def columns(self) -> dict[str, Any]:
        """Return the columns that mark this experiment's rows in every table."""
        return {
            "dataset": self.dataset,
            "task": self.task,
            "sensitive": "+".join(self.sensitive),
            "vector_type": self.vector_type,
            "method": self.method,
            "seed": self.seed,
        }


@dataclass(frozen=True)
class Question:
    """What is asked of an experiment's trained models.

    Noise `sigma_cs`, like the pipeline's, is meant for the pipeline's epsilon: it scales with the radius.
    """

    mode: str = "monte_carlo"  # one of `certification.modes.MODES`
    epsilon: float | None = None  # radius where it is not the pipeline's; sigma_cs keeps its ratio to it
    control: bool = False  # random directions of the attribute vectors' lengths instead of these vectors
    sigma_cs: float | None = None  # noise of center smoothing where it is not the pipeline's

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise StudyError(f"certification mode '{self.mode}' is unknown{nearest(self.mode, MODES)}")


def experiments_by(
    experiments: Iterable[Experiment], key: Callable[[Experiment], Any]
) -> dict[Any, list[Experiment]]:
    """Return the experiments of every value of ``key(experiment)``, in the order of first occurrence."""
    groups: dict[Any, list[Experiment]] = {}
    for e in experiments:
        groups.setdefault(key(e), []).append(e)
    return groups


def parse_pair(pair: str) -> tuple[str, tuple[str, ...]]:
    """Split 'Smiling/Pale_Skin+Young' into the task and its sensitive attributes."""
    task, slash, sensitive = str(pair).partition("/")
    names = tuple(sensitive.split("+"))
    if not slash or not task or not all(names):
        raise StudyError(f"pair '{pair}' must read 'Task/Attribute' or 'Task/Attribute+Attribute'")
    if len(set(names)) < len(names) or task in names:
        raise StudyError(f"pair '{pair}' names an attribute twice: each may stand once")
    return task, names


def experiments_of(pipeline: Pipeline, params: dict[str, Any]) -> list[Experiment]:
    """Return the experiments that a notebook's parameters ask for: pairs x methods x seeds.

    `vector_types` asks for each kind of attribute vector instead of the pipeline's. `seeds_of`
    names methods that, to save time, have seeds of their own. `groups`, a list of
    such mappings, asks for several products; what a group does not name it takes from `params`. A
    notebook without `pairs` or `groups`, `methods` and `seeds` needs no experiment.

    Raises
    ------
    StudyError
        If a pair is malformed, a method or kind unknown, or a seed not a whole number.
    """
    if "groups" in params:
        shared = {k: params[k] for k in ASKED if k in params}
        for group in params["groups"]:
            if not isinstance(group, dict) or "pairs" not in group or set(group) - set(ASKED):
                raise StudyError(f"a group must be a mapping of {', '.join(ASKED)}, with pairs: {group!r}")
        found = [e for group in params["groups"] for e in experiments_of(pipeline, shared | group)]
        return list(dict.fromkeys(found))
    if not {"pairs", "methods", "seeds"} <= params.keys():
        return []
    for method in params["methods"]:
        if method not in pipeline.methods:
            raise StudyError(f"method '{method}' is unknown{nearest(method, pipeline.methods)}")
    for method, seeds in params.get("seeds_of", {}).items():
        if method not in params["methods"] or not seeds or set(seeds) - set(params["seeds"]):
            raise StudyError(f"'seeds_of.{method}': {seeds} must be some of 'seeds', of one of 'methods'")
    for seed in params["seeds"]:
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise StudyError(f"seed {seed!r} must be a whole number, 0 or more")
    kinds = params.get("vector_types", [pipeline.vector_type])
    for name, given in [(k, params[k]) for k in ("pairs", "methods", "seeds")] + [("vector_types", kinds)]:
        if not given or len(set(given)) < len(given):
            raise StudyError(f"'{name}' must be a list without repetitions and not empty: {given}")
    for kind in kinds:
        find_kind(kind)
    wanted = product(kinds, params["pairs"], params["methods"], params["seeds"])
    own = params.get("seeds_of", {})
    return [
        Experiment(pipeline.data.name, *parse_pair(pair), kind, method, seed)
        for kind, pair, method, seed in wanted
        if seed in own.get(method, params["seeds"])
    ]


def with_seeds(params: dict[str, Any], seeds: list[int]) -> dict[str, Any]:
    """Return a notebook's parameters with other training seeds wherever it has any, for every method."""
    params = {k: seeds if k in _SEEDS else {} if k == "seeds_of" else v for k, v in params.items()}
    if "groups" in params:  # each asks for pairs, kinds and, if it likes, seeds of its own
        params["groups"] = [
            {k: v for k, v in group.items() if k not in ("seeds", "seeds_of")} for group in params["groups"]
        ]
    return params


def questions_of(params: dict[str, Any]) -> list[Question]:
    """Return what a notebook's parameters ask of its experiments, the published certificate by default.

    `modes` are asked about the pipeline's similarity set, `control_modes` about random directions,
    and `epsilons` about exact decisions on smaller and larger sets.

    Raises
    ------
    StudyError
        If a mode is unknown or a radius not positive.
    """
    modes, controls = params.get("modes", ["monte_carlo"]), params.get("control_modes", [])
    for epsilon in params.get("epsilons", []):
        if isinstance(epsilon, bool) or not isinstance(epsilon, int | float) or not 0 < epsilon < math.inf:
            raise StudyError(f"'epsilons' must be positive numbers, not {epsilon!r}")
    asked = [Question(mode) for mode in modes]
    asked += [Question(mode, control=True) for mode in controls]
    return asked + [Question("exact_decision", float(epsilon)) for epsilon in params.get("epsilons", [])]
