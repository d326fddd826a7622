"""Two and more attributes: small networks of deviations, one per cell of coefficient space.

Near a point most units stay on or stay off. Samples are split into cells; around a cell's middle
only the units that can change sign there are computed, everything else is one affine map.
"""

from __future__ import annotations

import torch

from lassi_lib.certification.network import Restriction

_CELL = 1000  # samples per cell at most: a trade between the cost of a cell and of its samples


class Points:
    """Sampled representations written out, relative to R(z): a `center.Cloud`.

    Kept in float32 (their rounding is relative to the spread, not to ||R(z)||); the center search
    works on a float64 copy.
    """

    def __init__(self, x: torch.Tensor) -> None:
        self.x = x
        self._wide: tuple[torch.Tensor, torch.Tensor] | None = None

    def __len__(self) -> int:
        return len(self.x)

    def _double(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self._wide is None:
            x = self.x.double()
            self._wide = x, (x**2).sum(1)
        return self._wide

    def point(self, row: int) -> torch.Tensor:
        """Return one sample, float64 [k]."""
        return self.x[row].double()

    def distances(self, point: torch.Tensor) -> torch.Tensor:
        """Return the distances of all samples from `point` by direct differences, float64 [n]."""
        return (self.x - point.to(self.x)).norm(dim=1).double()

    def squared(self, rows: torch.Tensor, columns: torch.Tensor | None = None) -> torch.Tensor:
        """Return squared distances between samples, float64 [len(rows), n or len(columns)]."""
        x, norm2 = self._double()
        others, others2 = (x, norm2) if columns is None else (x[columns], norm2[columns])
        return torch.addmm(others2, x[rows], others.T, alpha=-2).add_(norm2[rows, None]).clamp_(min=0)

    def extent(self) -> float:
        """Return the largest norm of a sample."""
        return float(self._double()[1].max().sqrt())


def cells(t: torch.Tensor, size: int = _CELL) -> list[torch.Tensor]:
    """Split samples t [m, n] into cells of at most `size`: halve the widest side at its median."""
    parts, done = [torch.arange(len(t))], []
    while parts:
        part = parts.pop()
        if len(part) <= size:
            done.append(part)
            continue
        side = t[part]
        order = side[:, (side.amax(0) - side.amin(0)).argmax()].argsort(stable=True)
        parts += [part[order[: len(part) // 2]], part[order[len(part) // 2 :]]]
    return done


def outputs(
    encoder: Restriction, u0: torch.Tensor, t: torch.Tensor, size: int = _CELL
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Evaluate R at all samples z + t A of one point.

    Around a cell's middle c, write h_l(t) = h_l(c) + dh_l. The inputs of every layer are an affine
    function of features (first dt = t - c, then the deviations dh of earlier layers' kinked units).
    A unit whose input at c outweighs the bound of its deviation is on (its deviation passes) or off
    (it vanishes); the others are kinked and become features. Deviations are float32, the values at
    the middles float64, so errors are relative to the spread of a cell.

    Parameters
    ----------
    encoder : Restriction
        R restricted to n attribute vectors.
    u0 : torch.Tensor
        float64 [h_1], the first layer at z.
    t : torch.Tensor
        float64 [m, n] coefficients.

    Returns
    -------
    origin : torch.Tensor
        float64 [k], R(z).
    x : torch.Tensor
        float32 [m, k], R(z + t A) - R(z).
    kinked : float
        Kinked units per cell, averaged.
    """
    parts = cells(t, size)
    middles = torch.stack([(t[part].amax(0) + t[part].amin(0)) / 2 for part in parts])
    inputs = [u0 + torch.cat([torch.zeros_like(middles[:1]), middles]) @ encoder.U]
    for weight, bias in encoder.tail:
        inputs.append(torch.addmm(bias, inputs[-1].clamp(min=0), weight))
    origin = inputs[-1][0]
    base = (inputs[-1][1:] - origin).float()
    x = torch.empty(len(t), len(origin))
    n, kinked = t.shape[1], 0
    for c, part in enumerate(parts):
        features = (t[part] - middles[c]).float()
        radius = features.norm(dim=1).max()
        bound = torch.empty(0)  # of the features after dt
        affine = encoder.U.float()  # [features, units]
        for here, weight in zip(inputs, encoder.tail32, strict=False):
            here = here[c + 1].float()
            change = affine[:n].norm(dim=0) * radius + bound @ affine[n:].abs()
            change *= 1 + 1e-5  # float32 sums
            bend = (here.abs() < change).nonzero().squeeze(1)
            on = here >= change
            value = here[bend]
            new = (features @ affine[:, bend] + value).clamp_(min=0) - value.clamp(min=0)
            affine = torch.cat([(affine * on) @ weight, weight[bend]])
            features, bound = torch.cat([features, new], dim=1), torch.cat([bound, change[bend]])
        x[part] = torch.addmm(base[c], features, affine)
        kinked += features.shape[1] - n
    return origin, x, kinked / len(parts)
