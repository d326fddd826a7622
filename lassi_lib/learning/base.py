"""Base classifiers without any fairness: a ResNet-18 on images and an MLP on latents.

ECCV 2022, supplement, Tables 5 to 7, 13 and 15: what an ordinary classifier reaches on the same
task, and how often its prediction changes over a similarity set (see `empirical`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from lassi_lib import numerics
from lassi_lib.data.preprocess import quantise
from lassi_lib.errors import StudyError, about, nearest
from lassi_lib.learning.representation import cpu_state, eval_mode, initialisation, mlp
from lassi_lib.learning.resnet import ResNet18
from lassi_lib.learning.train import Examples, keep_best
from lassi_lib.progress import progress
from lassi_lib.streams import torch_stream

_KINDS = ("resnet18", "latent")
SMALLEST_IMAGE = 32  # pixels; ResNet-18 halves five times


@dataclass(frozen=True)
class BaseTraining:
    """How a base classifier is trained; the defaults are the papers' (Adam, constant rate).

    `hidden` are the widths of the latent classifier (the ResNet has its own), `bits` the
    quantisation of images given as uint8. The number of CPU `threads` belongs to the result.
    """

    epochs: int = 5
    batch_size: int = 500
    learning_rate: float = 1e-3
    hidden: tuple[int, ...] = (2048, 1024, 512)
    bits: int = 5
    threads: int = 2


class BaseClassifier(nn.Module):
    """Inputs -> scores of the classes [N, K].

    Parameters
    ----------
    kind : {'resnet18', 'latent'}
        On images [N, 3, S, S], S >= 32: float as the flow takes and gives them, or uint8, which are
        quantised batch by batch. On latents [N, d].
    n_classes : int
        K.
    d, hidden : int, tuple of int
        Widths of the latent classifier.
    bits : int
        Quantisation of uint8 images; saved with the weights.
    """

    def __init__(
        self,
        kind: str,
        n_classes: int,
        d: int = 0,
        hidden: tuple[int, ...] = (2048, 1024, 512),
        bits: int = 5,
    ) -> None:
        super().__init__()
        if kind not in _KINDS:
            raise StudyError(f"base classifier '{kind}' is unknown{nearest(kind, _KINDS)}")
        if kind == "resnet18":
            self.network = nn.Sequential(ResNet18(), nn.Linear(512, n_classes))
        else:
            self.network = mlp((d, *hidden, n_classes))
        self.kind, self.n_classes = kind, n_classes
        self.register_buffer("bits", torch.tensor(bits))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return scores [N, K] of images [N, 3, S, S] or latents [N, d]."""
        if self.kind == "resnet18":
            if x.ndim != 4 or min(x.shape[2:]) < SMALLEST_IMAGE:
                raise ValueError(f"images of {SMALLEST_IMAGE} pixels or more expected, not {list(x.shape)}")
            x = quantise(x, int(self.bits)) if x.dtype == torch.uint8 else x
            x = x.contiguous(memory_format=torch.channels_last)
        return self.network(x)

    @torch.no_grad()
    def predict(self, x: torch.Tensor, batch_size: int = 256) -> np.ndarray:
        """Return the class of every row of `x` (on any device) in eval mode, int64 [N]."""
        device = next(self.parameters()).device

        def run(size: int) -> list[torch.Tensor]:  # copies: see `embed`
            return [self(b.to(device, copy=True)).argmax(1).cpu() for b in x.split(size)]

        with eval_mode(self), numerics.full_precision():
            classes = numerics.shrinking(run, batch_size)
        return torch.cat(classes).numpy() if classes else np.empty(0, dtype=np.int64)

    state = cpu_state

    @classmethod
    def from_state(cls, state: dict[str, torch.Tensor]) -> BaseClassifier:
        """Rebuild a frozen classifier in eval mode from the tensors of `state()`."""
        with torch.device("meta"):
            if "network.0.conv1.weight" in state:
                classifier = cls("resnet18", len(state["network.1.bias"]))
            else:
                weights = [w for name, w in state.items() if name.endswith("weight") and w.ndim == 2]
                *hidden, n_classes = (len(w) for w in weights)
                classifier = cls("latent", n_classes, weights[0].shape[1], tuple(hidden))
        classifier.load_state_dict(state, assign=True)
        return classifier.to(memory_format=torch.channels_last).eval().requires_grad_(False)


