"""Maximum-likelihood training of Glow; it can be stopped at any step and resumed to the same bits."""

from __future__ import annotations

import hashlib
import json
import math
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from lassi_lib import numerics
from lassi_lib.errors import StudyError
from lassi_lib.flow.checkpoint import read_safetensors, write_safetensors
from lassi_lib.flow.glow import Glow, GlowConfig, dequantise, nats_to_bits_per_dim, round_trip_error
from lassi_lib.progress import progress
from lassi_lib.streams import stream_seed, torch_stream

RECORD_EVERY = 50  # steps per line of the history
ROUND_TRIP_LIMIT = 1e-3  # largest reconstruction error at which mixed precision may go on


@dataclass(frozen=True)
class GlowTraining:
    """How a Glow is trained.

    Attributes
    ----------
    n_images : int
        Images seen in all (repetitions count), so ``n_images // batch_size`` steps.
    batch_size : int
        Images per step.
    learning_rate, warmup_steps, decay
        Adam's rate, reached linearly over `warmup_steps`, then (if `decay`) lowered to zero along
        a cosine.
    clip_norm : float
        The gradient is shortened to this Euclidean norm.
    flip : bool
        Mirror every image with probability 1/2.
    bits : int
        Bits per value of the quantised images (the papers: 5).
    threads : int
        CPU threads; part of the recipe, as their number changes float sums.
    mixed : bool
        bfloat16 in the coupling networks, on CUDA only and only while the round trip holds.
    """

    n_images: int = 60_000
    batch_size: int = 64
    learning_rate: float = 1.5e-3
    warmup_steps: int = 100
    decay: bool = True
    clip_norm: float = 20.0
    flip: bool = True
    bits: int = 5
    threads: int = 2
    mixed: bool = False

    @property
    def n_steps(self) -> int:
        """Optimiser steps."""
        return self.n_images // self.batch_size

    def rate(self, step: int) -> float:
        """Return the learning rate of step 0, 1, ... ."""
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        after = max(0, step - self.warmup_steps) / max(1, self.n_steps - self.warmup_steps)
        return self.learning_rate * warm * (0.5 * (1 + math.cos(math.pi * after)) if self.decay else 1.0)

    def validate(self, n_available: int) -> None:
        """Raise StudyError if a value is impossible, or impossible with `n_available` images."""
        for name in ("n_images", "batch_size", "bits", "threads", "learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise StudyError(f"Glow training's {name} is {getattr(self, name)!r}: it must be positive")
        most = min(self.n_images, n_available)
        if not 2 <= self.batch_size <= most:
            raise StudyError(f"Glow training's batch_size is {self.batch_size}: it must lie in 2 to {most}")


def train_glow(
    images: torch.Tensor,
    config: GlowConfig,
    training: GlowTraining,
    *,
    seed: int,
    device: str | torch.device = "cpu",
    checkpoint_path: str | Path | None = None,
    checkpoint_minutes: float = 3.0,
) -> tuple[Glow, list[dict]]:
    """Train a Glow on images by maximum likelihood.

    Parameters
    ----------
    images : torch.Tensor
        uint8 [N, 3, S, S], S as in `config`, N at least one batch.
    config : GlowConfig
        The model.
    training : GlowTraining
        The recipe.
    seed : int
        Weights, order, flips and noise come from streams of this seed, one per epoch or step.
    device : str or torch.device
        Where to train; the model stays there.
    checkpoint_path : path, optional
        State file (safetensors), written now and then and at the end. If it is there, training goes
        on from it and ends as if it had never been interrupted.
    checkpoint_minutes : float
        How often it is written.

    Returns
    -------
    Glow
        In eval mode.
    list of dict
        Every 50 steps: step, mean bits_per_dim since the last line, learning_rate.

    Raises
    ------
    StudyError
        If the loss stops being a number, there are too few images, or the state file is damaged or
        of another run.
    """
    training.validate(len(images))
    with numerics.threads(training.threads), numerics.full_precision():
        run = _Run(images, config, training, seed, torch.device(device), checkpoint_path)
        return run.go(checkpoint_minutes)


def discard_if_damaged(path: str | Path) -> None:
    """Delete a training's state file that is damaged, with a warning: training then starts afresh."""
    path = Path(path)
    if path.exists():
        try:
            _read_state(path)
        except StudyError:
            path.unlink()
            warnings.warn(f"training checkpoint {path} is damaged: training starts afresh", stacklevel=2)


def _read_state(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    remedy = "delete it to start afresh"
    tensors, metadata = read_safetensors(path, remedy)
    digest = _digest(tensors, metadata.get("state"))
    if metadata.get("digest", digest) != digest:  # older files have none
        raise StudyError(f"training checkpoint {path} is damaged (its checksum differs): {remedy}")
    return tensors, metadata


def _digest(tensors: dict[str, torch.Tensor], state: Any) -> str:
    found = hashlib.blake2b(json.dumps(state).encode(), digest_size=8)
    for name, tensor in sorted(tensors.items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


class _Run:
    """One training: model, optimiser, position and history, and how they are written to a file."""

    def __init__(self, images, config, training, seed, device, path) -> None:
        self.images, self.training, self.seed, self.device = images, training, seed, device
        self.path = None if path is None else Path(path)
        self.mixed = training.mixed and device.type == "cuda"
        if training.mixed and not self.mixed:
            warnings.warn(f"mixed precision needs CUDA, not {device.type}: training in float32", stacklevel=3)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(seed, "glow/weights"))
            glow = Glow(config)
        self.glow = glow.to(device=device, memory_format=torch.channels_last)
        self.optimiser = torch.optim.Adam(self.glow.parameters(), lr=training.learning_rate)
        self.step, self.history, self.pending = 0, [], []  # `pending`: losses since the last line
        content = hashlib.blake2b(images.numpy(force=True).tobytes(), digest_size=8).hexdigest()
        self.identity = {"config": asdict(config), "training": asdict(training), "seed": seed}
        self.identity["images"] = content
        if self.path is not None and self.path.exists():
            self._load()
        else:
            self.glow.initialise(self._batch(0))

    def go(self, checkpoint_minutes: float) -> tuple[Glow, list[dict]]:
        total, saved = self.training.n_steps, time.monotonic()
        self.glow.train()
        with progress(total=total, label="Glow", unit="step") as bar:
            bar.update(self.step)
            while self.step < total:
                value = self._one_step()
                self.step += 1
                self._record(value)
                bar.set_postfix(bits_per_dim=f"{value:.3f}", refresh=False)
                bar.update()
                if self.step == total or time.monotonic() - saved >= 60 * checkpoint_minutes:
                    self._check_mixed()
                    self._save()
                    saved = time.monotonic()
        return self.glow.eval(), self.history

    def _batch(self, step: int) -> torch.Tensor:
        """Return the dequantised images of one step; they depend on (seed, step) alone."""
        size = self.training.batch_size
        epoch, position = divmod(step, len(self.images) // size)
        order = torch.randperm(len(self.images), generator=torch_stream(self.seed, "glow/order", epoch))
        batch = self.images[order[position * size : (position + 1) * size]].cpu()
        stream = torch_stream(self.seed, "glow/noise", step)
        if self.training.flip:
            mirrored = torch.rand(size, generator=stream) < 0.5
            batch = torch.where(mirrored[:, None, None, None], batch.flip(-1), batch)
        return dequantise(batch, self.training.bits, stream).to(self.device)

    def _one_step(self) -> float:
        """Take one step of Adam; return its loss in bits per dimension."""
        recipe = self.training
        self.optimiser.param_groups[0]["lr"] = recipe.rate(self.step)
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
            log_prob = self.glow.log_prob(self._batch(self.step))
        loss = nats_to_bits_per_dim(log_prob.mean(), self.glow.latent_dim, recipe.bits)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.glow.parameters(), recipe.clip_norm)
        if not (math.isfinite(loss.item()) and math.isfinite(norm.item())):
            raise StudyError(
                f"Glow training broke down at step {self.step + 1} (loss {loss.item():g}, "
                f"gradient norm {norm.item():g}): lower learning_rate (now {recipe.learning_rate:g}) "
                f"or raise warmup_steps (now {recipe.warmup_steps})"
            )
        self.optimiser.step()
        return loss.item()

    def _record(self, value: float) -> None:
        self.pending.append(value)
        if self.step % RECORD_EVERY == 0 or self.step == self.training.n_steps:
            mean, rate = sum(self.pending) / len(self.pending), self.training.rate(self.step - 1)
            self.history.append({"step": self.step, "bits_per_dim": mean, "learning_rate": rate})
            self.pending = []

    def _check_mixed(self) -> None:
        if self.mixed:
            error = round_trip_error(self.glow, self.images[:64].to(self.device), self.training.bits)
            if not error < ROUND_TRIP_LIMIT:
                self.mixed = False
                text = f"mixed precision: round-trip error {error:.1e} at step {self.step}, on in float32"
                warnings.warn(text, stacklevel=4)

    def _save(self) -> None:
        if self.path is not None:
            tensors = {f"model.{name}": t for name, t in self.glow.state_dict().items()}
            for index, state in self.optimiser.state_dict()["state"].items():
                tensors |= {f"adam.{index}.{name}": t for name, t in state.items()}
            state = {name: getattr(self, name) for name in ("step", "history", "pending", "mixed")}
            about = {"state": state, "identity": self.identity, "digest": _digest(tensors, state)}
            write_safetensors(self.path, tensors, about)

    def _load(self) -> None:
        tensors, metadata = _read_state(self.path)
        identity = metadata.get("identity", {})
        other = [k for k, v in self.identity.items() if identity.get(k) != v]
        if other:
            raise StudyError(
                f"training checkpoint {self.path} is of another run ({', '.join(other)} differ): "
                "delete it or give another path"
            )
        for name, value in metadata["state"].items():
            setattr(self, name, value)
        self.glow.load_state_dict({n[6:]: t for n, t in tensors.items() if n.startswith("model.")})
        adam = self.optimiser.state_dict()
        for name, tensor in tensors.items():
            if name.startswith("adam."):
                _, index, key = name.split(".")
                adam["state"].setdefault(int(index), {})[key] = tensor
        self.optimiser.load_state_dict(adam)
