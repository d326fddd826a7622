"""Attribute vectors: directions in latent space along which one attribute changes."""

from __future__ import annotations

import numpy as np
import torch

from lassi_lib.errors import StudyError, nearest

KINDS = ("mean_difference",)


def attribute_vector(z: torch.Tensor, y: np.ndarray, kind: str = "mean_difference") -> torch.Tensor:
    """Compute an attribute vector from training latents.

    Parameters
    ----------
    z : torch.Tensor
        [N, d] latents of the training split.
    y : numpy.ndarray
        [N] binary labels of the attribute.
    kind : {'mean_difference'}
        ``mean(z | y = 1) - mean(z | y = 0)``, not normalised (ECCV 2022, section 4): epsilon is
        therefore measured in units of this vector's length.

    Returns
    -------
    torch.Tensor
        float32 [d].

    Raises
    ------
    StudyError
        If the kind is unknown or one of the two classes is empty.
    """
    if kind not in KINDS:
        raise StudyError(f"attribute vector kind '{kind}' is unknown{nearest(kind, KINDS)}")
    positive = np.flatnonzero(np.asarray(y) == 1)
    negative = np.flatnonzero(np.asarray(y) == 0)
    if not len(positive) or not len(negative):
        raise StudyError(
            f"an attribute vector needs faces with and without the attribute, found {len(positive)} "
            f"and {len(negative)}: use more training images"
        )
    return (_mean(z, positive) - _mean(z, negative)).float()


def _mean(z: torch.Tensor, rows: np.ndarray, batch: int = 2048) -> torch.Tensor:
    """Mean over rows in float64, in batches: [d]. The latents of a data set may exceed memory."""
    total = torch.zeros(z.shape[1], dtype=torch.float64)
    for chunk in np.array_split(rows, max(1, len(rows) // batch)):
        total += z[torch.from_numpy(chunk)].double().sum(0)
    return total / len(rows)
