"""One attribute: t -> R(z + t a) is piecewise linear, and its pieces are found exactly.

A ReLU network on a line bends only where a unit crosses zero. Between those kinks everything is
linear, so samples are interpolations between nodes: the same law as running the network, for a
few hundred evaluations instead of 30,000.
"""

from __future__ import annotations

import torch

from lassi_lib.certification.network import Layers


class Polyline:
    """A piecewise linear curve t -> r(t), relative to its value at t = 0.

    Attributes
    ----------
    t : torch.Tensor
        float64 [m], increasing nodes; the curve is defined on [t[0], t[-1]].
    r : torch.Tensor
        float64 [m, k], r(t) - origin: small numbers keep small distances accurate.
    origin : torch.Tensor
        float64 [k], the value at t = 0.
    """

    def __init__(self, t: torch.Tensor, r: torch.Tensor) -> None:
        apart = torch.ones(len(t), dtype=torch.bool)
        apart[1:] = t.diff() > 0
        self.t, r = t[apart], r[apart]
        i, s = self._locate(torch.zeros(1, dtype=torch.float64))
        self.origin = torch.lerp(r[i], r[i + 1], s[:, None])[0]
        self.r = r - self.origin
        self.step = self.r.diff(dim=0)
        # products that give the norms of samples, <r_i, r_i>, <r_i, step_i>, <step_i, step_i>
        self.rr = (self.r**2).sum(1)
        self.rs = (self.r[:-1] * self.step).sum(1)
        self.ss = (self.step**2).sum(1)

    def _locate(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the piece i and the fraction s with t = (1 - s) t_i + s t_{i+1}."""
        i = (torch.searchsorted(self.t, t, right=True) - 1).clamp(0, len(self.t) - 2)
        return i, (t - self.t[i]) / (self.t[i + 1] - self.t[i])

    def at(self, t: torch.Tensor) -> Positions:
        """Return the samples at coefficients `t` [n] (within the nodes), as a cloud of points."""
        return Positions(self, *self._locate(t))


class Positions:
    """Samples on a polyline, kept as (piece, fraction): a `center.Cloud`."""

    def __init__(self, line: Polyline, piece: torch.Tensor, s: torch.Tensor) -> None:
        self.line, self.piece, self.s = line, piece, s
        self._norm2 = line.rr[piece] + s * (2 * line.rs[piece] + s * line.ss[piece])

    def __len__(self) -> int:
        return len(self.s)

    def points(self, rows: torch.Tensor) -> torch.Tensor:
        """Return samples written out, float64 [len(rows), k]."""
        return self.line.r[self.piece[rows]] + self.s[rows, None] * self.line.step[self.piece[rows]]

    def point(self, row: int) -> torch.Tensor:
        """Return one sample, float64 [k]."""
        return self.points(torch.tensor([row]))[0]

    def distances(self, point: torch.Tensor) -> torch.Tensor:
        """Return the distances of all samples from `point`: quadratic in s on every piece, [n]."""
        away = self.line.r - point
        aa, cross = (away**2).sum(1), (away[:-1] * self.line.step).sum(1)
        i, s = self.piece, self.s
        return (aa[i] + s * (2 * cross[i] + s * self.line.ss[i])).clamp(min=0).sqrt()

    def squared(self, rows: torch.Tensor, columns: torch.Tensor | None = None) -> torch.Tensor:
        """Return squared distances between samples: inner products with nodes, interpolated."""
        piece, s, norm2 = self.piece, self.s, self._norm2
        if columns is not None:
            piece, s, norm2 = piece[columns], s[columns], norm2[columns]
        inner = self.points(rows) @ self.line.r.T
        slope = inner.diff(dim=1)
        index = piece.expand(len(rows), -1)
        inner = torch.addcmul(inner.gather(1, index), slope.gather(1, index), s)
        return torch.add(norm2, inner, alpha=-2).add_(self._norm2[rows, None]).clamp_(min=0)

    squared_exact = squared

    def rounding(self) -> float:
        """Return a bound of the rounding error of distances: squares err by some 1e-15 of the largest."""
        return 1e-7 * float(self._norm2.max().clamp(min=0).sqrt())


def trace(encoder: Layers, u0: torch.Tensor, low: float, high: float) -> Polyline:
    """Follow R(z + t a) from t = `low` to t = `high` (low < 0 < high), for any depth.

    Layer 1: unit j is ``relu(u0_j + t U_j)`` and bends at t = -u0_j / U_j. Passing that kink from
    left to right changes the slope of the second layer's inputs by |U_j| times W_2's column j,
    whether the unit switches on (U_j > 0) or off (U_j < 0): running sums give all nodes.
    Deeper layers: their inputs are linear between nodes, so interpolation finds where units cross
    zero; these crossings become nodes too.

    Parameters
    ----------
    encoder : Layers
        R restricted to one attribute vector.
    u0 : torch.Tensor
        float64 [h_1], the first layer at z.
    low, high : float
        Ends of the line, in units of a.
    """
    U = encoder.U[0]
    t = torch.tensor([low, high], dtype=torch.float64)
    start = u0 + low * U
    if not encoder.tail:
        return Polyline(t, torch.stack([start, u0 + high * U]))
    weight, bias = encoder.tail[0]
    kink = -u0 / U  # an unmoved unit gives +-inf or nan and drops out
    unit = ((kink > low) & (kink < high)).nonzero().squeeze(1)
    unit = unit[kink[unit].argsort()]
    on = ((start > 0) | ((start == 0) & (U > 0))).double()
    value, slope = torch.stack([start.clamp(min=0), on * U]) @ weight
    slopes = torch.cat([slope[None], U[unit].abs()[:, None] * weight[unit]]).cumsum(0)
    t = torch.cat([t[:1], kink[unit], t[1:]])
    p = torch.cat([(value + bias)[None], slopes * t.diff()[:, None]]).cumsum(0)
    for weight, bias in encoder.tail[1:]:
        t, p = split_at_zeros(t, p)
        live = (p > 0).any(0).nonzero().squeeze(1)
        p = torch.addmm(bias, p[:, live].clamp(min=0), weight[live])
    return Polyline(t, p)


def split_at_zeros(t: torch.Tensor, p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Add the zeros of the piecewise linear functions p [m, h] on nodes t [m] to the nodes."""
    i, unit = (p[:-1].sign() * p[1:].sign() < 0).nonzero(as_tuple=True)
    s = p[i, unit] / (p[i, unit] - p[i + 1, unit])
    t = torch.cat([t, torch.lerp(t[i], t[i + 1], s)])
    p = torch.cat([p, torch.lerp(p[i], p[i + 1], s[:, None])])
    order = t.argsort(stable=True)
    return t[order], p[order]
