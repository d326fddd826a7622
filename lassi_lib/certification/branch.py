"""Branch and bound: are the margins of a class positive on the whole ball ||t|| <= epsilon, n = 2 or 3?

Cells are simplices (triangles, tetrahedra). On a simplex an affine function is its values at the n + 1
vertices, a convex function lies below the affine function with the same values there, and a concave
one above it. Every hidden layer's input p_k(t) is enclosed, unit by unit, between affine functions

    lower_k <= p_k <= upper_k,   known by their values at the vertices.

relu(upper_k) is convex, so the affine function with its vertex values lies above relu(p_k); a_k lower_k
lies below, for a_k in {0, 1}: 1 where lower_k is positive on average. Both are written as the network's
true value at the vertex plus a gap,

    up = relu(upper_k) - relu(p_k) >= 0,   down = relu(p_k) - a_k lower_k >= 0,

which the next layer's weights, split by sign, add up to the gaps of its own input:

    upper - p = up W+ + down W-,   p - lower = down W+ + up W-.

The last layer's margins are bounded from below in the same way. The lines are those of CROWN (Zhang et
al. 2018), carried forward, but for the upper one: fitted to the cell's vertices instead of the unit's
range, it is never higher there. Gaps are sums of products without a sign, so float32 leaves them
accurate; they are enlarged by 1e-3, more than 10,000 terms can lose. True values are float64.

The cells with the smallest bounds are cut in two at the middle of their longest edges, length being what
the first layer makes of it, since attributes differ in effect. A new vertex is one evaluation of the
network, which may turn out to be a witness; units that bend in no cell of a batch cost nothing (branch
and bound for ReLU networks: Bunel et al. 2020). The search ends with a witness, with no cell left, or
UNDECIDED with a cell too small to matter or the budget spent. Since the smallest bound comes first, a
cell too small to matter leaves no clear violation elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import torch

from lassi_lib.certification.margins import Ball, Decision, Head, lowered, raised, split

BUDGET = 20_000  # cells; a number, not a time, so that results do not depend on the machine
_SMALLEST = 1e-6  # edges, relative to epsilon
_FIRST, _BATCH = 2, 64  # rounds of cutting before anything is bounded; cells at a time
_ROUNDING = 1 + 1e-3  # float32 sums of numbers >= 0


@dataclass(frozen=True)
class Decided:
    """What was found about one point; see `exact_decision.certify_point`."""

    status: str
    margin: float
    witness: torch.Tensor | None
    n_cells: int


class Vertices:
    """Points t at which the network was evaluated, and the worst of those that lie in the ball."""

    def __init__(self, ball: Ball, epsilon: float) -> None:
        self._ball, self._epsilon = ball, epsilon
        self.t = torch.empty(0, ball.U.shape[0], dtype=torch.float64)
        self.x = [torch.empty(0, weight.shape[1], dtype=torch.float64) for weight in ball.layers]
        self.count, self.worst, self.margin, self.witness = 0, math.inf, math.inf, self.t

    def add(self, t: torch.Tensor) -> torch.Tensor:
        """Evaluate t [m, n], and the ball's nearest points where it lies outside: their numbers [m]."""
        size = t.norm(dim=1, keepdim=True)
        inside = torch.where(size > self._epsilon, t * (self._epsilon * (1 - 1e-12) / size), t)
        moved = (inside != t).any(1)
        x = self._ball(torch.cat([t, inside[moved]]))[1:]
        self._look(t[~moved], x[-1][: len(t)][~moved])
        self._look(inside[moved], x[-1][len(t) :])
        stop = self.count + len(t)
        if stop > len(self.t):  # room for twice as many
            grown = [torch.empty(2 * stop, old.shape[1], dtype=old.dtype) for old in (self.t, *self.x)]
            for new, old in zip(grown, (self.t, *self.x), strict=True):
                new[: self.count] = old[: self.count]
            self.t, *self.x = grown
        for held, new in zip((self.t, *self.x), (t, *x), strict=True):
            held[self.count : stop] = new[: len(t)]
        numbers = torch.arange(self.count, stop)
        self.count = stop
        return numbers

    def _look(self, t: torch.Tensor, head: torch.Tensor) -> None:
        if not len(t):
            return
        values = raised(head).amin(1)
        i = values.argmin()
        if values[i] < self.worst:
            margin = head[i].chunk(2)[0].min()
            self.worst, self.margin, self.witness = float(values[i]), float(margin), t[i]


