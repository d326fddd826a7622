"""Work through a plan: in this process, or as a graph of tasks on a Dask cluster.

Either way a step's result depends on its own stage alone (threads per training stage are fixed in
params, certificates draw from streams named by test point), so the number of workers never changes a
result. All workers share one stage cache: on a cluster, a folder that every machine sees.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from lassi_lib.errors import StudyError, mendable
from lassi_lib.progress import finished, running, started
from lassi_lib.study.params import Pipeline
from lassi_lib.study.plan import Step, compute, missing

if TYPE_CHECKING:
    from distributed import Client, Future

    from lassi_lib.study.study import Study

_QUIET = "ignore:resource_tracker"  # what multiprocessing says of semaphores when workers were killed
_CLOSING = 3.0  # seconds that workers get to stop
_BEGUN = "lassi-begun"  # what a worker calls the news that it begins with a stage
_ANSWER = "10s"  # how long a scheduler may take to answer
_UNKNOWN: Mapping[str, float | None] = MappingProxyType({})
_FOUNDATIONS = ("glow", "latents")  # without these there is nothing to study
Failed = Callable[["Step", Exception], None]


@dataclass(frozen=True)
class Where:
    """What a worker needs beside a step: data, cache and device."""

    data_root: str
    cache: str
    device: str


def work_through(
    study: Study,
    steps: Iterable[Step],
    *,
    workers: int = 1,
    scheduler: str = "",
    told: Callable[[Step], None] = lambda step: None,
    failed: Failed | None = None,
    seconds: Mapping[str, float | None] = _UNKNOWN,
) -> int:
    """Compute all steps that are not kept yet; return how many there were.

    Parameters
    ----------
    study : Study
        Says which data, device and cache; a step brings its own pipeline.
    steps : iterable of Step
        Parents before children.
    workers : int
        More than one starts a local Dask cluster of as many processes (one per GPU on CUDA).
    scheduler : str
        A running cluster to use instead: tcp://host:port or its file (.json).
    told : callable
        Hears of every step that has been computed.
    failed : callable, optional
        Hears of every step that could not be computed, itself or for want of a parent, with the error; the
        others go on. Without it, and where nothing else could go on (no room on the disk, no flow, no
        latents), the error is raised.
    seconds : mapping
        Seconds (None: not known) that steps are expected to take, by their stages' keys: a cluster orders by
        them (`urgency`).

    Raises
    ------
    StudyError
        If Dask is not installed, or nothing answers at the scheduler's address.
    """
    todo = missing(study, steps)
    if not todo:
        return 0
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, (os.environ.get("PYTHONWARNINGS"), _QUIET)))
    if workers == 1 and not scheduler:
        studies, lost = {_faces(study.pipeline): study}, {}
        for step in todo:
            own = studies.setdefault(_faces(step.pipeline), study.of(step.pipeline))
            error = next((lost[key] for key in step.stage.parents if key in lost), None)
            if error is None:
                try:
                    with running(step.stage.key, str(step)):
                        compute(own.of(step.pipeline), step)
                except Exception as e:
                    e.add_note(str(step))
                    error = e
            if error is None:
                told(step)
            else:
                lost[step.stage.key] = error
                _give_up(step, error, failed)
        return len(todo)
    where = Where(str(study.data_root or ""), str(study.cache.root.resolve()), str(study.device))
    client = connect(scheduler) if scheduler else start(workers, where.device)
    try:
        submit(client, todo, where, told, failed, seconds)
    finally:
        if not isinstance(sys.exception(), KeyboardInterrupt):  # then `leave` ends the workers, in no time
            close(client)
    return len(todo)


def _give_up(step: Step, error: Exception, failed: Failed | None) -> None:
    """Tell of a step that cannot be had, or raise its error: where no one listens, or nothing can go on."""
    if failed is None or mendable(error) or step.verb in _FOUNDATIONS:
        raise error
    finished(step.stage.key)
    failed(step, error)


def submit(
    client: Client,
    steps: list[Step],
    where: Where,
    told: Callable[[Step], None] = lambda step: None,
    failed: Failed | None = None,
    seconds: Mapping[str, float | None] = _UNKNOWN,
) -> None:
    """Run steps on a cluster, each after its parents; the rest is as in `work_through`.

    Parameters
    ----------
    client : distributed.Client
        Of the cluster.
    steps : list of Step
        Those to compute, parents before children.
    where : Where
        What the workers need beside a step.
    told, failed, seconds : callable, callable, mapping
        As in `work_through`.
    """
    from distributed import as_completed

    urgent, futures = urgency(steps, seconds), {}
    client.subscribe_topic(_BEGUN, lambda event: started(*event[1]))  # before anything can begin
    for rank, step in enumerate(steps):
        parents = [futures[key] for key in step.stage.parents if key in futures]
        priority = urgent[step.stage.key] - 1e-3 * rank  # equally urgent ones in the order of the plan
        futures[step.stage.key] = client.submit(
            run_step, step, where, parents, key=f"{step.verb}-{step.stage.key}", priority=priority
        )
    by_future = {futures[step.stage.key].key: step for step in steps}
    for future in as_completed(list(futures.values())):
        step = by_future[future.key]
        try:
            result_of(future)
        except Exception as error:  # Dask gives a parent's error to its children
            _give_up(step, error, failed)
        else:
            finished(step.stage.key)
            told(step)


def urgency(steps: Sequence[Step], seconds: Mapping[str, float | None]) -> dict[str, float]:
    """Return, by the steps' keys, the seconds that the longest chain from a step on is expected to take.

    Whatever waits at the end of the longest chain is what a cluster waits for at last: it begins with that.
    """
    chain: dict[str, float] = {}
    below: dict[str, float] = {}
    for step in reversed(steps):  # parents come before children
        key = step.stage.key
        chain[key] = (seconds.get(key) or 0.0) + below.get(key, 0.0)
        for parent in step.stage.parents:
            below[parent] = max(below.get(parent, 0.0), chain[key])
    return chain


def result_of(future: Future) -> Any:
    """Return a task's result, or raise what went wrong; a task over which workers die is named in one line."""
    from distributed import KilledWorker

    try:
        return future.result()
    except KilledWorker as error:
        raise StudyError(
            f"stage {error.task}: {error.allowed_failures + 1} workers died over it, probably for want of "
            "memory; what is finished is kept: run again with fewer --workers"
        ) from None


