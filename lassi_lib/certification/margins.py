"""The unsmoothed decision argmax C(R(z + t A)), as the signs of a few margins.

C is linear, so C and the last layer of R are one affine map of the last hidden layer h >= 0. Class i
stands against rival j by the margin

    m_j = (logit_i - logit_j) / ||w_i - w_j|| = sum_k v_kj h_k + c_j,

a distance in representation space (the classes' weights being equal, the logits decide: the divisor
is 1). The matrix between the last hidden layer and R is never applied.

Near-ties. The deployed model computes in float32, with W_L h + b_L before w_i . r and w_j . r: rounding
leaves errors the size of the numbers added up, which may be far larger than v_kj h_k. They add up like
a random walk, so the size that counts is

    size_j = sum_k s_kj h_k + s_j,    s_kj = max(|v_kj|, ||(w_i, w_j) * W_L[:, k]||_2 / ||w_i - w_j||)

and margins within TOLERANCE * size_j of zero are ties. Encoders of the papers' size, trained or random,
err by some 1e-7 of it at most. It is no worst-case bound: weights chosen to cancel in the first layer,
say, could leave the band. Both ends of the band are margins of the same network with other last
weights, v - TOLERANCE s and v + TOLERANCE s.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from lassi_lib.certification.network import Layers

TOLERANCE = 1e-5  # relative: two radii, or two logits, this close are a tie, and ties are not certified


def split(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the positive and the negative part of `weight` = first - second, float32."""
    positive = weight.float().clamp(min=0)
    return positive, positive - weight.float()


def lowered(head: torch.Tensor) -> torch.Tensor:
    """Return margins - TOLERANCE sizes [..., r] of a head's values [..., 2 r]: what is positive is no tie."""
    margin, size = head.chunk(2, dim=-1)
    return margin - TOLERANCE * size


def raised(head: torch.Tensor) -> torch.Tensor:
    """Return margins + TOLERANCE sizes [..., r]: what is negative is no tie."""
    margin, size = head.chunk(2, dim=-1)
    return margin + TOLERANCE * size


@dataclass(frozen=True)
class Head:
    """The margins of one class against its rivals [r], as a map of the last hidden layer [h].

    Attributes
    ----------
    rivals : torch.Tensor
        int64 [r], the other classes.
    weight, bias : torch.Tensor
        float64 [h, 2 r] and [2 r]: the coefficients (v, c) of the margins, then those of their sizes.
    """

    rivals: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor

    def __call__(self, h: torch.Tensor) -> torch.Tensor:
        """Return margins and sizes [m, 2 r] of last hidden layers [m, h]."""
        return torch.addmm(self.bias, h, self.weight)


class Decision:
    """C(R(z + t A)) for all z: hidden layers, then logits or the margins of a class.

    Attributes
    ----------
    U : torch.Tensor
        float64 [n, h_1], how t moves the first hidden layer.
    hidden : list of (W^T [in, out], b [out])
        The hidden layers after the first.
    weight, bias : torch.Tensor
        float64 [h, K] and [K], from the last hidden layer to the logits.
    """

    def __init__(self, encoder: Layers, weight: np.ndarray, bias: np.ndarray) -> None:
        self._linear = not encoder.tail  # an encoder without a hidden layer: x = relu(x) - relu(-x)
        if self._linear:
            eye = torch.eye(encoder.U.shape[1], dtype=torch.float64)
            self.U, self.hidden = torch.cat([encoder.U, -encoder.U], 1), []
            self._last = torch.cat([eye, -eye]), torch.zeros(len(eye), dtype=torch.float64)
        else:
            self.U, self.hidden, self._last = encoder.U, encoder.tail[:-1], encoder.tail[-1]
        self._classes = torch.from_numpy(weight), torch.from_numpy(bias)
        self.weight = self._last[0] @ self._classes[0].T
        self.bias = self._last[1] @ self._classes[0].T + self._classes[1]
        self._heads: dict[int, Head] = {}

    def first(self, u0: torch.Tensor) -> torch.Tensor:
        """Return the first hidden layer's input at z, given R's first layer there: [h_1]."""
        return torch.cat([u0, -u0]) if self._linear else u0

    def last(self, u: torch.Tensor) -> torch.Tensor:
        """Return the last hidden layers [m, h] of first hidden layers' inputs [m, h_1]."""
        for weight, bias in self.hidden:
            u = torch.addmm(bias, u.clamp(min=0), weight)
        return u.clamp(min=0)

    def logits(self, h: torch.Tensor) -> torch.Tensor:
        """Return the logits [m, K] of last hidden layers [m, h]."""
        return torch.addmm(self.bias, h, self.weight)

    def head(self, i: int) -> Head:
        """Return the margins of class `i`."""
        if i not in self._heads:
            (w, b), (W, last) = self._classes, self._last
            rivals = torch.tensor([j for j in range(len(w)) if j != i])
            norm = (w[i] - w[rivals]).norm(dim=1, keepdim=True)
            norm[norm == 0] = 1
            d, d_bias = (w[i] - w[rivals]) / norm, (b[i] - b[rivals]) / norm[:, 0]
            e, e_bias = torch.hypot(w[i], w[rivals]) / norm, torch.hypot(b[i], b[rivals]) / norm[:, 0]
            v, c = W @ d.T, d @ last + d_bias
            v_size = torch.maximum(v.abs(), (W**2 @ e.T**2).sqrt())
            c_size = torch.maximum(c.abs(), (e**2 @ last**2 + e_bias**2).sqrt())
            self._heads[i] = Head(rivals, torch.cat([v, v_size], 1), torch.cat([c, c_size]))
        return self._heads[i]


class Ball:
    """The margins of one class on the ball ||t|| <= epsilon around one point z, as a smaller network.

    A unit of the first hidden layer with |u0_k| > epsilon ||U_k|| keeps its sign there: it is off, or
    part of an affine map of t. The others are left.

    Attributes
    ----------
    u, U : torch.Tensor
        float64 [m] and [n, m], the input u + t U of the m units that may bend.
    layers : list of torch.Tensor
        float64 [in, out], the matrices after them; the last gives the margins and their sizes, [., 2 r].
    """

    def __init__(self, decision: Decision, head: Head, u0: torch.Tensor, epsilon: float) -> None:
        reach = epsilon * decision.U.norm(dim=0)
        bends = (u0.abs() <= reach).nonzero().squeeze(1)
        on = (u0 > reach).double()
        maps = [*decision.hidden, (head.weight, head.bias)]
        base, *slope = (torch.cat([u0[None], decision.U]) * on) @ maps[0][0]
        self.u, self.U = u0[bends], decision.U[:, bends]
        self.layers = [maps[0][0][bends], *(weight for weight, _ in maps[1:])]
        self._slope = torch.stack(slope)
        self._biases = [base + maps[0][1], *(bias for _, bias in maps[1:])]

    def __call__(self, t: torch.Tensor) -> list[torch.Tensor]:
        """Return the inputs of all hidden layers at t [m, n], then margins and sizes: float64 [m, .] each.

        Outside the ball it is another function, the one that bounds on the ball go with.
        """
        x = [self.u + t @ self.U]
        for k, (weight, bias) in enumerate(zip(self.layers, self._biases, strict=True)):
            x.append(torch.addmm(bias, x[-1].clamp(min=0), weight))
            if k == 0:
                x[1] += t @ self._slope
        return x
