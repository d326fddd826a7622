"""Similarity sets S(x) = { z + sum_k t_k a_k : ||t||_2 <= epsilon } in the flow's latent space."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch


@dataclass(frozen=True)
class SimilaritySet:
    """A ball of attribute coefficients around every latent (ECCV 2022, equation 1).

    Attributes
    ----------
    vectors : torch.Tensor
        [n, d] attribute vectors a_1..a_n.
    epsilon : float
        Radius of the ball in coefficient space (units: attribute vectors, not latent distance).
    names : tuple of str
        The attributes, for messages and tables.
    """

    vectors: torch.Tensor
    epsilon: float
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2:
            raise ValueError(f"vectors must have shape [n, d], not {tuple(self.vectors.shape)}")
        if not self.epsilon > 0:
            raise ValueError(f"epsilon must be positive, not {self.epsilon}")

    @property
    def n(self) -> int:
        """Number of attribute vectors."""
        return len(self.vectors)

    def points(self, z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Return z + t A: latents [m, d] for one latent `z` [d] and coefficients `t` [m, n]."""
        return z + t.to(self.vectors) @ self.vectors

    def sample(self, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
        """Draw coefficients as the papers train: uniform in the ball, [*shape, n].

        One attribute is uniform on [-epsilon, epsilon]; two are uniform on the disc; more are a
        Gaussian direction with radius epsilon u^(1/n). One formula covers all three.
        """
        device = generator.device
        direction = torch.randn(*shape, self.n, generator=generator, device=device)
        # float32 normals are exactly zero about once in 2^24 draws: then t = 0, not NaN
        direction = direction / direction.norm(dim=-1, keepdim=True).clamp_min(1e-30)
        u = torch.rand(*shape, 1, generator=generator, device=device)
        return self.epsilon * u ** (1 / self.n) * direction

    def gaussian(self, count: int, sigma: float, rng: np.random.Generator) -> np.ndarray:
        """Draw the coefficients of center smoothing, N(0, sigma^2 I), float64 [count, n]."""
        return sigma * rng.standard_normal((count, self.n))

    def endpoints(self) -> torch.Tensor:
        """Return the 2n end points +-epsilon e_k, [2n, n] (ECCV supplement, Table 13)."""
        eye = torch.eye(self.n) * self.epsilon
        return torch.stack([-eye, eye], dim=1).reshape(2 * self.n, self.n)

    def grid(self) -> torch.Tensor:
        """Return the grid of the empirical fairness check (ECCV supplement, Table 7).

        One attribute: 9 points from -epsilon to epsilon. More: the origin, the 2n axis points and
        the 2^n diagonal points at distance epsilon (9 points for two attributes, 15 for three). Of more than
        ten vectors (3D Shapes has 49) the diagonals are too many and left out.
        """
        if self.n == 1:
            return torch.linspace(-self.epsilon, self.epsilon, 9)[:, None]
        if self.n > 10:
            return torch.cat([torch.zeros(1, self.n), self.endpoints()])
        diagonal = torch.tensor(list(product((-1.0, 1.0), repeat=self.n))) * self.epsilon / self.n**0.5
        return torch.cat([torch.zeros(1, self.n), self.endpoints(), diagonal])
