"""Samples of R around many points at once: `line`, `patch` and the center search of `center`, batched.

Everything is float64 and runs on the device of its inputs. Ragged data are padded instead of looped
over: a polyline's padding repeats its last node, pieces of length zero on which no sample falls.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from lassi_lib.certification.network import Layers

_ANCHORS = 32  # candidates that a round of the center search evaluates


def trace_lines(
    layers: Layers, u0: torch.Tensor, low: torch.Tensor, high: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Follow t -> R(z + t a) from `low` to `high` for B points, as `line.trace` does for one.

    Parameters
    ----------
    layers : Layers
        R restricted to one attribute vector.
    u0 : torch.Tensor
        [B, h_1], the first layer at z.
    low, high : torch.Tensor
        [B], low < 0 < high.

    Returns
    -------
    t : torch.Tensor
        [B, M], nodes in ascending order; rows with fewer kinks repeat `high`.
    r : torch.Tensor
        [B, M, k], R at the nodes.
    """
    U, low, high = layers.U[0], low[:, None], high[:, None]
    start = u0 + low * U
    if not layers.tail:
        return torch.cat([low, high], 1), torch.stack([start, u0 + high * U], 1)
    weight, bias = layers.tail[0]
    kink = -u0 / U  # an unmoved unit gives +-inf or nan and drops out
    inside = (kink > low) & (kink < high)
    kink, unit = torch.where(inside, kink, high).sort(dim=1)
    most = int(inside.sum(1).max())
    t = torch.cat([low, kink[:, :most], high], 1)
    on = ((start > 0) | ((start == 0) & (U > 0))).double()
    bends = (U.abs()[:, None] * weight)[unit[:, :most]]
    slopes = torch.cat([((on * U) @ weight)[:, None], bends], 1).cumsum_(1)
    p = torch.addmm(bias, start.clamp(min=0), weight)[:, None]
    p = torch.cat([p, slopes.mul_(t.diff(dim=1)[..., None])], 1).cumsum_(1)
    del bends, slopes
    for weight, bias in layers.tail[1:]:
        t, p = _split_at_zeros(t, p)
        p = torch.addmm(bias, p.clamp_(min=0).flatten(0, 1), weight).unflatten(0, t.shape)
    return t, p


