"""LASSI's certificate (ECCV 2022, Algorithm 1): one row per test point.

R is smoothed at z by center smoothing, C at the result r_cs by randomized smoothing. All similar
points are represented within d_cs of r_cs, and C keeps its class within d_rs: the prediction is
individually fair at z if d_cs < d_rs, with confidence 1 - alpha_cs - alpha_rs.
"""

from __future__ import annotations

import math
import pickle
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from lassi_lib.certification import line, patch, smoothing
from lassi_lib.certification import workers as processes
from lassi_lib.certification.center import center_smoothing
from lassi_lib.certification.network import Restriction
from lassi_lib.certification.spec import CertificationSpec, d_rs_ceiling, required_n_center
from lassi_lib.errors import StudyError
from lassi_lib.numerics import threads
from lassi_lib.progress import progress
from lassi_lib.similarity.sets import SimilaritySet
from lassi_lib.streams import numpy_stream

__all__ = ["STATUSES", "CertificationSpec", "certify", "d_rs_ceiling", "required_n_center"]

STATUSES = ("CERTIFIED", "NOT_CERTIFIED", "ABSTAINED_CENTER", "ABSTAINED_CLASSIFIER")
TOLERANCE = 1e-5  # relative: d_cs within this of d_rs is a tie, and ties are not certified
_BLOCK, _HELD = 32, 1024  # latents per first-layer product; first layers held at a time
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
    workers: int = 1,
    label: str = "",
) -> pd.DataFrame:
    """Certify individual fairness at every point, faithful to the papers' sampling.

    Every point draws from streams of its own, (seed, stage, index): neither order, batch nor
    workers change a result.

    Parameters
    ----------
    representation : Representation
        R; only ``folded_layers()`` is used.
    classifier : torch.nn.Linear
        C.
    similarity : SimilaritySet
        The attribute vectors [n, d] (its epsilon must be the spec's).
    z : torch.Tensor
        [N, d] latents.
    labels, indices : sequence of int
        [N] true classes, and the points' numbers in their data set, which name their streams.
    workers : int
        Processes over points; each uses one core. They are kept for later calls.
    label : str
        Caption of the progress bar.

    Returns
    -------
    pandas.DataFrame
        One row per point: ``index``, ``label``, ``prediction`` (-1 where abstained), ``status`` (one
        of `STATUSES`), ``d_cs`` (NaN if the center abstained), ``d_rs`` (NaN if either abstained),
        ``p_A``, ``center_radius`` (rho), ``mass_fraction`` (of fresh samples within rho),
        ``smoothing_error`` (||r_cs - R(z)||) and ``n_pieces`` (linear pieces of R on the sampled
        line; for more attributes the mean number of features that describe a cell, see `patch.pieces`).

    Raises
    ------
    StudyError
        If the spec cannot certify anything.
    """
    spec.validate()
    if not len(z) == len(labels) == len(indices):
        raise ValueError(f"{len(z)} latents, {len(labels)} labels and {len(indices)} indices")
    if similarity.epsilon != spec.epsilon:
        raise ValueError(f"epsilon is {similarity.epsilon} in the set and {spec.epsilon} in the spec")
    encoder = Restriction(representation, similarity.vectors)
    weight, bias = (p.detach().cpu().double().numpy() for p in (classifier.weight, classifier.bias))
    shared = _Shared(encoder.without_first(), similarity, weight, bias, spec, seed)
    numbers, rows = np.asarray(indices).tolist(), []
    with (
        threads(1),
        tempfile.TemporaryDirectory(prefix="lassi-") as folder,
        progress(total=len(z), label=label, unit="point") as bar,
    ):
        path = Path(folder) / "shared.pickle"
        if workers > 1:
            path.write_bytes(pickle.dumps(shared))  # read back by our own processes alone
        for start in range(0, len(z), _HELD):
            held = z[start : start + _HELD]
            with ThreadPoolExecutor(workers) as pool:
                u0 = torch.cat(list(pool.map(encoder.first, held.split(_BLOCK)))).numpy()
            if not np.isfinite(u0).all():
                raise StudyError(
                    f"certify {label}: a latent of the test points is not finite: encode them again"
                )
            jobs = [
                (u0[i : i + _CHUNK], numbers[start + i : start + i + _CHUNK])
                for i in range(0, len(u0), _CHUNK)
            ]
            for found in _mapped(shared, path, jobs, workers):
                rows += found
                bar.update(len(found))
    table = pd.DataFrame(rows)
    table.insert(1, "label", np.asarray(labels, dtype=np.int64))
    return table


