"""What the encoder is trained for: Naive, DataAug, LASSI and transfer (ECCV 2022, section 5).

Similar points are written h = first(z) + t @ direction(A), see `Representation`: a step costs one
product with z forward and one backward, and no tensor of batch x samples x d exists.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from lassi_lib.errors import StudyError, nearest
from lassi_lib.learning.representation import Representation, eval_mode
from lassi_lib.similarity.sets import SimilaritySet

BATCH_NORM = ("separate", "joint", "frozen")
SAMPLING = ("ball", "gaussian", "box")


@dataclass(frozen=True)
class Objective:
    """The loss lambda_1 L_cls + lambda_2 L_adv + lambda_3 L_rec (ECCV 2022, section 5).

    Naive: lambda_2 = 0. DataAug: lambda_2 = 0 and `augment`, which also classifies random similar
    points of every example. LASSI: lambda_2 > 0. Transfer: lambda_1 = 0 (no labels are needed) or
    0.01, lambda_2 > 0, and lambda_3 > 0, which has a decoder Q rebuild z from R(z).

    The other fields are ablations; their defaults are the original's choices.

    Attributes
    ----------
    batch_norm : {'separate', 'joint', 'frozen'}
        BatchNorm statistics behind L_adv. *separate*: clean and adversarial rows each have those of
        their own forward pass, so that a shift common to all adversarial rows is invisible. *joint*:
        one pass through both, which also gives the rows of L_cls and L_rec. *frozen*: the running
        statistics for both.
    sampling : {'ball', 'gaussian', 'box'}
        Random similar points. *ball*: uniform in ||t||_2 <= epsilon. *gaussian*: N(0, sigma_cs^2 I),
        as center smoothing draws them, often outside the ball. *box*: uniform in
        [-epsilon, epsilon]^n, what the original does to the 49 vectors of 3D Shapes.
    radius_scale : float
        Multiplies the random coefficients t, whatever their law.
    sigma_cs : float, optional
        Needed for Gaussian sampling, units of t.

    Raises
    ------
    StudyError
        If a weight is negative, all are 0, or another field is impossible.
    """

    name: str
    lambda_1: float = 1.0
    lambda_2: float = 0.0
    lambda_3: float = 0.0
    augment: bool = False
    batch_norm: str = "separate"
    sampling: str = "ball"
    radius_scale: float = 1.0
    sigma_cs: float | None = None

    def __post_init__(self) -> None:
        where = f"objective '{self.name}'"
        weights = (self.lambda_1, self.lambda_2, self.lambda_3)
        if not all(math.isfinite(w) and w >= 0 for w in weights):
            raise StudyError(f"{where}: the weights lambda must be finite and not negative, not {weights}")
        if not any(weights):
            raise StudyError(f"{where}: all weights lambda are 0, nothing is left to train for: set one")
        if self.augment and not self.lambda_1:
            raise StudyError(f"{where}: augment classifies similar points, so lambda_1 must not be 0")
        for field, known in (("batch_norm", BATCH_NORM), ("sampling", SAMPLING)):
            if getattr(self, field) not in known:
                value = getattr(self, field)
                raise StudyError(f"{where}: {field} '{value}' is unknown{nearest(value, known)}")
        if not 0 < self.radius_scale < math.inf:
            raise StudyError(f"{where}: radius_scale must be positive, not {self.radius_scale}")
        if self.sampling == "gaussian" and not 0 < (self.sigma_cs or 0) < math.inf:
            raise StudyError(f"{where}: gaussian sampling needs a positive sigma_cs, not {self.sigma_cs}")

    @property
    def needs_similarity(self) -> bool:
        """Whether training looks at similar points at all (Naive does not)."""
        return self.augment or self.lambda_2 > 0

    def total(self, cls, adv, rec):
        """Return the weighted sum of the three losses, tensors or numbers."""
        return self.lambda_1 * cls + self.lambda_2 * adv + self.lambda_3 * rec


@dataclass(frozen=True)
class Losses:
    """Losses of one batch: scalars `cls`, `adv`, `rec`; `correct` of the `rows` classified rows."""

    cls: torch.Tensor
    adv: torch.Tensor
    correct: torch.Tensor
    rows: int
    rec: torch.Tensor | float = 0.0

    def numbers(self) -> tuple[float, float, float, float, float]:
        """Return (rows, cls, adv, rec, correct) without the graph."""
        values = (torch.as_tensor(x).item() for x in (self.cls, self.adv, self.rec, self.correct))
        return self.rows, *values


def candidates(
    similarity: SimilaritySet, objective: Objective, shape: tuple[int, ...], generator: torch.Generator
) -> torch.Tensor:
    """Draw the coefficients t of random similar points as the objective wants them, [*shape, n]."""
    if objective.sampling == "ball":
        t = similarity.sample(shape, generator)
    elif objective.sampling == "box":
        uniform = torch.rand(*shape, similarity.n, generator=generator, device=generator.device)
        t = similarity.epsilon * (2 * uniform - 1)
    else:
        normal = torch.randn(*shape, similarity.n, generator=generator, device=generator.device)
        t = objective.sigma_cs * normal
    return objective.radius_scale * t


@torch.no_grad()
def farthest(
    representation: Representation, h: torch.Tensor, direction: torch.Tensor, t: torch.Tensor
) -> torch.Tensor:
    """Return, per example, the candidate coefficients that move the representation farthest.

    From `h` [B, h1] and `direction` [n, h1] (first-layer outputs of examples and attribute vectors)
    and candidates `t` [s, B, n], return [B, n]. As in the original, candidates are ranked in eval
    mode (running statistics) and without gradient; R's mode is restored.
    """
    with eval_mode(representation):
        r = representation.rest(h)
        # One draw at a time: a [B, h1] block stays in the cache, s of them together do not.
        moved = (representation.rest(torch.addmm(h, draw, direction)) for draw in t)
        best = torch.stack([(there - r).norm(dim=1) for there in moved]).argmax(0)
    return t[best, torch.arange(len(best), device=t.device)]


def losses(
    representation: Representation,
    head: nn.Module,
    z: torch.Tensor,
    y: torch.Tensor | None,
    objective: Objective,
    vectors: torch.Tensor | None = None,
    t: torch.Tensor | None = None,
    decoder: nn.Module | None = None,
) -> Losses:
    """Compute the losses of one batch, in whichever mode (train or eval) R is.

    In train mode every forward pass through R has BatchNorm statistics of its own and updates the
    running ones: first the clean examples, then the similar points (see `Objective.batch_norm`).

    Parameters
    ----------
    representation, head : nn.Module
        R and the auxiliary linear classifier.
    z, y : torch.Tensor
        [B, d] latents and int64 [B] labels; without labels L_cls is 0.
    objective : Objective
        Weights and variants.
    vectors, t : torch.Tensor, optional
        [n, d] attribute vectors and [s, B, n] random coefficients (not for Naive).
    decoder : nn.Module, optional
        Q: [B, output] -> [B, d], for lambda_3 > 0.

    Returns
    -------
    Losses
        L_cls: mean cross entropy over the B clean rows, with DataAug over all (1 + s) B rows.
        L_adv: mean over the batch of max(0, ||R(z) - R(z_adv)||_2 - delta), delta = 0, where z_adv
        is the farthest of the s candidates; gradients flow through both branches.
        L_rec: mean over the batch of ||Q(R(z)) - z||_2, from the same pass as L_cls.
    """
    if objective.needs_similarity:
        h, direction = representation.first_and_direction(z, vectors)
    else:
        h = representation.first(z)

    def adversarial() -> torch.Tensor:
        return torch.addmm(h, farthest(representation, h, direction, t), direction)

    adv = h.new_zeros(())
    if objective.lambda_2 > 0 and objective.batch_norm == "joint":
        r, r_adv = representation.rest(torch.cat([h, adversarial()])).chunk(2)
        adv = _distance(r, r_adv)
    else:
        r = representation.rest(h)
    rows, labels = r, y
    if objective.augment:
        similar = representation.rest((h + t @ direction).flatten(0, 1))
        rows, labels = torch.cat([r, similar]), y.repeat(1 + len(t))
    if objective.lambda_2 > 0 and objective.batch_norm == "separate":
        adv = _distance(r, representation.rest(adversarial()))
    elif objective.lambda_2 > 0 and objective.batch_norm == "frozen":
        h_adv = adversarial()
        with eval_mode(representation):
            adv = _distance(representation.rest(h), representation.rest(h_adv))
    rec = _distance(decoder(r), z) if objective.lambda_3 > 0 else h.new_zeros(())
    if labels is None:
        return Losses(h.new_zeros(()), adv, h.new_zeros(()), len(z), rec)
    logits = head(rows)
    correct = (logits.argmax(1) == labels).sum()
    return Losses(nn.functional.cross_entropy(logits, labels), adv, correct, len(labels), rec)


def _distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the batch mean of ||a - b||_2, the hinge max(0, . - delta) with delta = 0."""
    return (a - b).norm(dim=1).mean()
