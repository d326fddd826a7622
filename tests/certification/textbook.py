"""The oracle: Algorithm 1 of ECCV 2022 as one would write it first, for small sizes only.

Noise in latent space, the network run on every sample, all distances, all votes. Nothing is shared
with the library but the settings.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from scipy.stats import beta, norm


class Folded:
    """Anything with folded layers is a representation."""

    def __init__(self, layers):
        self.layers = layers

    def folded_layers(self):
        return self.layers


def random_network(widths, seed, bias=0.5):
    """Random affine layers d -> ... -> k whose units are on about half of the time."""
    g = torch.Generator().manual_seed(seed)
    layers = []
    for d, h in pairwise(widths):
        weight = torch.randn(h, d, generator=g, dtype=torch.float64) * (2 / d) ** 0.5
        layers.append((weight, bias * torch.randn(h, generator=g, dtype=torch.float64)))
    return Folded(layers)


def forward(representation, z):
    """Run the network on latents [m, d]."""
    h = torch.as_tensor(z, dtype=torch.float64)
    for i, (weight, bias) in enumerate(representation.folded_layers()):
        h = (h.clamp(min=0) if i else h) @ weight.T + bias
    return h


def noisy(representation, vectors, z, n, sigma, rng):
    """Sample R(z + t A), t ~ N(0, sigma^2 I): [n, k]."""
    t = torch.from_numpy(sigma * rng.standard_normal((n, len(vectors))))
    return forward(representation, z.double() + t @ vectors.double())


def center_smoothing(sample, spec):
    """Return (center, d_cs), d_cs None where it abstains; sample(n) draws n representations."""
    r = sample(spec.n_center)
    medians = torch.cdist(r, r).kthvalue((spec.n_center + 1) // 2, dim=1).values
    center, rho = r[medians.argmin()], medians.min()
    alpha_1 = alpha_2 = spec.alpha_cs / 2
    fraction = float(((sample(spec.n_center) - center).norm(dim=1) <= rho).double().mean())
    delta_1 = math.sqrt(math.log(2 / alpha_1) / (2 * spec.n_center))
    delta_2 = 0.5 - (fraction - delta_1)
    if max(delta_1, delta_2) > spec.delta:
        return center, None
    p = norm.cdf(norm.ppf(0.5 + spec.delta) + spec.epsilon / spec.sigma_cs)
    q = p + math.sqrt(math.log(1 / alpha_2) / (2 * spec.n_radius))
    distances = np.sort((sample(spec.n_radius) - center).norm(dim=1).numpy())
    return center, 3 * distances[math.ceil(q * spec.n_radius) - 1]


def smooth_classifier(weight, bias, r, spec, rng):
    """Return (class, d_rs), d_rs None where it abstains."""

    def votes(n):
        noise = spec.sigma_rs * rng.standard_normal((n, len(r)))
        return np.bincount(((r + noise) @ weight.T + bias).argmax(1), minlength=len(weight))

    top = votes(spec.n_class).argmax()
    k = votes(spec.n_votes)[top]
    p_a = beta.ppf(spec.alpha_rs, k, spec.n_votes - k + 1)
    return int(top), spec.sigma_rs * norm.ppf(p_a) if p_a >= 0.5 else None


def certify_point(representation, weight, bias, vectors, z, spec, rng):
    """Return (status, d_cs, d_rs)."""
    center, d_cs = center_smoothing(lambda n: noisy(representation, vectors, z, n, spec.sigma_cs, rng), spec)
    if d_cs is None:
        return "ABSTAINED_CENTER", math.nan, math.nan
    _, d_rs = smooth_classifier(weight, bias, center.numpy(), spec, rng)
    if d_rs is None:
        return "ABSTAINED_CLASSIFIER", d_cs, math.nan
    return ("CERTIFIED" if d_cs < d_rs else "NOT_CERTIFIED"), d_cs, d_rs
