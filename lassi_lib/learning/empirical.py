"""Empirical fairness: does a prediction stay the same on a grid of similar individuals?

A sample of points can only disprove fairness, so these shares are upper bounds of the true one. Any
classifier will do, of images too. The mode ``empirical`` of `certification.empirical` asks the same of R
and a linear C by their margins, in which ties count as different.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from lassi_lib.progress import progress
from lassi_lib.similarity.sets import SimilaritySet


@torch.no_grad()
def constant_on_grid(
    predict: Callable[[torch.Tensor], np.ndarray | torch.Tensor],
    similarity: SimilaritySet,
    z: torch.Tensor,
    *,
    batch_size: int = 512,
    label: str = "",
) -> tuple[np.ndarray, np.ndarray]:
    """Compare the prediction at z with those at z + sum_k t_k a_k on the set's grid (ECCV supplement, Table 7).

    Parameters
    ----------
    predict : callable
        Classes [M] of latents [M, d].
    similarity : SimilaritySet
        Its `grid` gives the coefficients t. That of many vectors is too large to ask for (2^n diagonal points).
    z : torch.Tensor
        Float [N, d] latents on the CPU (maybe memory-mapped).
    batch_size : int
        Points z + t A computed at once, at least one example's.
    label : str
        Text of the progress bar.

    Returns
    -------
    prediction : numpy.ndarray
        int64 [N], the class at t = 0.
    constant : numpy.ndarray
        bool [N], every point of the grid has that class.
    """
    if not len(z):
        raise ValueError("empirical fairness needs at least one point")
    # Each coefficient is visited once, since decoding is dear. Adding 0 turns -0 into 0.
    stacked = torch.cat([torch.zeros(1, similarity.n), similarity.grid()]) + 0.0
    t, where = torch.unique(stacked, dim=0, return_inverse=True)
    steps = t.to(z.dtype) @ similarity.vectors.to(z.dtype).cpu()
    classes = []
    for batch in progress(
        z.split(max(1, batch_size // len(t))), label=label or "empirical fairness", unit="batch"
    ):
        found = predict((batch[:, None] + steps).flatten(0, 1))
        found = found.cpu() if isinstance(found, torch.Tensor) else found
        classes.append(np.asarray(found).reshape(len(batch), -1))
    at = np.concatenate(classes)
    prediction = at[:, where[0]]
    return prediction, (at == prediction[:, None]).all(1)
