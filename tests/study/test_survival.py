"""Whatever happens to a run: nothing is lost, nothing is half-written, nothing is left behind."""

import os
import random
import shutil
import signal
import subprocess
import time

import pytest

from lassi_lib.study.notebooks import kill_tree
from tests.study.small_study import Runs, arguments, copy_study

PROMISED = 5.0  # seconds within which Ctrl-C ends a run


def contents(output):
    """Return what must be equal: tables (but for the minutes that stages took), certificates, verdicts."""
    files = [p for f in ("tables", "certificates", "verdicts") for p in sorted((output / f).iterdir())]
    found = {p.relative_to(output): p.read_bytes() for p in files}
    for name in [n for n in found if n.stem.endswith("_setting")]:
        lines = found[name].splitlines()
        found[name] = [line for line in lines if b"computing minutes" not in line]
        assert len(found[name]) == len(lines) - 1
    return found


def stages(cache):
    """Return which file holds the record of each finished stage; a computed one has another."""
    return {
        p.relative_to(cache): (p.stat().st_ino, p.stat().st_mtime_ns) for p in cache.glob("*/*/stage.json")
    }


def in_notebook(output):
    """Return whether everything is computed and a draft of the results is being written."""
    return list(output.parent.glob(f".{output.name}.*.tmp"))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    copy_study(folder)
    return folder


@pytest.fixture(scope="module")
def runs(study):
    with Runs(study) as runs:
        yield runs


@pytest.fixture(scope="module")
def uninterrupted(study, runs):
    """The study's cache and results after a run in peace, and its seconds before and in the notebook."""
    cache, output = study / "cache", study / "out"
    started = time.monotonic()
    run = runs.start(*arguments(cache, output))
    run.wait_for(lambda: in_notebook(output))
    computed = time.monotonic()
    assert run.wait() == 0, run.said
    assert len(contents(output)) > 10
    return cache, output, computed - started, time.monotonic() - computed


# ---- killed --------------------------------------------------------------------------------------


def kill_and_finish(runs, uninterrupted, folder, kills, each=False):
    """Kill runs over one cache and output at random moments, then let one finish.

    `each` lets a run finish in a copy after every kill, too; and every other run is then one on two workers,
    of which the parent alone is killed.
    """
    _, expected, before, notebook = uninterrupted
    cache, output = folder / "cache", folder / "out"
    chance, finished = random.Random(5), {}
    for number in range(kills):
        alone = each and number % 2
        run = runs.start(*arguments(cache, output, *(("--workers", "2") if alone else ())))
        if number < 0.75 * kills:  # before the notebook starts, where finished stages add up
            seconds = chance.uniform(0, before / 4)
        else:
            run.wait_for(lambda: in_notebook(output))
            seconds = chance.uniform(0, 1.1 * notebook)
        time.sleep(seconds)
        if alone:
            os.kill(run.pid, signal.SIGKILL)
        else:
            kill_tree(run.pid)
        assert run.wait() in (-signal.SIGKILL, 0)
        run.wait_alone()
        now = stages(cache)
        assert finished.items() <= now.items(), f"kill {number}: a finished stage was computed again"
        finished = now
        assert not output.exists() or contents(output) == contents(expected)
        if each:
            copy = folder / "copy"
            shutil.copytree(folder, copy, ignore=lambda *_: ["copy"])
            run = runs.start(*arguments(copy / "cache", copy / "out"))
            assert run.wait() == 0, f"after kill {number}: {run.said}"
            assert contents(copy / "out") == contents(expected), f"after kill {number}"
            shutil.rmtree(copy)
    run = runs.start(*arguments(cache, output))
    assert run.wait() == 0, run.said
    assert finished.items() <= stages(cache).items()
    assert stages(cache).keys() == stages(uninterrupted[0]).keys()
    assert contents(output) == contents(expected)
    assert sorted(p.name for p in folder.iterdir()) == ["cache", "out"]
    assert not list(cache.glob("*/*.tmp"))
    assert not list((cache / "locks").iterdir())
    assert "Warning" not in run.said


def test_killed_at_20_moments_it_ends_with_the_tables_of_an_uninterrupted_run(runs, uninterrupted, tmp_path):
    kill_and_finish(runs, uninterrupted, tmp_path, 20)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_at_100_moments_it_ends_with_the_tables_of_an_uninterrupted_run(runs, uninterrupted, tmp_path):
    kill_and_finish(runs, uninterrupted, tmp_path, 100, each=True)


# ---- interrupted ---------------------------------------------------------------------------------


