"""Two and more attributes: small networks of deviations, one per cell of coefficient space.

Near a point most units stay on or stay off. Samples are split into cells; around a cell's middle
only the units that can change sign there are computed, everything else is one affine map.
"""

from __future__ import annotations

from functools import cached_property

import torch

from lassi_lib.certification.network import Restriction

_CELL = 1000  # samples per cell at most: a trade between the cost of a cell and of its samples
_SKETCH = 64  # samples that span the center search's first look
_ROUNDING = 1 + 1e-5  # bounds are float32 sums


class Points:
    """Sampled representations x [m, k] written out, relative to R(z): a `center.Cloud`.

    Kept in float32 (their rounding is relative to the spread, not to ||R(z)||); the center search
    works in float64. It looks at a sketch first: coordinates in the span of a few samples, and the
    norm of what lies outside it. Neither projecting nor taking that norm lengthens a distance, so
    distances between sketches are lower bounds, in 65 dimensions instead of 512.
    """

    def __init__(self, x: torch.Tensor) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    @cached_property
    def _wide(self) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.x.double()
        return x, torch.linalg.vector_norm(x, dim=1) ** 2

    @cached_property
    def _sketch(self) -> tuple[torch.Tensor, torch.Tensor]:
        x, norm2 = self._wide
        spread = torch.linspace(0, len(x) - 1, min(_SKETCH, len(x)), dtype=torch.float64).long()
        inside = x @ torch.linalg.qr(x[spread].T)[0]
        outside = (norm2 - (inside**2).sum(1)).clamp_(min=0).sqrt_()
        return torch.cat([inside, outside[:, None]], dim=1), norm2

    def point(self, row: int) -> torch.Tensor:
        """Return one sample, float64 [k]."""
        return self.x[row].double()

    def distances(self, point: torch.Tensor) -> torch.Tensor:
        """Return the distances of all samples from `point` by direct differences, float64 [m]."""
        return (self.x - point.to(self.x)).norm(dim=1).double()

    def squared(self, rows: torch.Tensor, columns: torch.Tensor | None = None) -> torch.Tensor:
        """Return lower bounds of squared distances, float64 [len(rows), m or len(columns)]."""
        return _squared(*self._sketch, rows, columns)

    def squared_exact(self, rows: torch.Tensor) -> torch.Tensor:
        """Return squared distances, float64 [len(rows), m]."""
        return _squared(*self._wide, rows)

    def extent(self) -> float:
        """Return the largest norm of a sample."""
        return float(self._wide[1].max().sqrt())


def _squared(
    x: torch.Tensor, norm2: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor | None = None
) -> torch.Tensor:
    """Return |x_i|^2 + |x_j|^2 - 2 <x_i, x_j> for i in `rows` and j in `columns` (or all)."""
    others, others2 = (x, norm2) if columns is None else (x[columns], norm2[columns])
    return torch.addmm(others2, x[rows], others.T, alpha=-2).add_(norm2[rows, None]).clamp_(min=0)


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
    inputs = [here[1:].float() for here in inputs[:-1]]
    dt = [(t[part] - middle).float() for part, middle in zip(parts, middles, strict=True)]
    radius = torch.stack([f.norm(dim=1).max() for f in dt])
    U, n = encoder.U.float(), t.shape[1]
    if encoder.tail:  # first layer: all cells in one product, since it reads all of W_2 for n rows each
        on = inputs[0] >= radius[:, None] * U.norm(dim=0) * _ROUNDING
        passed = ((U * on[:, None, :]).flatten(0, 1) @ encoder.tail32[0]).unflatten(0, (len(parts), n))
    x, kinked = torch.empty(len(t), len(origin)), 0
    for c, part in enumerate(parts):
        features, affine, bound = dt[c], U, U[0, :0]  # affine: [features, units]
        for layer, weight in enumerate(encoder.tail32):
            here = inputs[layer][c]
            change = affine[:n].norm(dim=0) * radius[c] + bound @ affine[n:].abs()
            change *= _ROUNDING
            bend, on = (here.abs() < change).nonzero().squeeze(1), here >= change
            p = features @ affine[:, bend] + here[bend]
            if layer > 0:  # bounds through several layers are loose: look at the samples themselves
                low, high = torch.minimum(p.amin(0), here[bend]), torch.maximum(p.amax(0), here[bend])
                on[bend[low >= 0]] = True
                mixed = (low < 0) & (high > 0)
                bend, p = bend[mixed], p[:, mixed]
            deviation = p.clamp_(min=0) - here[bend].clamp(min=0)
            affine = torch.cat([passed[c] if layer == 0 else (affine * on) @ weight, weight[bend]])
            features, bound = torch.cat([features, deviation], dim=1), torch.cat([bound, change[bend]])
        x[part] = torch.addmm(base[c], features, affine)
        kinked += features.shape[1] - n
    return origin, x, kinked / len(parts)
