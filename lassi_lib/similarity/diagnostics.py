"""What attribute vectors are like: lengths, angles, and how far their set lies from a point."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch

from lassi_lib.similarity.sets import SimilaritySet
from lassi_lib.similarity.vectors import principal_axes


def cosines(a: torch.Tensor, b: torch.Tensor | None = None) -> np.ndarray:
    """Return the cosines of vectors a [n, d] with b [m, d] (default: with one another), float64 [n, m]."""
    a = a.double() / a.double().norm(dim=1, keepdim=True)
    b = a if b is None else b.double() / b.double().norm(dim=1, keepdim=True)
    return (a @ b.T).numpy()


def latent_spread(z: torch.Tensor) -> float:
    """Return the root mean square distance of latents [N, d] from their mean."""
    mean = z.double().mean(0)
    return sum(float((part.double() - mean).square().sum()) for part in z.split(4096)) ** 0.5 / len(z) ** 0.5


def describe_vectors(vectors: Mapping[str, torch.Tensor], spread: float) -> pd.DataFrame:
    """Return one row per vector [d]: ``vector, norm, norm / spread`` and ``cos NAME`` for every vector.

    `spread` is that of the latents (`latent_spread`).
    """
    stacked = torch.stack(list(vectors.values()))
    table = pd.DataFrame({"vector": list(vectors), "norm": stacked.double().norm(dim=1).numpy()})
    table["norm / spread"] = table["norm"] / spread
    for name, column in zip(vectors, cosines(stacked).T, strict=True):
        table[f"cos {name}"] = column
    return table


def distance_to_set(displacement: torch.Tensor, similarity: SimilaritySet) -> dict[str, np.ndarray]:
    """Return how far displacements z' - z [m, d] lie from the similarity set {t A : ||t|| <= epsilon}.

    With A's principal axes (lengths s_k, directions v_k; `vectors.principal_axes`) the set is an ellipsoid
    of half axes epsilon s_k, and its nearest point to c_k = <z' - z, v_k> is c_k s_k^2 / (s_k^2 + mu): mu = 0
    where that is inside, else the mu > 0 that puts it on the boundary, found by bisection.

    Returns
    -------
    dict of str to numpy.ndarray
        float64 [m]: `length` of the displacement, its `distance` from the set, its distance `outside` the
        set's span, and `needed`, the epsilon of the smallest set that reaches its projection on the span.
    """
    axes = principal_axes(similarity.vectors).double().numpy()
    s, epsilon = np.linalg.norm(axes, axis=1), similarity.epsilon
    delta = displacement.double().numpy()
    c = delta @ (axes / s[:, None]).T
    length, needed = np.linalg.norm(delta, axis=1), np.linalg.norm(c / s, axis=1)
    outside = np.sqrt((length**2 - (c**2).sum(1)).clip(0))
    low, high = np.zeros(len(c)), np.linalg.norm(c * s, axis=1) / epsilon  # ||t(mu)|| <= ||s c|| / mu
    for _ in range(80):
        mu = (low + high) / 2
        far = np.linalg.norm(c * s / (s**2 + mu[:, None]), axis=1) > epsilon
        low, high = np.where(far, mu, low), np.where(far, high, mu)
    mu = np.where(needed > epsilon, high, 0.0)[:, None]
    distance = np.hypot(outside, np.linalg.norm(c * mu / (s**2 + mu), axis=1))
    return {"length": length, "distance": distance, "outside": outside, "needed": needed}
