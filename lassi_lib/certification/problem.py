"""What all test points of one certification have in common."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lassi_lib.certification.margins import TOLERANCE, Decision
from lassi_lib.certification.network import Restriction
from lassi_lib.certification.spec import CertificationSpec
from lassi_lib.similarity.sets import SimilaritySet

__all__ = ["TOLERANCE", "Problem"]


@dataclass(frozen=True)
class Problem:
    """An encoder restricted to a similarity set, a linear classifier, and the certificate's settings.

    Attributes
    ----------
    encoder : Restriction
        R on z + span(A), without its first layer's weights: small enough to be sent to processes.
        None where the layers are not known (`black_box`).
    similarity : SimilaritySet
        The attribute vectors A [n, d] and epsilon.
    weight, bias : numpy.ndarray
        float64 [K, k] and [K], the classifier C.
    spec : CertificationSpec
        Noise, sample sizes and failure probabilities.
    seed : int
        Names the random streams together with stage and point.
    """

    encoder: Restriction | None
    similarity: SimilaritySet
    weight: np.ndarray
    bias: np.ndarray
    spec: CertificationSpec
    seed: int

    @cached_property
    def decision(self) -> Decision:
        """The unsmoothed decision argmax C(R(z + t A))."""
        return Decision(self.encoder, self.weight, self.bias)
