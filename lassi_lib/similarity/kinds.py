"""The kinds of attribute vectors: what each is made from, and the papers' epsilon.

A table without torch, so that parameters can be checked before anything heavy is imported; the
functions themselves stand in `vectors`, `boundaries` and `discovered`.
"""

from __future__ import annotations

from dataclasses import dataclass

from lassi_lib.errors import StudyError, nearest


@dataclass(frozen=True)
class VectorKind:
    """One way to make attribute vectors.

    Attributes
    ----------
    needs : tuple of str
        Arguments of `vectors.attribute_vector` beyond the training latents z.
    text : str
        What it is, for tables.
    epsilon : float
        The papers' radius of the similarity set on CelebA, which the profile's radius and noise are
        multiplied by: 10 for unit vectors. Controls take that of the vector they replace.
    """

    needs: tuple[str, ...]
    text: str
    epsilon: float = 1.0


KINDS = {
    "mean_difference": VectorKind(("y",), "difference of the class means"),
    "perpendicular": VectorKind(("boundary",), "unit normal of a logistic boundary", 10.0),
    "ramaswamy": VectorKind(
        ("boundary", "task_boundary"), "mirror direction that keeps the task score, mean absolute length"
    ),
    "ramaswamy_signed": VectorKind(
        ("boundary", "task_boundary"), "the same, average of the signed displacements (as the paper says)"
    ),
    "discovered": VectorKind(
        ("task_boundary", "predict", "seed"), "learned biased direction, faulty projection", 10.0
    ),
    "discovered_mended": VectorKind(
        ("task_boundary", "predict", "seed"), "learned biased direction, true projection", 10.0
    ),
    "pairs": VectorKind(("codes",), "differences of the class means of an ordered factor"),
    "pairs_basis": VectorKind(("codes",), "principal axes of the pairs: the same set"),
    # controls: none of these is in the papers
    "random": VectorKind(("y", "generator"), "Gaussian direction of the mean difference's length"),
    "degraded": VectorKind(("y", "generator"), "mean difference, turned by an angle"),
    "degraded_same_task": VectorKind(
        ("y", "generator", "task_boundary"), "the same, at its cosine with the normal of the task's boundary"
    ),
    "partialled": VectorKind(("y", "others"), "mean difference at equal other attributes"),
    "true_factor": VectorKind(
        ("z_base", "z_counterfactual"), "mean displacement when the renderer changes the factor"
    ),
    # direction alone: as long as the mean difference, like random and degraded
    "partialled_matched": VectorKind(("y", "others"), "partialled, of the mean difference's length"),
    "true_factor_matched": VectorKind(
        ("y", "z_base", "z_counterfactual"), "true factor, of the mean difference's length"
    ),
}

SAME_TASK = "degraded_same_task"
# the attribute names under which the original code files the three discovered vectors
DISCOVERED_NAMES = ("biased_attr_0", "biased_attr_1", "biased_attr_2")


def find_kind(kind: str) -> VectorKind:
    """Return the entry of a kind; ``degraded_45`` is ``degraded`` by 45 degrees, ``degraded_45_same_task`` too.

    Raises
    ------
    StudyError
        If there is no such kind, or ``degraded`` comes without an angle in 0..180.
    """
    name, angle = _parts(kind)
    if name not in KINDS:
        raise StudyError(f"attribute vector kind '{kind}' is unknown{nearest(kind, KINDS)}")
    if name in ("degraded", SAME_TASK) and angle is None:
        raise StudyError(f"attribute vector kind '{kind}' needs an angle in 0..180 degrees: 'degraded_45'")
    return KINDS[name]


def angle_of(kind: str) -> float | None:
    """Return the angle in degrees of a ``degraded_...`` kind, None for all others."""
    return _parts(kind)[1]


def is_same_task(kind: str) -> bool:
    """Whether it is a ``degraded_..._same_task`` kind."""
    return _parts(kind)[0] == SAME_TASK


def turned_freely(kind: str) -> str:
    """Return the kind turned as far without regard to the task; other kinds are their own."""
    return str(kind).removesuffix("_same_task")


def _parts(kind: str) -> tuple[str, float | None]:
    first, _, angle = str(kind).partition("degraded_")
    if first or not angle:
        return str(kind), None
    plain = turned_freely(f"_{angle}").removeprefix("_")
    name, angle = "degraded" if plain == angle else SAME_TASK, plain
    right = angle.replace(".", "", 1).isdecimal() and float(angle) <= 180
    return name, float(angle) if right else None