def run_step(step: Step, where: Where, parents: list[str]) -> str:
    """Compute one step in a worker's process; return its stage's key. Dask waits for its `parents`."""
    from distributed import get_worker

    get_worker().log_event(_BEGUN, (step.stage.key, str(step)))
    try:
        study = _study(where, step.pipeline)
        if not study.cache.has(step.stage):
            compute(study, step)
    except Exception as error:
        error.add_note(str(step))
        raise
    return step.stage.key


def start(workers: int, device: str) -> Client:
    """Start a local cluster of processes with one thread each; on CUDA one per GPU."""
    _need_dask()
    import dask
    from distributed import Client, Nanny, Scheduler, SpecCluster

    quiet = {"LASSI_QUIET": "1", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    options = {"nthreads": 1, "memory_limit": 0, "silence_logs": logging.CRITICAL}
    if device.startswith("cuda"):
        import torch

        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")  # on a shared machine not all are ours
        gpus = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
        workers = min(workers, len(gpus))
    specs = {}
    for i in range(workers):
        own = {"CUDA_VISIBLE_DEVICES": gpus[i].strip()} if device.startswith("cuda") else {}
        specs[i] = {"cls": Nanny, "options": options | {"env": quiet | own}}
    scheduler = {
        "cls": Scheduler,
        "options": {"dashboard_address": "127.0.0.1:0", "port": 0, "host": "127.0.0.1"},
    }
    # Dask has malloc give freed memory back at once, for long-lived workers: a certificate's many
    # temporaries would cost as much time in the kernel as in their computation
    own_malloc = {"distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None}

    def make() -> Client:
        with dask.config.set(own_malloc):
            return Client(SpecCluster(specs, scheduler=scheduler, silence_logs=logging.CRITICAL))

    # Threads and processes inherit which signals they take: Ctrl-C, which a terminal sends to all
    # processes, is for this one's main thread alone
    thread = ThreadPoolExecutor(1, initializer=_refuse_ctrl_c)
    try:
        return thread.submit(make).result()
    finally:
        thread.shutdown(wait=False)


def _refuse_ctrl_c() -> None:
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        from multiprocessing import resource_tracker

        resource_tracker.ensure_running()  # whoever starts it takes the signal again
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def close(client: Client) -> None:
    """Leave a cluster; one that was started here is stopped with its workers, whatever they are doing."""
    cluster = client.cluster
    if cluster is None:
        with suppress(TimeoutError):
            client.close(timeout=_CLOSING)
        return
    with suppress(TimeoutError):  # a worker that is only just beginning again cannot be stopped yet
        client.wait_for_workers(len(cluster.workers), timeout=_CLOSING)
    try:
        client.close(timeout=_CLOSING)
        cluster.close(timeout=_CLOSING)
    except Exception:  # the work is done: whatever Dask stumbles over, its processes have to end
        cluster.shutdown_on_close = False  # Dask is not to try it again when this process ends
        cluster.status = type(cluster.status).closed  # nor to warn of it when it is collected
        for process in worker_processes():
            process.kill()


def worker_processes() -> list[multiprocessing.process.BaseProcess]:
    """Return the processes of local clusters; the pool that shares a certificate's points is not of them."""
    return [p for p in multiprocessing.active_children() if p.name.startswith("Dask Worker process")]


def connect(address: str) -> Client:
    """Connect to a running cluster, or say in one line why not."""
    _need_dask()
    from distributed import Client

    try:
        given = {"scheduler_file": address} if address.endswith(".json") else {"address": address}
        return Client(**given, timeout=_ANSWER)
    except (OSError, ValueError, TimeoutError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise StudyError(f"--scheduler {address}: no Dask scheduler answers there ({line})") from None


def _need_dask() -> None:
    try:
        import distributed  # noqa: F401
    except ImportError:
        raise StudyError("--workers and --scheduler need Dask: pip install distributed") from None


_STUDIES: dict[tuple, Study] = {}


def _study(where: Where, pipeline: Pipeline) -> Study:
    """Return this process's study of a pipeline; those of the last few data sets keep their latents."""
    from lassi_lib.study.study import Study

    os.environ.setdefault("LASSI_QUIET", "1")
    key = (where, _faces(pipeline))
    if key not in _STUDIES:
        while len(_STUDIES) > 3:
            _STUDIES.pop(next(iter(_STUDIES)))
        _STUDIES[key] = Study(
            pipeline, data_root=where.data_root, device=where.device, cache=Path(where.cache), workers=1
        )
    return _STUDIES[key].of(pipeline)


def _faces(pipeline: Pipeline) -> str:
    return repr((pipeline.data, pipeline.glow))
