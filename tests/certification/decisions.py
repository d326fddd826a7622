"""Small problems whose unsmoothed decision can be scanned: the network run plainly on z + t A."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from lassi_lib.certification.network import Restriction
from lassi_lib.certification.problem import Problem
from lassi_lib.certification.spec import CertificationSpec
from lassi_lib.similarity.sets import SimilaritySet

from . import textbook

WIDTHS = [(6, 5), (6, 20, 5), (6, 20, 16, 5), (6, 16, 14, 12, 5)]  # no to three hidden layers


@dataclass
class Case:
    """One test point of one problem."""

    network: textbook.Folded
    problem: Problem
    z: torch.Tensor

    @property
    def n(self):
        return self.problem.similarity.n

    @property
    def u0(self):
        return Restriction(self.network, self.problem.similarity.vectors).first(self.z[None])[0]

    def logits(self, t):
        """Run R and C on z + t A, float64 [m, K]."""
        A = self.problem.similarity.vectors.double()
        r = textbook.forward(self.network, self.z.double() + torch.as_tensor(t, dtype=torch.float64) @ A)
        return r.numpy() @ self.problem.weight.T + self.problem.bias

    def prediction(self):
        return int(self.logits(np.zeros((1, self.n)))[0].argmax())

    def margins(self, t):
        """Return the smallest margin of the class at z, in representation space, at every t: [m]."""
        i, logits, w = self.prediction(), self.logits(t), self.problem.weight
        gap = np.linalg.norm(w[i] - np.delete(w, i, axis=0), axis=1)
        return ((logits[:, [i]] - np.delete(logits, i, axis=1)) / np.where(gap > 0, gap, 1)).min(axis=1)

    def shifted(self, by):
        """Return the case with all margins of the class at z moved by `by` (two classes)."""
        w, bias = self.problem.weight, self.problem.bias.copy()
        bias[self.prediction()] += by * np.linalg.norm(w[0] - w[1])
        return Case(self.network, replace(self.problem, bias=bias), self.z)


def build(network, vectors, weight, bias, epsilon=1.0, z=None, seed=0):
    """Return the case of a network, vectors [n, d], a classifier, and a latent (default: zero)."""
    vectors = torch.as_tensor(vectors, dtype=torch.float64)
    weight, bias = (np.asarray(x, dtype=np.float64) for x in (weight, bias))
    spec = CertificationSpec(epsilon, 0.65 * epsilon, 1.0)
    encoder = Restriction(network, vectors).without_first()
    z = torch.zeros(vectors.shape[1], dtype=torch.float64) if z is None else z
    return Case(network, Problem(encoder, SimilaritySet(vectors, epsilon), weight, bias, spec, seed), z)


def random_case(widths, n, classes, seed, scale=0.5, epsilon=1.0):
    """Return a random case."""
    rng = np.random.default_rng([seed, n, classes, *widths])
    weight, bias = rng.standard_normal((classes, widths[-1])), 0.3 * rng.standard_normal(classes)
    vectors, z = scale * rng.standard_normal((n, widths[0])), rng.standard_normal(widths[0])
    network = textbook.random_network(widths, seed)
    return build(network, vectors, weight, bias, epsilon, torch.from_numpy(z), seed)


def layers_by_hand(*layers):
    """Return a network of given (W, b)."""
    return textbook.Folded(
        [tuple(torch.as_tensor(x, dtype=torch.float64) for x in layer) for layer in layers]
    )


def in_ball(n, epsilon, count, rng):
    """Draw points of the ball, a third of them on its surface: [count, n]."""
    t = rng.standard_normal((count, n))
    t /= np.linalg.norm(t, axis=1, keepdims=True)
    radius = rng.random((count, 1)) ** (1 / n)
    radius[: count // 3] = 1
    return epsilon * radius * t


def smallest_margin(case, rng, count=20_000):
    """Search the ball for the smallest margin: random points, then ever closer to the best."""
    t = in_ball(case.n, 1.0, count, rng)
    margins = case.margins(t)
    best, at, width = margins.min(), t[margins.argmin()], 0.2
    while width > 1e-9:
        t = at + width * rng.standard_normal((1000, case.n))
        t /= np.maximum(np.linalg.norm(t, axis=1, keepdims=True), 1)
        margins = case.margins(t)
        if margins.min() < best:
            best, at = margins.min(), t[margins.argmin()]
        else:
            width /= 3
    return best


def check(case, row, margins):
    """Compare a row of ``exact_decision`` with the margins of a scan of its ball."""
    witness = np.array([row[f"witness_{k}"] for k in range(1, case.n + 1)])
    assert row["prediction"] == case.prediction()
    if row["status"] == "REFUTED":
        assert np.linalg.norm(witness) <= case.problem.similarity.epsilon
        logits = case.logits(witness[None])[0]
        assert row["witness_class"] == logits.argmax() != row["prediction"]
        assert row["margin"] < 0
        assert abs(case.margins(witness[None])[0] - row["margin"]) < 1e-9
    else:
        assert np.isnan(witness).all()
        assert row["witness_class"] == -1
        assert row["margin"] <= margins.min() + 1e-9  # a lower bound of all margins
        assert margins.min() > -1e-3  # what ties allow, generously
    if row["status"] == "VERIFIED":
        assert row["margin"] > 0
        assert margins.min() > 0