def train_base_classifier(
    kind: str,
    x_train: torch.Tensor,
    y_train: np.ndarray | torch.Tensor,
    x_valid: torch.Tensor,
    y_valid: np.ndarray | torch.Tensor,
    n_classes: int,
    training: BaseTraining,
    *,
    seed: int,
    device: str = "cpu",
    label: str = "",
) -> tuple[BaseClassifier, list[dict]]:
    """Train a base classifier and return the epoch with the highest validation accuracy.

    Parameters
    ----------
    kind : {'resnet18', 'latent'}
        See `BaseClassifier`.
    x_train, y_train, x_valid, y_valid : torch.Tensor or numpy.ndarray
        Images (uint8 or float) or float32 latents on the CPU, maybe memory-mapped, and their [N]
        classes below `n_classes`. The papers train on preprocessed images and validate and test on
        the flow's reconstructions of them.
    n_classes : int
        K.
    training : BaseTraining
        The recipe.
    seed : int
        Initialisation and shuffling have streams of their own, drawn on the CPU.
    device : str
        Where to train.
    label : str
        Text of the progress bar.

    Returns
    -------
    BaseClassifier
        In eval mode, without gradients, on `device`. Of equally good epochs the first.
    list of dict
        Per epoch: ``epoch, loss, accuracy, valid_accuracy, seconds, selected``.

    Raises
    ------
    StudyError
        If the kind is unknown, there is nothing to train on, or the loss is no longer finite.
    """
    train, valid = Examples(x_train, y_train, device), Examples(x_valid, y_valid, device)
    if min(len(train), training.batch_size) < 2 or not len(valid) or training.epochs < 1:
        raise StudyError(
            f"{kind} training needs 2 training examples, 1 validation example, batches of 2 and 1 epoch, found "
            f"{len(train)}, {len(valid)}, {training.batch_size}, {training.epochs}: raise what is too small"
        )
    if int(max(train.y.max(), valid.y.max())) >= n_classes:
        raise ValueError(f"labels reach class {int(max(train.y.max(), valid.y.max()))} of {n_classes}")
    with initialisation(seed, "base/init"):
        classifier = BaseClassifier(kind, n_classes, x_train.shape[1], training.hidden, training.bits)
    classifier = classifier.to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(classifier.parameters(), lr=training.learning_rate, fused=True)

    def run(epoch: int) -> dict[str, float]:
        order = torch.randperm(len(train), generator=torch_stream(seed, "base/shuffle", epoch))
        batches = train.batches(order, training.batch_size)
        with about(f"{label or kind} training, epoch {epoch + 1}"):
            row = _train_epoch(classifier, optimiser, batches, bar.update)
        return row | {"valid_accuracy": float((classifier.predict(x_valid) == valid.y.numpy()).mean())}

    steps = -(-len(train) // training.batch_size)
    with (
        numerics.threads(training.threads),
        numerics.full_precision(),
        progress(total=steps * training.epochs, label=label or kind, unit="step") as bar,
    ):
        history = keep_best(classifier, training.epochs, run, lambda row: -row["valid_accuracy"])
    return classifier, history


def _train_epoch(
    classifier: BaseClassifier,
    optimiser: torch.optim.Optimizer,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    step_done: Callable[[], object],
) -> dict[str, float]:
    """Take a step per batch; return the mean loss and the accuracy."""
    classifier.train()
    total, correct, rows = 0.0, 0, 0
    for x, y in batches:
        step_done()
        if len(y) == 1:  # BatchNorm has no batch statistics of a single row
            continue
        scores = classifier(x)
        loss = nn.functional.cross_entropy(scores, y)
        if not torch.isfinite(loss):
            raise StudyError(f"the loss is {loss.item()}; lower learning_rate or check the inputs for NaN")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        total, rows = total + len(y) * loss.item(), rows + len(y)
        correct += int((scores.argmax(1) == y).sum())
    return {"loss": total / rows, "accuracy": correct / rows}
