"""The worked examples of docs/architecture.md, run as they stand in a copy of the repository."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "architecture.md"
EXAMPLES = ["Add a data set", "Add a kind of attribute vector", "Add a certificate mode", "Add a notebook"]


def blocks(heading: str) -> list[tuple[str, str]]:
    """The code blocks (language, text) of one section."""
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.S | re.M)[1]
    return re.findall(r"^```(\w+)\n(.*?)^```", section, re.S | re.M)


def apply(diff: str, root: Path) -> None:
    """Replace what a diff takes away, which must stand exactly once in its file, by what it adds."""
    for name, body in re.findall(r"^--- (\S+)\n((?:(?!^--- ).*\n)*)", diff, re.M):
        lines = body.splitlines()
        old, new = ("\n".join(x[1:] for x in lines if not x.startswith(sign)) for sign in "+-")
        text = (root / name).read_text()
        assert text.count(old) == 1, f"{name}: {old!r} stands {text.count(old)} times"
        (root / name).write_text(text.replace(old, new))


def run(*command: str, cwd: Path) -> str:
    env = os.environ | {"PYTHONPATH": str(cwd), "LASSI_QUIET": "1", "LASSI_CACHE": str(cwd / "cache")}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """A copy of what the examples change and need."""
    root = tmp_path_factory.mktemp("examples") / "copy"
    kept = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    for name in ("lassi_lib", "params/smoke", "notebooks", "checkpoints"):
        shutil.copytree(ROOT / name, root / name, ignore=kept)
    for name in ("run_all.py", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
    return root


def follow(heading: str, root: Path) -> tuple[str, list[list[str]]]:
    """Do what a section says; return the Python that it runs, and the commands of its shell blocks."""
    code, commands = [], []
    for language, text in blocks(heading):
        file = re.match(r"# ((?:lassi_lib|params)/\S+)\n", text)
        if file:
            (root / file[1]).write_text(text)
        elif language == "diff":
            apply(text, root)
        elif language == "sh":
            commands += [line.split() for line in text.splitlines()]
        else:
            assert language == "python"
            code.append(text)
    assert code
    return "\n".join(code), commands


def test_every_way_to_add_something_has_an_example():
    assert re.findall(r"^## (Add .*)$", PAGE.read_text(), re.M) == EXAMPLES


def test_additions_to_the_library_work(copy):
    parts = [follow(heading, copy)[0] for heading in EXAMPLES[:3]]
    for number, part in enumerate(parts):
        (copy / f"example_{number}.py").write_text(part)
    said = run(sys.executable, "-c", "import example_0, example_1, example_2; print('done')", cwd=copy)
    assert said.strip() == "done"


def test_a_new_notebook_is_planned(copy):
    code, commands = follow(EXAMPLES[3], copy)
    run(sys.executable, "-c", code, cwd=copy)
    (command,) = commands
    said = run(sys.executable, *command[1:], "--dry-run", cwd=copy)
    assert re.search(r"certificates monte_carlo +2 stages", said), said


@pytest.mark.slow
def test_a_new_notebook_runs(copy):
    code, commands = follow(EXAMPLES[3], copy)
    run(sys.executable, "-c", code, cwd=copy)
    (command,) = commands
    run(sys.executable, *command[1:], cwd=copy)
    out = copy / command[-1]
    assert (out / "13_abstentions.html").stat().st_size > 0
    assert "abstained" in (out / "tables" / "13_abstentions.csv").read_text()


def test_a_diff_that_no_longer_fits_is_noticed(tmp_path):
    (tmp_path / "a.py").write_text("one\ntwo\n")
    apply("--- a.py\n one\n+more\n", tmp_path)
    assert (tmp_path / "a.py").read_text() == "one\nmore\ntwo\n"
    with pytest.raises(AssertionError, match="stands 0 times"):
        apply("--- a.py\n-three\n", tmp_path)
