"""What attribute vectors are like: lengths, angles, and what else moves along them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch

from lassi_lib.similarity.boundaries import Boundaries, Boundary, z_dot


def cosines(a: torch.Tensor, b: torch.Tensor | None = None) -> np.ndarray:
    """Return the cosines of vectors a [n, d] with b [m, d] (default: with one another), float64 [n, m]."""
    a = a.double() / a.double().norm(dim=1, keepdim=True)
    b = a if b is None else b.double() / b.double().norm(dim=1, keepdim=True)
    return (a @ b.T).numpy()


def latent_spread(z: torch.Tensor) -> float:
    """Return the root mean square distance of latents [N, d] from their mean."""
    mean = z.double().mean(0)
    return sum(float((part.double() - mean).square().sum()) for part in z.split(4096)) ** 0.5 / len(z) ** 0.5


def describe_vectors(
    vectors: Mapping[str, torch.Tensor], task: Boundary | None = None, spread: float | None = None
) -> pd.DataFrame:
    """Return one row per vector [d]: length, share of the latent spread, cosine to task, all cosines.

    Columns ``vector, norm``, then where given ``norm / spread`` (see `latent_spread`) and ``cos task``
    (with the normal of the task's boundary), then ``cos NAME`` for every vector.
    """
    stacked = torch.stack(list(vectors.values()))
    table = pd.DataFrame({"vector": list(vectors), "norm": stacked.double().norm(dim=1).numpy()})
    if spread is not None:
        table["norm / spread"] = table["norm"] / spread
    if task is not None:
        table["cos task"] = cosines(stacked, task.w[None])[:, 0]
    for name, column in zip(vectors, cosines(stacked).T, strict=True):
        table[f"cos {name}"] = column
    return table


def share_along(boundary: Boundary, z: torch.Tensor, a: torch.Tensor, t: np.ndarray) -> np.ndarray:
    """Return the share of latents z + t a that a boundary sees as positive, for coefficients t [m].

    A boundary is linear, so its score moves by t w.a: no latent is built.
    """
    score = (z_dot(z, boundary.w.double()) + boundary.b).numpy()
    slope = float(boundary.w.double() @ a.double())
    return np.array([float((score + step * slope > 0).mean()) for step in t])


def drag(vectors: Mapping[str, torch.Tensor], boundaries: Boundaries, z: torch.Tensor) -> pd.DataFrame:
    """Return how far a unit step along each vector moves every attribute's score.

    One row per vector, one column per boundary: w.a over the standard deviation of w.z over latents
    z [N, d]. A vector that changes one attribute alone would be 0 in all other columns.
    """
    w = boundaries.w.double()
    scores = torch.cat([part.double() @ w.T for part in z.split(4096)])
    stacked = torch.stack(list(vectors.values())).double()
    return pd.DataFrame(
        (stacked @ w.T / scores.std(0)).numpy(),
        index=pd.Index(list(vectors), name="vector"),
        columns=list(boundaries.names),
    )
