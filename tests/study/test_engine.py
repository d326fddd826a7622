"""One process, a local cluster or a running one: the same stages, byte for byte."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import psutil
import pytest

from lassi_lib.errors import StudyError
from lassi_lib.progress import Overall
from lassi_lib.study import engine
from lassi_lib.study.engine import work_through
from lassi_lib.study.experiment import Experiment, Question
from lassi_lib.study.params import load_pipeline
from lassi_lib.study.plan import steps_of
from lassi_lib.study.study import Study

WANTED = [
    (
        Experiment("synthfaces", "Smiling", ("Young",), "mean_difference", method, 0),
        Question("exact_decision"),
    )
    for method in ("Naive", "LASSI")
]


def study_in(folder, **changes):
    pipeline = load_pipeline("smoke")
    data = replace(pipeline.data, n_train=200, n_valid=40, n_test=6)
    return Study(replace(pipeline, data=data, **changes), device="cpu", cache=folder, workers=1)


def results(folder):
    """Return what every stage holds, without the record of its seconds."""
    return {
        p.relative_to(folder): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != "stage.json" and "locks" not in p.parts
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    study, told = study_in(folder), []
    steps = steps_of(study, WANTED)
    assert work_through(study, steps, told=told.append) == 10
    assert told == steps
    return results(folder)


def test_two_workers_compute_what_one_process_computes(alone, tmp_path):
    study, told, named = study_in(tmp_path), [], {}
    steps = steps_of(study, WANTED)
    with Overall({step.stage.key: None for step in steps}, workers=2) as run:
        run.start = named.__setitem__
        assert work_through(study, steps, workers=2, told=told.append) == 10
        assert not run.left
    assert named == {step.stage.key: str(step) for step in steps}  # what runs is said by the workers
    assert results(tmp_path) == alone
    assert sorted(map(str, told)) == sorted(map(str, steps))
    assert work_through(study, steps, workers=2, told=told.append) == 0
    assert len(told) == 10  # what is kept is not computed, so nothing is told


def test_what_the_longest_chain_waits_for_is_the_most_urgent(tmp_path):
    steps = steps_of(study_in(tmp_path), WANTED)
    seconds = {step.stage.key: 1.0 for step in steps}
    long = next(step for step in steps if str(step).startswith("encoder Smiling/Young LASSI"))
    seconds[long.stage.key] = 100.0
    chain = engine.urgency(steps, seconds)
    assert chain[long.stage.key] == 102.0  # classifier and certificates follow
    by_name = {str(step): chain[step.stage.key] for step in steps}
    assert by_name["vector Young mean_difference Smiling"] == 103.0
    assert by_name["latents train"] == 104.0 and by_name["latents test"] == 2.0
    assert by_name["encoder Smiling/Young Naive seed 0"] == 3.0
    assert set(engine.urgency(steps, dict.fromkeys(seconds)).values()) == {0.0}  # a first run


def test_a_cluster_started_by_hand_computes_the_same(alone, tmp_path):
    address_file, cache = tmp_path / "scheduler.json", tmp_path / "cache"
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    common = ["--scheduler-file", str(address_file)]
    processes = [
        subprocess.Popen([*dask, *common, "--host", "127.0.0.1", "--port", "0", "--no-dashboard"], **quiet)
    ]
    try:
        for _ in range(2):
            options = ["--nthreads", "1", "--no-dashboard", "--local-directory", str(tmp_path)]
            processes.append(subprocess.Popen([*worker, *common, *options], **quiet))
        study = study_in(cache)
        work_through(study, steps_of(study, WANTED), scheduler=str(address_file))
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait(20)
    assert results(cache) == alone


def test_a_steps_error_is_raised_in_one_line_and_said_by_no_one_else(tmp_path, capfd):
    study = study_in(tmp_path)
    steps = steps_of(study, WANTED)
    odd = replace(WANTED[1][0], vector_type="no_such_kind")
    broken = [replace(s, args=(odd,)) if s.verb == "encoder" else s for s in steps]
    with pytest.raises(StudyError, match="no_such_kind"):
        work_through(study, broken, workers=2)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("workers", [1, 2])
def test_what_does_not_need_a_failed_step_is_computed(alone, tmp_path, workers):
    study, told, lost = study_in(tmp_path), [], {}
    steps = steps_of(study, WANTED)
    odd = replace(WANTED[1][0], vector_type="no_such_kind")
    broken = [
        replace(s, args=(odd,)) if str(s).startswith("encoder") and "LASSI" in str(s) else s for s in steps
    ]
    failed = {"failed": lambda step, error: lost.__setitem__(step.verb, error)}
    assert work_through(study, broken, workers=workers, told=told.append, **failed) == 10
    assert len(told) == 7 and set(lost) == {"encoder", "classifier", "certificates"}
    for error in lost.values():  # the children tell their parent's error, and whose it is
        assert "no_such_kind" in str(error) and error.__notes__[-1].startswith("encoder")
    assert results(tmp_path).items() < alone.items()


@pytest.mark.parametrize(("verb", "error"), [("latents", ValueError("no")), ("encoder", OSError(28, "full"))])
def test_what_nothing_can_go_on_without_ends_the_run(tmp_path, monkeypatch, verb, error):
    study = study_in(tmp_path)

    def compute(study, step):
        if step.verb == verb:
            raise error
        return real(study, step)

    real = engine.compute
    monkeypatch.setattr(engine, "compute", compute)
    with pytest.raises(type(error)):
        work_through(study, steps_of(study, WANTED), failed=lambda step, error: None)


def test_workers_get_the_gpus_that_are_ours(monkeypatch):
    import distributed
    import torch

    asked = []

    def cluster(specs, **options):
        asked.append([spec["options"]["env"]["CUDA_VISIBLE_DEVICES"] for spec in specs.values()])
        raise OSError("none here")

    monkeypatch.setattr(distributed, "SpecCluster", cluster)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    for visible, workers in (("2, 5", 4), ("GPU-7", 2), ("", 2)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        with pytest.raises(OSError, match="none here"):
            engine.start(workers, "cuda")
    assert asked == [["2", "5"], ["GPU-7"], ["0", "1"]]


def test_a_worker_that_dies_is_replaced(alone, tmp_path):
    """Killed once each, the workers' stages run again; a stage that kills every worker is named."""
    study = study_in(tmp_path / "cache")
    steps = steps_of(study, WANTED)
    client = engine.start(2, "cpu")
    try:
        victims = list(client.run(os.getpid).values())
        timer = threading.Timer(1.0, lambda: [os.kill(pid, signal.SIGKILL) for pid in victims])
        timer.start()
        engine.submit(client, steps, engine.Where("", str(study.cache.root), "cpu"))
        timer.join()
        assert not set(victims) & set(client.run(os.getpid).values())
        with pytest.raises(StudyError, match="fatal-stage: 4 workers died over it"):
            engine.result_of(client.submit(os._exit, 1, key="fatal-stage"))
    finally:
        engine.close(client)
    assert results(study.cache.root) == alone


