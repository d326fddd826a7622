"""Affine bounds of a ReLU network over small cells of coefficient space, for many cells at once.

Around a cell's middle c every layer's input is enclosed by one affine function and a width,

    p(c + dt) = here + shift + dt @ slope +- width        for all dt in the cell,

carried forward layer by layer. A unit whose sign the enclosure settles is on (affine) or off (zero).
For the others, with the range [low, high] and s = high / (high - low), the ReLU lies between two
parallel lines: s p <= relu(p) <= s (p - low) (Singh et al. 2018, DeepZ; Zhang et al. 2018, CROWN).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

_ROUNDING = 1 + 1e-5  # the bounds themselves are float32 sums


@dataclass(frozen=True)
class Cells:
    """C boxes in coefficient space: middles [C, n], half sides [C, n], radii [C] around the middles.

    The radius says that no point of interest is further from the middle; it may be less than half
    the diagonal.
    """

    middle: torch.Tensor
    half: torch.Tensor
    radius: torch.Tensor

    def reach(self, slope: torch.Tensor) -> torch.Tensor:
        """Return max |dt @ slope| over every cell: slopes [C, n, h] -> [C, h]."""
        box = (slope.abs() * self.half[:, :, None]).sum(1)
        return torch.minimum(box, slope.norm(dim=1) * self.radius[:, None])


@dataclass(frozen=True)
class Enclosure:
    """One layer's p = here + shift + dt @ slope +- width: [C, h], [C, h], [C, n, h], [C, h]."""

    here: torch.Tensor
    shift: torch.Tensor
    slope: torch.Tensor
    width: torch.Tensor

    def range(self, cells: Cells) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the smallest and the largest value over every cell, [C, h] each."""
        middle, half = self.here + self.shift, (cells.reach(self.slope) + self.width) * _ROUNDING
        return middle - half, middle + half

    def relu(self, cells: Cells) -> Enclosure:
        """Enclose relu(p)."""
        low, high = self.range(cells)
        s = torch.where(low >= 0, 1.0, high.clamp(min=0) / (high - low.clamp(max=0)).clamp(min=1e-30))
        gap = -s * low.clamp(max=0) / 2  # half of what lies between the two lines
        after = self.here.clamp(min=0)
        shift = s * (self.here + self.shift) + gap - after
        return Enclosure(after, shift, s[:, None] * self.slope, s * self.width + gap)

    def layer(self, here: torch.Tensor, weight: torch.Tensor, size: torch.Tensor) -> Enclosure:
        """Enclose a next layer, given its exact inputs `here` at the middles, W^T and |W^T|."""
        return Enclosure(here, self.shift @ weight, self.slope @ weight, self.width @ size)
