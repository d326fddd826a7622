"""The three environment files agree, and lassi_lib and the batch run start fast."""

import json
import re
import shutil
import subprocess
import sys
import time
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from tests.browser.conftest import NAMES

ROOT = Path(__file__).resolve().parents[1]
REQUESTED = [
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "statsmodels",
    "jupyterlab",
    "papermill",
    "matplotlib",
    "seaborn",
    "ipywidgets",
]


def pins() -> dict[str, str]:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if "==" in line and not line.startswith("#")]
    return {name.strip().lower(): pin.strip() for name, pin in pairs}


def metadata() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_requirements_pin_every_dependency_of_the_package_within_its_range():
    project = metadata()
    extras = project["optional-dependencies"]
    declared = [Requirement(r) for r in project["dependencies"] + extras["test"] + extras["cluster"]]
    pinned = pins()
    assert {r.name.lower() for r in declared} == set(pinned)
    for requirement in declared:
        assert requirement.specifier.contains(pinned[requirement.name.lower()]), requirement


def test_the_requested_packages_are_all_pinned():
    assert set(REQUESTED) <= set(pins())


def test_conda_environment_installs_the_same_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert pip == ["-r requirements.txt"]
    python = next(d for d in environment["dependencies"] if str(d).startswith("python"))
    assert python == f"python{metadata()['requires-python']}"


def test_installed_versions_are_the_pinned_ones():
    for name, pin in pins().items():
        assert re.sub(r"\+.*", "", version(name)) == pin, name


def best_of(command: list[str], tries: int = 3) -> float:
    seconds = []
    for _ in range(tries):
        start = time.perf_counter()
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def test_importing_the_library_and_listing_load_neither_torch_nor_pandas():
    code = "import sys, lassi_lib, lassi_lib.study.batch as b; b.main(['--list']); "
    code += "sys.exit(' '.join({'torch', 'pandas', 'matplotlib', 'papermill'} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("command", "limit"), [(["-c", "import lassi_lib"], 0.5), (["run_all.py", "--list"], 1.0)]
)
def test_start_up_is_fast(command, limit):
    # wall time beyond a bare interpreter's, best of three: a start-up promise, not a benchmark
    assert best_of(command) - best_of(["-c", "pass"]) < limit


def committed(path: str) -> str:
    """A file as it was committed: a run of one's own may have rewritten results/."""
    command = ["git", "show", f"HEAD:{path}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout


@pytest.mark.parametrize(
    ("page", "tables"),
    [("README.md", 1), ("docs/findings.md", 8), ("benchmarks/README.md", 2), ("docs/scaling.md", 2)],
)
def test_tables_in_a_page_are_those_of_the_results(page, tables):
    text = (ROOT / page).read_text()
    blocks = re.findall(r"<!-- table: (\S+) -->\n(.*?)<!-- end -->", text, re.S)
    assert len(blocks) == tables  # one that an edit took along would not be missed otherwise
    for path, block in blocks:
        if block.strip() != (ROOT / path).read_text().strip():
            assert block.strip() == committed(path).strip(), path


def test_the_readme_counts_what_the_audit_counted():
    path, page = "results/celeba20k/verdicts/10_audit.json", (ROOT / "README.md").read_text()
    if json.loads((ROOT / path).read_text())["text"].removeprefix("Of") not in page:
        assert json.loads(committed(path))["text"].removeprefix("Of") in page


def test_the_readme_and_ci_run_the_same_test_command():
    assert "make test" in (ROOT / "README.md").read_text()
    script = (ROOT / ".ci" / "run").read_text().splitlines()
    commands = [line for line in script if not line.startswith(("#", "set ", "cd "))]
    assert commands == ["make test"]


@pytest.fixture
def make_browser(tmp_path):
    """Return a function that runs `make browser` where only the named programs exist: (calls, what it says)."""
    make = shutil.which("make") or pytest.skip("make is not installed")
    calls = tmp_path / "calls"

    def run(**programs):
        for name, body in programs.items():
            (tmp_path / name.replace("_", "-")).write_text(
                f'#!/bin/sh\necho "${{0##*/}} $*" >> {calls}\n{body}\n'
            )
            (tmp_path / name.replace("_", "-")).chmod(0o755)
        command = [make, "--silent", "-f", ROOT / "Makefile", "browser"]
        done = subprocess.run(command, env={"PATH": str(tmp_path)}, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0
        return calls.read_text().splitlines() if calls.exists() else [], done.stderr.splitlines()

    return run


@pytest.mark.parametrize("name", NAMES)
def test_a_browser_that_the_tests_find_is_left_alone(make_browser, name):
    assert make_browser(**{name: "", "id": "echo 0", "apt_get": ""}) == ([], [])


def test_only_root_installs_a_browser_and_nobody_is_asked_for_a_password(make_browser):
    user = make_browser(id="echo 1000", apt_get="", sudo="")
    assert user[0] == ["id -u"]
    assert len(user[1]) == 1 and "will be skipped" in user[1][0] and "apt-get install chromium" in user[1][0]


@pytest.mark.parametrize(("result", "said"), [(0, 0), (100, 1)])
def test_root_installs_a_browser_and_hears_if_it_cannot_be_had(make_browser, result, said):
    installing = f'test "$1" = update || exit {result}'
    calls, lines = make_browser(id="echo 0", apt_get=installing, sudo="")
    assert [" ".join(c.split()[:2]) for c in calls] == ["id -u", "apt-get update", "apt-get install"]
    assert calls[-1].endswith(" chromium") and len(lines) == said


def test_root_without_apt_get_hears_of_it(make_browser):
    calls, lines = make_browser(id="echo 0")
    assert calls == ["id -u"] and len(lines) == 1
