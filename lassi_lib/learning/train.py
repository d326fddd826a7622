"""Training of the encoder: batches, optimiser, streams, and the choice of the best epoch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from lassi_lib import numerics
from lassi_lib.errors import StudyError
from lassi_lib.learning.objectives import Losses, Objective, losses
from lassi_lib.learning.representation import Representation, initialisation
from lassi_lib.progress import progress
from lassi_lib.similarity.sets import SimilaritySet
from lassi_lib.streams import torch_stream


@dataclass(frozen=True)
class EncoderTraining:
    """How the encoder is trained; the defaults are the papers' (ECCV 2022, supplement, Table 11).

    Adam's learning rate is constant; `n_candidates` is s, the random similar points per example;
    `hidden` and `output` are the widths of R. The number of CPU `threads` changes the order of sums
    and thereby the trained weights, so it is a parameter of the result.
    """

    epochs: int = 5
    batch_size: int = 500
    learning_rate: float = 1e-3
    n_candidates: int = 10
    hidden: tuple[int, ...] = (2048, 1024)
    output: int = 512
    threads: int = 2


def train_representation(
    z_train: torch.Tensor,
    y_train: np.ndarray | torch.Tensor,
    z_valid: torch.Tensor,
    y_valid: np.ndarray | torch.Tensor,
    similarity: SimilaritySet | None,
    objective: Objective,
    training: EncoderTraining,
    *,
    seed: int,
    device: str = "cpu",
    label: str = "",
) -> tuple[Representation, list[dict]]:
    """Train an encoder and return the epoch that is best on the validation data.

    Best is the lowest total loss if lambda_2 > 0, otherwise the highest accuracy (for DataAug over
    clean and augmented rows); a later epoch must be strictly better to win.

    Parameters
    ----------
    z_train, y_train, z_valid, y_valid
        float32 [N, d] latents on the CPU (maybe memory-mapped) and their [N] classes 0, 1, ...
    similarity : SimilaritySet or None
        Naive does not look at it: its encoder serves all attributes (pitfall B8).
    seed : int
        Initialisation, shuffling and candidates have streams of their own, drawn on the CPU.
    label : str
        Text of the progress bar.

    Returns
    -------
    Representation
        In eval mode, without gradients.
    list of dict
        Per epoch: ``epoch, cls, adv, valid_loss, valid_cls, valid_adv, valid_accuracy, seconds,
        selected``.

    Raises
    ------
    StudyError
        If there is nothing to train on, or the loss is no longer finite.
    """
    train, valid = Examples(z_train, y_train, device), Examples(z_valid, y_valid, device)
    if min(len(train), training.batch_size) < 2 or not len(valid):
        raise StudyError(
            f"encoder training needs 2 training examples, 1 validation example and batches of 2, found "
            f"{len(train)}, {len(valid)} and {training.batch_size}: use more images or a larger batch_size"
        )
    if objective.needs_similarity and similarity is None:
        raise ValueError(f"objective '{objective.name}' needs a similarity set")
    n_classes = int(max(train.y.max(), valid.y.max())) + 1
    with initialisation(seed, "encoder/init"):
        representation = Representation(z_train.shape[1], training.hidden, training.output)
        head = nn.Linear(training.output, n_classes)
    representation, head = representation.to(device), head.to(device)
    vectors = similarity.vectors.float().to(device) if objective.needs_similarity else None
    optimiser = torch.optim.Adam(
        [*representation.parameters(), *head.parameters()], lr=training.learning_rate, fused=True
    )

    def batch_losses(z: torch.Tensor, y: torch.Tensor, generator: torch.Generator) -> Losses:
        t = None
        if objective.needs_similarity:
            t = similarity.sample((training.n_candidates, len(y)), generator).to(device)
        return losses(representation, head, z, y, objective, vectors, t)

    def train_epoch(epoch: int) -> dict[str, float]:
        representation.train()
        order = torch.randperm(len(train), generator=torch_stream(seed, "encoder/shuffle", epoch))
        generator, seen = torch_stream(seed, "encoder/candidates", epoch), []
        for z, y in train.batches(order, training.batch_size):
            bar.update()
            if len(y) == 1:  # BatchNorm has no batch statistics of a single row
                continue
            batch = batch_losses(z, y, generator)
            loss = objective.lambda_1 * batch.cls + objective.lambda_2 * batch.adv
            if not torch.isfinite(loss):
                raise StudyError(
                    f"encoder training ({label or objective.name}), epoch {epoch + 1}: the loss is "
                    f"{loss.item()}; lower learning_rate or check the latents for NaN"
                )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            seen.append(batch.numbers())
        means = _means(seen)
        return {"cls": means["cls"], "adv": means["adv"]}

    @torch.no_grad()
    def validate(epoch: int) -> dict[str, float]:
        representation.eval()
        generator = torch_stream(seed, "encoder/valid-candidates", epoch)
        batches = valid.batches(torch.arange(len(valid)), training.batch_size)
        means = _means([batch_losses(z, y, generator).numbers() for z, y in batches])
        loss = objective.lambda_1 * means["cls"] + objective.lambda_2 * means["adv"]
        return {"valid_loss": loss, **{f"valid_{name}": value for name, value in means.items()}}

    history: list[dict] = []
    best, best_score, best_state = -1, float("inf"), None
    steps = -(-len(train) // training.batch_size)
    with (
        numerics.threads(training.threads),
        progress(total=steps * training.epochs, label=label or objective.name, unit="step") as bar,
    ):
        for epoch in range(training.epochs):
            start = time.perf_counter()
            row = {"epoch": epoch + 1, **train_epoch(epoch), **validate(epoch)}
            history.append({**row, "seconds": time.perf_counter() - start})
            score = selection_score(objective, row)
            if score < best_score:
                best, best_score = epoch, score
                best_state = {k: v.clone() for k, v in representation.state_dict().items()}
    if best_state is None:
        raise StudyError(
            f"encoder training ({label or objective.name}): no epoch has a finite validation loss; check "
            f"that epochs is at least 1 and the validation latents hold no NaN"
        )
    representation.load_state_dict(best_state)
    for epoch, row in enumerate(history):
        row["selected"] = epoch == best
    return representation.eval().requires_grad_(False), history


def selection_score(objective: Objective, row: dict) -> float:
    """Return an epoch's validation score, lower is better (the original code's rule, pitfall B6)."""
    return row["valid_loss"] if objective.lambda_2 > 0 else -row["valid_accuracy"]


class Examples:
    """Latents on the CPU with their labels, handed out in batches on the device."""

    def __init__(self, z: torch.Tensor, y: np.ndarray | torch.Tensor, device: str) -> None:
        if len(z) != len(y):
            raise ValueError(f"{len(z)} latents but {len(y)} labels")
        self.z, self.y, self.device = z, torch.tensor(np.asarray(y), dtype=torch.int64), device

    def __len__(self) -> int:
        return len(self.y)

    def batches(self, order: torch.Tensor, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield (z [B, d], y [B]) in the given order; z is overwritten by the next batch."""
        buffer = torch.empty(min(size, len(self)), self.z.shape[1], dtype=self.z.dtype)
        for rows in order.split(size):
            z = torch.index_select(self.z, 0, rows, out=buffer[: len(rows)])
            yield z.to(self.device), self.y[rows].to(self.device)


def _means(batches: list[tuple[float, ...]]) -> dict[str, float]:
    """Return means over examples, each with the same weight whatever the size of its batch."""
    rows, cls, adv, correct = np.array(batches, dtype=np.float64).T
    sums = {"cls": rows @ cls, "adv": rows @ adv, "accuracy": correct.sum()}
    return {name: float(value / rows.sum()) for name, value in sums.items()}
