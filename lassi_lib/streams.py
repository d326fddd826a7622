"""Named random streams: every draw depends on (seed, stage, index) and on nothing else.

The original code re-seeds every stage with the same integer, so that training attacks and
certification noise come from one generator. Here each stage, and within
certification each test point, has a stream of its own: neither batch size, order, resume nor
number of workers can change a result.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def stream_seed(seed: int, stage: str, index: int = 0) -> int:
    """Return a 63-bit seed derived from the experiment's seed, a stage's name and an index."""
    text = f"{int(seed)}/{stage}/{int(index)}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def numpy_stream(seed: int, stage: str, index: int = 0) -> np.random.Generator:
    """Return NumPy's generator (PCG64) of the stream (seed, stage, index)."""
    return np.random.Generator(np.random.PCG64(stream_seed(seed, stage, index)))


def torch_stream(seed: int, stage: str, index: int = 0, device: str = "cpu") -> torch.Generator:
    """Return a torch generator of the stream (seed, stage, index) on `device`."""
    import torch

    return torch.Generator(device=device).manual_seed(stream_seed(seed, stage, index))
