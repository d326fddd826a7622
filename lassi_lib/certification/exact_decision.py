"""Mode ``exact_decision``: is the unsmoothed decision argmax C(R(z + t A)) the same for all ||t|| <= epsilon?

No sampling and no probability: VERIFIED says that every margin of the class at z (`margins`) stays above
its band of ties on the whole ball, REFUTED comes with a witness t where another class wins by more
than ties allow, and what is left, near-ties, is UNDECIDED. Where C is undecided at z itself, there is no
decision to keep: UNDECIDED, too.

One attribute is decided in closed form. On a line the margins are piecewise linear, so they are
smallest at a kink or at an end of [-epsilon, epsilon]. Kinks are found as in `line`, with two savings.

1. First hidden layer: relu(u0_k + t U_k) bends by |U_k| at t_k = -u0_k / U_k, so the second layer's
   inputs are p(t) = p(t_0) + p'(t_0) (t - t_0) + sum_k |U_k| W_2[:, k] max(t - t_k, 0), the sum being
   over the kinks t_k > t_0: a product of a triangular matrix with rows of W_2, for a few kinks at a time.
2. Last hidden layer: between nodes a and b of p, unit k crosses zero at the fraction s_k and bends
   margin j by |p_k(b) - p_k(a)| v_kj. A function on [0, 1] that is zero at both ends and bends by kappa
   at s_k alone is -kappa min(s, s_k) (1 - max(s, s_k)), hence

       m_j(s) = (1 - s) m_j(a) + s m_j(b) - sum_k |p_k(b) - p_k(a)| v_kj min(s, s_k) (1 - max(s, s_k)).

   Only margins are computed at these kinks, no hidden layer.

Two and three attributes are decided by branch and bound (`branch`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from lassi_lib.certification import branch
from lassi_lib.certification.branch import Decided
from lassi_lib.certification.line import split_at_zeros
from lassi_lib.certification.margins import Decision, Head, lowered, raised
from lassi_lib.certification.problem import Problem
from lassi_lib.errors import StudyError

_ROWS = 48  # kinks of the first layer at a time: what they need fits a cache


def certify_point(problem: Problem, u0: torch.Tensor, index: int) -> dict[str, Any]:
    """Decide one point, given the first layer's output `u0` [h_1] at its latent.

    ``margin`` is the smallest margin on the ball for one attribute. For more it is a proven lower bound
    if VERIFIED, the witness's margin if REFUTED, and the smallest lower bound so far if UNDECIDED.
    ``n_cells`` counts linear pieces or the cells that were bounded.

    Raises
    ------
    StudyError
        If there are more than three attributes.
    """
    n, epsilon = problem.similarity.n, problem.similarity.epsilon
    if n > 3:
        raise StudyError(f"exact_decision: offered for one to three attributes, not {n}: use mode empirical")
    decision = problem.decision
    u0 = decision.first(u0)
    h = decision.last(u0[None])
    prediction = int(decision.logits(h).argmax())
    head = decision.head(prediction)
    here = head(h)
    if float(lowered(here).min()) <= 0:
        found = Decided("UNDECIDED", float(here.chunk(2, dim=1)[0].min()), None, 0)
    elif n == 1:
        found = decide_line(decision, head, u0, epsilon)
    else:
        start = torch.cat([problem.similarity.endpoints(), problem.similarity.grid()]).double()
        found = branch.decide(decision, head, u0, epsilon, start)
    witness, witness_class = torch.full((n,), math.nan), -1
    if found.witness is not None:
        witness = found.witness
        witness_class = int(decision.logits(decision.last((u0 + witness @ decision.U)[None])).argmax())
    return {
        "prediction": prediction,
        "status": found.status,
        "margin": found.margin,
        **{f"witness_{k}": float(t) for k, t in enumerate(witness, 1)},
        "witness_class": witness_class,
        "n_cells": found.n_cells,
    }


def decide_line(decision: Decision, head: Head, u0: torch.Tensor, epsilon: float) -> Decided:
    """Decide one attribute: u0 [h_1] is the first hidden layer's input at z."""
    parts = [_with_kinks(t, p, head) for t, p in _last_inputs(decision, u0, epsilon)]
    t, values = (torch.cat(part) for part in zip(*parts, strict=True))
    margin, pieces = values.chunk(2, dim=1)[0].amin(1), len(t) - len(parts)  # parts share a node
    worst = raised(values).amin(1).min(dim=0)
    if float(worst.values) < 0:
        return Decided("REFUTED", float(margin[worst.indices]), t[worst.indices, None], pieces)
    status = "VERIFIED" if float(lowered(values).min()) > 0 else "UNDECIDED"
    return Decided(status, float(margin.min()), None, pieces)


def _last_inputs(
    decision: Decision, u0: torch.Tensor, epsilon: float
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield parts of [-epsilon, epsilon]: nodes t [m] and the last hidden layer's inputs p [m, h] there.

    Between nodes p is linear; each part starts where the one before it ends.
    """
    for t, p in _second_inputs(decision, u0, epsilon):
        for weight, bias in decision.hidden[1:]:
            t, p = split_at_zeros(t, p)
            p = torch.addmm(bias, p.clamp(min=0), weight)
        yield t, p


def _second_inputs(
    decision: Decision, u0: torch.Tensor, epsilon: float
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the same of the second hidden layer, or of the first where there is no other."""
    U, left = decision.U[0], torch.tensor([-epsilon], dtype=torch.float64)
    start = u0 + left * U
    if not decision.hidden:
        yield torch.cat([left, -left]), torch.stack([start, u0 - left * U])
        return
    weight, bias = decision.hidden[0]
    kink = -u0 / U  # an unmoved unit gives +-inf or nan and drops out
    unit = (kink.abs() < epsilon).nonzero().squeeze(1)
    unit = unit[kink[unit].argsort()]
    on = ((start > 0) | ((start == 0) & (U > 0))).double()
    p, slope = torch.stack([start.clamp(min=0), on * U]) @ weight
    p += bias
    for bent in unit.split(_ROWS) if len(unit) else ():
        t, bend = kink[bent], U[bent].abs()
        ramps = (t[:, None] - t).clamp(min=0) * bend
        turned = torch.cat([ramps, bend[None]]) @ weight[bent]
        here = (p + turned[:-1]).addcmul_((t - left)[:, None], slope)
        yield torch.cat([left, t]), torch.cat([p[None], here])
        left, p, slope = t[-1:], here[-1], slope + turned[-1]
    right = torch.full_like(left, epsilon)
    yield torch.cat([left, right]), torch.stack([p, p + (right - left) * slope])


def _with_kinks(t: torch.Tensor, p: torch.Tensor, head: Head) -> tuple[torch.Tensor, torch.Tensor]:
    """Return nodes and kinks t [m'] and margins and sizes there [m', 2 r], in no particular order."""
    values = head(p.clamp(min=0))
    on = p.numpy() > 0  # NumPy finds the few signs that change eight times as fast
    i, unit = (torch.from_numpy(x) for x in np.divmod(np.flatnonzero(on[:-1] != on[1:]), on.shape[1]))
    a, b = p[i, unit], p[i + 1, unit]
    s = a / (a - b)
    tent = torch.minimum(s[:, None], s) * (1 - torch.maximum(s[:, None], s)) * (i[:, None] == i)
    chord = torch.lerp(values[i], values[i + 1], s[:, None])
    kinks = chord - tent @ ((b - a).abs()[:, None] * head.weight[unit])
    return torch.cat([t, torch.lerp(t[i], t[i + 1], s)]), torch.cat([values, kinks])
