"""What a run leaves: it says what made it, a failure is shown as one, and nothing older stands beside it."""

import argparse
import json
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup

from lassi_lib.study import batch, notebooks, params, record
from lassi_lib.study.notebooks import NotebookOutcome, execute
from lassi_lib.study.record import (
    code_state,
    made_by,
    made_line,
    remove_leftovers,
    run_record,
    write_again,
    write_pages,
)  # fmt: skip
from lassi_lib.study.render import page
from tests.study.reading import complaints, complaints_of_text

ROOT = Path(__file__).parents[2]
GOOD, BAD = "01_good", "02_bad"
FACTS = {"dataset": "made up", "image_size": 8, "note": "", "images": {"test": 3}, "glow": "K = 1", "bits_per_dim": 1.0,
         "device": "a processor"}  # fmt: skip
GIVEN = {"accuracy": 81.0, "fail": False, "device": "cpu", "interactive": True}


def save(folder, name, accuracy):
    """Write what a notebook of the tiny profile leaves."""
    for kind in ("tables", "verdicts"):
        (folder / kind).mkdir(exist_ok=True)
    (folder / f"tables/{name}_a.csv").write_text(f"task,accuracy\nSmiling,{accuracy}\n")
    said = {"outcome": "supported", "text": f"{accuracy} %", "picture": "", "alt": ""}
    (folder / f"verdicts/{name}.json").write_text(json.dumps(said))


