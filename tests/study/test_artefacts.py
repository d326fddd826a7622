"""Each kind of damage to a result is named; the committed results have none."""

import gzip
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from lassi_lib.study.artefacts import fault_of, files_of

RESULTS = Path(__file__).parents[2] / "results"
SVG = '<svg xmlns="http://www.w3.org/2000/svg"><g/></svg>'
VERDICT = {"outcome": "supported", "text": "It holds.", "picture": "figures/a.png", "alt": "Bars"}


@pytest.fixture
def folder(tmp_path):
    for name in ("tables", "figures", "certificates", "verdicts"):
        (tmp_path / name).mkdir()
    Image.effect_noise((60, 60), 50).save(tmp_path / "figures" / "a.png")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("tables/a.csv", "task,accuracy,n_seeds\nSmiling,81.5,2\n", ""),
        ("tables/a.csv", "", "missing or empty"),
        ("tables/a.csv", "task,accuracy\n", "no rows"),
        ("tables/a.csv", "a,b\n1,2\n1,2,3\n", "cannot be read"),
        ("tables/a.csv", "task,accuracy\nSmiling,\n", "accuracy that is missing or outside 0 to 100"),
        ("tables/a.csv", "task,accuracy\nSmiling,nan\n", "accuracy that is missing"),
        ("tables/a.csv", "task,accuracy\nSmiling,100.1\n", "outside 0 to 100"),
        ("tables/a.csv", "task,certified_fairness\nSmiling,high\n", "certified_fairness"),
        ("tables/a.csv", "task,n_points\nSmiling,0\n", "n_points"),
        ("tables/a_verdict.csv", "task,outcome\nSmiling,supported\n", ""),
        ("tables/a_verdict.csv", "task,outcome\nSmiling,nothing certified\nBald,supported\n", ""),
        ("tables/a_verdict.csv", "task\nSmiling\n", "without a column outcome"),
        ("tables/a_verdict.csv", "task,outcome\nSmiling,\n", "outcome 'nan'"),
        ("tables/a_verdict.csv", "task,outcome\nSmiling,perhaps\n", "'perhaps'"),
        ("certificates/a.csv.gz", "index,status\n0,CERTIFIED\n", ""),
        ("certificates/a.csv.gz", "index,status\n0,-1\n", "status '-1'"),
        ("figures/a.svg", SVG, ""),
        ("figures/a.svg", SVG[:-3], "cannot be read"),
        ("figures/a.svg", "<p/>", "no SVG"),
        ("notes.json", '{"a": 1}', ""),
        ("notes.json", '{"a": 1', "cannot be read"),
        ("page.html", "<!DOCTYPE html><html></html>\n", ""),
        ("page.html", "<!DOCTYPE html><html><body>", "ends before"),
        ("verdicts/a.json", json.dumps(VERDICT), ""),
        ("verdicts/a.json", json.dumps(VERDICT | {"outcome": "true"}), "is no verdict"),
        ("verdicts/a.json", json.dumps(VERDICT | {"text": ""}), "is no verdict"),
        ("verdicts/a.json", "[]", "is no verdict"),
        ("verdicts/a.json", json.dumps(VERDICT | {"alt": ""}), "without a text"),
        ("verdicts/a.json", json.dumps(VERDICT | {"picture": "figures/b.png"}), "not there: figures/b.png"),
    ],
)  # fmt: skip
def test_a_fault_is_named_and_only_a_fault(folder, name, content, fault):
    data = gzip.compress(content.encode()) if name.endswith(".gz") else content.encode()
    (folder / name).write_bytes(data)
    found = fault_of(folder / name)
    assert fault in found if fault else found == ""


def test_a_picture_must_decode_to_its_end(folder):
    path = folder / "figures" / "a.png"
    assert fault_of(path) == ""
    path.write_bytes(path.read_bytes()[:-500])
    assert "cannot be read" in fault_of(path)


def test_every_committed_result_is_whole():
    files = [p for p in RESULTS.rglob("*") if p.is_file() and p.suffix not in (".gz", ".ipynb")]
    assert len(files) > 100
    assert [(p.name, fault_of(p)) for p in files if fault_of(p)] == []


def test_files_of_a_notebook_are_its_pages_and_all_that_bears_its_number(folder):
    mine = ["01_x.html", "01_x.failed.ipynb", "tables/01_a.csv", "tables/01_a.md", "figures/01_b.svg",
            "verdicts/01_x.json", "elsewhere.csv"]  # fmt: skip
    for name in [*mine, "tables/011_a.csv", "10_x.html", "figures/10_b.svg", "index.html"]:
        (folder / name).write_text("x")
    found = files_of(folder, "01_x", ["elsewhere.csv", "tables/01_a.csv", "tables/gone.csv"])
    assert sorted(str(p.relative_to(folder)) for p in found) == sorted(mine)


def test_every_committed_file_belongs_to_one_notebook(tmp_path):
    """So that a run can remove what a notebook left before, and nothing of another's."""
    for profile in RESULTS.glob("*/run.json"):
        copy = shutil.copytree(profile.parent, tmp_path / profile.parent.name)
        for name in json.loads(profile.read_text())["notebooks"]:
            for path in files_of(copy, name):
                path.unlink()
        left = {p.name for p in copy.rglob("*") if p.is_file()}
        assert left <= {"index.html", "run.json", "previous.json"}, left