def _split_at_zeros(t: torch.Tensor, p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Add the zeros of the piecewise linear functions p [B, m, h] on nodes t [B, m] to the nodes.

    Every node of the result, new, old or padding, is a fraction of the way along an old piece.
    """
    (points, m), up, down = t.shape, p > 0, p < 0
    crossed = (up[:, :-1] & down[:, 1:]).logical_or_(down[:, :-1] & up[:, 1:])
    b, i, unit = crossed.nonzero(as_tuple=True)
    s = p[b, i, unit] / (p[b, i, unit] - p[b, i + 1, unit])
    count = b.bincount(minlength=points)
    number = torch.arange(m + int(count.max()), device=t.device)
    slot = m + torch.arange(len(b), device=t.device) - (count.cumsum(0) - count)[b]
    piece, fraction = number.clamp(max=m - 2).repeat(points, 1), (number >= m - 1).double().repeat(points, 1)
    piece[b, slot], fraction[b, slot] = i, s
    t = torch.lerp(t.gather(1, piece), t.gather(1, piece + 1), fraction)
    t, order = t.sort(dim=1, stable=True)
    piece, fraction = piece.gather(1, order), fraction.gather(1, order)
    row = piece + m * torch.arange(points, device=t.device)[:, None]
    p = p.flatten(0, 1)
    return t, p[row].lerp_(p[row + 1], fraction[..., None])


class Lines:
    """B polylines relative to their values at t = 0, as `line.Polyline`: nodes t [B, M], r [B, M, k].

    `origin` [B, k] are the values at 0, `pieces` [B] counts pieces that have a length.
    """

    def __init__(self, t: torch.Tensor, r: torch.Tensor) -> None:
        self.t, self.pieces = t.contiguous(), (t.diff(dim=1) > 0).sum(1)
        self._last = (t < t[:, -1:]).sum(1, keepdim=True) - 1  # the last piece that has a length
        piece, s = self.locate(torch.zeros_like(t[:, :1]))
        b = torch.arange(len(t), device=t.device)
        self.origin = torch.lerp(r[b, piece[:, 0]], r[b, piece[:, 0] + 1], s)
        self.r = r - self.origin[:, None]
        self.step = self.r.diff(dim=1)

    def locate(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the pieces and the fractions along them of coefficients [B, n], both [B, n]."""
        piece = (torch.searchsorted(self.t, t.contiguous(), right=True) - 1).clamp_(min=0).minimum(self._last)
        left = self.t.gather(1, piece)
        return piece, (t - left) / (self.t.gather(1, piece + 1) - left)

    def at(self, t: torch.Tensor) -> OnLines:
        """Return the samples at coefficients t [B, n]."""
        return OnLines(self, *self.locate(t))


class OnLines:
    """Samples on B polylines, n on each, kept as (piece, fraction); `norm2` [B, n] are squared norms."""

    def __init__(self, lines: Lines, piece: torch.Tensor, s: torch.Tensor) -> None:
        self.lines, self.piece, self.s = lines, piece, s
        self.norm2 = self._quadratic(lines.r)

    def _quadratic(self, away: torch.Tensor) -> torch.Tensor:
        """Return squared norms at the samples of polylines with nodes away [B, M, k] and our steps."""
        step = self.lines.step
        parts = away.square().sum(2), (away[:, :-1] * step).sum(2), step.square().sum(2)
        aa, cross, ss = (x.gather(1, self.piece) for x in parts)
        return (aa + self.s * (2 * cross + self.s * ss)).clamp_(min=0)

    def points(self, b: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return the samples (b, row) written out, [..., k]."""
        piece, s = self.piece[b, rows], self.s[b, rows]
        return self.lines.r[b, piece] + s[..., None] * self.lines.step[b, piece]

    def distances(self, points: torch.Tensor) -> torch.Tensor:
        """Return the distances of the samples from points [B, k], by direct differences: [B, n]."""
        return self._quadratic(self.lines.r - points[:, None]).sqrt_()

    def squared(self, b: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return squared distances of the samples `rows` [m, A] of points b [m] from all: [m, A, n]."""
        inner = self.points(b[:, None], rows) @ self.lines.r[b].mT  # with the nodes
        piece, s, norm2 = (x[b, None].expand(*rows.shape, -1) for x in (self.piece, self.s, self.norm2))
        inner, slope = inner.gather(2, piece), inner.diff(dim=2).gather(2, piece)
        inner = torch.sub(norm2, inner.addcmul_(slope, s), alpha=2)
        return inner.add_(self.norm2[b[:, None], rows][..., None]).clamp_(min=0)


class Deviations:
    """R(z + t A) - R(z) for any t of one point, from the network run on what changes.

    A first-layer unit with |u0_j| > ||U_j|| max ||t|| keeps its sign on all samples t [m, n]. If it is
    on its part is an affine map of t, if it is off it has none.
    """

    def __init__(self, layers: Layers, u0: torch.Tensor, t: torch.Tensor, budget: int) -> None:
        self._layers, self._here = layers, [x[0] for x in layers.inputs(u0[None])]
        self.origin = self._here[-1]
        reach = (1 + 1e-12) * layers.U.norm(dim=0) * t.norm(dim=1).max()
        self.bend = (u0.abs() <= reach).nonzero().squeeze(1)
        self._rows = max(budget // (32 * max(map(len, self._here))), 1)  # some 4 arrays of that width
        if layers.tail:
            weight = layers.tail[0][0]
            self._straight, self._bent = (layers.U * (u0 > reach)) @ weight, weight[self.bend]

    def __call__(self, t: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield R(z + t A) - R(z) for t [m, n] in blocks of rows, [rows, k]."""
        for block in t.split(self._rows):
            if not self._layers.tail:
                yield block @ self._layers.U
                continue
            d = _relu_change(block @ self._layers.U[:, self.bend], self._here[0][self.bend])
            d = (block @ self._straight).addmm_(d, self._bent)
            for here, (weight, _) in zip(self._here[1:], self._layers.tail[1:], strict=False):
                d = _relu_change(d, here) @ weight
            yield d


def _relu_change(d: torch.Tensor, here: torch.Tensor) -> torch.Tensor:
    """Return relu(here + d) - relu(here) = max(d, -here) + min(here, 0), in place of d."""
    return d.clamp_(min=-here).add_(here.clamp(max=0))


class Surfaces:
    """Samples of R around B points, n for each, relative to R(z) and written out: x [B, n, k]."""

    def __init__(self, x: torch.Tensor) -> None:
        self.x, self.norm2 = x, torch.linalg.vector_norm(x, dim=2).square_()

    def points(self, b: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return the samples (b, row), [..., k]."""
        return self.x[b, rows]

    def squared(self, b: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return squared distances of the samples `rows` [m, A] of points b [m] from all: [m, A, n]."""
        squares = self.x.new_empty(*rows.shape, self.x.shape[1])
        for i, row, out in zip(b.tolist(), rows, squares, strict=True):  # large products; x is not copied
            torch.addmm(self.norm2[i], self.x[i, row], self.x[i].T, alpha=-2, out=out)
            out += self.norm2[i, row, None]
        return squares.clamp_(min=0)


def smallest_medians(
    cloud: OnLines | Surfaces, *, average: bool, budget: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the sample with the smallest median distance to all samples, for B points: (rows, medians).

    `center.smallest_median` in rounds alone: some of the candidates still possible are evaluated, and
    rule out others by the bounds proved there, until none is left.
    """
    n = cloud.norm2.shape[1]
    pad = 1e-7 * cloud.norm2.amax(1, keepdim=True).sqrt()  # rounding of distances, as in `line`
    best, row = torch.full_like(pad, math.inf), torch.full_like(pad, n, dtype=torch.long)
    lower = torch.zeros_like(cloud.norm2)
    alive = torch.ones_like(lower, dtype=torch.bool)
    held = max(budget // (64 * n * _ANCHORS), 1)  # points at a time: some 8 arrays of n numbers an anchor
    while len(left := alive.any(1).nonzero().squeeze(1)):
        for b in left.split(held):
            rows = _spread(alive[b])
            gap = cloud.squared(b, rows).sqrt_()
            median, over = (gap.kthvalue(k).values for k in ((n + 1) // 2, n // 2 + 1))
            if average:
                median = (median + over) / 2
            smallest = torch.minimum(best[b], median.amin(1, keepdim=True))
            first = torch.where(median == smallest, rows, n).amin(1, keepdim=True)  # ties: the smallest row
            row[b] = torch.where(best[b] == smallest, row[b].minimum(first), first)
            best[b] = smallest
            bounds = torch.maximum(median[..., None] - gap, gap - over[..., None]).amax(1) - pad[b]
            lower[b] = torch.maximum(lower[b], bounds)
            alive[b] = alive[b].scatter(1, rows, False) & (lower[b] <= smallest)
        alive &= best > 0  # at 0 nothing can be better
    return row[:, 0], best[:, 0]


def _spread(alive: torch.Tensor) -> torch.Tensor:
    """Return anchors spread over the candidates alive [B, n]: rows [B, A], repeated where there are fewer."""
    rank = alive.cumsum(1)
    spread = torch.linspace(0, 1, _ANCHORS, dtype=torch.float64, device=alive.device)
    return torch.searchsorted(rank, ((rank[:, -1:] - 1) * spread).round().long() + 1)
