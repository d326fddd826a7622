"""Numerical modes: certification and the flow never run in TF32; threads are set explicitly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from lassi_lib.errors import StudyError

T = TypeVar("T")


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


def shrinking(attempt: Callable[[int], T], size: int, least: int = 1) -> T:
    """Return ``attempt(size)``, tried again with half the size as long as the GPU's memory is too small.

    Parameters
    ----------
    attempt : callable
        Computes everything in batches of a size, which must not change its result.
    size : int
        The first size to try: rows, or bytes to aim at.
    least : int
        The smallest size.

    Returns
    -------
    object
        What `attempt` returns.

    Raises
    ------
    StudyError
        If the memory is too small for the smallest size.
    """
    while True:
        try:
            return attempt(size)
        except torch.OutOfMemoryError:
            if size <= least:
                raise StudyError(
                    "the GPU's memory is too small even for the smallest batch: "
                    "end what else uses it, or take --device cpu"
                ) from None
        size = max(size // 2, least)  # out of the handler, so that the failed attempt's tensors are gone
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def pick_device(name: str = "auto") -> torch.device:
    """Return the torch device for ``auto`` (CUDA if there is one), ``cpu`` or ``cuda``.

    Raises
    ------
    StudyError
        If the name is unknown, or ``cuda`` is asked for where there is none.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise StudyError(f"device '{name}' is unknown: use auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise StudyError("device 'cuda' was asked for, but torch sees no CUDA GPU: use --device auto or cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
