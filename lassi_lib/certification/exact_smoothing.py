"""Mode ``exact_smoothing``: center smoothing without sampling, for one attribute.

The curve r(t) = R(z + t a) is a polyline, so what center smoothing (Kumar & Goldstein 2021) estimates
from samples has a closed form, and no failure probability is left.

Definitions. mu_z is N(0, sigma_cs^2) on the window |t| <= 6 sigma_cs; the mass beyond, 2e-9, belongs
to no ball. F_c(rho) = mu_z{t : ||r(t) - c|| <= rho}, and M_z(c) is the smallest rho with
F_c(rho) >= 1/2. The smoothed encoder r_bar(z) is a point of the curve within the window with
M_z(r_bar(z)) <= (1 + eta) M_z(c') for every c' on the curve within the window.

Claim. Let c = r_bar(z) and Q be the smallest radius with F_c(Q) >= p = Phi(Phi^-1(1/2 + delta) +
epsilon / sigma_cs), delta = 1e-6. Then ||r_bar(z + t' a) - c|| <= d_cs = (1 + 2 (1 + eta)) Q for all
|t'| <= epsilon. Proof, with z' = z + t' a:

1. The curve of z' is the same curve, r(t' + t); only the measure and the window move by t'.
2. S = {t : ||r(t) - c|| <= Q} has mass at least p under N(0, sigma^2). Of all such sets a half line
   has the least mass under N(t', sigma^2) (Neyman & Pearson: the likelihood ratio is monotone in t),
   so S keeps Phi(Phi^-1(p) - |t'| / sigma) >= 1/2 + delta, of which the window of z' loses 2e-9.
3. So S has a t_0 in the window of z'. The ball of 2 Q around r(t_0) contains the ball of Q around c,
   hence M_z'(r(t_0)) <= 2 Q and, by definition, M_z'(r_bar(z')) <= 2 (1 + eta) Q.
4. Both balls, Q around c and M_z'(r_bar(z')) around r_bar(z'), hold at least half of a mass below
   one, the first of them more. They intersect: the centers are no further apart than the radii's sum.

Why delta: with p = Phi(epsilon / sigma) step 4 still holds for the whole line, ties included (two
disjoint closed sets of mass 1/2 would cover the line, which is connected). But where F is flat near
1/2 a mass of 2e-9 or of rounding can change M a lot; delta exceeds both and costs about 1e-6 of Q.

A sharper factor. c is on the curve. If its t is within 6 sigma_cs - epsilon it is in the window of z'
too, so step 3 may take c itself: M_z'(c) <= Q, and d_cs (2 + eta) / (3 + 2 eta) is enough. The rows
keep the factor that needs no condition and compares with the 3 of Monte Carlo; `center_t` tells
where the sharper one holds.

Finding r_bar. |M(c) - M(c')| <= ||c - c'||, at most the arc length between them, so values of M bound
M from below everywhere else. Points are added where that bound is under best / (1 + eta), until it is
nowhere (Piyavskii 1972, Shubert 1972): a guarantee at every z.

Rounding. Of a bracket F(low) < mass <= F(high), `low` serves as bound from below, `high` as M and Q.
Squared distances err by a relative 1e-14; where a ball only grazes a piece, its mass errs by at most
the root of that, 1e-7 < delta. The curve itself is float64: 1e-12 of its length is added to Q.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.special import ndtr

from lassi_lib.certification import line, smoothing
from lassi_lib.certification.margins import TOLERANCE
from lassi_lib.certification.problem import Problem
from lassi_lib.certification.spec import covered_mass, radius_quantile

ETA = 1e-3
FACTOR = 1 + 2 * (1 + ETA)
WINDOW, _DELTA, _ROUNDING = 6.0, 1e-6, 1e-12
_ANCHORS = np.array([-6, -4.5, -3.5, *np.linspace(-2.5, 2.5, 21), 3.5, 4.5, 6])  # most where the mass is
_CELLS = 1 << 16  # distances held at a time


def certify_point(problem: Problem, u0: torch.Tensor, index: int) -> dict[str, Any]:
    """Certify the point with the first layer's output `u0` [h_1] (its number, `index`, is not needed).

    ``d_cs_delta`` is what d_cs would be with the spec's Delta for delta, ``d_cs_hoeffding`` with
    Hoeffding's slack on top (infinite where the window holds too little mass). ``center_t`` is the t
    of r_bar, ``center_radius`` its M, ``smoothing_error`` ||r_bar - R(z)||. Within `TOLERANCE` of
    d_cs = d_rs, or of a tie of the logits, the status is UNDECIDED.

    Raises
    ------
    ValueError
        If there is more than one attribute: then R(z + t A) is no curve.
    """
    spec = problem.spec
    if len(problem.encoder.U) != 1:
        raise ValueError(f"exact smoothing is for one attribute, not for {len(problem.encoder.U)}")
    window = WINDOW * spec.sigma_cs
    polyline = line.trace(problem.encoder, u0, -window, window)
    curve = Curve(polyline.t.numpy() / spec.sigma_cs, polyline.r.numpy())
    arc = smallest_median(curve)
    center = curve.points(arc)
    masses = 0.5, covered_mass(replace(spec, delta=_DELTA)), covered_mass(spec), radius_quantile(spec)
    median, *radii = curve.around(center).radii(np.array(masses))[1].tolist()
    d_cs, d_cs_delta, d_cs_hoeffding = (FACTOR * (Q + _ROUNDING * float(curve.arc[-1])) for Q in radii)
    logits = problem.weight @ (polyline.origin.numpy() + center) + problem.bias
    d_rs = smoothing.linear_radius(logits, problem.weight)
    return {
        "prediction": int(logits.argmax()),
        "status": _status(d_cs, d_rs, logits),
        "d_cs": d_cs,
        "d_rs": d_rs,
        "d_cs_delta": d_cs_delta,
        "d_cs_hoeffding": d_cs_hoeffding,
        "center_t": spec.sigma_cs * float(curve.coefficient(arc)),
        "center_radius": median,
        "smoothing_error": float(np.linalg.norm(center)),
        "n_pieces": len(curve.u) - 1,
    }


def _status(d_cs: float, d_rs: float, logits: np.ndarray) -> str:
    if d_cs >= d_rs * (1 + TOLERANCE):
        return "NOT_CERTIFIED"
    second, first = np.sort(logits)[-2:]
    tie = first - second <= TOLERANCE * np.abs(logits).max()
    return "UNDECIDED" if tie or d_cs >= d_rs * (1 - TOLERANCE) else "CERTIFIED"


def normal_mass(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return Phi(high) - Phi(low), from the tail that does not cancel."""
    right = low > 0
    return ndtr(np.where(right, -low, high)) - ndtr(np.where(right, -high, low))


