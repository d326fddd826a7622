"""The command line: variables stand for options, mistakes are quoted as they were made, and how it starts."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lassi_lib.study import options

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["00_generative_model", "01_claim1", "02_claim2", "10_audit"]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in options.VARIABLES:
        monkeypatch.delenv(f"LASSI_{name.upper()}", raising=False)


@pytest.mark.parametrize("words", [["01,07"], ["01", "07"], ["01,", "07"]])
def test_notebooks_and_seeds_stand_with_commas_or_spaces(words):
    args = options.parse(["--only", *words, "-v", "--seeds", "42", "0"])
    assert options.chosen(["00_a", "01_b", "07_c"], args.only, "") == ["01_b", "07_c"]
    assert args.seeds == [42, 0] and args.verbose


def test_without_options_and_variables_the_defaults_hold():
    args = options.parse([])
    assert (args.profile, args.device, args.workers, args.seeds) == ("demo", "auto", 1, [])
    assert (args.only, args.skip, args.data_root, args.scheduler) == (None, "", "", "")
    assert not (args.fail_fast or args.keep_going or args.verbose or args.dry_run or args.list)
    assert options.output_folder(args) == ROOT / "results" / "demo"
    assert options.cache_folder(args, ROOT / "results" / "demo") == ROOT / ".cache"


def test_a_variable_stands_for_an_option_and_the_option_wins(monkeypatch, tmp_path):
    given = {
        "output": tmp_path / "a",
        "cache": tmp_path / "b",
        "data_root": "c",
        "device": "cpu",
        "workers": 2,
    }
    for name, value in given.items():
        monkeypatch.setenv(f"LASSI_{name.upper()}", str(value))
    args = options.parse([])
    assert (args.data_root, args.device, args.workers) == ("c", "cpu", 2)
    assert options.output_folder(args) == tmp_path / "a"
    assert options.cache_folder(args, tmp_path / "a") == tmp_path / "b"
    args = options.parse(["--output", str(tmp_path / "d"), "--workers", "3", "--device", "auto"])
    assert (args.device, args.workers, options.output_folder(args)) == ("auto", 3, tmp_path / "d")
    monkeypatch.setenv("LASSI_WORKERS", "")  # as good as none
    assert options.parse([]).workers == 1


def test_help_names_every_variable(capsys):
    with pytest.raises(SystemExit) as end:
        options.parse(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    for name in options.VARIABLES:
        assert f"LASSI_{name.upper()}" in text and f"--{name.replace('_', '-')}" in text


@pytest.mark.parametrize(
    ("only", "skip", "left"),
    [
        (None, "", NAMES),
        ("1", "", ["01_claim1"]),
        ("10,01", "", ["01_claim1", "10_audit"]),
        ("02_claim2", "", ["02_claim2"]),
        ("0", "", NAMES[:1]),
        (None, "00,10_", ["01_claim1", "02_claim2"]),
        ("01,02", "2", ["01_claim1"]),
    ],
)
def test_only_and_skip(only, skip, left):
    assert options.chosen(NAMES, only, skip) == left


@pytest.mark.parametrize(
    "address", ["tcp://10.0.0.1:8786", "tls://node-3.cluster:8786", "tcp://[fe80::1]:8786", "ws://host"]
)
def test_addresses_of_schedulers(address):
    assert options.parse(["--scheduler", address]).scheduler == address


def test_a_folder_below_the_root_that_is_not_the_studys_own_may_hold_results(monkeypatch):
    args = options.parse(["--output", str(ROOT / "mine" / "run")])
    assert options.output_folder(args) == ROOT / "mine" / "run"
    args = options.parse(["--output", str(ROOT / "results" / "mine")])
    assert options.output_folder(args) == ROOT / "results" / "mine"


def test_missing_packages_are_all_named(monkeypatch, capsys):
    options.require_packages()

    def version(name):
        if name in ("tqdm", "torch"):
            raise options.PackageNotFoundError(name)

    monkeypatch.setattr(options, "version", version)
    with pytest.raises(SystemExit) as end:
        options.require_packages()
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error == "error: torch, tqdm are not installed: pip install -r requirements.txt\n"


# ---- run_all.py where it cannot run -------------------------------------------------------------------


def run(*command):
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run([sys.executable, *command], cwd=ROOT, env=env, capture_output=True, text=True)


@pytest.mark.parametrize("arguments", [[], ["--list"], ["--profile", "smoke", "--only", "01"]])
def test_an_interpreter_without_the_requirements_is_one_line(arguments):
    done = run("-S", "run_all.py", *arguments)  # -S: without the installed packages
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: torch, ") and "tqdm" in line
    assert line.endswith("are not installed: pip install -r requirements.txt")


def test_an_old_python_is_one_line():
    code = (
        "import runpy, sys; sys.version_info = (3, 10, 4); runpy.run_path('run_all.py', run_name='__main__')"
    )
    done = run("-c", code)
    assert done.returncode == 2
    assert done.stderr == "error: the study needs Python 3.11 or newer, this is 3.10\n"


def test_an_old_python_can_read_what_tells_it_so():
    source = (ROOT / "run_all.py").read_text()
    assert source.index("sys.version_info") < source.index("lassi_lib.study")
    ast.parse(source, feature_version=(3, 4))
    assert not any(isinstance(node, ast.JoinedStr | ast.AnnAssign) for node in ast.walk(ast.parse(source)))
