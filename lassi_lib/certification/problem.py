"""What all test points of one certification have in common."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from lassi_lib.certification.margins import Decision
from lassi_lib.certification.network import Layers
from lassi_lib.certification.spec import CertificationSpec
from lassi_lib.flow.checkpoint import read_safetensors, write_safetensors
from lassi_lib.similarity.sets import SimilaritySet


def weights_of(classifier: torch.nn.Linear) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights [K, k] and bias [K] of a classifier C as certificates compute with them: float64."""
    weight, bias = (p.detach().cpu().double().numpy() for p in (classifier.weight, classifier.bias))
    return weight, bias


@dataclass(frozen=True)
class Problem:
    """An encoder restricted to a similarity set, a linear classifier, and the certificate's settings.

    Attributes
    ----------
    encoder : Layers
        R on z + span(A), without its first layer's weights.
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

    encoder: Layers | None
    similarity: SimilaritySet
    weight: np.ndarray
    bias: np.ndarray
    spec: CertificationSpec
    seed: int

    def save(self, path: Path) -> None:
        """Write the problem for other processes: safetensors and JSON, which no one can make run code."""
        tensors = {"U": self.encoder.U, "vectors": self.similarity.vectors}
        tensors |= {"weight": torch.from_numpy(self.weight), "bias": torch.from_numpy(self.bias)}
        for i, (w, b) in enumerate(self.encoder.tail):
            tensors |= {f"tail.{i}.weight": w, f"tail.{i}.bias": b}
        names, spec = list(self.similarity.names), asdict(self.spec)
        write_safetensors(path, tensors, {"names": names, "spec": spec, "seed": int(self.seed)})

    @classmethod
    def load(cls, path: Path) -> Problem:
        """Read what `save` wrote, bit for bit."""
        found, facts = read_safetensors(path, "run again")
        t = {name: tensor.clone() for name, tensor in found.items()}  # aligned in memory as any other tensor
        tail = [(t[f"tail.{i}.weight"], t[f"tail.{i}.bias"]) for i in range((len(t) - 4) // 2)]
        spec = CertificationSpec(**facts["spec"])
        similarity = SimilaritySet(t["vectors"], spec.epsilon, tuple(facts["names"]))
        weight, bias = t["weight"].numpy(), t["bias"].numpy()
        return cls(Layers(t["U"], tail), similarity, weight, bias, spec, facts["seed"])

    @cached_property
    def decision(self) -> Decision:
        """The unsmoothed decision argmax C(R(z + t A))."""
        return Decision(self.encoder, self.weight, self.bias)
