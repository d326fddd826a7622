"""R as it is seen from the span of A: plain affine layers, the first of them already applied."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

FIRST = 32  # latents of one first-layer product


@dataclass(eq=False)
class Layers:
    """R after its first layer, on one device: small enough to be sent to other processes.

    Attributes
    ----------
    U : torch.Tensor
        float64 [n, h_1]: the first layer's output at z + t A is ``u0 + t @ U``.
    tail : list of (W^T [in, out], b [out])
        The layers after the first, float64; in float32 their W^T are `tail32`, and |W^T| `size32`.
    """

    U: torch.Tensor
    tail: list[tuple[torch.Tensor, torch.Tensor]]

    @cached_property
    def tail32(self) -> list[torch.Tensor]:
        """The W^T in float32."""
        return [w.float() for w, _ in self.tail]

    @cached_property
    def size32(self) -> list[torch.Tensor]:
        """The |W^T| in float32."""
        return [w.abs() for w in self.tail32]

    def to(self, device: torch.device) -> Layers:
        """Return the same layers on `device`."""
        return Layers(self.U.to(device), [(weight.to(device), bias.to(device)) for weight, bias in self.tail])

    def inputs(self, u: torch.Tensor) -> list[torch.Tensor]:
        """Return the inputs of all layers' ReLUs, and the outputs, for first layers u [m, h_1]."""
        inputs = [u]
        for weight, bias in self.tail:
            inputs.append(torch.addmm(bias, inputs[-1].clamp(min=0), weight))
        return inputs


class Restriction(Layers):
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
    """

    def __init__(
        self, representation: Any, vectors: torch.Tensor, device: str | torch.device = "cpu"
    ) -> None:
        layers = [(w.double(), b.double()) for w, b in representation.folded_layers()]
        self._weight, self._bias = (x.to(device) for x in layers[0])
        U = vectors.detach().cpu().double() @ layers[0][0].T
        super().__init__(U, [(w.T.contiguous(), b) for w, b in layers[1:]])

    def without_first(self) -> Layers:
        """Return what is left without `first`, a tenth of the size: what other processes need."""
        return Layers(self.U, self.tail)

    def first(self, z: torch.Tensor, rows: int = FIRST) -> torch.Tensor:
        """Return u0 of at most `rows` latents: [N, d] -> float64 [N, h_1].

        Short batches are filled up with zeros: a point's sums are then the same in every batch.
        """
        padded = self._weight.new_zeros(rows, z.shape[1])
        padded[: len(z)] = z
        return torch.addmm(self._bias, padded, self._weight.T)[: len(z)].cpu()
