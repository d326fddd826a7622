"""R as it is seen from the span of A: plain affine layers, the first of them already applied."""

from __future__ import annotations

from copy import copy
from typing import Any

import torch

FIRST = 32  # latents of one first-layer product


class Restriction:
    """R on the affine spaces z + span(A), for all z.

    The first layer at z + t A is ``u0 + t @ U`` with ``u0 = W_1 z + b_1`` and ``U = A W_1^T``, so
    noise on t never has to be written out in d dimensions.

    Parameters
    ----------
    representation : object
        Anything with ``folded_layers() -> list of (W [out, in], b [out])``, ReLU in between.
    vectors : torch.Tensor
        [n, d] attribute vectors A.
    device : str or torch.device
        Where `first` multiplies.

    Attributes
    ----------
    U : torch.Tensor
        float64 [n, h_1].
    tail : list of (W^T [in, out], b [out])
        The layers after the first, float64; in float32 their W^T are `tail32`, and |W^T| `size32`.
    """

    def __init__(
        self, representation: Any, vectors: torch.Tensor, device: str | torch.device = "cpu"
    ) -> None:
        layers = [(w.double(), b.double()) for w, b in representation.folded_layers()]
        self._weight, self._bias = (x.to(device) for x in layers[0])
        self.U = vectors.detach().cpu().double() @ layers[0][0].T
        self.tail = [(w.T.contiguous(), b) for w, b in layers[1:]]
        self.tail32 = [w.float() for w, _ in self.tail]
        self.size32 = [w.abs() for w in self.tail32]

    @classmethod
    def of(cls, U: torch.Tensor, tail: list[tuple[torch.Tensor, torch.Tensor]]) -> Restriction:
        """Return what `without_first` left of another: its `U` [n, h_1] and `tail`."""
        same = cls.__new__(cls)
        same.U, same.tail = U, tail
        same.tail32 = [w.float() for w, _ in tail]
        same.size32 = [w.abs() for w in same.tail32]
        return same

    def without_first(self) -> Restriction:
        """Return a copy that cannot do `first` and is a tenth of the size: what other processes need."""
        small = copy(self)
        del small._weight, small._bias
        return small

    def first(self, z: torch.Tensor, rows: int = FIRST) -> torch.Tensor:
        """Return u0 of at most `rows` latents: [N, d] -> float64 [N, h_1].

        Short batches are filled up with zeros: a point's sums are then the same in every batch.
        """
        padded = self._weight.new_zeros(rows, z.shape[1])
        padded[: len(z)] = z
        return torch.addmm(self._bias, padded, self._weight.T)[: len(z)].cpu()
