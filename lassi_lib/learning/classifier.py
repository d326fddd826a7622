"""The classifier C: linear on frozen representations, trained on noisy copies of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from lassi_lib import numerics
from lassi_lib.errors import StudyError
from lassi_lib.learning.representation import Representation, embed, initialisation
from lassi_lib.streams import torch_stream


@dataclass(frozen=True)
class ClassifierTraining:
    """How C is trained; the defaults are the papers' (ECCV 2022, supplement, Table 11)."""

    epochs: int = 1
    batch_size: int = 128
    learning_rate: float = 1e-3
    threads: int = 2


def train_classifier(
    representation: Representation | Callable[[torch.Tensor], torch.Tensor],
    z: torch.Tensor,
    y: np.ndarray | torch.Tensor,
    n_classes: int,
    sigma_rs: float,
    training: ClassifierTraining,
    *,
    seed: int,
    device: str = "cpu",
) -> nn.Linear:
    """Train a linear classifier on R(z) + sigma_rs N(0, I) (ECCV 2022, section 5).

    R is frozen and in eval mode, so its outputs are computed once; the noise, which prepares C for
    randomized smoothing at the same sigma_rs, is fresh in every batch.

    Parameters
    ----------
    representation : Representation or callable
        R.
    z : torch.Tensor
        float32 [N, d] latents on the CPU (maybe memory-mapped).
    y : numpy.ndarray or torch.Tensor
        [N] classes below `n_classes`.
    n_classes : int
        K.
    sigma_rs : float
        Standard deviation of the noise, in units of the representation.
    training : ClassifierTraining
        The recipe.
    seed : int
        Initialisation, shuffling and noise have streams of their own.
    device : str
        Where R runs, and where C is returned, in eval mode and without gradients.

    Raises
    ------
    StudyError
        If the loss is no longer finite.
    """
    with numerics.threads(training.threads):
        if isinstance(representation, nn.Module):
            representation.to(device)
        r = embed(representation, z)
        return fit_classifier(r, y, n_classes, sigma_rs, training, seed=seed).to(device)


def fit_classifier(
    r: torch.Tensor,
    y: np.ndarray | torch.Tensor,
    n_classes: int,
    sigma_rs: float,
    training: ClassifierTraining,
    *,
    seed: int,
) -> nn.Linear:
    """Do the same on the CPU from representations `r`: several sigma_rs share an `embed`.

    Parameters
    ----------
    r : torch.Tensor
        float32 [N, output] representations on the CPU.
    y : numpy.ndarray or torch.Tensor
        [N] classes below `n_classes`.
    n_classes, sigma_rs, training, seed : int, float, ClassifierTraining, int
        As in `train_classifier`.
    """
    y = torch.tensor(np.asarray(y), dtype=torch.int64)
    if len(r) != len(y):
        raise ValueError(f"{len(r)} representations but {len(y)} labels")
    if len(y) and not 0 <= int(y.min()) <= int(y.max()) < n_classes:
        raise ValueError(
            f"labels run from {int(y.min())} to {int(y.max())}, but there are {n_classes} classes"
        )
    with initialisation(seed, "classifier/init"):
        classifier = nn.Linear(r.shape[1], n_classes)
    optimiser = torch.optim.Adam(classifier.parameters(), lr=training.learning_rate, fused=True)
    with numerics.threads(training.threads):
        for epoch in range(training.epochs):
            order = torch.randperm(len(y), generator=torch_stream(seed, "classifier/shuffle", epoch))
            generator = torch_stream(seed, "classifier/noise", epoch)
            for rows in order.split(training.batch_size):
                noise = torch.randn(len(rows), r.shape[1], generator=generator)
                loss = nn.functional.cross_entropy(classifier(r[rows] + sigma_rs * noise), y[rows])
                if not torch.isfinite(loss):
                    raise StudyError(
                        f"classifier training (sigma_rs {sigma_rs}): the loss is {loss.item()}; "
                        f"check the latents for NaN"
                    )
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
    return classifier.eval().requires_grad_(False)
