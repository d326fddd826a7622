"""The processes over test points end with the run that started them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from lassi_lib.certification import workers
from lassi_lib.errors import StudyError

ROOT = Path(__file__).resolve().parents[2]


def test_no_worker_outlives_a_killed_run():
    code = (
        "import os, time\n"
        "from lassi_lib.certification.workers import pool\n"
        "if __name__ == '__main__':\n"
        "    print(pool(2).submit(os.getpid).result(), flush=True)\n"
        "    pool(2).submit(time.sleep, 60).result()\n"
    )
    run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    worker = psutil.Process(int(run.stdout.readline()))
    run.send_signal(signal.SIGKILL)
    run.wait()
    run.stdout.close()
    for _ in range(100):
        if not worker.is_running():
            break
        time.sleep(0.1)
    assert not worker.is_running()


@pytest.mark.parametrize("way", ["file", "stdin"])
def test_a_script_needs_no_guard_and_runs_once(way, tmp_path):
    code = (
        "from lassi_lib.certification.workers import mapped\nprint('here', list(mapped(2, abs, [-1, 2])))\n"
    )
    (tmp_path / "audit.py").write_text(code)
    command = [sys.executable, str(tmp_path / "audit.py") if way == "file" else "-"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, input=code, env=env, capture_output=True, text=True, timeout=60)
    assert (run.stdout, run.stderr) == ("here [1, 2]\n", "")


def double(job):
    """Return twice a number, after killing this process where a file does not say that it has been done."""
    number, mark = job
    if mark is not None and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number


def die(_):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def pool():
    yield 2
    workers.close(2)


def test_where_a_process_dies_another_does_its_work(pool, tmp_path):
    jobs = [(number, tmp_path / str(number) if number in (3, 11) else None) for number in range(20)]
    assert list(workers.mapped(pool, double, jobs)) == [2 * number for number in range(20)]
    assert len(list(tmp_path.iterdir())) == 2


def test_work_that_kills_every_process_is_one_clear_line(pool):
    with pytest.raises(StudyError, match=r"4 times a process .* was killed, .*run again") as error:
        list(workers.mapped(pool, die, [1]))
    assert "\n" not in str(error.value)
