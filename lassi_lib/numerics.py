"""Numerical modes: certification and the flow never run in TF32; threads are set explicitly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_precision() -> Iterator[None]:
    """Switch TF32 off for matrix products and convolutions (on by default in cuDNN)."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Run torch with `count` CPU threads: their number changes float sums, so a stage fixes it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def pick_device(name: str = "auto") -> torch.device:
    """Return the torch device for ``auto`` (CUDA if there is one), ``cpu`` or ``cuda``.

    Raises
    ------
    StudyError
        If the name is unknown, or ``cuda`` is asked for where there is none.
    """
    from lassi_lib.errors import StudyError

    if name not in ("auto", "cpu", "cuda"):
        raise StudyError(f"device '{name}' is unknown: use auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise StudyError("device 'cuda' was asked for, but torch sees no CUDA GPU: use --device auto or cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
