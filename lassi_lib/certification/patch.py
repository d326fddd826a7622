"""Two and more attributes: small networks of deviations, one per cell of coefficient space.

Near a point most units stay on or stay off. Samples are split into cells; around a cell's middle
only the units that can change sign there are computed, everything else is one affine map.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from lassi_lib.certification.bounds import Cells, Enclosure
from lassi_lib.certification.network import Layers

_CELL = 1000  # samples per cell at most: a trade between the cost of a cell and of its samples
_SKETCH = 64  # samples that span the center search's first look


@dataclass(frozen=True)
class Piece:
    """R on the samples of one cell: x = base + features @ affine (see `pieces`).

    `rows` [s] are the samples' numbers, `features` [s, f], `affine` [f, k] and `base` [k] are float32;
    x is relative to R(z).
    """

    rows: torch.Tensor
    features: torch.Tensor
    affine: torch.Tensor
    base: torch.Tensor


class Points:
    """Samples `start` to `stop` of a surface given in pieces: a `center.Cloud`.

    Outputs are float32 relative to R(z): rounding is relative to their spread, not to ||R(z)||. Only
    the center search writes them out. It looks at a sketch first: coordinates in the span of a few
    samples, and the norm of what lies outside it. Neither projecting nor taking that norm lengthens
    a distance, so distances between sketches are lower bounds, in 65 dimensions instead of 512.
    """

    def __init__(self, surface: list[Piece], start: int, stop: int) -> None:
        self._count = stop - start
        self._pieces = []
        for piece in surface:
            part = slice(*torch.searchsorted(piece.rows, torch.tensor([start, stop])).tolist())
            self._pieces.append(replace(piece, rows=piece.rows[part] - start, features=piece.features[part]))

    def __len__(self) -> int:
        return self._count

    @cached_property
    def x(self) -> torch.Tensor:
        """All samples written out, float32 [m, k]."""
        x = torch.empty(self._count, len(self._pieces[0].base))
        for p in self._pieces:
            x[p.rows] = torch.addmm(p.base, p.features, p.affine)
        return x

    @cached_property
    def _norm2(self) -> torch.Tensor:
        return torch.linalg.vector_norm(self.x, dim=1).square_()

    @cached_property
    def _sketch(self) -> tuple[torch.Tensor, torch.Tensor]:
        spread = torch.linspace(0, len(self) - 1, min(_SKETCH, len(self)), dtype=torch.float64).long()
        inside = self.x @ torch.linalg.qr(self.x[spread].T)[0]
        outside = (self._norm2 - inside.square().sum(1)).clamp_(min=0).sqrt_()
        sketch = torch.cat([inside, outside[:, None]], dim=1).double()
        return sketch, sketch.square().sum(1)

    def point(self, row: int) -> torch.Tensor:
        """Return one sample, float64 [k]."""
        return self.x[row].double()

    def distances(self, point: torch.Tensor) -> torch.Tensor:
        """Return the distances of all samples from `point` by direct differences, float64 [m]."""
        distances = torch.empty(self._count, dtype=torch.float64)
        for p in self._pieces:
            away = torch.addmm(p.base - point.float(), p.features, p.affine)
            distances[p.rows] = torch.linalg.vector_norm(away, dim=1).double()
        return distances

    def squared(self, rows: torch.Tensor, columns: torch.Tensor | None = None) -> torch.Tensor:
        """Return lower bounds of squared distances, float64 [len(rows), m or len(columns)]."""
        return _squared(*self._sketch, rows, columns)

    def squared_exact(self, rows: torch.Tensor) -> torch.Tensor:
        """Return squared distances, [len(rows), m]."""
        return _squared(self.x, self._norm2, rows)

    def rounding(self) -> float:
        """Return a bound of the rounding error of distances: some float32 units of the largest norm."""
        return 4e-6 * float(self._norm2.max()) ** 0.5


def _squared(
    x: torch.Tensor, norm2: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor | None = None
) -> torch.Tensor:
    """Return |x_i|^2 + |x_j|^2 - 2 <x_i, x_j> for i in `rows` and j in `columns` (or all)."""
    others, others2 = (x, norm2) if columns is None else (x[columns], norm2[columns])
    return torch.addmm(others2, x[rows], others.T, alpha=-2).add_(norm2[rows, None]).clamp_(min=0)


def cells(t: torch.Tensor, size: int = _CELL) -> list[torch.Tensor]:
    """Split samples t [m, n] into cells of at most `size`: halve the widest side at its median.

    Returns the sorted numbers of every cell's samples.
    """
    parts, done = [torch.arange(len(t))], []
    while parts:
        part = parts.pop()
        if len(part) <= size:
            done.append(part.sort().values)
            continue
        side, half = t[part], len(part) // 2
        side = side[:, (side.amax(0) - side.amin(0)).argmax()].contiguous()
        order = torch.from_numpy(np.argpartition(side.numpy(), half))
        parts += [part[order[:half]], part[order[half:]]]
    return done


def _folding_pays(samples: int, features: int, units: int, width: int) -> bool:
    """Say whether `units` that are on cost less as one affine map of features than one by one."""
    return features * units * width + samples * features * width < samples * units * (features + width)


def pieces(
    encoder: Layers, u0: torch.Tensor, t: torch.Tensor, size: int = _CELL
) -> tuple[torch.Tensor, list[Piece]]:
    """Reduce R to small networks that agree with it at all samples z + t A of one point.

    Around a cell's middle c, write h_l(t) = h_l(c) + dh_l. The inputs of every layer are an affine
    function of features (first dt = t - c, then the deviations dh of earlier layers' kinked units).
    A unit whose input cannot change sign in the cell (`bounds.Enclosure`) is on (its deviation passes)
    or off (it vanishes); the others are kinked and become features. Deviations are float32, the
    values at the middles float64, so errors are relative to the spread of a cell.

    Parameters
    ----------
    encoder : Layers
        R restricted to n attribute vectors.
    u0 : torch.Tensor
        float64 [h_1], the first layer at z.
    t : torch.Tensor
        float64 [m, n] coefficients.
    size : int
        Samples per cell at most.

    Returns
    -------
    origin : torch.Tensor
        float64 [k], R(z).
    surface : list of Piece
        One per cell.
    """
    parts = cells(t, size)
    middles = torch.stack([(t[part].amax(0) + t[part].amin(0)) / 2 for part in parts])
    inputs = encoder.inputs(u0 + torch.cat([torch.zeros_like(middles[:1]), middles]) @ encoder.U)
    origin = inputs[-1][0]
    base = (inputs[-1][1:] - origin).float()
    inputs = [here[1:].float() for here in inputs[:-1]]
    dt = [(t[part] - middle).float() for part, middle in zip(parts, middles, strict=True)]
    half = torch.stack([f.abs().amax(0) for f in dt])
    area = Cells(middles.float(), half, torch.stack([f.norm(dim=1).max() for f in dt]))
    U = encoder.U.float()
    ranges = []
    for layer, here in enumerate(inputs):
        if layer == 0:
            known = Enclosure(here, here * 0, U.expand(len(parts), -1, -1), here * 0)
        else:
            known = known.relu(area).layer(here, encoder.tail32[layer - 1], encoder.size32[layer - 1])
        ranges.append(known.range(area))
    if encoder.tail:  # first layer: all cells in one product, since it reads all of W_2 for n rows each
        on = ranges[0][0] >= 0
        passed = ((U * on[:, None, :]).flatten(0, 1) @ encoder.tail32[0]).unflatten(0, (len(parts), len(U)))
    surface = []
    for c, part in enumerate(parts):
        features, affine = dt[c], U  # affine: [features, units]
        for layer, weight in enumerate(encoder.tail32):
            here, (low, high) = inputs[layer][c], (x[c] for x in ranges[layer])
            bend, on = ((low < 0) & (high > 0)).nonzero().squeeze(1), low >= 0
            p = features @ affine[:, bend] + here[bend]
            if layer > 0:  # enclosures of later layers are loose: look at the samples themselves
                low, high = torch.minimum(p.amin(0), here[bend]), torch.maximum(p.amax(0), here[bend])
                on[bend[low >= 0]] = True
                mixed = (low < 0) & (high > 0)
                bend, p = bend[mixed], p[:, mixed]
            deviation = p.clamp_(min=0) - here[bend].clamp(min=0)
            if layer == 0:
                straight = passed[c]
            elif _folding_pays(len(part), len(affine), int(on.sum()), weight.shape[1]):
                straight = affine[:, on] @ weight[on]
            else:  # the units that are on become features themselves, instead of what moves them
                bend = torch.cat([bend, on.nonzero().squeeze(1)])
                deviation = torch.cat([deviation, features @ affine[:, on]], dim=1)
                features, straight = features[:, :0], weight[:0]
            affine = torch.cat([straight, weight[bend]])
            features = torch.cat([features, deviation], dim=1)
        surface.append(Piece(part, features, affine, base[c]))
    return origin, surface
