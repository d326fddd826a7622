"""Biases discovered without labels: directions along which a task's predictions change (Li & Xu 2021).

A hyperplane {z : w.z + b = 0} is learned such that a classifier's answer varies along its normal, and
such that the normals found are nearly orthogonal to one another and to the task's own direction.

The original code projects latents "onto" the hyperplane by z - (w.z + b / ||w||^2) w: for want of a
bracket only the offset is divided by ||w||^2. With w ~ N(0, I) this throws a latent about
||w|| times as far as it was; the classifier then sees noise. `Discovery.mended` sets the bracket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from lassi_lib import numerics
from lassi_lib.errors import StudyError, about
from lassi_lib.progress import progress
from lassi_lib.streams import torch_stream


@dataclass(frozen=True)
class Discovery:
    """How directions are searched for; the defaults are the original code's.

    Attributes
    ----------
    count : int
        Number of directions, found one after the other.
    iterations, batch_size, learning_rate
        Adam steps per direction, latents per step, and the step's size.
    step : float
        Latents are moved by -step, 0 and +step along the unit normal.
    orthogonality : float
        Weight of the mean squared cosine with the directions before.
    mended : bool
        Whether latents really are projected onto the hyperplane.
    threads : int
        CPU threads: part of the result, since they change the order of sums.
    """

    count: int = 3
    iterations: int = 2000
    batch_size: int = 4
    learning_rate: float = 1e-3
    step: float = 5.0
    orthogonality: float = 10.0
    mended: bool = False
    threads: int = 1


def project(z: torch.Tensor, w: torch.Tensor, b: torch.Tensor, mended: bool = True) -> torch.Tensor:
    """Return z [B, d] projected onto {z : w.z + b = 0}; not `mended`: moved as the original code does."""
    if mended:
        return z - ((z @ w + b) / (w @ w))[:, None] * w
    return z - (z @ w + b / (w @ w))[:, None] * w


def discover(
    z: torch.Tensor,
    w_0: torch.Tensor,
    predict: Callable[[torch.Tensor], torch.Tensor],
    settings: Discovery | None = None,
    *,
    seed: int,
    device: str = "cpu",
    label: str = "discovered vectors",
) -> tuple[torch.Tensor, list[dict]]:
    """Search directions along which `predict` changes (ECCV 2022, supplement; Li & Xu 2021).

    Parameters
    ----------
    z : torch.Tensor
        [N, d] training latents on the CPU.
    w_0 : torch.Tensor
        [d] normal of the task's linear boundary: the directions shall not be the task itself.
    predict : callable
        Latents [m, d] on `device` -> probabilities [m] of class 1, differentiable; in evaluation mode
        and without gradients of its own parameters.
    settings : Discovery, optional
        Default: the original code's, with its faulty projection.
    seed : int
        Starts and batches; direction k has streams of its own.
    device : str
        Where to search.
    label : str
        Text of the progress bar.

    Returns
    -------
    torch.Tensor
        Unit vectors, float32 [count, d] on the CPU.
    list of dict
        Per direction: ``k``; ``cos_start`` with the random start (near 1: nothing was learned);
        ``cos_task`` with w_0; ``cos_earlier``, largest absolute with earlier directions; ``change_first``
        and ``change_last``, mean change of the prediction per step over the first and last tenth of the
        iterations; ``off_plane``, mean distance from the hyperplane after "projecting", and
        ``norm_ratio``, the norm then over the norm before, both over the whole search.

    Raises
    ------
    StudyError
        If the loss is not finite.
    """
    s = settings or Discovery()
    found, history = [(w_0.double() / w_0.double().norm()).float().to(device)], []
    with (
        numerics.threads(s.threads),
        numerics.full_precision(),
        progress(total=s.count * s.iterations, label=label, unit="step") as bar,
    ):
        for k in range(s.count):
            start, batches = (torch_stream(seed, f"discovered/{name}", k) for name in ("start", "batches"))
            with about(f"discovered vector {k}"):
                unit, row = _search(z, found, predict, s, start, _batches(len(z), s, batches), bar.update)
            found.append(unit)
            history.append({"k": k, **row})
    return torch.stack(found[1:]).cpu(), history


def _search(
    z: torch.Tensor,
    found: list[torch.Tensor],
    predict: Callable[[torch.Tensor], torch.Tensor],
    s: Discovery,
    generator: torch.Generator,
    batches: Iterable[torch.Tensor],
    step_done: Callable[[], object],
) -> tuple[torch.Tensor, dict[str, float]]:
    """Search one direction, nearly orthogonal to those `found`; return it and its row of the history.

    The start is drawn from `generator`; `batches` are row numbers of z, a step each.
    """
    device = found[0].device
    steps = torch.tensor([-s.step, 0.0, s.step], device=device)
    start = torch.randn(z.shape[1], generator=generator).to(device)
    w = start.clone().requires_grad_()
    b = torch.randn((), generator=generator).to(device).requires_grad_()
    optimiser = torch.optim.Adam([w, b], lr=s.learning_rate)
    seen = []
    for rows in batches:
        batch = z[rows].float().to(device)
        base, unit = project(batch, w, b, s.mended), w / w.norm()
        walk = base + steps[:, None, None] * unit  # [3, B, d]
        p = predict(walk.flatten(0, 1)).reshape(walk.shape[:2])
        change = (p[1:] - p[:-1]).abs().mean()
        cosines = torch.stack(found) @ unit
        loss = -torch.log(1e-10 + change) + s.orthogonality * cosines.square().mean()
        if not torch.isfinite(loss):
            raise StudyError(
                f"step {len(seen) + 1}: the loss is {loss.item()}; a latent far from all faces has no finite "
                "prediction: use discovered_mended"
            )
        seen.append(_observe(change, base, batch, w, b))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        step_done()
    unit = w.detach() / w.detach().norm()
    return unit, _summary(unit, start, found, torch.tensor(seen))


def _batches(n: int, s: Discovery, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    """Return `iterations` batches of row numbers; all rows once, shuffled, before any comes again."""
    needed = s.iterations * s.batch_size
    epochs = [torch.randperm(n, generator=generator) for _ in range(-(-needed // n))]
    return torch.cat(epochs)[:needed].split(s.batch_size)


@torch.no_grad()
def _observe(
    change: torch.Tensor, base: torch.Tensor, z: torch.Tensor, w: torch.Tensor, b: torch.Tensor
) -> tuple[float, float, float]:
    """Return change of the prediction, distance from the plane and growth of the norm."""
    off = ((base @ w + b).abs() / w.norm()).mean()
    return change.item(), float(off), float((base.norm(dim=1) / z.norm(dim=1)).mean())


def _summary(unit: torch.Tensor, start: torch.Tensor, found: list, seen: torch.Tensor) -> dict[str, float]:
    tenth = max(1, len(seen) // 10)
    cosines = [float(unit @ other) for other in found]
    return {
        "cos_start": float(unit @ start / start.norm()),
        "cos_task": cosines[0],
        "cos_earlier": max((abs(c) for c in cosines[1:]), default=0.0),
        "change_first": float(seen[:tenth, 0].mean()),
        "change_last": float(seen[-tenth:, 0].mean()),
        "off_plane": float(seen[:, 1].mean()),
        "norm_ratio": float(seen[:, 2].mean()),
    }
