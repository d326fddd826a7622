"""Attribute vectors: directions in latent space along which one attribute changes.

`attribute_vector` makes a vector of any kind in `kinds.KINDS`. Here are the kinds that are closed forms
of latents and labels, with their controls; `boundaries` and `discovered` hold those that are learned.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lassi_lib.errors import StudyError
from lassi_lib.similarity.boundaries import perpendicular, ramaswamy, ramaswamy_signed
from lassi_lib.similarity.discovered import Discovery, discover
from lassi_lib.similarity.kinds import KINDS, angle_of, find_kind, is_same_task


def attribute_vector(
    z: torch.Tensor, y: np.ndarray | None = None, kind: str = "mean_difference", **inputs: Any
) -> torch.Tensor:
    """Compute the attribute vector, or vectors, of one kind from training latents.

    Parameters
    ----------
    z : torch.Tensor
        [N, d] latents of the training split.
    y : numpy.ndarray, optional
        [N] binary labels of the attribute.
    kind : str
        A name in `kinds.KINDS`, whose entry says what is needed, or ``degraded_<degrees>``. Lengths are
        the kind's own: epsilon is measured in units of the vector.
    **inputs
        What else the kind needs: ``boundary`` and ``task_boundary`` (`boundaries.Boundary` of the
        attribute and the task), ``predict`` (differentiable, latents [m, d] -> probabilities [m] of
        class 1), ``seed``, ``generator`` (torch.Generator), ``codes`` ([N] ordered factor), ``others``
        ([N, A] other labels), ``z_base`` and ``z_counterfactual`` ([n, d] pairs of latents). Inputs of
        other kinds are ignored, so that one dictionary may serve several kinds.

    Returns
    -------
    torch.Tensor
        float32 [d]; [3, d] for the discovered kinds (`discovered.discover` gives their history too and
        takes other settings), [n, d] for pairs.

    Raises
    ------
    StudyError
        If the kind is unknown, a class is empty, or the attribute cannot be told from task or others.
    """
    inputs = {"y": y, **inputs}
    missing = [name for name in find_kind(kind).needs if inputs.get(name) is None]
    if missing:
        raise ValueError(f"attribute vector kind '{kind}' needs {', '.join(missing)}")
    unknown = inputs.keys() - {name for k in KINDS.values() for name in k.needs}
    if unknown:
        raise TypeError(f"no attribute vector takes {', '.join(sorted(unknown))}")
    return _make(z, kind, inputs)


def _make(z: torch.Tensor, kind: str, g: dict[str, Any]) -> torch.Tensor:
    angle = angle_of(kind)
    if angle is not None:
        normal = g["task_boundary"].w if is_same_task(kind) else None
        return degraded(mean_difference(z, g["y"]), angle, g["generator"], normal)
    match kind:
        case "mean_difference":
            return mean_difference(z, g["y"])
        case "perpendicular":
            return perpendicular(g["boundary"])
        case "ramaswamy":
            return ramaswamy(z, g["boundary"], g["task_boundary"])
        case "ramaswamy_signed":
            return ramaswamy_signed(z, g["boundary"], g["task_boundary"])
        case "discovered" | "discovered_mended":
            settings = Discovery(mended=kind == "discovered_mended")
            return discover(z, g["task_boundary"].w, g["predict"], settings, seed=g["seed"])[0]
        case "pairs":
            return pair_vectors(z, g["codes"])
        case "pairs_basis":
            return principal_axes(pair_vectors(z, g["codes"]))
        case "random":
            return random_like(mean_difference(z, g["y"]), g["generator"])
        case "partialled":
            return partialled(z, g["y"], g["others"])
        case "true_factor":
            return true_factor(g["z_base"], g["z_counterfactual"])
        case "partialled_matched" | "true_factor_matched":
            a = _make(z, kind.removesuffix("_matched"), g)
            return a * (mean_difference(z, g["y"]).norm() / a.norm())
    raise AssertionError(f"kind '{kind}' is in the table and nowhere else")


# ---- class means -----------------------------------------------------------------------------------


def mean_difference(z: torch.Tensor, y: np.ndarray) -> torch.Tensor:
    """Return ``mean(z | y = 1) - mean(z | y = 0)``, float32 [d], not normalised (ECCV 2022, section 4).

    Raises
    ------
    StudyError
        If one of the two classes is empty.
    """
    positive, negative = _classes(y)
    return (_mean(z, positive) - _mean(z, negative)).float()


def _classes(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    positive = np.flatnonzero(np.asarray(y) == 1)
    negative = np.flatnonzero(np.asarray(y) == 0)
    if not len(positive) or not len(negative):
        raise StudyError(
            f"an attribute vector needs faces with and without the attribute, found {len(positive)} "
            f"and {len(negative)}: use more training images"
        )
    return positive, negative


def _mean(z: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
    """Mean over rows in float64, in batches: [d]. The latents of a data set may exceed memory."""
    total = torch.zeros(z.shape[1], dtype=torch.float64)
    for chunk in np.array_split(rows, max(1, len(rows) // 2048)):
        total += z[torch.from_numpy(chunk)].double().sum(0)
    return total / len(rows)


# ---- pairs of an ordered factor (3D Shapes) ---------------------------------------------------------


def class_pairs(codes: np.ndarray) -> list[tuple[int, int]]:
    """Return the pairs (i, j) of codes with i < median < j, in the order of the original files' names.

    With 15 orientations: 7 * 7 = 49 pairs, sorted as text, 0_10 first and 0_14 fifth.
    """
    values = np.unique(codes).astype(int)
    middle = np.median(values)
    pairs = [(i, j) for i in values.tolist() for j in values.tolist() if i < middle < j]
    return sorted(pairs, key=lambda pair: f"{pair[0]}_{pair[1]}")


def pair_vectors(z: torch.Tensor, codes: np.ndarray) -> torch.Tensor:
    """Return mean(z | code j) - mean(z | code i) for all `class_pairs`, float32 [n, d].

    Parameters
    ----------
    z : torch.Tensor
        [N, d] latents in which the factor is not tied to others (3D Shapes: the unfiltered split).
    codes : numpy.ndarray
        [N] values of an ordered factor, whole numbers.

    Raises
    ------
    StudyError
        If there are fewer than two codes.
    """
    pairs = class_pairs(codes)
    if not pairs:
        raise StudyError(f"pair vectors need at least two codes, found {len(np.unique(codes))}")
    used = sorted({code for pair in pairs for code in pair})
    means = {code: _mean(z, np.flatnonzero(np.asarray(codes) == code)) for code in used}
    return torch.stack([means[j] - means[i] for i, j in pairs]).float()


def principal_axes(vectors: torch.Tensor) -> torch.Tensor:
    """Return the fewest vectors that span the same similarity set, orthogonal, longest first, [r, d].

    With the SVD A = U S V, the set {t A : ||t|| <= epsilon} is {s S V : ||s|| <= epsilon}, and t drawn from
    N(0, sigma^2 I_n) makes s = t U an N(0, sigma^2 I_r): neither the set nor center smoothing can tell the
    vectors S V from A. The 49 pairs of 15 class means have r <= 13.
    """
    _, lengths, axes = torch.linalg.svd(vectors.double(), full_matrices=False)
    kept = lengths > 1e-5 * lengths[0]  # the others are float32's rounding
    return (lengths[:, None] * axes)[kept].float()


# ---- controls -------------------------------------------------------------------------------------


def random_like(a: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return a Gaussian direction as long as `a` [d]: the negative control."""
    g = torch.randn(len(a), generator=generator, dtype=torch.float64)
    return (g / g.norm() * a.double().norm()).float()


