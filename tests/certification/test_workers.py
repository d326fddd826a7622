"""The processes over test points end with the run that started them."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

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