def stand_in(source, output, given, **_):
    """Execute in no time: what is tested here is what surrounds a notebook."""
    save(output.parent, source.stem, given["accuracy"])
    shutil.copy(source, output)
    return NotebookOutcome(True, 6.0, "", output, ("certificates/1",))


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A profile of two notebooks, one of which can be made to fail; returns a function that runs some."""
    sources, folder = tmp_path / "notebooks", tmp_path / "params" / "tiny"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "params" / "smoke" / "pipeline.yaml", folder)
    sources.mkdir()
    cell = "\n".join(f"{k}: {type(v).__name__} = {v!r}" for k, v in GIVEN.items())
    v4 = nbformat.v4
    for name in (GOOD, BAD):
        code = (
            "import os, pathlib\nfrom tests.study.test_record import save\n"
            f"save(pathlib.Path(os.environ['LASSI_OUTPUT']), '{name}', accuracy)"
        )
        cells = [
            v4.new_markdown_cell(f"# Is {name} right?"),
            v4.new_code_cell(cell, metadata={"tags": ["parameters"]}),
            v4.new_code_cell(code),
            v4.new_code_cell("assert not fail, 'as asked for'"),
        ]
        files = [f"tables/{name}_a.csv", f"verdicts/{name}.json"]
        book = v4.new_notebook(cells=cells, metadata={"lassi": {"artefacts": files}})
        nbformat.write(book, sources / f"{name}.ipynb")
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(GIVEN))
    for module in (params, record, batch):
        monkeypatch.setattr(module, "NOTEBOOKS", sources)
    monkeypatch.setattr(params, "PARAMS", tmp_path / "params")
    output = tmp_path / "out"
    fake = SimpleNamespace(cache=SimpleNamespace(root=tmp_path / "cache"))

    def run(*names, commit="abc", really=False, fails="", **given):
        monkeypatch.setattr(record, "code_state", lambda: (commit, []))
        monkeypatch.setattr(notebooks, "execute", execute if really else stand_in)
        args = argparse.Namespace(workers=2, fail_fast=False, device="cpu", profile="tiny")
        chosen = {name: GIVEN | given | {"fail": name == fails} for name in names}
        with batch.drafted(output) as draft:
            remove_leftovers(draft, "tiny")
            runs = batch._execute({name: [] for name in names}, chosen, args, fake, draft)
            made = made_by(
                datetime.now(UTC), "a processor", {"content": "made up, version 1", "parameters": {}}
            )
            info = run_record("tiny", FACTS, {}, chosen, made, runs, output)
            write_pages(runs, info, draft, output)
        return BeautifulSoup((output / "index.html").read_text(), "html.parser")

    run.output, run.logs, run.params = output, tmp_path / "cache" / "logs" / "tiny", folder
    return run


def entry_of(page, name):
    return page.select_one(f"#n{name}")


def test_a_failure_is_shown_with_its_error_and_the_others_go_on(study, capsys):
    """Both kernels are real: one writes its files and fails, the other goes on beside it."""
    study(BAD)
    page = study(BAD, GOOD, really=True, fails=BAD)
    run = json.loads((study.output / "run.json").read_text())
    assert {n: e["status"] for n, e in run["notebooks"].items()} == {GOOD: "ok", BAD: "failed"}
    left = {str(p.relative_to(study.output)) for p in study.output.rglob("*") if p.is_file()}
    assert left == {"index.html", "run.json", "previous.json", "01_good.html", "01_good.ipynb", "02_bad.failed.html",
                    "02_bad.failed.ipynb", "tables/01_good_a.csv", "verdicts/01_good.json"}  # fmt: skip
    assert entry_of(page, GOOD).select_one("b.good").text == "ok"
    shown = entry_of(page, BAD)
    assert shown.select_one("b.bad").text == "failed" and shown["class"] == ["failed"]
    assert "AssertionError: as asked for" in shown.text and not shown.find("details").find("table")
    assert "supported 81.0 %" in shown.details.text  # what the run before said
    assert [c for p in study.output.glob("*.html") for c in complaints(p)] == []

    said, log = capsys.readouterr().out, study.logs / f"{BAD}.log"
    assert "FAILED notebook 02_bad: code cell 4" in said and str(log) in said
    assert "AssertionError" in log.read_text()
    assert entry_of(study(BAD), BAD).select_one("b.good")
    assert not list(study.output.glob("*failed*"))


def test_what_made_a_page_stands_in_it_and_in_run_json(study):
    study(GOOD)
    entry = json.loads((study.output / "run.json").read_text())["notebooks"][GOOD]
    assert entry["commit"] == "abc" and entry["changed"] == [] and entry["device"] == "a processor"
    assert entry["parameters"] == GIVEN and entry["data"]["content"] == "made up, version 1"
    assert entry["versions"]["torch"] and entry["minutes"] > 0 and entry["stages"]["read"] == 1
    foot = BeautifulSoup((study.output / f"{GOOD}.html").read_text(), "html.parser").footer.text
    for words in (
        "commit abc",
        "made up, version 1",
        "torch 2",
        "a processor",
        "minutes",
        entry["started"][:10],
    ):
        assert words in foot
    assert made_line(entry) in foot
    assert "3 files" in made_line(entry | {"changed": ["a", "b", "c"], "commit": "abc + changes"})
    assert made_line(entry) != made_line(entry | {"parameters": {"accuracy": 80.0}})
    assert "not recorded" in made_line({"minutes": 1.0})  # an older run's


def test_other_numbers_stand_beside_those_before_until_others_replace_them(study):
    study(GOOD, BAD)
    assert json.loads((study.output / "previous.json").read_text()) == {}
    page = study(GOOD, commit="def", accuracy=82.5)
    fold = next(d for d in entry_of(page, GOOD).find_all("details") if "Differs" in d.text)
    assert "Commit abc" in fold.text and "81.0 %" in fold.text
    assert [c.text for c in fold.tbody.find_all(["th", "td"])] == [
        "01_good_a",
        "Smiling",
        "accuracy",
        "81",
        "82.5",
    ]
    page = study(BAD, commit="def")
    assert "Differs" in entry_of(page, GOOD).text and "Differs" not in entry_of(page, BAD).text
    again = entry_of(study(GOOD, commit="ghi", accuracy=82.5), GOOD).text
    assert "Commit abc" in again and "Commit def" not in again  # a page that is only rendered anew
    other = entry_of(study(GOOD, commit="jkl", accuracy=83.0), GOOD).text
    assert "Commit ghi" in other and "82.5 %" in other and "Commit abc" not in other


def test_results_name_their_commit_and_with_other_parameters_are_stale(study):
    study(GOOD, BAD)
    page = study(BAD, commit="def")
    assert "at commit abc" in entry_of(page, GOOD).text and "stale" not in entry_of(page, GOOD).text
    assert "stale" not in entry_of(page, BAD).text
    page = study(GOOD, commit="def", accuracy=80.0)  # not what params/ say
    assert "stale: its parameters have changed" in entry_of(page, GOOD).text


def test_a_kept_notebook_is_judged_by_the_settings_that_made_it(study):
    study(GOOD, BAD)
    path = study.params / "pipeline.yaml"
    path.write_text(re.sub(r"(?m)^(\s+epochs: )\d+", r"\g<1>7", path.read_text(), count=1))
    page = study(BAD)
    assert "the profile's settings have changed" in entry_of(page, GOOD).text
    assert "stale" not in entry_of(page, BAD).text


def test_a_notebook_that_the_profile_has_no_longer_leaves_nothing(study):
    study(GOOD, BAD)
    (study.params / f"{BAD}.yaml").unlink()
    page = study(GOOD)
    assert entry_of(page, BAD) is None
    assert not list(study.output.rglob("02_*"))
    assert list(json.loads((study.output / "run.json").read_text())["notebooks"]) == [GOOD]


def test_the_commit_names_the_files_that_differ_from_it():
    commit, changed = code_state()
    assert re.fullmatch(r"[0-9a-f]{12}", commit) or commit == "unknown (no git)"
    assert all((ROOT / name.split(" -> ")[-1]).exists() or "/" in name for name in changed)


def test_committed_results_can_be_rendered_anew_and_read(tmp_path):
    """From the notebooks as they were executed: offline, small, with texts, captions, and no formula in TeX."""
    results = tmp_path / "results"
    shutil.copytree(ROOT / "results", results)
    for path in results.rglob("*.html"):
        path.write_text("old") if path.parent != results else None
    write_again(results)
    pages = sorted(p for p in results.rglob("*.html"))
    assert len(pages) > 10
    assert not [p for p in pages if p.read_text() == "old"]
    assert [c for p in pages if p.parent != results for c in complaints(p)] == []


def test_pages_are_rendered_with_the_present_prose_of_the_same_code(study):
    study(GOOD)
    page, executed, source = (
        study.output / f"{GOOD}.html",
        study.output / f"{GOOD}.ipynb",
        record.NOTEBOOKS / f"{GOOD}.ipynb",
    )
    ran = nbformat.read(executed, as_version=4)
    ran.cells.insert(2, nbformat.v4.new_code_cell("accuracy = 9", metadata={"tags": ["injected-parameters"]}))
    ran.cells[-1].outputs = [nbformat.v4.new_output("stream", text="what it printed")]
    nbformat.write(ran, executed)
    write_again(study.output.parent)
    assert "mended after the run" not in page.read_text()  # nothing to mend

    now = nbformat.read(source, as_version=4)
    now.cells.insert(1, nbformat.v4.new_markdown_cell("A sentence that was added."))
    nbformat.write(now, source)
    write_again(study.output.parent)
    text = page.read_text()
    assert (
        "A sentence that was added." in text
        and "what it printed" in text
        and "accuracy = 9" in executed.read_text()
    )
    assert "prose was mended after the run" in text
    kinds = [(c.cell_type, c.source) for c in nbformat.read(executed, as_version=4).cells]
    assert [k for k in kinds if k[1] != "accuracy = 9"] == [(c.cell_type, c.source) for c in now.cells]
    write_again(study.output.parent)
    assert page.read_text() == text

    now.cells[-1].source += "\n1"  # other code: the old text speaks of the old code
    now.cells[1].source = "Another sentence."
    nbformat.write(now, source)
    write_again(study.output.parent)
    assert "Another sentence." not in page.read_text() and "was added." in page.read_text()


def test_every_kind_of_complaint_is_made():
    def of(body):
        return complaints_of_text(page("t", f"<h1>t</h1>{body}"))

    assert of("") == []
    for body, words in [
        ("<script>1</script>", "script"), ('<img src="//x/y.png" alt="a">', "loads"), ('<img src="y.png">', "without text"),
        ('<p onclick="x">', "onclick"), ("<h3>x</h3>", "skip"), ("<h1>x</h1>", "2 <h1>"), ('<a href="#x">a</a>', "nowhere"),
        ('<a href="y.html"></a>', "without words"), ("<table></table>", "caption"), ("<p>$x^2$</p>", "TeX"),
        ('<b id="a"></b><b id="a"></b>', "twice"),
    ]:  # fmt: skip
        assert any(words in line for line in of(body)), body