def degraded(
    a: torch.Tensor, angle: float, generator: torch.Generator, normal: torch.Tensor | None = None
) -> torch.Tensor:
    """Return `a` [d] turned by `angle` degrees towards a random orthogonal direction, as long as before.

    A turned vector points less towards the task, too. With `normal` [d], that of the task's boundary, it keeps its
    cosine with it: only what else `a` holds of the attribute is lost.

    Raises
    ------
    StudyError
        If no direction at that angle keeps the cosine.
    """
    unit, turn = a.double() / a.double().norm(), np.deg2rad(angle)
    g = torch.randn(len(a), generator=generator, dtype=torch.float64)
    g = g - (g @ unit) * unit
    if normal is not None:
        n = _unit(normal.double())
        cos = n @ unit
        n = _unit(n - cos * unit)
        g = _unit(g - (g @ n) * n)
        share = ((1 - np.cos(turn)) * cos / max(np.sin(turn), 1e-9) / (1 - cos**2).sqrt()).item()
        if not abs(share) <= 1:
            raise StudyError(
                f"no vector turned by {angle:g} degrees keeps its cosine {cos:.2f} with the task's"
            )
        g = share * n + (1 - share**2) ** 0.5 * g
    return (a.double().norm() * (np.cos(turn) * unit + np.sin(turn) * g / g.norm())).float()


def _unit(a: torch.Tensor) -> torch.Tensor:
    return a / a.norm()


def partialled(z: torch.Tensor, y: np.ndarray, others: np.ndarray) -> torch.Tensor:
    """Return the mean difference at equal `others`: y's coefficient in z ~ 1 + y + others, float32 [d].

    A class-mean difference drags every correlated attribute along; this one does not, as far as the
    others [N, A] act additively. By the theorem of Frisch and Waugh it is
    sum_i r_i z_i / sum_i r_i y_i, r being what a regression of y on the others leaves over.

    Raises
    ------
    StudyError
        If a class is empty, or the others determine y.
    """
    _classes(y)
    y = np.asarray(y, dtype=np.float64)
    design = np.column_stack([np.ones(len(y)), np.asarray(others, dtype=np.float64)])
    left = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    if left @ left < 1e-6 * len(y) * y.var():
        raise StudyError("a partialled vector needs faces that differ in the attribute alone: drop a label")
    weights, total = torch.from_numpy(left / (left @ y)), torch.zeros(z.shape[1], dtype=torch.float64)
    for rows in torch.arange(len(y)).split(2048):
        total += weights[rows] @ z[rows].double()
    return total.float()


def true_factor(z_base: torch.Tensor, z_counterfactual: torch.Tensor) -> torch.Tensor:
    """Return the mean displacement from faces to the same faces with the factor changed, float32 [d].

    Parameters
    ----------
    z_base, z_counterfactual : torch.Tensor
        [n, d] latents of rendered faces, row by row the same but for one factor. Drawing the base
        without the attribute and the counterfactual with it gives the length of a full change.
    """
    if z_base.shape != z_counterfactual.shape or not len(z_base):
        raise ValueError(f"{list(z_base.shape)} and {list(z_counterfactual.shape)} are no pairs of latents")
    rows = np.arange(len(z_base))
    return (_mean(z_counterfactual, rows) - _mean(z_base, rows)).float()
