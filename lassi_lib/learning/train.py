"""Training of the encoder: batches, optimiser, streams, and the choice of the epoch that is kept."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn

from lassi_lib import numerics
from lassi_lib.errors import StudyError
from lassi_lib.learning.objectives import Losses, Objective, candidates, losses
from lassi_lib.learning.representation import Representation, initialisation, mlp
from lassi_lib.progress import progress
from lassi_lib.similarity.sets import SimilaritySet
from lassi_lib.streams import torch_stream


@dataclass(frozen=True)
class EncoderTraining:
    """How the encoder is trained; the defaults are the papers' (ECCV 2022, supplement, Table 11).

    Adam's learning rate is constant; `n_candidates` is s, the random similar points per example;
    `hidden` and `output` are the widths of R. The number of CPU `threads` changes the order of sums
    and thereby the trained weights, so it is a parameter of the result. Of all epochs the one that is best
    on validation data is kept, as in the original code, or the last.
    """

    epochs: int = 5
    batch_size: int = 500
    learning_rate: float = 1e-3
    n_candidates: int = 10
    hidden: tuple[int, ...] = (2048, 1024)
    output: int = 512
    threads: int = 2
    keep: Literal["best", "last"] = "best"


def train_representation(
    z_train: torch.Tensor,
    y_train: np.ndarray | torch.Tensor | None,
    z_valid: torch.Tensor,
    y_valid: np.ndarray | torch.Tensor | None,
    similarity: SimilaritySet | None,
    objective: Objective,
    training: EncoderTraining,
    *,
    seed: int,
    device: str = "cpu",
    label: str = "",
) -> tuple[Representation, list[dict]]:
    """Train an encoder and return it as after the epoch that is kept (see `selection_score`).

    Parameters
    ----------
    z_train, y_train, z_valid, y_valid : torch.Tensor and numpy.ndarray
        float32 [N, d] latents on the CPU (maybe memory-mapped) and their [N] classes 0, 1, ...; with
        lambda_1 = 0 the labels may be None, and make no difference to R.
    similarity : SimilaritySet or None
        Naive does not look at it: its encoder serves all attributes.
    objective : Objective
        What is trained for.
    training : EncoderTraining
        The recipe.
    seed : int
        Initialisation, shuffling and candidates have streams of their own, drawn on the CPU; so has
        the decoder Q of transfer learning (the mirror image of R), which is dropped in the end.
    device : str
        Where to train.
    label : str
        Text of the progress bar.

    Returns
    -------
    Representation
        In eval mode, without gradients.
    list of dict
        Per epoch: ``epoch, cls, adv, valid_loss, valid_cls, valid_adv, valid_accuracy, seconds,
        selected``; no ``cls`` and ``accuracy`` without labels, ``rec, valid_rec`` if lambda_3 > 0.

    Raises
    ------
    StudyError
        If there is nothing to train on, or the loss is no longer finite.
    """
    if (y_train is None) != (y_valid is None) or (y_train is None and objective.lambda_1 > 0):
        raise ValueError(
            f"objective '{objective.name}' needs labels of both splits, or of none if lambda_1 = 0"
        )
    train, valid = Examples(z_train, y_train, device), Examples(z_valid, y_valid, device)
    if min(len(train), training.batch_size) < 2 or not len(valid):
        raise StudyError(
            f"encoder training needs 2 training examples, 1 validation example and batches of 2, found "
            f"{len(train)}, {len(valid)} and {training.batch_size}: use more images or a larger batch_size"
        )
    if objective.needs_similarity and similarity is None:
        raise ValueError(f"objective '{objective.name}' needs a similarity set")
    label = label or objective.name
    run = _Run(train, valid, similarity, objective, training, seed, device, label)
    steps = -(-len(train) // training.batch_size)
    with (
        numerics.threads(training.threads),
        progress(total=steps * training.epochs, label=label, unit="step") as bar,
    ):
        history = keep_best(
            run.representation,
            training.epochs,
            lambda epoch: run.train_epoch(epoch, bar.update) | run.validate(epoch),
            lambda row: selection_score(objective, row, training.keep),
        )
    if not any(row["selected"] for row in history):
        raise StudyError(
            f"encoder training ({label}): no epoch has a finite validation loss; check "
            f"that epochs is at least 1 and the validation latents hold no NaN"
        )
    return run.representation, history


class _Run:
    """One training: its networks, and what an epoch does."""

    def __init__(
        self,
        train: Examples,
        valid: Examples,
        similarity: SimilaritySet | None,
        objective: Objective,
        training: EncoderTraining,
        seed: int,
        device: str,
        label: str,
    ) -> None:
        self.train, self.valid, self.similarity, self.objective = train, valid, similarity, objective
        self.training, self.seed, self.device, self.label = training, seed, device, label
        d, labelled = train.z.shape[1], train.y is not None
        n_classes = int(max(train.y.max(), valid.y.max())) + 1 if labelled else 0
        with initialisation(seed, "encoder/init"):
            self.representation = Representation(d, training.hidden, training.output).to(device)
            self.head = nn.Linear(training.output, n_classes).to(device) if labelled else nn.Identity()
        self.decoder = nn.Identity()
        if objective.lambda_3 > 0:
            with initialisation(seed, "decoder/init"):
                self.decoder = mlp((training.output, *reversed(training.hidden), d)).to(device)
        self.vectors = similarity.vectors.float().to(device) if objective.needs_similarity else None
        self.modules = nn.ModuleList([self.representation, self.head, self.decoder])
        self.optimiser = torch.optim.Adam(self.modules.parameters(), lr=training.learning_rate, fused=True)
        shown = {"cls": labelled, "adv": True, "rec": objective.lambda_3 > 0, "accuracy": labelled}
        self.reported = [name for name, meaningful in shown.items() if meaningful]

    def train_epoch(self, epoch: int, step_done: Callable[[], object]) -> dict[str, float]:
        """Take a step per batch; return the mean losses."""
        self.modules.train()
        order = torch.randperm(len(self.train), generator=torch_stream(self.seed, "encoder/shuffle", epoch))
        generator, seen = torch_stream(self.seed, "encoder/candidates", epoch), []
        for z, y in self.train.batches(order, self.training.batch_size):
            step_done()
            if len(z) == 1:  # BatchNorm has no batch statistics of a single row
                continue
            batch = self._losses(z, y, generator)
            loss = self.objective.total(batch.cls, batch.adv, batch.rec)
            if not torch.isfinite(loss):
                raise StudyError(
                    f"encoder training ({self.label}), epoch {epoch + 1}: the loss is "
                    f"{loss.item()}; lower learning_rate or check the latents for NaN"
                )
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            self.optimiser.step()
            seen.append(batch.numbers())
        means = _means(seen)
        return {name: means[name] for name in self.reported if name != "accuracy"}

    @torch.no_grad()
    def validate(self, epoch: int) -> dict[str, float]:
        """Return the losses and the accuracy on the validation data."""
        self.modules.eval()
        generator = torch_stream(self.seed, "encoder/valid-candidates", epoch)
        batches = self.valid.batches(torch.arange(len(self.valid)), self.training.batch_size)
        means = _means([self._losses(z, y, generator).numbers() for z, y in batches])
        loss = self.objective.total(means["cls"], means["adv"], means["rec"])
        return {"valid_loss": loss, **{f"valid_{name}": means[name] for name in self.reported}}

    def _losses(self, z: torch.Tensor, y: torch.Tensor | None, generator: torch.Generator) -> Losses:
        t = None
        if self.objective.needs_similarity:
            size = self.training.n_candidates, len(z)
            t = candidates(self.similarity, self.objective, size, generator).to(self.device)
        return losses(self.representation, self.head, z, y, self.objective, self.vectors, t, self.decoder)


def keep_best(
    module: nn.Module, epochs: int, run: Callable[[int], dict], score: Callable[[dict], float]
) -> list[dict]:
    """Run epochs; leave `module` as after the one of lowest score, in eval mode and without gradients.

    Of equally good epochs the first is kept, and none where no score is finite. Return what `run` said of
    every epoch, with ``epoch``, ``seconds`` and ``selected``.
    """
    history: list[dict] = []
    best, best_score, best_state = -1, float("inf"), {}
    for epoch in range(epochs):
        start = time.perf_counter()
        row = {"epoch": epoch + 1, **run(epoch)}
        history.append(row | {"seconds": time.perf_counter() - start})
        reached = score(row)
        if reached < best_score:
            best, best_score = epoch, reached
            best_state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    module.load_state_dict(best_state or module.state_dict())
    module.eval().requires_grad_(False)
    return [row | {"selected": epoch == best} for epoch, row in enumerate(history)]


def selection_score(objective: Objective, row: dict, keep: str = "best") -> float:
    """Return an epoch's score; the lowest is kept, and of equal ones the first.

    For the best epoch (the original code's rule) it is the total loss on validation data if lambda_2 +
    lambda_3 > 0, otherwise minus the accuracy (for DataAug over clean and augmented rows). For the last, each
    later epoch of a finite loss scores lower.
    """
    if keep == "last":
        return -row["epoch"] if math.isfinite(row["valid_loss"]) else math.inf
    return row["valid_loss"] if objective.lambda_2 + objective.lambda_3 > 0 else -row["valid_accuracy"]


class Examples:
    """Latents (or images) on the CPU, perhaps with labels, handed out in batches on the device."""

    def __init__(self, z: torch.Tensor, y: np.ndarray | torch.Tensor | None, device: str) -> None:
        if y is not None and len(z) != len(y):
            raise ValueError(f"{len(z)} latents but {len(y)} labels")
        self.z, self.device = z, device
        self.y = None if y is None else torch.tensor(np.asarray(y), dtype=torch.int64)
        if self.y is not None and len(self.y) and self.y.min() < 0:
            raise ValueError(f"classes are 0, 1, ..., found {self.y.min()}")

    def __len__(self) -> int:
        return len(self.z)

    def batches(self, order: torch.Tensor, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
        """Yield (z [B, d], y [B] or None) in the given order; z is overwritten by the next batch."""
        buffer = torch.empty(min(size, len(self)), *self.z.shape[1:], dtype=self.z.dtype)
        for rows in order.split(size):
            z = torch.index_select(self.z, 0, rows, out=buffer[: len(rows)])
            yield z.to(self.device), None if self.y is None else self.y[rows].to(self.device)


def _means(batches: list[tuple[float, ...]]) -> dict[str, float]:
    """Return means over examples, each with the same weight whatever the size of its batch."""
    rows, cls, adv, rec, correct = np.array(batches, dtype=np.float64).T
    sums = {"cls": rows @ cls, "adv": rows @ adv, "rec": rows @ rec, "accuracy": correct.sum()}
    return {name: float(value / rows.sum()) for name, value in sums.items()}
