"""What the study's code never does, whatever a file from outside says; see test_bad_input for the files."""

import ast
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Pickles run code when they are loaded; an archive can write outside its folder. None is ever opened.
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
MODULES |= {"zipfile", "tarfile", "zipimport"}
CALLS = {"eval", "exec", "compile", "__import__", "input"}
METHODS = {
    "os.system",
    "os.popen",
    "shutil.unpack_archive",
    "yaml.unsafe_load",
    "yaml.full_load",
    "yaml.load_all",
}
METHODS |= {"torch.hub.load"}
ENDINGS = {"read_pickle", "to_pickle", "unpack_archive", "extractall"}


def faults(source: str) -> list[str]:
    """Return what a piece of code does that none of ours may do, with line numbers."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        found += [f"{node.lineno}: imports {n}" for n in names if n.split(".")[0] in MODULES]
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        given = {k.arg: ast.unparse(k.value) for k in node.keywords}
        wrong = called in CALLS or called in METHODS or called.split(".")[-1] in ENDINGS
        wrong |= called == "torch.load" and given.get("weights_only") != "True"
        wrong |= given.get("allow_pickle", "False") != "False"
        wrong |= given.get("shell", "False") != "False"
        wrong |= called == "yaml.load" and "Loader" not in [ast.unparse(a) for a in node.args[1:]]
        if wrong:
            found.append(f"{node.lineno}: calls {ast.unparse(node)[:80]}")
    return found


def sources():
    for folder in ("lassi_lib", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield pytest.param(path.read_text(), id=str(path.relative_to(ROOT)))
    yield pytest.param((ROOT / "run_all.py").read_text(), id="run_all.py")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
        yield pytest.param("\n".join("".join(c["source"]) for c in cells), id=f"notebooks/{path.name}")


@pytest.mark.parametrize("source", list(sources()))
def test_no_code_loads_pickles_opens_archives_or_runs_texts(source):
    assert faults(source) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "import os, joblib.memory",
        "import zipfile",
        "from tarfile import open",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "np.load(path, allow_pickle=True)",
        "pd.read_pickle(path)",
        "frame.to_pickle(path)",
        "shutil.unpack_archive(path)",
        "archive.extractall()",
        "yaml.load(text)",
        "yaml.load(text, yaml.FullLoader)",
        "yaml.unsafe_load(text)",
        "eval(text)",
        "exec(text)",
        "os.system(text)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_each_of_them_would_be_found(line):
    assert len(faults(f"x = 1\n{line}")) == 1


def test_what_is_allowed_is_not_found():
    assert faults("torch.load(p, weights_only=True)\nnp.load(p)\nyaml.load(t, Loader)\nmodel.eval()") == []


def test_yaml_is_read_in_one_place_by_a_loader_of_plain_values():
    readers = [p for p in (ROOT / "lassi_lib").rglob("*.py") if "import yaml" in p.read_text()]
    assert [p.name for p in readers] == ["strict.py"]
    assert "class Loader(yaml.SafeLoader)" in readers[0].read_text()
