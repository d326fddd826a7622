"""What a notebook may ask: a type with limits for every parameter, and the names that must exist.

A parameter's name means the same in every notebook, so one table holds for all. The parameters cell says
the plain type (``int``, ``list``), this table the rest.
"""

from __future__ import annotations

import sys
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from lassi_lib.errors import StudyError, about, nearest
from lassi_lib.similarity.kinds import DISCOVERED_NAMES, find_kind
from lassi_lib.study.experiment import ASKED, experiments_of, parse_pair, questions_of
from lassi_lib.study.params import Correlation, MethodParams, NotNegative, Pipeline, Positive, Seed
from lassi_lib.study.strict import Between, cast, check_keys


class CelebAOr(NamedTuple):
    """The word 'CelebA' (as it is there), or a number within limits."""

    limits: Between

    def holds(self, value: Any) -> bool:
        """Whether a value is the word, or a number that lies within."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return value == "CelebA" or (number and self.limits.holds(value))

    def __str__(self) -> str:
        return f"be 'CelebA' or {str(self.limits).removeprefix('be ')}"


class Folder(NamedTuple):
    """A folder that exists, or an empty text."""

    def holds(self, value: str) -> bool:
        """Whether a value is empty or names a folder."""
        return not value or Path(value).is_dir()

    def __str__(self) -> str:
        return "name a folder that exists, or stay empty"


class Empty(NamedTuple):
    """An empty text: where results go is the batch run's to say."""

    def holds(self, value: str) -> bool:
        """Whether a value is empty."""
        return not value

    def __str__(self) -> str:
        return "be empty here (run_all.py has --output)"


Percent = Annotated[float, Between(0, 99.999)]
Share = Annotated[float, Between(0, 1)]
Few = Annotated[int, Between(1, 1000)]
Phi = Annotated[Any, CelebAOr(Between(-1, 1))]
_OF_METHODS = typing.get_type_hints(MethodParams, include_extras=True)

# which parameters name what
_ATTRIBUTES = ("attributes", "task", "tasks", "resnet_tasks", "probes")
_PAIRS = ("pairs", "outlier_pairs", "original", "strip_pairs", "base_pairs", "resnet_pairs")
_PAIRS += ("dial_pair", "dial_outlier")
_METHODS = ("methods", "seeds_of", "smoothed", "judged", "judged_method", "cause_methods")
_METHODS += ("longer",)
_KINDS = ("vector_types", "swap_kinds", "outlier_kinds")
_SINGLE = ("task", "dial_pair", "dial_outlier", "judged_method")

TYPES: dict[str, Any] = {
    **{name: str if name in _SINGLE else list[str] for name in (*_ATTRIBUTES, *_PAIRS, *_METHODS, *_KINDS)},
    **dict.fromkeys(("seeds", "cause_seeds", "base_seeds"), list[Seed]),
    **dict.fromkeys(("modes", "control_modes"), list[str]),
    **{k: list[_OF_METHODS[k]] for k in ("lambda_2", "sigma_rs", "batch_norm", "sampling", "radius_scale")},
    **dict.fromkeys(("epsilons", "sigma_cs"), list[Positive]),
    **dict.fromkeys(("values", "shown_values"), list[Annotated[float, Between(-1000, 1000)]]),
    **dict.fromkeys(("phis", "outlier_phis"), list[Phi]),
    **dict.fromkeys(("min_fairness_gain", "max_accuracy_loss"), Percent),
    **dict.fromkeys(("min_fairness", "min_kept", "min_changed", "tolerance"), Percent),
    **dict.fromkeys(("min_correlation", "min_r2"), Share),
    **dict.fromkeys(("faces_per_pair", "top"), Few),
    **dict.fromkeys(("data_root", "annotations", "images"), Annotated[str, Folder()]),
    "groups": list[dict[str, Any]],
    "longer": dict[str, list[Annotated[int, Between(1, 10_000)]]],
    "seeds_of": dict[str, list[Seed]],
    "confidence": Annotated[float, Between(0.5, 0.999999)],
    "swap_phi": Correlation,
    "min_ratio_factor": Positive,
    **dict.fromkeys(("min_fair", "max_chance"), Percent),
    **dict.fromkeys(("smoothing_noise", "max_excess_bits"), Positive),
    **dict.fromkeys(("n_rendered", "max_images"), Annotated[int, Between(0, 10**7)]),
    "seed": Seed,
    "step": list[NotNegative],
    "base_splits": list[Literal["train", "valid", "test"]],
    "device": Literal["auto", "cpu", "cuda"],
    "output": Annotated[str, Empty()],
}


def check_types(given: dict[str, Any], where: str) -> None:
    """Check a notebook's parameters against `TYPES`; `where` is the file.

    Raises
    ------
    StudyError
        Naming the file, the key, and what is allowed.
    """
    for key, value in given.items():
        cast(value, TYPES.get(key, Any), where, key)
    for i, group in enumerate(given.get("groups", ())):
        at = f"groups[{i}]."
        check_keys(group, ASKED, ["pairs"], where, at)
        for key, value in group.items():
            cast(value, TYPES[key], where, f"{at}{key}")


def check_by_hand() -> None:
    """Check the parameters of the notebook that runs in this kernel, as the batch run checks params/.

    They are the annotated names of its namespace. Outside of a kernel, or of a notebook of this study, there
    is nothing to check; where results go is free by hand.

    Raises
    ------
    StudyError
        Naming the parameter, and what is allowed.
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    space = shell.user_ns if shell else {}
    given = {name: space[name] for name in space.get("__annotations__", {}) if name in space}
    if {"profile", "device", "interactive"} <= given.keys():
        check_types({k: v for k, v in given.items() if k != "output"}, "parameters cell")


def check_names(given: dict[str, Any], pipeline: Pipeline, column: Callable[[str], Any]) -> None:
    """Check that what a notebook's parameters name exists: attributes, pairs, methods, kinds, modes.

    ``column(name)`` raises `StudyError` for an attribute that the data set does not have.

    Raises
    ------
    StudyError
        Naming the key, and the nearest name that exists.
    """
    for key, name in _named(given, _PAIRS):
        with about(f"'{key}'"):
            task, names = parse_pair(name)
            for attribute in (task, *names):
                if attribute not in DISCOVERED_NAMES:
                    column(attribute)
    for key, name in _named(given, _ATTRIBUTES):
        with about(f"'{key}'"):
            column(name)
    for key, name in _named(given, _METHODS):
        if name not in pipeline.methods:
            raise StudyError(f"'{key}': method '{name}' is unknown{nearest(name, pipeline.methods)}")
    for key, name in _named(given, _KINDS):
        with about(f"'{key}'"):
            find_kind(name)
    experiments_of(pipeline, given)
    questions_of(given)


def _named(given: dict[str, Any], keys: Iterable[str]) -> Iterable[tuple[str, str]]:
    """Yield every name that stands under one of the keys, in groups too, and the key."""
    for part in (given, *given.get("groups", ())):
        for key in keys:
            value = part.get(key, ())
            yield from ((key, name) for name in ([value] if isinstance(value, str) else value))
