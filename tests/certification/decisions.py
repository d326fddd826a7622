"""Small problems whose unsmoothed decision can be scanned: the network run plainly on z + t A."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from lassi_lib.certification.network import Restriction
from lassi_lib.certification.problem import Problem
from lassi_lib.certification.spec import CertificationSpec
from lassi_lib.similarity.sets import SimilaritySet

from . import textbook


@dataclass
class Case:
    """One test point of one problem."""

    network: textbook.Folded
    problem: Problem
    z: torch.Tensor

    @property
    def u0(self):
        return Restriction(self.network, self.problem.similarity.vectors).first(self.z[None])[0]

    def logits(self, t):
        """Run R and C on z + t A, float64 [m, K]."""
        A = self.problem.similarity.vectors.double()
        r = textbook.forward(self.network, self.z.double() + torch.as_tensor(t, dtype=torch.float64) @ A)
        return r.numpy() @ self.problem.weight.T + self.problem.bias

    def margins(self, t):
        """Return the class at z and its smallest margin, in representation space, at every t: [m]."""
        i = int(self.logits(np.zeros((1, self.problem.similarity.n)))[0].argmax())
        logits, w = self.logits(t), self.problem.weight
        gap = np.linalg.norm(w[i] - np.delete(w, i, axis=0), axis=1)
        return i, ((logits[:, [i]] - np.delete(logits, i, axis=1)) / np.where(gap > 0, gap, 1)).min(axis=1)

    def shifted(self, by):
        """Return the case with all margins of the class at z moved by `by` (two classes)."""
        i = int(self.margins(np.zeros((1, self.problem.similarity.n)))[0])
        bias = self.problem.bias.copy()
        bias[i] += by * np.linalg.norm(self.problem.weight[0] - self.problem.weight[1])
        return Case(self.network, replace_bias(self.problem, bias), self.z)


def replace_bias(problem, bias):
    """Return the problem with another classifier bias."""
    return Problem(problem.encoder, problem.similarity, problem.weight, bias, problem.spec, problem.seed)


def build(network, vectors, weight, bias, epsilon=1.0, z=None, seed=0):
    """Return the case of a network, vectors [n, d], and a classifier."""
    vectors = torch.as_tensor(vectors, dtype=torch.float64)
    similarity = SimilaritySet(vectors, epsilon)
    weight, bias = (np.asarray(x, dtype=np.float64) for x in (weight, bias))
    spec = CertificationSpec(epsilon, 0.65 * epsilon, 1.0)
    encoder = Restriction(network, vectors).without_first()
    z = torch.zeros(vectors.shape[1], dtype=torch.float64) if z is None else z
    return Case(network, Problem(encoder, similarity, weight, bias, spec, seed), z)


def random_case(widths, n, classes, seed, scale=0.6, epsilon=1.0):
    """Return a random case."""
    rng = np.random.default_rng([seed, n, classes, *widths])
    weight, bias = rng.standard_normal((classes, widths[-1])), 0.3 * rng.standard_normal(classes)
    vectors, z = scale * rng.standard_normal((n, widths[0])), rng.standard_normal(widths[0])
    network = textbook.random_network(widths, seed)
    return build(network, vectors, weight, bias, epsilon, torch.from_numpy(z), seed)


def in_ball(n, epsilon, count, rng, boundary=0.3):
    """Draw points of the ball, a share of them on its surface: [count, n]."""
    t = rng.standard_normal((count, n))
    t /= np.linalg.norm(t, axis=1, keepdims=True)
    radius = rng.random((count, 1)) ** (1 / n)
    radius[: int(boundary * count)] = 1
    return epsilon * radius * t


def check(case, row, margins, t, slack=0.0):
    """Compare a row of ``exact_decision`` with the margins of a scan at t."""
    witness = np.array([row[f"witness_{k}"] for k in range(1, case.problem.similarity.n + 1)])
    assert row["prediction"] == case.logits(np.zeros((1, len(witness))))[0].argmax()
    if row["status"] == "REFUTED":
        assert np.linalg.norm(witness) <= case.problem.similarity.epsilon * (1 + 1e-12)
        logits = case.logits(witness[None])[0]
        assert row["witness_class"] == logits.argmax() != row["prediction"]
        assert row["margin"] == np.float64(row["margin"]) < 0
        assert abs(case.margins(witness[None])[1][0] - row["margin"]) < 1e-9
    else:
        assert np.isnan(witness).all()
        assert row["witness_class"] == -1
        assert row["margin"] <= margins.min() + 1e-9
    if row["status"] == "VERIFIED":
        assert row["margin"] > 0
        assert margins.min() > slack, t[margins.argmin()]
