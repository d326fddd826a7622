"""A failed experiment costs the notebooks that need it, and no others."""

import json

import pytest

from lassi_lib.errors import StudyError
from lassi_lib.study import batch, engine

CLAIM, AUDIT = "01_claim1_certified_fairness", "10_audit"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run claim 1 and the audit on the smoke profile where no LASSI encoder can be trained."""
    for name in ("LASSI_CACHE", "LASSI_DATA_ROOT", "LASSI_OUTPUT"):
        monkeypatch.setenv(name, "")
    real = engine.compute

    def compute(study, step):
        if step.verb == "encoder":
            raise RuntimeError("the loss is not a number") if "LASSI" in str(step) else StudyError("too few")
        return real(study, step)

    monkeypatch.setattr(engine, "compute", compute)

    def run(*options):
        paths = ["--cache", str(tmp_path / "cache"), "--output", str(tmp_path / "out")]
        arguments = [
            "--profile",
            "smoke",
            "--device",
            "cpu",
            "--only",
            "01,10",
            "--seeds",
            "42",
            "--workers",
            "1",
        ]
        code = batch.main([*arguments, *paths, *options])
        return (
            code,
            json.loads((tmp_path / "out" / "run.json").read_text())["notebooks"],
            capsys.readouterr().out,
        )

    run.folder = tmp_path
    return run


def test_the_other_notebooks_go_on_and_the_exit_code_is_1(run):
    code, entries, said = run()
    assert code == 1
    assert {name: e["status"] for name, e in entries.items()} == {CLAIM: "failed", AUDIT: "ok"}
    assert "encoder" in entries[CLAIM]["error"] and "more)" in entries[CLAIM]["error"]
    assert entries[CLAIM]["minutes"] == 0 and entries[CLAIM]["stages"]["read"] == 0
    assert "RuntimeError: the loss is not a number" in said and ": too few" in said
    page = (run.folder / "out" / f"{CLAIM}.failed.html").read_text()
    assert entries[CLAIM]["error"].partition(" (and")[0] in page.replace("&#x27;", "'")
    log = (run.folder / "cache" / "logs" / "smoke" / "experiments.log").read_text()
    assert "Traceback" in log and "the loss is not a number" in log


def test_fail_fast_stops_at_the_first_and_runs_no_notebook(run):
    code, entries, said = run("--fail-fast")
    assert code == 1
    assert {name: e["status"] for name, e in entries.items()} == {CLAIM: "failed"}
    assert said.count("FAILED") == 1
