"""What the encoder is trained for: Naive, DataAug and LASSI (ECCV 2022, section 5).

Similar points are written h = first(z) + t @ direction(A), see `Representation`: a step costs one
product with z forward and one backward, and no tensor of batch x samples x d exists.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from lassi_lib.errors import StudyError
from lassi_lib.learning.representation import Representation


@dataclass(frozen=True)
class Objective:
    """Weights of the loss lambda_1 L_cls + lambda_2 L_adv (ECCV 2022, section 5).

    Naive: lambda_2 = 0. DataAug: lambda_2 = 0 and `augment`, which also classifies random similar
    points of every example. LASSI: lambda_2 > 0. lambda_3 weighs the reconstruction of transfer
    learning. Raises StudyError if a weight is negative, or lambda_3 (which needs a decoder) not 0.
    """

    name: str
    lambda_1: float = 1.0
    lambda_2: float = 0.0
    lambda_3: float = 0.0
    augment: bool = False

    def __post_init__(self) -> None:
        if min(self.lambda_1, self.lambda_2, self.lambda_3) < 0:
            raise StudyError(f"objective '{self.name}': the weights lambda must not be negative")
        if self.lambda_3:
            raise StudyError(f"objective '{self.name}': lambda_3 (transfer) is not available, set it to 0")

    @property
    def needs_similarity(self) -> bool:
        """Whether training looks at similar points at all (Naive does not)."""
        return self.augment or self.lambda_2 > 0


@dataclass(frozen=True)
class Losses:
    """Losses of one batch: scalars `cls` and `adv`; `correct` of the `rows` classified rows."""

    cls: torch.Tensor
    adv: torch.Tensor
    correct: torch.Tensor
    rows: int

    def numbers(self) -> tuple[float, float, float, float]:
        """Return (rows, cls, adv, correct) without the graph."""
        return self.rows, self.cls.item(), self.adv.item(), self.correct.item()


@torch.no_grad()
def farthest(
    representation: Representation, h: torch.Tensor, direction: torch.Tensor, t: torch.Tensor
) -> torch.Tensor:
    """Return, per example, the candidate coefficients that move the representation farthest.

    From `h` [B, h1] and `direction` [n, h1] (first-layer outputs of examples and attribute vectors)
    and candidates `t` [s, B, n], return [B, n]. As in the original, candidates are ranked in eval
    mode (running statistics) and without gradient; R's mode is restored.
    """
    was_training = representation.training
    representation.eval()
    r = representation.rest(h)
    # One draw at a time: a [B, h1] block stays in the cache, s of them together do not.
    distances = [(representation.rest(torch.addmm(h, draw, direction)) - r).norm(dim=1) for draw in t]
    representation.train(was_training)
    best = torch.stack(distances).argmax(0)
    return t[best, torch.arange(len(best), device=t.device)]


def losses(
    representation: Representation,
    head: nn.Module,
    z: torch.Tensor,
    y: torch.Tensor,
    objective: Objective,
    vectors: torch.Tensor | None = None,
    t: torch.Tensor | None = None,
) -> Losses:
    """Compute the losses of one batch, in whichever mode (train or eval) R is.

    In train mode every forward pass through R has BatchNorm statistics of its own and updates the
    running ones: first the clean examples, then the similar points. (A shift common to all similar
    points is therefore invisible to L_adv: kept as in the original, pitfall B5.)

    Parameters
    ----------
    representation, head : nn.Module
        R and the auxiliary linear classifier.
    z, y : torch.Tensor
        [B, d] latents and int64 [B] labels.
    objective : Objective
    vectors, t : torch.Tensor, optional
        [n, d] attribute vectors and [s, B, n] random coefficients in the ball (not for Naive).

    Returns
    -------
    Losses
        L_cls: mean cross entropy over the B clean rows, with DataAug over all (1 + s) B rows.
        L_adv: mean over the batch of max(0, ||R(z) - R(z_adv)||_2 - delta), delta = 0, where z_adv
        is the farthest of the s candidates; gradients flow through both branches.
    """
    if objective.needs_similarity:
        h, direction = representation.first_and_direction(z, vectors)
    else:
        h = representation.first(z)
    r = representation.rest(h)
    adv = r.new_zeros(())
    rows, labels = r, y
    if objective.augment:
        similar = representation.rest((h + t @ direction).flatten(0, 1))
        rows, labels = torch.cat([r, similar]), y.repeat(1 + len(t))
    if objective.lambda_2 > 0:
        t_adv = farthest(representation, h, direction, t)
        r_adv = representation.rest(torch.addmm(h, t_adv, direction))
        adv = (r - r_adv).norm(dim=1).mean()  # delta = 0: the hinge max(0, .) is the norm itself
    logits = head(rows)
    correct = (logits.argmax(1) == labels).sum()
    return Losses(nn.functional.cross_entropy(logits, labels), adv, correct, len(labels))
