"""Encoders whose layers are not known: R is called at every similar individual.

Two modes need no more than that: ``empirical`` tries points, ``monte_carlo`` samples. They say what their
namesakes say; a face takes 110 calls of R, or some 30,000.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from lassi_lib.certification import empirical, monte_carlo
from lassi_lib.certification.center import center_smoothing
from lassi_lib.certification.margins import TOLERANCE
from lassi_lib.certification.problem import Problem
from lassi_lib.errors import StudyError
from lassi_lib.numerics import threads
from lassi_lib.progress import progress
from lassi_lib.streams import numpy_stream

MODES = ("empirical", "monte_carlo")
_BATCH = 1024  # latents at a time


class Samples:
    """Sampled representations [n, k] relative to R(z), float64: a `center.Cloud`."""

    def __init__(self, points: torch.Tensor) -> None:
        self._points = points

    def __len__(self) -> int:
        return len(self._points)

    def point(self, row: int) -> torch.Tensor:
        """Return one sample, [k]."""
        return self._points[row]

    def distances(self, point: torch.Tensor) -> torch.Tensor:
        """Return the distances of all samples from a point, [n]."""
        return (self._points - point).norm(dim=1)

    def squared(self, rows: torch.Tensor, columns: torch.Tensor | None = None) -> torch.Tensor:
        """Return squared distances between samples, [len(rows), n or len(columns)]."""
        others = self._points if columns is None else self._points[columns]
        exact = "donot_use_mm_for_euclid_dist"
        return torch.cdist(self._points[rows], others, compute_mode=exact).square()

    squared_exact = squared

    def rounding(self) -> float:
        """Return a bound of the rounding error of distances: they come from direct differences."""
        return 1e-12 * float(self._points.abs().max())


def rows(
    problem: Problem,
    encoder: Callable[[torch.Tensor], torch.Tensor],
    z: torch.Tensor,
    indices: Sequence[int],
    mode: str,
    device: torch.device,
    label: str = "",
) -> list[dict[str, Any]]:
    """Certify every point with an `encoder`; else as `certify.certify`.

    Parameters
    ----------
    problem : Problem
        What all points have in common; it has no encoder.
    encoder : callable
        R: latents [m, d] on `device` -> representations [m, k].
    z : torch.Tensor
        [N, d] latents.
    indices : sequence of int
        [N], the points' numbers, which name their streams.
    mode : str
        One of `MODES`.
    device : torch.device
        Where the encoder wants its latents.
    label : str
        Caption of the progress bar.

    Raises
    ------
    StudyError
        If the mode needs to know the layers, or as `certify_point`.
    """
    if mode not in MODES:
        raise StudyError(
            f"certification mode '{mode}' needs an encoder of known layers: use {' or '.join(MODES)}"
        )
    found = []
    with threads(1), progress(total=len(z), label=label, unit="point") as bar:
        for index, point in zip(np.asarray(indices).tolist(), z, strict=True):
            found.append({"index": index, **certify_point(encoder, problem, point, index, mode, device)})
            bar.update()
    return found


@torch.no_grad()
def certify_point(
    encoder: Callable[[torch.Tensor], torch.Tensor],
    problem: Problem,
    z: torch.Tensor,
    index: int,
    mode: str,
    device: torch.device,
) -> dict[str, Any]:
    """Certify one latent, as the module of the mode does with known layers.

    Parameters
    ----------
    encoder : callable
        R: latents [m, d] on `device` -> representations [m, k].
    problem : Problem
        What all points have in common; it has no encoder.
    z : torch.Tensor
        [d], the latent.
    index : int
        The point's number, which names its streams.
    mode : str
        One of `MODES`.
    device : torch.device
        Where the encoder wants its latents.

    Raises
    ------
    StudyError
        If the encoder returns a value that is not finite.
    """

    def represent(t: torch.Tensor) -> torch.Tensor:
        """R(z + t A) at coefficients t [m, n], float64 [m, k] on the CPU."""
        parts = [encoder(problem.similarity.points(z, part).to(device)).cpu() for part in t.split(_BATCH)]
        r = torch.cat(parts).double()
        if not torch.isfinite(r).all():
            raise StudyError(
                f"the classifier's answer near face {index} is not finite: check it for overflow"
            )
        return r

    n = problem.similarity.n
    origin = represent(torch.zeros(1, n))[0]
    if mode == "empirical":
        sets = empirical.points(problem.similarity, numpy_stream(problem.seed, mode, index))
        t = torch.cat(list(sets.values()))
        logits = (
            np.concatenate([origin[None].numpy(), represent(t).numpy()]) @ problem.weight.T + problem.bias
        )
        return _tried(logits, t)
    spec = problem.spec
    noise = torch.from_numpy(monte_carlo.coefficients(problem, index))
    candidates, mass, radius = noise.split(monte_carlo.sample_sizes(spec))
    candidates = candidates[candidates[:, 0].argsort()]  # neighbouring rows lie close, which helps the search
    clouds = [Samples(represent(t) - origin) for t in (candidates, mass, radius)]
    return monte_carlo.row(problem, index, center_smoothing(*clouds, spec), origin, math.nan)


def _tried(logits: np.ndarray, t: torch.Tensor) -> dict[str, Any]:
    """Compare the logits [1 + m, K] at m points with those at z, which stand first; ties are different."""
    prediction = int(logits[0].argmax())
    rivals = np.delete(logits, prediction, axis=1)
    margin = logits[:, prediction] - rivals.max(1)
    fair = margin[1:] > TOLERANCE * np.abs(logits[1:]).max(1)
    found = {"prediction": prediction, "status": "PASSED" if fair.all() else "REFUTED", "witness_class": -1}
    witness = np.full(t.shape[1], math.nan)
    if not fair.all():
        first = int(fair.argmin())
        witness, there = t[first].numpy(), logits[1 + first].copy()
        there[prediction] = -math.inf  # a tie goes to the rival
        found["witness_class"] = int(there.argmax())
    return found | {f"witness_{k}": float(x) for k, x in enumerate(witness, 1)}