def test_workers_that_begin_again_are_closed_too():
    client = engine.start(2, "cpu")
    lost = [client.submit(os._exit, 1, key=f"fatal-{i}") for i in range(2)]
    until(lambda: len(client.scheduler_info()["workers"]) < 2)
    until(engine.worker_processes)  # both may be about to begin
    engine.close(client)
    assert all(future.cancelled() for future in lost)
    until(lambda: not engine.worker_processes())


def test_a_cluster_that_cannot_be_closed_leaves_no_worker(monkeypatch):
    """Dask stumbles, now and then, over a worker that dies or begins again while it is stopped."""
    from distributed.nanny import WorkerProcess

    async def stumbles(*args, **kwargs):
        raise AssertionError("can only join a started process")

    client = engine.start(2, "cpu")
    workers = list(client.run(os.getpid).values())
    monkeypatch.setattr(WorkerProcess, "kill", stumbles)
    engine.close(client)
    until(lambda: not (engine.worker_processes() or any(map(psutil.pid_exists, workers))))
    assert client.cluster.status.name == "closed"  # else Dask would warn, whenever it is collected


def test_a_scheduler_that_does_not_answer_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "_ANSWER", "1s")
    study = study_in(tmp_path)
    for address in ("tcp://127.0.0.1:9", "nonsense://x"):
        with pytest.raises(StudyError, match="no Dask scheduler answers") as error:
            work_through(study, steps_of(study, WANTED), scheduler=address)
        assert address in str(error.value)
        assert "\n" not in str(error.value)


def until(true, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("how", [{"workers": 2}, {"scheduler": "tcp://127.0.0.1:9"}])
def test_without_dask_one_line_says_what_to_install(tmp_path, monkeypatch, how):
    monkeypatch.setitem(sys.modules, "distributed", None)
    study = study_in(tmp_path)
    with pytest.raises(StudyError, match="pip install distributed"):
        work_through(study, steps_of(study, WANTED), **how)


def test_one_process_needs_no_dask(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.setitem(sys.modules, "dask", None)
    study = study_in(tmp_path)
    assert work_through(study, steps_of(study, WANTED[:1])) > 3


def test_workers_keep_mallocs_own_rules(monkeypatch):
    """Dask's trimming at 64 kB doubles a certificate's time; its limits of threads stay."""
    for name in ("MALLOC_TRIM_THRESHOLD_", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    client = engine.start(1, "cpu")
    try:
        (there,) = client.run(lambda: dict(os.environ)).values()
    finally:
        engine.close(client)
    assert "MALLOC_TRIM_THRESHOLD_" not in there and there["OPENBLAS_NUM_THREADS"] == "1"
