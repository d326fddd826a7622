"""Linear boundaries in latent space, and the two kinds of attribute vectors made from them.

A boundary is a logistic regression z -> attribute, {z : w.z + b = 0}. Its unit normal is the
*perpendicular* vector (Denton et al. 2019); two of them, the attribute's and the task's, give the
vector of Ramaswamy et al. (2021), along which a latent is mirrored while its task score stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from lassi_lib import numerics
from lassi_lib.errors import StudyError
from lassi_lib.streams import torch_stream


@dataclass(frozen=True)
class Boundary:
    """The hyperplane w.z + b = 0 between latents without (below 0) and with an attribute.

    Attributes
    ----------
    w : torch.Tensor
        float32 [d], not normalised.
    b : float
        Offset.
    """

    w: torch.Tensor
    b: float

    @property
    def normal(self) -> torch.Tensor:
        """The unit normal w / ||w||, float32 [d]."""
        w = self.w.double()
        return (w / w.norm()).float()

    @property
    def offset(self) -> float:
        """The normalised b / ||w||, so that ``normal . z + offset`` is the signed distance from the boundary."""
        return self.b / float(self.w.double().norm())

    def score(self, z: torch.Tensor) -> torch.Tensor:
        """Return the logits w.z + b of latents z [N, d], float32 [N]."""
        return z @ self.w + self.b

    def accuracy(self, z: torch.Tensor, y: np.ndarray) -> dict[str, float]:
        """Return ``accuracy``, ``balanced_accuracy`` and ``majority`` (a constant's accuracy), in 0..1.

        For a rare attribute only the balanced accuracy, the mean over the two classes, says anything.
        NaN where a class is missing.
        """
        right = (self.score(z) > 0).numpy() == (np.asarray(y) == 1)
        positive = np.asarray(y) == 1
        classes = [float(right[m].mean()) if m.any() else float("nan") for m in (positive, ~positive)]
        share = float(positive.mean())
        return {
            "accuracy": float(right.mean()),
            "balanced_accuracy": sum(classes) / 2,
            "majority": max(share, 1 - share),
        }


@dataclass(frozen=True)
class Boundaries:
    """Boundaries of several attributes: `w` float32 [A, d], `b` float32 [A], A `names`."""

    names: tuple[str, ...]
    w: torch.Tensor
    b: torch.Tensor

    def __getitem__(self, name: str) -> Boundary:
        if name not in self.names:
            raise StudyError(
                f"attribute '{name}' has no boundary: training or validation faces lack one of its classes"
            )
        k = self.names.index(name)
        return Boundary(self.w[k], float(self.b[k]))


@dataclass(frozen=True)
class BoundaryTraining:
    """Adam on the logistic loss; the defaults are the original code's (three epochs, batches of 512)."""

    epochs: int = 3
    batch_size: int = 512
    learning_rate: float = 1e-3
    threads: int = 1


def fit_boundaries(
    z: torch.Tensor,
    y: np.ndarray,
    z_valid: torch.Tensor,
    y_valid: np.ndarray,
    names: Sequence[str],
    training: BoundaryTraining | None = None,
    *,
    seed: int,
) -> tuple[Boundaries, list[dict]]:
    """Fit one logistic regression per attribute, all in the same passes over the latents.

    Each attribute keeps the epoch of its lowest validation loss, starts from a stream of its own and
    does not influence the others.

    Parameters
    ----------
    z, y, z_valid, y_valid : torch.Tensor and numpy.ndarray
        float32 latents [N, d] on the CPU (maybe memory-mapped) with binary labels [N, A], and M more.
    names : sequence of str
        The A attributes.
    training : BoundaryTraining, optional
        Default: the original code's.
    seed : int
        Initialisation and shuffling.

    Returns
    -------
    Boundaries
        One per attribute.
    list of dict
        Per attribute and epoch: ``attribute, epoch, valid_loss, selected``.

    Raises
    ------
    StudyError
        If an attribute has only one class among the training labels, or a loss is not finite.
    """
    training = training or BoundaryTraining()
    y, y_valid = (torch.from_numpy(np.asarray(v, dtype=np.float32)) for v in (y, y_valid))
    if y.shape != (len(z), len(names)) or y_valid.shape != (len(z_valid), len(names)) or not len(z_valid):
        raise ValueError(f"labels {list(y.shape)} and {list(y_valid.shape)} do not fit latents and names")
    for name, share in zip(names, y.mean(0).tolist(), strict=True):
        if share in (0.0, 1.0):
            raise StudyError(
                f"a linear boundary for '{name}' needs faces with and without it, all {len(y)} training "
                f"faces are {'with' if share else 'without'}: use more training images"
            )
    w, b = _initial(names, z.shape[1], seed)
    optimiser = torch.optim.Adam([w, b], lr=training.learning_rate, fused=True)
    buffer = torch.empty(min(training.batch_size, len(z)), z.shape[1])
    best_w, best_b, losses = w.clone(), b.clone(), []
    with numerics.threads(training.threads):
        for epoch in range(training.epochs):
            order = torch.randperm(len(z), generator=torch_stream(seed, "boundary/shuffle", epoch))
            for rows in order.split(training.batch_size):
                batch = torch.index_select(z, 0, rows, out=buffer[: len(rows)])
                # d/dlogit of the mean logistic loss is (p - y) / B: no autograd needed
                residual = (torch.sigmoid(batch @ w.T + b) - y[rows]) / len(rows)
                w.grad, b.grad = residual.T @ batch, residual.sum(0)
                optimiser.step()
            logits = torch.cat([part @ w.T + b for part in z_valid.split(4096)])
            loss = binary_cross_entropy_with_logits(logits.double(), y_valid.double(), reduction="none").mean(
                0
            )
            if not torch.isfinite(loss).all():
                raise StudyError(
                    f"linear boundaries, epoch {epoch + 1}: the validation loss is not finite; check the "
                    f"latents for NaN or lower learning_rate"
                )
            better = loss < (torch.stack(losses).amin(0) if losses else torch.inf)
            best_w[better], best_b[better] = w[better], b[better]
            losses.append(loss)
    table = torch.stack(losses)
    history = [
        {"attribute": name, "epoch": e + 1, "valid_loss": float(loss), "selected": e == int(column.argmin())}
        for name, column in zip(names, table.T, strict=True)
        for e, loss in enumerate(column)
    ]
    return Boundaries(tuple(names), best_w, best_b), history


def _initial(names: Sequence[str], d: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return w [A, d] and b [A], uniform within 1/sqrt(d) as torch initialises a Linear."""
    draws = [
        2 * torch.rand(d + 1, generator=torch_stream(seed, f"boundary/init/{name}")) - 1 for name in names
    ]
    start = torch.stack(draws) / d**0.5
    return start[:, :d].clone(), start[:, d].clone()


def perpendicular(boundary: Boundary) -> torch.Tensor:
    """Return the boundary's unit normal, float32 [d] (ECCV 2022, section 5; Denton et al. 2019)."""
    return boundary.normal


def ramaswamy(z: torch.Tensor, boundary: Boundary, task_boundary: Boundary) -> torch.Tensor:
    """Return the vector of Ramaswamy et al. (2021) as the original code computes it, float32 [d].

    With unit normals w_g (attribute) and w_t (task) and rho = w_g.w_t, a latent moves along
    p = w_g - rho w_t, which leaves its task score alone, to the mirror image of its attribute score:
    by 2 |w_g.z + b_g| / sqrt(1 - rho^2). The vector is p / ||p|| times the mean of that *length* over the
    training latents z [N, d]: how far a typical face moves, whatever side it starts on.

    Raises
    ------
    StudyError
        If attribute and task have the same boundary.
    """
    direction, distance = _mirror(z, boundary, task_boundary)
    return (direction / direction.norm() * 2 * distance.abs().mean() / direction.norm()).float()


def ramaswamy_signed(z: torch.Tensor, boundary: Boundary, task_boundary: Boundary) -> torch.Tensor:
    """Return the average of the *signed* displacements z' - z, float32 [d], as the paper words it.

    Faces on both sides of the boundary cancel: little is left of a balanced attribute's
    vector, nearly all of a rare one's, whose faces lie on one side anyway.
    """
    direction, distance = _mirror(z, boundary, task_boundary)
    return (-2 * distance.mean() / direction.norm() ** 2 * direction).float()


def _mirror(
    z: torch.Tensor, boundary: Boundary, task_boundary: Boundary
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return p = w_g - (w_g.w_t) w_t [d], of squared norm 1 - rho^2, and w_g.z + b_g [N], in float64."""
    w_g, w_t = boundary.w.double(), task_boundary.w.double()
    w_g, w_t = w_g / w_g.norm(), w_t / w_t.norm()
    direction = w_g - (w_g @ w_t) * w_t
    if direction.norm() < 1e-6:
        raise StudyError("ramaswamy vector: the attribute's boundary is the task's own: choose another pair")
    return direction, z_dot(z, w_g) + boundary.offset


def z_dot(z: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """Return z.direction, float64 [N], without a float64 copy of all latents."""
    return torch.cat([part.double() @ direction for part in z.split(4096)])
