"""Maximum-likelihood training of Glow; it can be stopped at any step and resumed to the same bits."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lassi_lib import numerics
from lassi_lib.errors import StudyError
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

    def validate(self) -> None:
        """Raise StudyError if a value is impossible."""
        for name in ("n_images", "batch_size", "bits", "threads", "learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise StudyError(f"Glow training's {name} is {getattr(self, name)!r}: it must be positive")
        if self.batch_size < 2 or self.n_steps < 1:
            raise StudyError(
                f"Glow training's batch_size {self.batch_size} must be at least 2 and at most n_images "
                f"{self.n_images}"
            )


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
    config, training
        The model and the recipe.
    seed : int
        Weights, order, flips and noise come from streams of this seed, one per epoch or step.
    device : str or torch.device
        Where to train; the model stays there.
    checkpoint_path : path, optional
        State file (safetensors), written every `checkpoint_minutes` and at the end. If it is
        there, training goes on from it and ends as if it had never been interrupted.

    Returns
    -------
    Glow
        In eval mode.
    list of dict
        Every 50 steps: step, mean bits_per_dim since the last line, learning_rate.

    Raises
    ------
    StudyError
        If the loss stops being a number, images do not fit, or the state file is of another run.
    """
    training.validate()
    size = config.image_size
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1:] != (3, size, size):
        raise ValueError(
            f"images must be uint8 [N, 3, {size}, {size}], got {images.dtype} {list(images.shape)}"
        )
    if len(images) < training.batch_size:
        raise StudyError(
            f"Glow training has {len(images)} images but batch_size {training.batch_size}: lower batch_size"
        )
    with numerics.threads(training.threads), numerics.full_precision():
        return _Run(images, config, training, seed, torch.device(device), checkpoint_path).go(
            checkpoint_minutes
        )


class _Run:
    """One training: model, optimiser, position and history, and how they are written to a file."""

    def __init__(self, images, config, training, seed, device, path) -> None:
        self.images, self.training, self.seed, self.device = images, training, seed, device
        self.path = None if path is None else Path(path)
        self.mixed = training.mixed and device.type == "cuda"
        if training.mixed and not self.mixed:
            warnings.warn(f"mixed precision needs CUDA, not {device.type}: training in float32", stacklevel=4)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(seed, "glow/weights"))
            glow = Glow(config)
        self.glow = glow.to(device=device, memory_format=torch.channels_last)
        self.optimiser = torch.optim.Adam(self.glow.parameters(), lr=training.learning_rate)
        self.step, self.history, self.pending = 0, [], []
        content = hashlib.blake2b(images.numpy(force=True).tobytes(), digest_size=8).hexdigest()
        self.identity = {
            "config": asdict(config), "training": asdict(training), "seed": seed, "images": content,
        }  # fmt: skip
        if self.path is not None and self.path.exists():
            self._load()
        else:
            self.glow.initialise(self._batch(0))

    def go(self, checkpoint_minutes: float) -> tuple[Glow, list[dict]]:
        total, saved = self.training.n_steps, time.monotonic()
        self.glow.train()
        bar = progress(total=total, label="Glow", unit="step")
        bar.update(self.step)
        with bar:
            while self.step < total:
                value = self._one_step()
                self.step += 1
                self.pending.append(value)
                if self.step % RECORD_EVERY == 0 or self.step == total:
                    mean = sum(self.pending) / len(self.pending)
                    rate = self.training.rate(self.step - 1)
                    self.history.append({"step": self.step, "bits_per_dim": mean, "learning_rate": rate})
                    self.pending = []
                bar.set_postfix(bits_per_dim=f"{value:.3f}", refresh=False)
                bar.update()
                due = time.monotonic() - saved >= 60 * checkpoint_minutes
                if due or self.step == total:
                    self._check_mixed()
                    self._save()
                    saved = time.monotonic()
        return self.glow.eval(), self.history

    def _batch(self, step: int) -> torch.Tensor:
        """Return the dequantised images of one step; they depend on (seed, step) alone."""
        size = self.training.batch_size
        per_epoch = len(self.images) // size
        epoch, position = divmod(step, per_epoch)
        order = torch.randperm(len(self.images), generator=torch_stream(self.seed, "glow/order", epoch))
        batch = self.images[order[position * size : (position + 1) * size]]
        stream = torch_stream(self.seed, "glow/noise", step)
        if self.training.flip:
            mirrored = torch.rand(size, generator=stream) < 0.5
            batch = torch.where(mirrored[:, None, None, None].to(batch.device), batch.flip(-1), batch)
        return dequantise(batch, self.training.bits, stream).to(self.device)

    def _one_step(self) -> float:
        """Take one step of Adam; return its loss in bits per dimension."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.training.rate(self.step)
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
            log_prob = self.glow.log_prob(self._batch(self.step))
        loss = nats_to_bits_per_dim(log_prob.mean(), self.glow.latent_dim, self.training.bits)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.glow.parameters(), self.training.clip_norm)
        value = loss.item()
        if not (math.isfinite(value) and math.isfinite(norm.item())):
            raise StudyError(
                f"Glow training: loss {value}, gradient norm {norm.item()} at step {self.step + 1} of "
                f"{self.training.n_steps}: lower learning_rate (now {self.training.learning_rate:g}) or raise "
                f"warmup_steps (now {self.training.warmup_steps}), and delete the training checkpoint if there is one"
            )
        self.optimiser.step()
        return value

    def _check_mixed(self) -> None:
        if self.mixed:
            error = round_trip_error(self.glow, self.images[:64].to(self.device), self.training.bits)
            if not error < ROUND_TRIP_LIMIT:
                self.mixed = False
                warnings.warn(
                    f"round-trip error {error:.1e} after step {self.step} of mixed precision: on in float32",
                    stacklevel=4,
                )

    def _save(self) -> None:
        if self.path is None:
            return
        tensors = {f"model.{name}": t for name, t in self.glow.state_dict().items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{name}": t for name, t in state.items()}
        state = {"step": self.step, "history": self.history, "pending": self.pending, "mixed": self.mixed}
        write_safetensors(self.path, tensors, {"training_state": state, "identity": self.identity})

    def _load(self) -> None:
        try:
            with safe_open(self.path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            state, identity = json.loads(metadata["training_state"]), json.loads(metadata["identity"])
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise StudyError(
                f"training checkpoint {self.path} cannot be read ({error}): delete it"
            ) from error
        if identity != self.identity:
            other = [k for k, v in self.identity.items() if identity.get(k) != v]
            raise StudyError(
                f"training checkpoint {self.path} is of another run ({', '.join(other)} differ): delete it or "
                "give another path"
            )
        self.step, self.history, self.pending, self.mixed = (
            state[k] for k in ("step", "history", "pending", "mixed")
        )
        prefix = "model."
        self.glow.load_state_dict(
            {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        )
        adam = self.optimiser.state_dict()
        for name, tensor in tensors.items():
            if name.startswith("adam."):
                _, index, key = name.split(".")
                adam["state"].setdefault(int(index), {})[key] = tensor
        self.optimiser.load_state_dict(adam)


def write_safetensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict) -> None:
    """Write tensors and JSON-able metadata to `path` by way of a temporary file, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
        save_file(plain, temporary, {key: json.dumps(value) for key, value in metadata.items()})
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
