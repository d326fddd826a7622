"""Many test points at once, on a GPU or the CPU: the modes ``monte_carlo`` and ``exact_decision``.

The mathematics and the noise of one point at a time, in float64 throughout: only the order of sums
differs (`monte_carlo` works in float32 for more than one attribute). No point's result depends on
another's. The batches they fall into, and with them the memory budget, are a matter of speed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from lassi_lib.certification import monte_carlo
from lassi_lib.certification.center import CenterSmoothing
from lassi_lib.certification.clouds import Deviations, Lines, Surfaces, smallest_medians, trace_lines
from lassi_lib.certification.margins import lowered, raised
from lassi_lib.certification.network import Layers
from lassi_lib.certification.problem import Problem
from lassi_lib.certification.spec import CertificationSpec, radius_quantile, radius_rank, required_mass
from lassi_lib.numerics import full_precision, shrinking

_THREADS = min(8, os.cpu_count() or 1)  # that draw noise and count votes beside the device
_LEAST = 2**10  # bytes of the smallest budget that is tried when memory runs out
# rho [B], center [B, k], inside [B], d_cs [B], origin [B, k], pieces [B]
SmoothedBatch = tuple[torch.Tensor, ...]


def offers(mode: str, n: int) -> bool:
    """Say whether `mode` is offered here for n attributes."""
    return mode == "monte_carlo" or (mode == "exact_decision" and n == 1)


@torch.no_grad()
def certify_batch(
    problem: Problem,
    u0: torch.Tensor,
    indices: Sequence[int],
    mode: str,
    device: str | torch.device = "cpu",
    budget: int | None = None,
) -> list[dict[str, Any]]:
    """Certify B points, given the first layer's outputs at their latents.

    Parameters
    ----------
    problem : Problem
        What all points have in common.
    u0 : torch.Tensor
        float64 [B, h_1].
    indices : sequence of int
        [B], the points' numbers, which name their streams.
    mode : str
        ``monte_carlo``, or ``exact_decision`` for one attribute.
    device : str or torch.device
        Must know float64.
    budget : int, optional
        Bytes of the device's memory to aim at; by default half of what is free on a GPU, else 1 GiB.
        A guess: where the memory runs out, half as many are tried.

    Returns
    -------
    list of dict
        The rows that the mode's `certify_point` gives, in the order of the points. In ``monte_carlo``
        with more than one attribute ``n_pieces`` is the number of first-layer units that may bend.
    """
    device = torch.device(device)
    if budget is None:
        budget = torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else 2**30
    if not len(u0):
        return []
    certify = {"monte_carlo": _monte_carlo, "exact_decision": _exact_decision}[mode]
    with full_precision():
        return shrinking(lambda size: certify(problem, u0.to(device), indices, size), budget, _LEAST)


def _monte_carlo(problem: Problem, u0: torch.Tensor, indices: Sequence[int], budget: int) -> list[dict]:
    layers, spec = problem.encoder.to(u0.device), problem.spec
    if len(layers.U) == 1:
        smooth, size = _smooth_line, _line_bytes(layers, u0, 4 * spec.sigma_cs)
    else:
        numbers = spec.n_center * (problem.weight.shape[1] + 16)  # x, and what the search notes
        numbers += max((weight.numel() for weight, _ in layers.tail), default=0)  # of units that may bend
        smooth, size = _smooth_surface, torch.full((len(u0),), 8 * numbers, device="cpu")
    rows: list[Any] = [None] * len(u0)
    with ThreadPoolExecutor(_THREADS) as pool:
        for batch, t in _noise(problem, indices, _batches(size, budget // 2), pool):
            smoothed = smooth(layers, u0[batch], t.to(u0.device), spec, budget // 2)
            for i, *point in zip(batch.tolist(), *(x.cpu().numpy() for x in smoothed), strict=True):
                rows[i] = pool.submit(_monte_carlo_row, problem, indices[i], *point)
        return [row.result() for row in rows]


def _smooth_line(
    layers: Layers, u0: torch.Tensor, t: torch.Tensor, spec: CertificationSpec, budget: int
) -> SmoothedBatch:
    """Smooth R at B points along one attribute, with the coefficients t [B, 2 n_0 + n, 1]."""
    t = t.squeeze(2)
    lines = Lines(*trace_lines(layers, u0, t.amin(1).clamp(max=-1e-9), t.amax(1).clamp(min=1e-9)))
    candidates = lines.at(t[:, : spec.n_center].sort(dim=1).values)
    row, rho = smallest_medians(candidates, average=spec.quantile == "linear", budget=budget)
    center = candidates.points(torch.arange(len(t), device=t.device), row)
    distances = lines.at(t[:, spec.n_center :]).distances(center)
    return rho, center, *_measured(distances, rho, spec), lines.origin, lines.pieces


def _smooth_surface(
    layers: Layers, u0: torch.Tensor, t: torch.Tensor, spec: CertificationSpec, budget: int
) -> SmoothedBatch:
    """Smooth R at B points over n attributes, with the coefficients t [B, 2 n_0 + n, n]."""
    near = [Deviations(layers, *point, budget) for point in zip(u0, t, strict=True)]
    origin = torch.stack([each.origin for each in near])
    x = origin.new_empty(len(t), spec.n_center, origin.shape[1])
    for each, draws, out in zip(near, t[:, : spec.n_center], x, strict=True):
        torch.cat(list(each(draws)), out=out)
    row, rho = smallest_medians(Surfaces(x), average=spec.quantile == "linear", budget=budget)
    center = x[torch.arange(len(t), device=t.device), row]
    distances = [
        torch.cat([(block - c).norm(dim=1) for block in each(draws)])
        for each, draws, c in zip(near, t[:, spec.n_center :], center, strict=True)
    ]
    bent = torch.tensor([len(each.bend) for each in near], device=t.device)
    return rho, center, *_measured(torch.stack(distances), rho, spec), origin, bent


def _measured(
    distances: torch.Tensor, rho: torch.Tensor, spec: CertificationSpec
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return how many of n_0 fresh samples lie within rho, and d_cs (`center.center_smoothing`)."""
    mass, radius = distances[:, : spec.n_center], distances[:, spec.n_center :]
    inside = (mass <= rho[:, None]).sum(1)
    if spec.quantile == "higher":
        return inside, 3 * radius.kthvalue(radius_rank(spec)).values
    at = radius_quantile(spec) * (spec.n_radius - 1)
    low = math.floor(at)
    around = (radius.kthvalue(min(k, spec.n_radius)).values for k in (low + 1, low + 2))
    return inside, 3 * torch.lerp(*around, at - low)


