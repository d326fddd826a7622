"""Center smoothing (Kumar & Goldstein 2021) on samples of a curve or surface of representations.

The smoothed representation of z is the center of a ball that holds half of the representations
R(z + t A), t ~ N(0, sigma_cs^2 I); the certificate bounds how far it moves for ||t|| <= epsilon.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from lassi_lib.certification.spec import CertificationSpec, radius_quantile, radius_rank, required_mass

_BATCH, _ROUNDS = 16, 6  # anchors of a round, rounds: more prune better, but cost an evaluation each


class Cloud(Protocol):
    """The sampled representations of one point: `line.Positions`, `patch.Points` or `black_box.Samples`."""

    def __len__(self) -> int: ...

    def point(self, row: int) -> torch.Tensor:
        """Return one sample, float64 [k]."""

    def distances(self, point: torch.Tensor) -> torch.Tensor:
        """Return the distances of all samples from any point, by direct differences: float64 [n]."""

    def squared(self, rows: torch.Tensor, columns: torch.Tensor | None = None) -> torch.Tensor:
        """Return lower bounds of squared distances between samples, [len(rows), n or len(columns)].

        They are squared distances of some (cheaper) points; float64.
        """

    def squared_exact(self, rows: torch.Tensor) -> torch.Tensor:
        """Return squared distances between samples, [len(rows), n]."""

    def rounding(self) -> float:
        """Return a bound of the rounding error of distances that come from `squared`."""


@dataclass(frozen=True)
class CenterSmoothing:
    """What center smoothing says at one point; `d_cs` is None where it abstains.

    `center` is the sample r_cs, `radius` its median distance rho to the candidates and
    `mass_fraction` the share of fresh samples within rho.
    """

    center: torch.Tensor
    radius: float
    mass_fraction: float
    d_cs: float | None


def center_smoothing(
    candidates: Cloud, mass: Cloud, radius: Cloud, spec: CertificationSpec
) -> CenterSmoothing:
    """Smooth R at one point and certify the result (Kumar & Goldstein 2021, Algorithms 1 and 2).

    1. The center is the candidate with the smallest median distance rho to all n_0 candidates.
    2. n_0 fresh samples check that the ball holds about half the mass: abstain if fewer than
       `required_mass` of them lie within rho.
    3. d_cs is 3 times the radius that n fresh distances from the center give (`radius_rank`). The factor
       is 1 + beta: the center is a beta = 2 approximation of the smallest ball.

    The proof, and what Hoeffding's and the binomial bound have to show in it, stand in
    `CertificationSpec`.
    """
    row, rho = smallest_median(candidates, average=spec.quantile == "linear")
    center = candidates.point(row)
    inside = int((mass.distances(center) <= rho).sum())
    fraction = inside / len(mass)
    if inside < required_mass(spec):
        return CenterSmoothing(center, rho, fraction, None)
    distances = radius.distances(center).numpy()
    if spec.quantile == "linear":
        holds_p = float(np.quantile(distances, radius_quantile(spec)))
    else:
        holds_p = kth_smallest(distances, radius_rank(spec))
    return CenterSmoothing(center, rho, fraction, 3 * holds_p)


def kth_smallest(values: np.ndarray, k: int) -> float:
    """Return the k-th smallest value, counted from 1."""
    return float(np.partition(values, k - 1)[k - 1])


def smallest_median(cloud: Cloud, *, average: bool = False) -> tuple[int, float]:
    """Find the sample whose median distance to all samples is smallest: (row, that median).

    The answer is that of trying all n candidates (ties: the smallest row), for a few hundred
    evaluations. The median distance m(c) moves by at most ||c - a|| when the candidate moves from a
    to c, and if more than half of the samples lie within m+(a) of a, one of them is among those
    within m(c) of c, so

        m(c) >= m(a) - ||c - a||   and   m(c) >= ||c - a|| - m+(a).

    Rounds of candidates, spread over those still possible, become anchors and rule out the others.
    What is left is decided by counting: c is out if fewer than n/2 samples lie within the best
    median so far. Near an anchor only the samples in a thin shell need looking at, since the
    distances from a and from c differ by at most ||c - a||.

    Parameters
    ----------
    cloud : Cloud
        n samples. Neighbouring rows being neighbours in space helps, but only the speed.
    average : bool
        The mean of the two middle distances for even n (NumPy's median) instead of the n/2-th
        smallest, the smallest radius that holds half of the samples.
    """
    n = len(cloud)
    k = (n + 1) // 2
    pad = cloud.rounding()
    best = (math.inf, n)

    def medians(squares: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return m [b] of candidates from squared distances [b, n], and the radius over half of n."""
        parted = np.partition(squares.numpy(), n // 2, axis=1)
        over, half = (torch.from_numpy(x).sqrt() for x in (parted[:, n // 2], parted[:, :k].max(axis=1)))
        return (half + over) / 2 if average else half, over

    def try_(rows: torch.Tensor) -> None:
        """Evaluate candidates for good and keep the best."""
        nonlocal best
        for part in rows.split(_BATCH):
            found = medians(cloud.squared_exact(part))[0].tolist()
            best = min([best, *zip(found, part.tolist(), strict=True)])

    alive = torch.arange(n)
    rivals: list[torch.Tensor] = []  # candidates that the bounds cannot rule out
    anchors: list[torch.Tensor] = []  # squared distances of every anchor from all samples
    reach = torch.full((n,), math.inf, dtype=torch.float64)  # distance from the nearest anchor
    nearest = torch.zeros(n, dtype=torch.long)
    lower = torch.zeros(n, dtype=torch.float64)
    for _ in range(_ROUNDS):
        pick = torch.linspace(0, len(alive) - 1, min(_BATCH, len(alive)), dtype=torch.float64).round().long()
        squares = cloud.squared(alive[pick])
        median, over = medians(squares)
        first = median.argmin()
        if median[first] <= best[0] + pad:
            try_(alive[pick][first][None])
        rivals.append(alive[pick][median <= best[0] + pad])
        rest = torch.ones(len(alive), dtype=torch.bool).index_fill_(0, pick, False)
        alive, lower, reach, nearest = (x[rest] for x in (alive, lower, reach, nearest))
        gap = squares[:, alive].sqrt()
        bounds = torch.maximum(median[:, None] - gap, gap - over[:, None])
        lower = torch.maximum(lower, bounds.amax(0) - pad)
        closest, which = gap.min(0)
        nearest = torch.where(closest < reach, which + _BATCH * len(anchors), nearest)
        reach = torch.minimum(reach, closest)
        anchors.append(squares)
        keep = lower <= best[0]
        alive, lower, reach, nearest = (x[keep] for x in (alive, lower, reach, nearest))
        if not len(alive):
            break
        if best[0] == 0:  # half of the samples coincide (a dead network): nothing can be better
            return best[1], 0.0
    for anchor in nearest.unique().tolist():
        group = nearest == anchor
        rows, width = alive[group], float(reach[group].max()) + pad
        row = anchors[anchor // _BATCH][anchor % _BATCH]
        inside = row < max(best[0] - width, 0.0) ** 2
        shell = (~inside & (row <= (best[0] + width) ** 2)).nonzero().squeeze(1)
        count = inside.sum() + (cloud.squared(rows, shell) <= (best[0] + pad) ** 2).sum(1)
        rivals.append(rows[count >= k])
    try_(torch.cat(rivals))
    return best[1], best[0]
