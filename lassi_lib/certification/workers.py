"""Processes over test points: threads would wait for each other between a point's many small steps."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import lru_cache
from multiprocessing import spawn
from typing import Any, TypeVar

import psutil
import torch

from lassi_lib.errors import StudyError

T = TypeVar("T")
_DEATHS = 3  # of processes, after which we give up
_PRELOADED = "lassi_lib.certification.certify"


@lru_cache(maxsize=1)
def pool(workers: int) -> ProcessPoolExecutor:
    """Return the pool of `workers` processes, started at first use and kept for later calls.

    Started through a fork server (or spawned where there is none): a plain fork of a process that
    has used OpenMP may hang.
    """
    kind = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(kind)
    if kind == "forkserver":
        context.set_forkserver_preload([_PRELOADED])  # torch is imported once, not once a worker
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(os.getpid(),))


def mapped(workers: int, function: Callable[[Any], T], jobs: Sequence[Any]) -> Iterator[T]:
    """Yield ``function(job)`` of every job, in order, from the pool.

    Where a process has died, a new pool takes up what is not done.

    Parameters
    ----------
    workers : int
        Size of the pool.
    function : callable
        Something that can be pickled, and is not defined in the running script.
    jobs : sequence
        Its arguments, one each.

    Yields
    ------
    object
        What the function returns.

    Raises
    ------
    StudyError
        If processes die again and again.
    """
    done, deaths = 0, 0
    while done < len(jobs):
        try:
            with _script_left_alone():
                results = pool(workers).map(function, jobs[done:])  # starts processes
            for result in results:
                done += 1
                yield result
        except BrokenProcessPool:
            close(workers)
            deaths += 1
            if deaths > _DEATHS:
                raise StudyError(
                    f"{deaths} times a process over test points was killed, probably for want of memory; "
                    "what is finished is kept: end what else needs memory and run again"
                ) from None
        except BaseException:  # Ctrl-C above all: leave no process at work
            close(workers)
            raise


@contextmanager
def _script_left_alone() -> Iterator[None]:
    """Start processes that do not import the running script, which may have no guard or no file."""
    prepare = spawn.get_preparation_data
    spawn.get_preparation_data = lambda name: {
        key: value for key, value in prepare(name).items() if not key.startswith("init_main")
    }
    try:
        yield
    finally:
        spawn.get_preparation_data = prepare


def close(workers: int) -> None:
    """Stop the pool's processes without finishing what is queued."""
    pool(workers).shutdown(wait=False, cancel_futures=True)
    pool.cache_clear()


def _start(owner: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the owner, which closes the pool
    torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(owner,), daemon=True).start()


def _end_with(owner: int) -> None:
    """End this process once its owner is gone: a killed run must not go on computing."""
    while psutil.pid_exists(owner):
        time.sleep(1)
    os._exit(1)
