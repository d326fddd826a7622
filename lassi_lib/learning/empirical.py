"""Empirical fairness: does a prediction stay the same at chosen points of a similarity set?

A sample of points can only disprove fairness, so these shares are upper bounds of the true one. Any
classifier will do, of images too. The mode ``empirical`` of `certification.empirical` asks the same of R
and a linear C by their margins, in which ties count as different.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from lassi_lib.progress import progress
from lassi_lib.similarity.sets import SimilaritySet


@dataclass(frozen=True)
class EmpiricalFairness:
    """Whether each prediction is constant, per examined set of points.

    Attributes
    ----------
    prediction : numpy.ndarray
        int64 [N], the class at t = 0.
    constant : dict of str to numpy.ndarray
        By name of the set (``endpoints``, ``grid``): bool [N], every point of it has that class.
    """

    prediction: np.ndarray
    constant: dict[str, np.ndarray]

    @property
    def share(self) -> dict[str, float]:
        """Share of the N points with a constant prediction, by name of the set."""
        return {name: float(same.mean()) for name, same in self.constant.items()}


@torch.no_grad()
def empirical_fairness(
    predict: Callable[[torch.Tensor], np.ndarray | torch.Tensor],
    similarity: SimilaritySet,
    z: torch.Tensor,
    *,
    decode: Callable[[torch.Tensor], torch.Tensor] | None = None,
    sets: tuple[str, ...] = ("endpoints", "grid"),
    batch_size: int = 512,
    label: str = "",
) -> EmpiricalFairness:
    """Compare the prediction at z with those at z + sum_k t_k a_k.

    Parameters
    ----------
    predict : callable
        Classes [M] of latents [M, d] or, with `decode`, of decoded images [M, 3, S, S].
    similarity : SimilaritySet
        Its `endpoints` (ECCV supplement, Table 13) and `grid` (Table 7) give the coefficients t.
    z : torch.Tensor
        Float [N, d] latents on the CPU (maybe memory-mapped).
    decode : callable, optional
        The flow's decoder, latents [M, d] -> images.
    sets : tuple of str
        What to examine. The grid of many vectors is too large to ask for (2^n diagonal points).
    batch_size : int
        Points z + t A computed at once, at least one example's.
    label : str
        Text of the progress bar.
    """
    if not len(z) or not sets:
        raise ValueError("empirical fairness needs at least one point and one set of coefficients")
    wanted = {name: getattr(similarity, name)() for name in sets}
    # Origin, end points and grid overlap, and decoding is dear: each coefficient is visited once.
    # Adding 0 turns -0 into 0.
    stacked = torch.cat([torch.zeros(1, similarity.n), *wanted.values()]) + 0.0
    coefficients, where = torch.unique(stacked, dim=0, return_inverse=True)
    vectors = similarity.vectors.to(z.dtype).cpu()
    steps = coefficients.to(z.dtype) @ vectors
    classes = []
    batches = z.split(max(1, batch_size // len(coefficients)))
    for batch in progress(batches, label=label or "empirical fairness", unit="batch"):
        points = (batch[:, None] + steps).flatten(0, 1)
        found = predict(points if decode is None else decode(points))
        found = found.cpu() if isinstance(found, torch.Tensor) else found
        classes.append(np.asarray(found).reshape(len(batch), -1))
    at = np.concatenate(classes)[:, where.numpy()]
    prediction, rest, constant = at[:, 0], at[:, 1:], {}
    for name, t in wanted.items():
        own, rest = np.split(rest, [len(t)], axis=1)
        constant[name] = (own == prediction[:, None]).all(1)
    return EmpiricalFairness(prediction, constant)