@dataclass(frozen=True)
class _Shared:
    """What all points have in common: small enough to be sent to other processes."""

    encoder: Restriction
    similarity: SimilaritySet
    weight: np.ndarray
    bias: np.ndarray
    spec: CertificationSpec
    seed: int


def _mapped(shared: _Shared, path: Path, jobs: list[tuple], workers: int) -> Iterator[list[dict]]:
    """Yield the rows of every job, in order, from this process or from a pool of processes."""
    if workers == 1:
        yield from (_certify_points(shared, *job) for job in jobs)
        return
    try:
        yield from processes.pool(workers).map(_certify_elsewhere, repeat(str(path)), jobs)
    except BaseException:  # Ctrl-C above all: leave no process at work
        processes.close(workers)
        raise


def _certify_elsewhere(path: str, job: tuple) -> list[dict[str, Any]]:
    return _certify_points(_read_shared(path), *job)


@lru_cache(maxsize=1)
def _read_shared(path: str) -> _Shared:
    return pickle.loads(Path(path).read_bytes())


@torch.no_grad()
def _certify_points(shared: _Shared, u0: np.ndarray, indices: list[int]) -> list[dict[str, Any]]:
    """Certify a few points, given the first layer's outputs `u0` [m, h_1] at their latents."""
    points = zip(indices, torch.from_numpy(u0), strict=True)
    return [{"index": index, **_certify_point(shared, first, index)} for index, first in points]


def _certify_point(shared: _Shared, u0: torch.Tensor, index: int) -> dict[str, Any]:
    """Certify one point, given the first layer's output `u0` [h_1] at its latent."""
    encoder, spec = shared.encoder, shared.spec

    def stream(stage: str) -> np.random.Generator:
        return numpy_stream(shared.seed, stage, index)

    draws = (("candidates", spec.n_center), ("mass", spec.n_center), ("radius", spec.n_radius))
    t = [
        torch.from_numpy(shared.similarity.gaussian(n, spec.sigma_cs, stream(f"center/{name}")))
        for name, n in draws
    ]
    if len(encoder.U) == 1:
        candidates, mass, radius = (x.squeeze(1) for x in t)
        both = torch.cat([candidates, mass, radius])
        curve = line.trace(encoder, u0, min(float(both.min()), -1e-9), max(float(both.max()), 1e-9))
        origin, pieces = curve.origin, len(curve.t) - 1
        clouds = [curve.at(x) for x in (candidates.sort().values, mass, radius)]
    else:
        origin, surface = patch.pieces(encoder, u0, torch.cat(t))
        pieces = sum(p.features.shape[1] for p in surface) / len(surface)
        ends = np.cumsum([0, spec.n_center, spec.n_center, spec.n_radius]).tolist()
        clouds = [patch.Points(surface, *span) for span in pairwise(ends)]
    cs = center_smoothing(*clouds, spec)
    row = {
        "prediction": -1,
        "status": "ABSTAINED_CENTER",
        "d_cs": math.nan,
        "d_rs": math.nan,
        "p_A": math.nan,
        "center_radius": cs.radius,
        "mass_fraction": cs.mass_fraction,
        "smoothing_error": float(cs.center.norm()),
        "n_pieces": pieces,
    }
    if cs.d_cs is None:
        return row
    logits = shared.weight @ (origin + cs.center).numpy() + shared.bias
    rs = smoothing.smooth_classifier(
        logits, shared.weight, spec, stream("votes/guess"), stream("votes/count")
    )
    row |= {"d_cs": cs.d_cs, "p_A": rs.p_A, "status": "ABSTAINED_CLASSIFIER"}
    if rs.d_rs is not None:
        fair = cs.d_cs < rs.d_rs * (1 - TOLERANCE)
        row |= {
            "prediction": rs.prediction,
            "d_rs": rs.d_rs,
            "status": "CERTIFIED" if fair else "NOT_CERTIFIED",
        }
    return row