def interrupt(run):
    """Press Ctrl-C, which signals to the whole group; return how long it takes until all have ended."""
    started = time.monotonic()
    os.killpg(run.pid, signal.SIGINT)
    assert run.wait() == 130, run.said
    run.wait_alone()
    seconds = time.monotonic() - started
    assert "Traceback" not in run.said
    assert run.said.splitlines()[-1].startswith("interrupted: what is finished is kept")
    return seconds


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_among_the_experiments_leaves_no_process(runs, uninterrupted, tmp_path, workers):
    cache, output = tmp_path / "cache", tmp_path / "out"
    run = runs.start(*arguments(cache, output, "--workers", str(workers)))
    run.wait_for(lambda: list(cache.glob("locks/certificates-*")))
    assert interrupt(run) < PROMISED
    assert not output.exists()
    assert stages(cache)
    if workers == 1:  # Dask's workers are killed, and the next run removes their drafts
        assert not list(cache.glob("*/*.tmp"))


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_in_a_notebook_leaves_no_kernel_and_the_old_results(runs, uninterrupted, tmp_path, workers):
    cache, expected, *_ = uninterrupted
    output = tmp_path / "out"
    shutil.copytree(expected, output)
    run = runs.start(*arguments(cache, output, "--workers", str(workers)))
    run.wait_for(lambda: any("ipykernel_launcher" in " ".join(p.cmdline()) for p in run.processes()))
    assert interrupt(run) < PROMISED
    assert contents(output) == contents(expected)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


# ---- two at once ---------------------------------------------------------------------------------


def test_two_runs_at_once_share_the_experiments_and_write_one_after_the_other(runs, uninterrupted, tmp_path):
    cache, output = tmp_path / "cache", tmp_path / "out"
    both = [runs.start(*arguments(cache, output)) for _ in range(2)]
    assert [run.wait() for run in both] == [0, 0], both[0].said + both[1].said
    said = both[0].said + both[1].said
    assert "which another process computes" in said
    assert f"waiting for {output}, into which another run writes" in said
    assert "Warning" not in said
    assert contents(output) == contents(uninterrupted[1])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "out"]


# ---- nowhere to write ----------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path):
    """A function that mounts a file system of a size in kilobytes, or changes it."""
    folder, mounted = tmp_path / "disk", []
    folder.mkdir()

    def mount(options):
        how = f"remount,{options}" if mounted else options
        command = ["mount", "-t", "tmpfs", "-o", how, "tmpfs", str(folder)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("file systems cannot be mounted here (root alone may)")
        mounted.append(folder)
        return folder

    yield mount
    if mounted:
        subprocess.run(["umount", str(folder)], check=True)


def refused(run, *words):
    """Assert that a run ends with one clear line and exit code 2."""
    assert run.wait() == 2, run.said
    errors = [line for line in run.said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "Traceback" not in run.said, run.said
    for word in words:
        assert word in errors[0]


def test_a_full_cache_is_one_line_and_the_run_goes_on_once_there_is_room(runs, disk, tmp_path, uninterrupted):
    cache, output = disk("size=7m"), tmp_path / "out"
    refused(runs.start(*arguments(cache, output)), "No space left on device", "--cache")
    kept = stages(cache)
    assert 0 < len(kept) < len(stages(uninterrupted[0]))
    assert not list(cache.glob("*/*.tmp"))
    assert not output.exists()
    disk("size=64m")
    run = runs.start(*arguments(cache, output))
    run.wait_for(lambda: in_notebook(output))  # everything is computed: the disk was in no way spoilt
    kill_tree(run.pid)
    run.wait()
    assert kept.items() <= stages(cache).items()
    assert "Warning" not in run.said


@pytest.mark.slow  # as long as a notebook takes
def test_a_full_results_disk_is_one_line_and_keeps_the_old_results(runs, disk, uninterrupted):
    folder = disk("size=300k")
    output = folder / "out"
    output.mkdir()
    (output / "run.json").write_text("{}")
    refused(runs.start(*arguments(uninterrupted[0], output)), "No space left on device", "--output")
    assert [p.name for p in folder.iterdir()] == ["out"]
    assert [p.name for p in output.iterdir()] == ["run.json"]


def test_folders_that_can_only_be_read_are_one_line(runs, disk, uninterrupted, tmp_path):
    folder = disk("size=64m")
    disk("ro")
    refused(runs.start(*arguments(folder, tmp_path / "out")), str(folder), "cannot be written")
    refused(runs.start(*arguments(uninterrupted[0], folder / "out")), str(folder), "cannot be written")
