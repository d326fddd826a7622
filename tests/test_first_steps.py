"""What a newcomer does first: clone, `make study`, open the page."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.study.reading import complaints

ROOT = Path(__file__).resolve().parents[1]


def cloned(tmp_path):
    if not (ROOT / ".git").exists() or not shutil.which("make"):
        pytest.skip("git's folder and make are needed")
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(tmp_path / "clone")], check=True)
    return tmp_path / "clone"


def test_in_a_clone_each_command_makes_the_environment_and_goes_on(tmp_path):
    clone = cloned(tmp_path)
    for goal, last in (("study", "run_all.py --profile demo"), ("test", "-m pytest")):
        planned = subprocess.run(
            ["make", "--dry-run", goal], cwd=clone, capture_output=True, text=True, check=True
        ).stdout
        made = [planned.index(step) for step in ("-m venv .venv", "-r requirements.txt", last)]
        assert made == sorted(made)
    assert (clone / "results/demo/index.html").is_file()  # what a reader opens before anything has run


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_clone_and_one_command_leave_pages_to_open(tmp_path):
    """In this environment, which `make` takes for the clone's, and with the smallest profile."""
    clone = cloned(tmp_path)
    made = f"--assume-old={sys.prefix}/ready"  # the environment, as if it had been made for the clone
    settings = [f"VENV={sys.prefix}", "PROFILE=smoke", "WORKERS=2", f"PYTHON={sys.executable}"]
    ours = {"LASSI_CACHE", "LASSI_OUTPUT", "PYTHONPATH"}
    done = subprocess.run(
        ["make", made, "study", *settings],
        cwd=clone,
        env={k: v for k, v in os.environ.items() if k not in ours},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = clone / "results"
    assert "results/smoke/index.html" in done.stdout
    pages = [results / "index.html", *sorted((results / "smoke").glob("*.html"))]
    assert len(pages) > 10
    assert [c for page in pages for c in complaints(page)] == []
    assert (clone / ".cache").is_dir()