class Curve:
    """A polyline under the standard normal measure of u = t / sigma_cs; `arc` names its points.

    Nodes `u` [m] (increasing), `r` [m, k] with squared norms `rr` and arc lengths `arc` up to them;
    squared lengths `ss` [m - 1] and masses `weight` of the pieces. All float64.
    """

    def __init__(self, u: np.ndarray, r: np.ndarray) -> None:
        self.u, self.r, self.rr = u, r, (r**2).sum(1)
        self.ss = (np.diff(r, axis=0) ** 2).sum(1)
        self.arc = np.concatenate([[0.0], np.sqrt(self.ss).cumsum()])
        self.weight = normal_mass(u[:-1], u[1:])

    def around(self, center: np.ndarray) -> Curve:
        """Return the curve relative to `center` [k]: distances from near there keep all their digits."""
        return Curve(self.u, self.r - center)

    def _interpolate(self, values: np.ndarray, arc: np.ndarray | float) -> np.ndarray:
        i = np.clip(np.searchsorted(self.arc, arc, side="right") - 1, 0, len(self.ss) - 1)
        length = self.arc[i + 1] - self.arc[i]
        s = np.clip((arc - self.arc[i]) / np.where(length > 0, length, 1), 0, 1)
        s = s.reshape(s.shape + (1,) * (values.ndim - 1))
        return (1 - s) * values[i] + s * values[i + 1]

    def points(self, arc: np.ndarray | float) -> np.ndarray:
        """Return the points at arc lengths `arc` [b], [b, k]."""
        return self._interpolate(self.r, arc)

    def coefficient(self, arc: np.ndarray | float) -> np.ndarray:
        """Return u at arc lengths `arc` [b], [b]."""
        return self._interpolate(self.u, arc)

    def radii(self, masses: np.ndarray) -> np.ndarray:
        """Bracket the radii around the origin that hold `masses` [b]: [2, b], inf if none does."""
        far = np.full(len(masses), math.sqrt(self.rr.max()) * (1 + 1e-12))
        balls = Balls(self, np.repeat(self.rr[None], len(masses), axis=0))
        some = balls.mass(far)[0] >= masses
        found = balls.radii(np.where(some, masses, 0), 0 * far, far, lambda low: 1e-9 * low + 1e-15 * far)
        return np.where(some, found, np.inf)

    def medians(self, points: np.ndarray, low: np.ndarray, high: np.ndarray, allowed: Callable) -> np.ndarray:
        """Bracket M at `points` [b, k], known to be in `low`..`high`, to a width `allowed(low)`: [2, b]."""
        found, rows, r = [], max(1, _CELLS // len(self.u)), torch.from_numpy(self.r)
        for i in range(0, len(points), rows):
            c, span = points[i : i + rows], slice(i, i + rows)
            cc = (c**2).sum(1)
            squares = self.rr + cc[:, None] - 2 * (torch.from_numpy(c) @ r.T).numpy()
            balls = Balls(self, np.maximum(squares, 0))
            bracket = balls.radii(np.full(len(c), 0.5), low[span], high[span], allowed)
            noise = _ROUNDING * (bracket + np.sqrt(cc)) ** 2  # of squares that large
            found.append(np.sqrt(np.maximum(bracket**2 + noise * [[-1], [1]], 0)))
        return np.concatenate(found, axis=1)


class Balls:
    """Balls around b centers, given the centers' squared distances [b, m] from a curve's nodes.

    On a piece the squared distance is a convex quadratic in the fraction s of the piece, so the part
    within a radius is an interval of s: `middle` -+ sqrt((radius^2 - vertex) / ss), cut at 0 and 1.
    """

    def __init__(self, curve: Curve, squares: np.ndarray) -> None:
        self.curve = curve
        start, end = squares[:, :-1], squares[:, 1:]
        self.ss = np.maximum(curve.ss, max(1e-30 * curve.rr.max(), 1e-300))  # a piece may be a point
        self.middle = ((start - end) / self.ss + 1) / 2
        self.vertex = start - self.middle**2 * self.ss
        inner = (self.middle > 0) & (self.middle < 1)
        self.near = np.where(inner, self.vertex, np.minimum(start, end))
        self.far = np.maximum(start, end)

    def mass(self, radius: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return F and its derivative at `radius` [b], [b] each; only cut pieces need Phi."""
        curve, square = self.curve, radius**2
        whole = self.far <= square[:, None]
        ball, i = ((self.near <= square[:, None]) & ~whole).nonzero()
        ss, du, middle = self.ss[i], curve.u[i + 1] - curve.u[i], self.middle[ball, i]
        half = np.sqrt(np.maximum(square[ball] - self.vertex[ball, i], 0) / ss)
        low, high = (curve.u[i] + du * np.clip(s, 0, 1) for s in (middle - half, middle + half))
        mass = np.where(whole, curve.weight, 0).sum(1)
        mass += np.bincount(ball, normal_mass(low, high), len(mass))
        density = (middle > half) * np.exp(-(low**2) / 2) + (middle + half < 1) * np.exp(-(high**2) / 2)
        slope = radius[ball] * du / np.maximum(ss * half, 1e-300) * density / math.sqrt(2 * math.pi)
        return mass, np.bincount(ball, slope, len(mass))

    def radii(self, mass: np.ndarray, low: np.ndarray, high: np.ndarray, allowed: Callable) -> np.ndarray:
        """Narrow brackets F(low) < mass <= F(high) of all balls to a width `allowed(low)`: [2, b].

        Newton's steps, lengthened a little so that both ends move, and bisection. If a first `low` of
        0 holds the mass already (the curve rests there), the radius is 0.
        """
        x = low
        for step in range(400):
            found, slope = self.mass(x)
            enough = found >= mass
            low, high = np.where(enough, low, x), np.where(enough, x, high)
            width = allowed(low)
            if (high - low <= width).all():
                break
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                newton = x + (mass - found) / slope + np.where(enough, -0.25, 0.25) * width
            good = (newton > low) & (newton < high) & (step % 4 < 3)
            x = np.where(good, newton, (low + high) / 2)
        return np.array([low, high])


def smallest_median(curve: Curve) -> float:
    """Find r_bar, with M at most 1 + eta times that of any point of the curve; return its arc length."""
    at = float(np.interp(0, curve.u, curve.arc))
    near, places = curve.around(curve.points(at)), np.array([at])
    low, high = near.radii(np.array([0.5]))
    best = target = high[0]

    def allowed(low: np.ndarray) -> np.ndarray:
        return np.maximum(0.02 * ETA * best, 0.1 * (low - target))  # far above the best a rough M will do

    new = np.append(np.interp(_ANCHORS, curve.u, curve.arc), curve.arc[:-1][curve.ss == 0])  # where it rests
    while best > 0 and len(new := np.setdiff1d(new, places)):
        left = np.maximum(np.searchsorted(places, new) - 1, 0)
        right = np.minimum(left + 1, len(places) - 1)
        before, after = abs(new - places[left]), abs(places[right] - new)
        least = np.maximum(np.maximum(low[left] - before, low[right] - after), 0)
        most = np.minimum(high[left] + before, high[right] + after)
        least, most = near.medians(curve.points(new) - curve.points(at), least, most, allowed)
        order = np.argsort(np.append(places, new))
        pairs = (places, new), (low, least), (high, most)
        places, low, high = (np.append(*pair)[order] for pair in pairs)
        while places[i := high.argmin()] != at:  # distances keep their digits around `at`
            center = curve.points(places[i])
            if low[i] > 0 and np.linalg.norm(center - curve.points(at)) < high[i]:
                break  # near enough
            at, near = places[i], curve.around(center)
            low[[i]], high[[i]] = near.radii(np.array([0.5]))
        best, target = high[i], high[i] / (1 + ETA)
        spare = np.maximum(low - target, 0)  # this far from a place M cannot fall below the target
        bare = np.diff(places) - spare[:-1] - spare[1:]
        gap = ((bare > 0) & (best > 0)).nonzero()[0]
        parts = bare[gap] / (spare[gap] + spare[gap + 1] + 2 * (best - target))
        parts = np.clip(np.ceil(parts), 1, 6).astype(int)
        part = np.concatenate([np.empty(0), *(np.arange(0.5, n) / n for n in parts)])
        gap = np.repeat(gap, parts)
        new = places[gap] + spare[gap] + bare[gap] * part
    return float(places[high.argmin()])
