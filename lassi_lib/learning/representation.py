"""The encoder R: an MLP on the flow's latents whose outputs have unit variance per coordinate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import pairwise

import torch
from torch import nn

from lassi_lib.numerics import shrinking
from lassi_lib.streams import stream_seed


@contextmanager
def initialisation(seed: int, stage: str) -> Iterator[None]:
    """Initialise modules from the stream (seed, stage) and leave torch's global generator untouched.

    ``torch.manual_seed`` would also re-seed every GPU; modules are born on the CPU, so its own
    generator is enough and the result does not depend on the device.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stream_seed(seed, stage))
        yield


def mlp(widths: tuple[int, ...]) -> nn.Sequential:
    """Return Linear, BatchNorm and ReLU for every hidden width, then a Linear: [N, first] -> [N, last]."""
    *hidden, output = widths[1:]
    layers: list[nn.Module] = []
    for i, o in pairwise((widths[0], *hidden)):
        layers += [nn.Linear(i, o), nn.BatchNorm1d(o), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-2], output))


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Put a module into eval mode (BatchNorm uses its running statistics), then back as it was."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)


def cpu_state(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return all weights and statistics as a plain dict of CPU tensors (for safetensors)."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}


class Representation(nn.Module):
    """R: latents [N, d] -> representations [N, output] (ECCV 2022, section 5).

    Linear, BatchNorm and ReLU for every hidden layer, then a Linear and a BatchNorm without
    parameters, which fixes the scale: distances cannot be made small by shrinking everything.

    The forward pass is cut after the first Linear: there similar points are
    ``first(z + t A) = first(z) + t @ direction(A)``, so the products with z and with A are needed
    once, whatever the number of points t.
    """

    def __init__(self, d: int, hidden: tuple[int, ...] = (2048, 1024), output: int = 512) -> None:
        super().__init__()
        widths = (d, *hidden, output)
        self.linears = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(widths))
        self.norms = nn.ModuleList([*map(nn.BatchNorm1d, hidden), nn.BatchNorm1d(output, affine=False)])

    def first(self, z: torch.Tensor) -> torch.Tensor:
        """Return the first Linear's output: latents [N, d] -> [N, h1]."""
        return self.linears[0](z)

    def direction(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return what the first Linear, without its bias, makes of directions: [n, d] -> [n, h1]."""
        return nn.functional.linear(vectors, self.linears[0].weight)

    def first_and_direction(
        self, z: torch.Tensor, vectors: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ``(first(z), direction(vectors))`` from one product, for training.

        From two products autograd would add two gradients as large as the weight, which takes a
        seventh of a step.
        """
        products = nn.functional.linear(torch.cat([z, vectors]), self.linears[0].weight)
        h, direction = products.split([len(z), len(vectors)])
        return h + self.linears[0].bias, direction

    def rest(self, h: torch.Tensor) -> torch.Tensor:
        """Return the representations of first-layer outputs: [N, h1] -> [N, output]."""
        for norm, linear in zip(self.norms, self.linears[1:], strict=False):
            h = linear(nn.functional.relu(norm(h)))
        return self.norms[-1](h)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Return the representations of latents: [N, d] -> [N, output]."""
        return self.rest(self.first(z))

    def folded_layers(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return R in eval mode as affine layers (W [out, in], b [out]), its BatchNorms folded in.

        float64 on the CPU; a ReLU stands between consecutive layers, none after the last.
        """
        state = {name: tensor.double() for name, tensor in self.state().items()}
        layers = []
        for i, norm in enumerate(self.norms):
            scale = (state[f"norms.{i}.running_var"] + norm.eps).rsqrt() * state.get(f"norms.{i}.weight", 1.0)
            bias = (state[f"linears.{i}.bias"] - state[f"norms.{i}.running_mean"]) * scale
            layers.append(
                (state[f"linears.{i}.weight"] * scale[:, None], bias + state.get(f"norms.{i}.bias", 0.0))
            )
        return layers

    state = cpu_state

    @classmethod
    def from_state(cls, state: dict[str, torch.Tensor]) -> Representation:
        """Rebuild a frozen R in eval mode around the tensors of `state()` (not copied)."""
        depth = sum(name.endswith("running_mean") for name in state)
        weights = [state[f"linears.{i}.weight"] for i in range(depth)]
        *hidden, output = (len(w) for w in weights)
        with torch.device("meta"):  # neither memory nor random numbers for weights about to be replaced
            representation = cls(weights[0].shape[1], tuple(hidden), output)
        representation.load_state_dict(state, assign=True)
        return representation.eval().requires_grad_(False)


@torch.no_grad()
def embed(
    representation: Representation | Callable[[torch.Tensor], torch.Tensor],
    z: torch.Tensor,
    batch_size: int = 1024,
) -> torch.Tensor:
    """Return R(z) in eval mode, in batches: latents [N, d] -> float32 [N, output] on the CPU.

    A callable that is no module gets the latents where they are.
    """
    module = isinstance(representation, nn.Module)
    device = representation.linears[0].weight.device if module else z.device

    def run(size: int) -> torch.Tensor:
        # copies, because a product's last bits may depend on where a memory-mapped file starts in memory
        batches = (batch.to(device, copy=True) for batch in z.split(size))
        return torch.cat([representation(batch).cpu() for batch in batches])

    with eval_mode(representation) if module else nullcontext():
        return shrinking(run, batch_size)
