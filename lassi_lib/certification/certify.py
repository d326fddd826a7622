"""Certificates of individual fairness, one row per test point, in one of several modes.

``monte_carlo`` is LASSI's certificate as published (ECCV 2022, Algorithm 1). It speaks of the
smoothed encoder and classifier, with high probability.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from lassi_lib.certification import batched, black_box, monte_carlo
from lassi_lib.certification import workers as processes
from lassi_lib.certification.modes import MODES
from lassi_lib.certification.network import FIRST, Restriction
from lassi_lib.certification.problem import Problem, weights_of
from lassi_lib.certification.spec import CertificationSpec
from lassi_lib.errors import StudyError, nearest
from lassi_lib.numerics import threads
from lassi_lib.progress import progress
from lassi_lib.similarity.sets import SimilaritySet

_HELD = 1024  # first layers held at a time
_CHUNK = 8  # points sent to a process at a time


@torch.no_grad()
def certify(
    representation: Any,
    classifier: torch.nn.Linear,
    similarity: SimilaritySet,
    z: torch.Tensor,
    labels: Sequence[int],
    spec: CertificationSpec,
    *,
    seed: int,
    indices: Sequence[int],
    mode: str = "monte_carlo",
    workers: int = 1,
    device: str | torch.device = "cpu",
    label: str = "",
) -> pd.DataFrame:
    """Certify individual fairness at every point.

    Every point draws from streams of its own, (seed, stage, index): neither order, batch nor
    workers change a result.

    Parameters
    ----------
    representation : Representation
        R; only ``folded_layers()`` is used. An encoder without them is called at every point (`black_box`).
    classifier : torch.nn.Linear
        C.
    similarity : SimilaritySet
        The attribute vectors [n, d] (its epsilon must be the spec's).
    z : torch.Tensor
        [N, d] latents.
    labels : sequence of int
        [N] true classes.
    spec : CertificationSpec
        Noise, sample sizes and failure probabilities.
    seed, indices : int, sequence of int
        The seed and the points' numbers [N] in their data set: together they name the random streams.
    mode : str
        One of `MODES`.
    workers : int
        Processes over points; each uses one core. They are kept for later calls.
    device : str or torch.device
        On a CUDA device the modes that `batched` offers run there, many points at a time.
    label : str
        Caption of the progress bar.

    Returns
    -------
    pandas.DataFrame
        One row per point: ``index``, ``label``, ``prediction`` (-1 where abstained), ``status`` (one
        of `modes.STATUSES`), and what `certify_point` of the mode's module says beside them.

    Raises
    ------
    StudyError
        If the mode is unknown or the spec cannot certify anything.
    """
    if mode not in MODES:
        raise StudyError(f"certification mode '{mode}' is unknown{nearest(mode, MODES)}")
    if similarity.n > MODES[mode]:
        raise StudyError(
            f"certification mode '{mode}' is offered for at most {MODES[mode]} attributes, not {similarity.n}"
        )
    _check(similarity, spec, z, indices)
    if len(labels) != len(z):
        raise ValueError(f"{len(z)} latents and {len(labels)} labels")
    device = torch.device(device)
    if not hasattr(representation, "folded_layers"):
        problem = Problem(None, similarity, *weights_of(classifier), spec, seed)
        return _table(black_box.rows(problem, representation, z, indices, mode, device, label), labels)
    encoder = Restriction(representation, similarity.vectors, device)
    problem = Problem(encoder.without_first(), similarity, *weights_of(classifier), spec, seed)
    return _table(_rows(encoder, problem, z, indices, mode, workers, device, label), labels)


@torch.no_grad()
def smooth_centers(
    representation: Any,
    similarity: SimilaritySet,
    z: torch.Tensor,
    spec: CertificationSpec,
    *,
    seed: int,
    indices: Sequence[int],
    workers: int = 1,
    device: str | torch.device = "cpu",
    label: str = "",
) -> dict[str, np.ndarray]:
    """Do the part of the mode ``monte_carlo`` that knows no classifier: center smoothing of R at every point.

    With `certify_smoothed` it gives what `certify` gives, bit for bit. Where an encoder serves many tasks
    (claim 3) it is most of the work, and needed once.

    Parameters
    ----------
    representation : Representation
        R; it must have ``folded_layers()``.
    similarity : SimilaritySet
        The attribute vectors [n, d].
    z : torch.Tensor
        [N, d] latents.
    spec : CertificationSpec
        Noise, sample sizes and failure probabilities; nothing of it that is about votes matters.
    seed, indices : int, sequence of int
        The seed and the points' numbers [N] in their data set: together they name the random streams.
    workers : int
        Processes over points; each uses one core.
    device : str or torch.device
        On a CUDA device many points are smoothed at a time.
    label : str
        Caption of the progress bar.

    Returns
    -------
    dict of numpy.ndarray
        By name, one entry per point: ``index``, ``center`` (r_cs, float64 [N, k]), ``d_cs`` (NaN where the
        center abstained), ``center_radius``, ``mass_fraction``, ``smoothing_error``, ``n_pieces``.
    """
    _check(similarity, spec, z, indices)
    device = torch.device(device)
    encoder = Restriction(representation, similarity.vectors, device)
    nobody = np.zeros((0, len(encoder.tail[-1][1]))), np.zeros(0)  # a classifier without classes
    problem = Problem(encoder.without_first(), similarity, *nobody, spec, seed)
    rows = _rows(encoder, problem, z, indices, "monte_carlo", workers, device, label)
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def certify_smoothed(
    smoothed: dict[str, np.ndarray],
    classifier: torch.nn.Linear,
    labels: Sequence[int],
    spec: CertificationSpec,
    *,
    seed: int,
) -> pd.DataFrame:
    """Certify the points that `smooth_centers` smoothed, for one classifier; returns what `certify` returns.

    Parameters
    ----------
    smoothed : dict of numpy.ndarray
        What `smooth_centers` returned, for N points.
    classifier : torch.nn.Linear
        C.
    labels : sequence of int
        [N] true classes.
    spec : CertificationSpec
        As for `smooth_centers`; what it says of votes matters here.
    seed : int
        As for `smooth_centers`: names the streams of the votes, with the points' numbers.
    """
    weight, bias = weights_of(classifier)
    rows = []
    for values in zip(*smoothed.values(), strict=True):
        point = dict(zip(smoothed, values, strict=True))
        index = int(point.pop("index"))
        rows.append({"index": index, **monte_carlo.judge(point, weight, bias, spec, seed, index)})
    return _table(rows, labels)


def _check(
    similarity: SimilaritySet, spec: CertificationSpec, z: torch.Tensor, indices: Sequence[int]
) -> None:
    """Refuse a spec that can certify nothing, and arguments that contradict one another."""
    spec.validate()
    if len(z) != len(indices):
        raise ValueError(f"{len(z)} latents and {len(indices)} indices")
    if similarity.epsilon != spec.epsilon:
        raise ValueError(f"epsilon is {similarity.epsilon} in the set and {spec.epsilon} in the spec")


def _table(rows: list[dict[str, Any]], labels: Sequence[int]) -> pd.DataFrame:
    table = pd.DataFrame(rows)
    table.insert(1, "label", np.asarray(labels, dtype=np.int64))
    return table


def _rows(
    encoder: Restriction,
    problem: Problem,
    z: torch.Tensor,
    indices: Sequence[int],
    mode: str,
    workers: int,
    device: torch.device,
    label: str,
) -> list[dict[str, Any]]:
    """Return a row per point, with its number, in the points' order."""
    numbers, rows = np.asarray(indices).tolist(), []
    with (
        threads(1),
        tempfile.TemporaryDirectory(prefix="lassi-") as folder,
        progress(total=len(z), label=label, unit="point") as bar,
    ):
        path = Path(folder) / "problem.safetensors"
        if workers > 1:
            problem.save(path)
        for start in range(0, len(z), _HELD):
            held = z[start : start + _HELD]
            with ThreadPoolExecutor(workers) as pool:
                u0 = torch.cat(list(pool.map(encoder.first, held.split(FIRST)))).numpy()
            if not np.isfinite(u0).all():
                raise StudyError(
                    f"certify {label}: a latent of the test points is not finite: encode them again"
                )
            here = numbers[start : start + len(u0)]
            if device.type == "cuda" and batched.offers(mode, problem.similarity.n):
                found = batched.certify_batch(problem, torch.from_numpy(u0), here, mode, device)
                parts = [[{"index": i, **row} for i, row in zip(here, found, strict=True)]]
            else:
                jobs = [(u0[i : i + _CHUNK], here[i : i + _CHUNK]) for i in range(0, len(u0), _CHUNK)]
                parts = _mapped(problem, mode, path, jobs, workers)
            for found in parts:
                rows += found
                bar.update(len(found))
    return rows


def _mapped(problem: Problem, mode: str, path: Path, jobs: list[tuple], workers: int) -> Iterator[list[dict]]:
    """Yield the rows of every job, in order, from this process or from a pool of processes."""
    if workers == 1:
        yield from (_certify_points(problem, mode, *job) for job in jobs)
        return
    yield from processes.mapped(workers, partial(_certify_elsewhere, str(path), mode), jobs)


def _certify_elsewhere(path: str, mode: str, job: tuple) -> list[dict[str, Any]]:
    return _certify_points(_read(path), mode, *job)


@lru_cache(maxsize=1)
def _read(path: str) -> Problem:
    return Problem.load(Path(path))


@torch.no_grad()
def _certify_points(problem: Problem, mode: str, u0: np.ndarray, indices: list[int]) -> list[dict[str, Any]]:
    """Certify a few points, given the first layer's outputs `u0` [m, h_1] at their latents."""
    certify_point = import_module(f"lassi_lib.certification.{mode}").certify_point
    points = zip(indices, torch.from_numpy(u0), strict=True)
    return [{"index": index, **certify_point(problem, first, index)} for index, first in points]
