"""The batch run as a user meets it: the smoke profile end to end, mistakes, two identical runs."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from lassi_lib.study import batch, params
from lassi_lib.study.notebooks import artefacts_of
from tests.study.sources import check_source, unframed_figures

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "notebooks").glob("*.ipynb"))


def run(*arguments, cwd=ROOT, **environment):
    command = [sys.executable, str(ROOT / "run_all.py"), *map(str, arguments)]
    env = os.environ | {"LASSI_QUIET": "1"} | {k: str(v) for k, v in environment.items()}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_smoke_profile_leaves_everything_a_reader_opens(smoke):
    output, _, done = smoke
    assert "index.html" in done.stdout
    info = json.loads((output / "run.json").read_text())
    for source in SOURCES:
        entry = info["notebooks"][source.stem]
        assert entry["status"] == "ok"
        assert entry["verdict"]
        for name in (*artefacts_of(source), f"{source.stem}.html"):
            assert (output / name).stat().st_size > 0
    assert info["pipeline"]["data"]["name"] == "synthfaces"
    assert {"torch", "python"} <= info["notebooks"][SOURCES[0].stem]["versions"].keys()


def test_no_file_of_the_results_names_a_folder_of_this_machine(smoke):
    output, cache, _ = smoke
    for name, content in contents(output).items():
        for folder in (str(ROOT), str(cache), str(Path.home()) + "/", str(output)):
            assert folder.encode() not in content, f"{name} names {folder}"


def test_a_talkative_run_names_every_stage_with_its_seconds(smoke):
    lines = smoke[2].stdout.splitlines()
    assert any(re.fullmatch(r"  encoder +\d+ stages, +\d+ to compute, .*", line) for line in lines)
    said = [line for line in lines if re.fullmatch(r"  \w+ .*: \d+\.\d s", line)]
    for what in (
        "latents train",
        "encoder Smiling/Pale_Skin LASSI seed 42",
        "certificates Smiling/Pale_Skin",
    ):
        assert any(line.startswith(f"  {what}") for line in said), what


def test_tables_have_the_same_columns_as_the_committed_demo(smoke):
    output, _, _ = smoke
    committed = sorted((ROOT / "results" / "demo" / "tables").glob("*.csv"))
    assert committed
    for path in committed:
        ours = pd.read_csv(output / "tables" / path.name).columns
        assert list(ours) == list(pd.read_csv(path).columns), path.name


def test_numbers_of_a_page_are_those_of_its_table(smoke):
    output, _, _ = smoke
    shown = pd.read_csv(output / "tables" / "01_claim1.csv")
    page = re.sub(r"\s+", " ", (output / "01_claim1_certified_fairness.html").read_text())
    for row in shown.itertuples():
        cell = f"{row.accuracy:.1f} [{row.accuracy_low:.1f}, {row.accuracy_high:.1f}]"
        assert cell in page


def test_rates_of_the_table_follow_from_the_raw_rows(smoke):
    output, _, _ = smoke
    rows = pd.read_csv(output / "certificates" / "01_claim1.csv.gz")
    table = pd.read_csv(output / "tables" / "01_claim1.csv")
    keys = ["task", "sensitive", "method"]
    rates = (
        rows.assign(
            accuracy=100.0 * (rows["prediction"] == rows["label"]),
            certified_fairness=100.0 * (rows["status"] == "CERTIFIED"),
        )
        .groupby(keys)[["accuracy", "certified_fairness"]]
        .mean()
    )
    merged = table.set_index(keys)[["accuracy", "certified_fairness"]]
    pd.testing.assert_frame_equal(rates.sort_index(), merged.sort_index())
    certified = rows[rows["status"] == "CERTIFIED"]
    assert (certified["d_cs"] < certified["d_rs"]).all()


def test_a_second_run_from_an_empty_cache_gives_identical_tables(smoke, tmp_path):
    output, _, _ = smoke
    done = run("--profile", "smoke", "--only", "01", "--output", tmp_path / "out", "--device", "cpu",
               LASSI_CACHE=tmp_path / "cache")  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in ("01_claim1", "01_verdict", "01_comparison", "01_published"):
        for ending in ("csv", "md", "tex"):
            path = f"tables/{name}.{ending}"
            assert (tmp_path / "out" / path).read_bytes() == (output / path).read_bytes(), path
    rows = "certificates/01_claim1.csv.gz"
    assert (tmp_path / "out" / rows).read_bytes() == (output / rows).read_bytes()


def test_a_dry_run_prints_the_plan_and_touches_nothing(smoke, tmp_path):
    _, cache, _ = smoke
    before = sorted(cache.rglob("*"))
    done = run("--profile", "smoke", "--dry-run", "--skip", "05,08", "--force", "classifier", "--cache", cache,
               "--output", tmp_path / "out", "--device", "cpu")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"01_claim1_certified_fairness +\d+ experiments, +(\d+) of +\1 stages kept", done.stdout)
    assert re.search(r"encoder +\d+ stages, +0 to compute", done.stdout)
    assert re.search(r"certificates empirical +(\d+) stages, +\1 to compute, about", done.stdout)
    assert sorted(cache.rglob("*")) == before
    assert not (tmp_path / "out").exists()


def test_only_keeps_the_other_notebooks_results(smoke, tmp_path):
    output, cache, _ = smoke
    copy = tmp_path / "out"
    shutil.copytree(output, copy)
    done = run("--profile", "smoke", "--only", "0", "--output", copy, "--device", "cpu", LASSI_CACHE=cache)
    assert done.returncode == 0, done.stderr
    assert set(json.loads((copy / "run.json").read_text())["notebooks"]) == {s.stem for s in SOURCES}
    assert (copy / "tables/01_claim1.csv").read_bytes() == (output / "tables/01_claim1.csv").read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


# ---- sources -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_sources_are_clean_and_use_only_what_the_library_offers(path):
    check_source(path)
    assert not unframed_figures(path), "a figure without an introduction or a conclusion"
    code = "\n".join(
        "".join(c["source"]) for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"
    )
    assert "def " not in code
    imports = set(re.findall(r"^(?:import|from) (\S+)", code, re.M))
    assert imports <= {"lassi_lib", "numpy"}
    import lassi_lib

    for name in set(re.findall(r"\bll\.(\w+)", code)):
        assert hasattr(lassi_lib, name), name


def test_list_prints_profiles_notebooks_and_minutes(capsys):
    assert batch.main(["--list"]) == 0
    text = capsys.readouterr().out
    for profile in params.profiles():
        assert f"{profile}:" in text
    for source in SOURCES:
        assert source.stem in text
    assert "about" in text
    stated = params.load_pipeline("demo").minutes.values()
    assert f"about {sum(stated):.0f} min from an empty cache, with --workers 4" in text


@pytest.mark.parametrize("read", [0, 20])
def test_a_reader_who_has_read_enough_is_no_error(read):
    command = [sys.executable, str(ROOT / "run_all.py"), "--list"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as listing:
        assert len(listing.stdout.read(read)) == read
        listing.stdout.close()
        said = listing.stderr.read()
    assert (said, listing.returncode) == (b"", 1)