def decide(decision: Decision, head: Head, u0: torch.Tensor, epsilon: float, start: torch.Tensor) -> Decided:
    """Decide whether the margins of `head` are positive for all ||t|| <= epsilon.

    Parameters
    ----------
    decision, head : Decision, Head
        The network and the margins of the class at z.
    u0 : torch.Tensor
        float64 [h_1], the first hidden layer's input at z.
    epsilon : float
        The ball's radius.
    start : torch.Tensor
        float64 [m, n], points to look at first for a witness.
    """
    ball = Ball(decision, head, u0, epsilon)
    vertices = Vertices(ball, epsilon)
    vertices.add(start)
    *inner, last = ball.layers
    splits = [*map(split, inner), split(lowered(last))]
    gram = decision.U @ decision.U.T  # lengths in the first layer; none is zero, so all edges are cut
    gram += (0.01 * gram.trace() + 1e-300) * torch.eye(len(gram), dtype=torch.float64)
    cells = _cover(vertices, epsilon)
    for _ in range(_FIRST):
        cells = _halves(cells, vertices, gram)
    open_, bounds, proven, n_cells = cells[:0], torch.empty(0, dtype=torch.float64), math.inf, 0
    while True:
        found = _bounds(cells, vertices, ball, splits, epsilon)
        n_cells += len(cells)
        open_, bounds = torch.cat([open_, cells]), torch.cat([bounds, found])
        closed = bounds > 0
        proven = min([proven, *bounds[closed].tolist()])
        open_, bounds = open_[~closed], bounds[~closed]
        if vertices.worst < 0:
            return Decided("REFUTED", vertices.margin, vertices.witness, n_cells)
        if not len(open_):
            return Decided("VERIFIED", proven, None, n_cells)
        order = bounds.argsort(stable=True)
        worst = vertices.t[open_[order[0]]]
        if n_cells >= BUDGET or float(torch.pdist(worst).max()) <= _SMALLEST * epsilon:
            return Decided("UNDECIDED", float(bounds.min()), None, n_cells)
        cells = _halves(open_[order[:_BATCH]], vertices, gram)
        open_, bounds = open_[order[_BATCH:]], bounds[order[_BATCH:]]


def _cover(vertices: Vertices, epsilon: float) -> torch.Tensor:
    """Return simplices that cover the ball, one per orthant: the numbers of their vertices [2^n, n + 1].

    The corners epsilon sqrt(n) e_k span a face whose distance from the origin is epsilon.
    """
    n = vertices.t.shape[1]
    corner = epsilon * math.sqrt(n) * (1 + 1e-9) * torch.eye(n, dtype=torch.float64)
    numbers = vertices.add(torch.cat([torch.zeros(1, n, dtype=torch.float64), corner, -corner]))
    orthants = torch.tensor(list(product((0, 1), repeat=n)))
    return torch.cat([numbers[:1].expand(2**n, 1), numbers[1 + torch.arange(n) + n * orthants]], dim=1)


def _halves(cells: torch.Tensor, vertices: Vertices, gram: torch.Tensor) -> torch.Tensor:
    """Cut every cell at the middle of its longest edge: [C, n + 1] -> [2 C, n + 1]."""
    corner, row = cells.shape[1], torch.arange(len(cells))
    t = vertices.t[cells]
    edges = t[:, :, None] - t[:, None]
    longest = torch.einsum("cabi,ij,cabj->cab", edges, gram, edges).flatten(1).argmax(1)
    a, b = longest // corner, longest % corner
    ends = torch.stack([cells[row, a], cells[row, b]], dim=1).sort(dim=1).values
    ends, which = ends.unique(dim=0, return_inverse=True)  # neighbours share the new vertex
    middle = vertices.add(vertices.t[ends].mean(1))[which]
    halves = cells.repeat(2, 1)
    halves[row, a], halves[row + len(cells), b] = middle, middle
    return halves


def _bounds(
    cells: torch.Tensor,
    vertices: Vertices,
    ball: Ball,
    splits: list[tuple[torch.Tensor, torch.Tensor]],
    epsilon: float,
) -> torch.Tensor:
    """Return lower bounds of the lowered margins on cells [C, n + 1], within the ball: float64 [C]."""
    t = vertices.t[cells]
    p = lower = upper = ball.u + t @ ball.U
    for x, (positive, negative) in zip(vertices.x, splits, strict=True):
        q, a = p.clamp(min=0), lower.sum(1, keepdim=True) > 0
        down = (q - a * lower).float()
        if upper is p:  # the first layer is affine, so only units that bend in a cell have a gap
            bent = (down > 0).flatten(0, 1).any(0).nonzero().squeeze(1)
            down, positive, negative = down[..., bent], positive[bent], negative[bent]
            below, above = down @ positive, down @ negative
        else:
            up = (upper.clamp(min=0) - q).float()
            below, above = down @ positive + up @ negative, down @ negative + up @ positive
        p = x[cells]
        if x is vertices.x[-1]:
            return _smallest(t, lowered(p) - _ROUNDING * below.double(), epsilon)
        lower, upper = p - _ROUNDING * below.double(), p + _ROUNDING * above.double()
    raise AssertionError("a network has at least one layer of weights")


def _smallest(t: torch.Tensor, f: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Return lower bounds [C] of affine functions on simplices in the ball.

    Vertices t [C, n + 1, n], values there f [C, n + 1, r]; the smallest of the r functions counts. The
    ball lies in the half-space <t, c> <= epsilon for every unit vector c; c points to the cell's middle.
    There f is smallest at a vertex or where the plane cuts an edge. No vertex: infinity, the cell is
    outside.
    """
    c = t.mean(1, keepdim=True)
    over = (t * c / c.norm(dim=2, keepdim=True)).sum(2) - epsilon
    inside = over <= 0
    at_vertices = torch.where(inside[..., None], f, math.inf).amin((1, 2))
    cut = inside[:, :, None] & ~inside[:, None, :]
    s = torch.where(cut, over[:, :, None] / (over[:, :, None] - over[:, None, :]), 0.0)
    on_edges = torch.lerp(f[:, :, None], f[:, None, :], s[..., None])
    return torch.minimum(at_vertices, torch.where(cut[..., None], on_edges, math.inf).amin((1, 2, 3)))
