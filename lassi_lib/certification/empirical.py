"""Mode ``empirical``: is the unsmoothed decision argmax C(R(z + t A)) the same at some points of the ball?

The end points +-epsilon e_k (ECCV 2022, supplement, Table 13), the grid of Table 7 (9 points for one
attribute and for two, 15 for three), and random points. A point where it differs refutes individual
fairness at z; that there is none among a few proves nothing, so PASSED is no certificate. Ties
(`margins`) count as different.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from lassi_lib.certification.margins import Ball, lowered
from lassi_lib.certification.problem import Problem
from lassi_lib.similarity.sets import SimilaritySet
from lassi_lib.streams import numpy_stream

_RANDOM = 100


def certify_point(problem: Problem, u0: torch.Tensor, index: int) -> dict[str, Any]:
    """Try the point with number `index`, given the first layer's output `u0` [h_1] at its latent.

    The random points come from the point's own stream. The witness is the first point that differs:
    end points, then grid, then random points.
    """
    decision, epsilon = problem.decision, problem.similarity.epsilon
    u0 = decision.first(u0)
    prediction = int(decision.logits(decision.last(u0[None])).argmax())
    sets = points(problem.similarity, numpy_stream(problem.seed, "empirical", index))
    t = torch.cat(list(sets.values()))
    values = Ball(decision, decision.head(prediction), u0, epsilon)(t)[-1]
    fair = lowered(values).amin(1) > 0
    witness, witness_class = torch.full((problem.similarity.n,), math.nan), -1
    if not fair.all():
        witness = t[fair.byte().argmin()]
        logits = decision.logits(decision.last((u0 + witness @ decision.U)[None]))[0]
        logits[prediction] = -math.inf  # a tie goes to the rival
        witness_class = int(logits.argmax())
    parts = fair.split([len(x) for x in sets.values()])
    return {
        "prediction": prediction,
        "status": "PASSED" if fair.all() else "REFUTED",
        **{f"fair_{name}": bool(part.all()) for name, part in zip(sets, parts, strict=True)},
        **{f"witness_{k}": float(x) for k, x in enumerate(witness, 1)},
        "witness_class": witness_class,
    }


def points(similarity: SimilaritySet, rng: np.random.Generator) -> dict[str, torch.Tensor]:
    """Return the coefficients to try, float64 [m, n] each; the random ones are uniform in the ball."""
    n, epsilon = similarity.n, similarity.epsilon
    direction = rng.standard_normal((_RANDOM, n))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    uniform = epsilon * rng.random((_RANDOM, 1)) ** (1 / n) * direction
    found = {"endpoints": similarity.endpoints(), "grid": similarity.grid(), "random": uniform}
    found = {name: torch.as_tensor(t).double() for name, t in found.items()}
    return {name: t * (epsilon / t.norm(dim=1, keepdim=True)).clamp(max=1) for name, t in found.items()}
