"""Mode ``monte_carlo``: Algorithm 1 of ECCV 2022 by sampling, faithful to the papers.

R is smoothed at z by center smoothing, C at the result r_cs by randomized smoothing. All similar
points are represented within d_cs of r_cs, and C keeps its class within d_rs: the prediction is
individually fair at z if d_cs < d_rs, with confidence 1 - alpha_cs - alpha_rs.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from lassi_lib.certification import line, patch, smoothing
from lassi_lib.certification.center import CenterSmoothing, center_smoothing
from lassi_lib.certification.margins import TOLERANCE
from lassi_lib.certification.problem import Problem
from lassi_lib.certification.spec import CertificationSpec
from lassi_lib.streams import numpy_stream


def certify_point(problem: Problem, u0: torch.Tensor, index: int) -> dict[str, Any]:
    """Certify the point with number `index`, given the first layer's output `u0` [h_1] at its latent.

    Returns
    -------
    dict
        ``prediction`` (-1 where abstained), ``status`` (CERTIFIED, NOT_CERTIFIED, ABSTAINED_CENTER,
        ABSTAINED_CLASSIFIER), ``d_cs`` (NaN if the center abstained), ``d_rs`` (NaN if either
        abstained), ``p_A``, ``center_radius`` (rho), ``mass_fraction`` (of fresh samples within rho),
        ``smoothing_error`` (||r_cs - R(z)||) and ``n_pieces`` (linear pieces of R on the sampled
        line; for more attributes the mean number of features that describe a cell, see `patch.pieces`).
    """
    encoder, spec = problem.encoder, problem.spec
    t, counts = torch.from_numpy(coefficients(problem, index)), sample_sizes(spec)
    if len(encoder.U) == 1:
        candidates, mass, radius = t.squeeze(1).split(counts)
        curve = line.trace(encoder, u0, min(float(t.min()), -1e-9), max(float(t.max()), 1e-9))
        origin, pieces = curve.origin, len(curve.t) - 1
        clouds = [curve.at(x) for x in (candidates.sort().values, mass, radius)]
    else:
        origin, surface = patch.pieces(encoder, u0, t)
        pieces = sum(p.features.shape[1] for p in surface) / len(surface)
        ends = np.cumsum([0, *counts]).tolist()
        clouds = [patch.Points(surface, *span) for span in pairwise(ends)]
    return row(problem, index, center_smoothing(*clouds, spec), origin, pieces)


def sample_sizes(spec: CertificationSpec) -> list[int]:
    """Return how many points center smoothing draws: candidates, for their mass, for the radius."""
    return [spec.n_center, spec.n_center, spec.n_radius]


def coefficients(problem: Problem, index: int) -> np.ndarray:
    """Return the noise of one point's center smoothing, float64 [2 n_0 + n, attributes].

    Candidates, mass and radius (`sample_sizes`) have a stream each, named by the point's number.
    """
    drawn = [
        problem.similarity.gaussian(
            n, problem.spec.sigma_cs, numpy_stream(problem.seed, f"center/{name}", index)
        )
        for name, n in zip(("candidates", "mass", "radius"), sample_sizes(problem.spec), strict=True)
    ]
    return np.concatenate(drawn)


def vote_streams(seed: int, index: int) -> list[np.random.Generator]:
    """Return what the votes of one point are drawn from: those that guess its class, and those that count."""
    return [numpy_stream(seed, f"votes/{stage}", index) for stage in ("guess", "count")]


def row(
    problem: Problem, index: int, cs: CenterSmoothing, origin: torch.Tensor, pieces: float
) -> dict[str, Any]:
    """Return the row of a point whose representations were smoothed.

    Parameters
    ----------
    problem : Problem
        What all points have in common. One without a classifier asks for the smoothed point alone
        (`judge` says what of it).
    index : int
        The point's number, which names the streams of its votes.
    cs : CenterSmoothing
        What center smoothing said, of representations relative to `origin`.
    origin : torch.Tensor
        float64 [k], R(z).
    pieces : float
        The row's ``n_pieces`` (see `certify_point`); NaN where the layers are not known.
    """
    smoothed = {
        "center": (origin + cs.center).numpy(),
        "d_cs": math.nan if cs.d_cs is None else cs.d_cs,
        "center_radius": cs.radius,
        "mass_fraction": cs.mass_fraction,
        "smoothing_error": float(cs.center.norm()),
        "n_pieces": pieces,
    }
    if not len(problem.weight):
        return smoothed
    return judge(smoothed, problem.weight, problem.bias, problem.spec, problem.seed, index)


def judge(
    smoothed: dict[str, Any],
    weight: np.ndarray,
    bias: np.ndarray,
    spec: CertificationSpec,
    seed: int,
    index: int,
) -> dict[str, Any]:
    """Smooth C at a smoothed point and compare the radii.

    Parameters
    ----------
    smoothed : dict
        ``center`` (r_cs, float64 [k]), ``d_cs`` (NaN if the center abstained), and what stands beside them.
    weight, bias : numpy.ndarray
        float64 [K, k] and [K], the classifier C.
    spec : CertificationSpec
        Noise, sample sizes and failure probabilities.
    seed, index : int
        Name the streams of the votes.
    """
    d_cs = smoothed["d_cs"]
    known = {k: smoothed[k] for k in ("center_radius", "mass_fraction", "smoothing_error", "n_pieces")}
    none = {
        "prediction": -1,
        "status": "ABSTAINED_CENTER",
        "d_cs": math.nan,
        "d_rs": math.nan,
        "p_A": math.nan,
    }
    if math.isnan(d_cs):
        return none | known
    logits = weight @ smoothed["center"] + bias
    rs = smoothing.smooth_classifier(logits, weight, spec, *vote_streams(seed, index))
    found = none | {"d_cs": d_cs, "p_A": rs.p_A, "status": "ABSTAINED_CLASSIFIER"}
    if rs.d_rs is not None:
        status = "CERTIFIED" if d_cs < rs.d_rs * (1 - TOLERANCE) else "NOT_CERTIFIED"
        found |= {"prediction": rs.prediction, "d_rs": rs.d_rs, "status": status}
    return found | known