def _monte_carlo_row(
    problem: Problem,
    index: int,
    rho: float,
    center: np.ndarray,
    inside: int,
    d_cs: float,
    origin: np.ndarray,
    pieces: int,
) -> dict[str, Any]:
    """Smooth C at one point's center and compare."""
    d_cs = float(d_cs) if inside >= required_mass(problem.spec) else None
    cs = CenterSmoothing(torch.from_numpy(center), float(rho), int(inside) / problem.spec.n_center, d_cs)
    return monte_carlo.row(problem, index, cs, torch.from_numpy(origin), int(pieces))


def _exact_decision(problem: Problem, u0: torch.Tensor, indices: Sequence[int], budget: int) -> list[dict]:
    """Decide one attribute: margins and sizes of all classes at all nodes, of which a point needs one's."""
    if problem.similarity.n != 1:
        raise ValueError(f"exact_decision is batched for one attribute, not {problem.similarity.n}")
    decision, classes = problem.decision, len(problem.weight)
    heads = [decision.head(i) for i in range(classes)]
    head = torch.cat([h.weight for h in heads], 1), torch.cat([h.bias for h in heads])
    margins = Layers(decision.U, [*decision.hidden, head]).to(u0.device)
    logits = Layers(decision.U, [*decision.hidden, (decision.weight, decision.bias)]).to(u0.device)
    u0 = decision.first(u0.T).T
    rows: list[Any] = [None] * len(u0)
    for batch in _batches(_line_bytes(margins, u0, problem.similarity.epsilon), budget):
        u, b = u0[batch], torch.arange(len(batch), device=u0.device)
        prediction = logits.inputs(u)[-1].argmax(1)
        here = margins.inputs(u)[-1].unflatten(1, (classes, -1))[b, prediction]
        epsilon = torch.full_like(u[:, 0], problem.similarity.epsilon)
        t, nodes = trace_lines(margins, u, -epsilon, epsilon)
        nodes = nodes.unflatten(2, (classes, -1))[b, :, prediction]
        margin, (worst, at) = nodes.chunk(2, dim=2)[0].amin(2), raised(nodes).amin(2).min(1)
        tie, refuted = lowered(here).amin(1) <= 0, worst < 0  # a tie at z: no decision to keep
        verified = ~tie & (lowered(nodes).amin((1, 2)) > 0)
        refuted &= ~tie
        witness = torch.where(refuted, t[b, at], math.nan)
        moved = logits.inputs(u + t[b, at, None] * margins.U)[-1].argmax(1)
        margin = torch.where(refuted, margin[b, at], margin.amin(1))
        columns = {
            "prediction": prediction,
            "status": torch.where(verified, 0, torch.where(refuted, 1, 2)),
            "margin": torch.where(tie, here.chunk(2, dim=1)[0].amin(1), margin),
            "witness_1": witness,
            "witness_class": torch.where(refuted, moved, -1),
            "n_cells": torch.where(tie, 0, (t.diff(dim=1) > 0).sum(1)),
        }
        for i, *row in zip(batch.tolist(), *(x.tolist() for x in columns.values()), strict=True):
            rows[i] = dict(zip(columns, row, strict=True))
            rows[i]["status"] = ("VERIFIED", "REFUTED", "UNDECIDED")[rows[i]["status"]]
    return rows


def _line_bytes(layers: Layers, u0: torch.Tensor, reach: float) -> torch.Tensor:
    """Guess the bytes that points need for |t| <= reach, [B]: twice the first layer's kinks as nodes."""
    kinks = (u0.abs() <= reach * layers.U[0].abs()).sum(1).cpu()
    width = max((len(bias) for _, bias in layers.tail), default=u0.shape[1])
    return 4 * 8 * width * (2 * kinks + 64)


def _batches(size: torch.Tensor, budget: int) -> list[torch.Tensor]:
    """Split points that need size [B] bytes into batches within the budget, points of like size together."""
    order, batches = size.argsort(descending=True, stable=True), []
    while len(order):
        count = max(budget // int(size[order[0]]), 1)
        batches.append(order[:count])
        order = order[count:]
    return batches


def _noise(
    problem: Problem, indices: Sequence[int], batches: list[torch.Tensor], pool: ThreadPoolExecutor
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield every batch with its coefficients [B, 2 n_0 + n, n]; the next one's are drawn meanwhile."""

    def start(batch: torch.Tensor) -> list:
        return [pool.submit(monte_carlo.coefficients, problem, indices[i]) for i in batch.tolist()]

    under_way = start(batches[0])
    for number, batch in enumerate(batches):
        drawn = np.stack([job.result() for job in under_way])
        under_way = start(batches[number + 1]) if number + 1 < len(batches) else []
        yield batch, torch.from_numpy(drawn)
