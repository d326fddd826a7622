"""A copy of the study that runs in seconds, for tests that kill, interrupt and starve it.

The copy holds the library and `run_all.py` as they are, one notebook with one figure and a small profile. `Runs` runs its
command line in forks of a process that has imported everything, so that a run costs what it computes
and not the imports before it.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import yaml

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = "01_claim1_certified_fairness"
SPLITS = {"n_train": 200, "n_valid": 40, "n_test": 16}

_SERVER = """
import json, os, runpy, signal, sys
sys.path.insert(0, os.getcwd())
signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background of a shell ignore it
import nbconvert, nbformat, pandas, psutil, safetensors.torch, scipy.stats, torch
import lassi_lib.certification.monte_carlo, lassi_lib.flow.glow, lassi_lib.learning.train
import lassi_lib.study.batch, lassi_lib.study.engine, lassi_lib.study.render, lassi_lib.study.study
print("ready", flush=True)
for line in sys.stdin:
    job = json.loads(line)
    if "wait" in job:
        print(os.waitstatus_to_exitcode(os.waitpid(job["wait"], 0)[1]), flush=True)
        continue
    pid = os.fork()
    if not pid:
        os.setpgid(0, 0)
        with open(job["log"], "wb") as log:
            for stream in (1, 2):
                os.dup2(log.fileno(), stream)
        os.environ["LASSI_MARK"] = job["mark"]
        sys.argv = ["run_all.py", *job["arguments"]]
        runpy.run_path("run_all.py", run_name="__main__")
    print(pid, flush=True)
"""


def copy_study(folder):
    """Copy the study into `folder`, with 'small' as its only profile and one notebook with one figure."""
    shutil.copytree(ROOT / "lassi_lib", folder / "lassi_lib")
    shutil.copytree(ROOT / "checkpoints", folder / "checkpoints")
    for file in ("run_all.py", "pyproject.toml"):
        shutil.copy(ROOT / file, folder)
    for part in ("notebooks", "params/small"):
        (folder / part).mkdir(parents=True)
    notebook = json.loads((ROOT / "notebooks" / f"{NOTEBOOK}.ipynb").read_text())
    kept = ("tables", "certificates", "verdicts", "figures/01_certified_fairness")  # the verdict's picture
    notebook["cells"] = [
        c for c in notebook["cells"] if "save_figure" not in "".join(c["source"]) or kept[-1][8:] in str(c)
    ]
    lassi = notebook["metadata"]["lassi"]
    lassi["artefacts"] = [a for a in lassi["artefacts"] if a.startswith(kept)]
    (folder / "notebooks" / f"{NOTEBOOK}.ipynb").write_text(json.dumps(notebook))
    for name in ("pipeline", NOTEBOOK):
        given = yaml.safe_load((ROOT / "params" / "smoke" / f"{name}.yaml").read_text())
        if name == "pipeline":
            given["data"] |= SPLITS
            given["glow"]["threads"] = 1
            given["minutes"] = {}
        else:
            given |= {"profile": "small", "pairs": ["Smiling/Pale_Skin"], "methods": ["Naive", "LASSI"]}
        (folder / "params" / "small" / f"{name}.yaml").write_text(yaml.safe_dump(given))


def arguments(cache, output, *more):
    """Return the command line of a run of the small profile."""
    where = ("--cache", str(cache), "--output", str(output))
    return ["--profile", "small", "--device", "cpu", *where, *more]


class Runs:
    """Starts runs of a copied study; use as a context manager."""

    def __init__(self, study):
        self.study = study
        environment = os.environ | {"LASSI_QUIET": "1", "OMP_NUM_THREADS": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.server = subprocess.Popen([sys.executable, "-c", _SERVER], cwd=study, env=environment, **pipes)
        if self._answer() != "ready":
            self.__exit__()
            raise RuntimeError("the study cannot be imported")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.stdin.close()
        self.server.wait(20)
        self.server.stdout.close()

    def start(self, *given):
        return Run(self, list(given))

    def ask(self, **job):
        self.server.stdin.write(json.dumps(job) + "\n")
        self.server.stdin.flush()
        return int(self._answer())

    def _answer(self):
        return self.server.stdout.readline().strip()


class Run:
    """One run: `said` is what it prints, `code` its exit code once it has ended."""

    def __init__(self, runs, given):
        self.runs, self.mark = runs, uuid.uuid4().hex
        self.log = runs.study / f"{self.mark}.log"
        self.pid = runs.ask(arguments=given, log=str(self.log), mark=self.mark)

    @property
    def said(self):
        return self.log.read_text() if self.log.exists() else ""

    def ended(self):
        """Return whether the process is no more than an exit code."""
        return psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE

    def wait_for(self, condition, seconds=120.0):
        """Wait until a condition holds; the run must not end before."""
        until = time.monotonic() + seconds
        while not condition():
            assert not self.ended(), self.said
            assert time.monotonic() < until, self.said
            time.sleep(0.01)

    def wait(self, seconds=300.0):
        """Wait for the end; return the exit code (-9 of a killed run)."""
        until = time.monotonic() + seconds
        while not self.ended():
            assert time.monotonic() < until, self.said
            time.sleep(0.02)
        return self.runs.ask(wait=self.pid)

    def wait_alone(self, seconds=60.0):
        """Wait until no process is left that this run has started."""
        until = time.monotonic() + seconds
        while left := self.processes():
            assert time.monotonic() < until, left

    def processes(self):
        """Return every living process that was started by this run, at any remove."""
        found = []
        for process in psutil.process_iter():
            try:
                ours = process.environ().get("LASSI_MARK") == self.mark
                if process.pid != self.pid and ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found
