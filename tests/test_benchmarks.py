"""The certification benchmark runs at tiny sizes and writes what it says."""

import json

import numpy as np
import pandas as pd
import pytest

from benchmarks import certification as benchmark
from benchmarks import cost, frames, rerun, scaling
from lassi_lib.certification.certify import MODES, certify
from lassi_lib.numerics import threads

SIZES = "--d 40 --hidden 24 --output 6 --n 1300 --votes 2000 --length 3 --seconds 0.05 --workers 1"
TINY = SIZES.split()


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny steps are far slower with several threads on a busy machine."""
    with threads(1):
        yield


def test_every_mode_is_timed_and_compared_with_the_textbook(tmp_path, capsys):
    out = tmp_path / "new" / "report.json"
    assert benchmark.main([*TINY, "--points", "1", "--attributes", "1", "2", "--json", str(out)]) == 0
    printed, report = capsys.readouterr().out, json.loads(out.read_text())
    rows = pd.DataFrame(report["rows"])
    rows = rows[rows["device"] == "cpu"]
    wanted = [(mode, n) for n in (1, 2) for mode, most in MODES.items() if n <= most]
    assert list(zip(rows["what"], rows["attributes"], strict=True)) == [("textbook", 1), *wanted]
    assert np.allclose(rows["ratio"], rows["s_per_point"].iloc[0] / rows["s_per_point"])
    assert (rows["s_per_point"] > 0).all()
    assert (rows["workers"] == 1).all()
    assert report["sizes"]["d"] == 40
    assert report["machine"]["torch"]
    for mode in MODES:
        assert mode in printed
    assert "x the textbook (aim 300)" in printed
    lines = out.with_suffix(".md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == [f"| {name}" for name in rows["what"]]


def test_the_textbook_certifies_what_the_library_certifies():
    """Same law: the mean ratio of the radii of 12 latents is 1, its sd about 0.005."""
    setting = benchmark.Setting(benchmark.Sizes(1, d=40, hidden=24, output=6, n=4000, votes=20_000, length=3))
    z = setting.latents(12)
    theirs = pd.DataFrame([benchmark.textbook(setting, x, "cpu", f"t{i}") for i, x in enumerate(z)])
    ours = certify(
        setting.representation, setting.classifier, setting.similarity, z, [0] * 12, setting.spec,
        seed=0, indices=range(12),
    )  # fmt: skip
    assert (ours["d_cs"] / theirs["d_cs"]).mean() == pytest.approx(1, abs=0.025)
    assert (ours["d_cs"] / theirs["d_cs"]).notna().sum() > 5
    both = ours["d_rs"].notna() & (theirs["d_rs"].notna())
    assert (ours["d_rs"] - theirs["d_rs"])[both].abs().median() < 0.3 * theirs["d_rs"][both].median()


def test_the_growth_of_cost_is_written_and_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "AXES", {k: (f, (1, 2)) for k, (f, _) in benchmark.AXES.items()})
    assert benchmark.main([*TINY, "--scaling", str(tmp_path)]) == 0
    table = pd.read_csv(tmp_path / "certification_scaling.csv")
    assert set(table["axis"]) == set(benchmark.AXES)
    assert set(table["mode"]) == set(MODES)
    one = table[table["axis"] == "samples n = n0"]
    assert sorted(one["value"].unique()) == [1300, 2600]
    assert len(one) == 2 * len(MODES)
    assert (table["s_per_point"] > 0).all()
    assert (tmp_path / "certification_scaling.png").read_bytes()[:4] == b"\x89PNG"


def test_an_interruption_keeps_what_was_measured(tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark, "time_mode", interrupted)
    out = tmp_path / "report.json"
    assert benchmark.main([*TINY, "--points", "1", "--json", str(out)]) == 130
    assert "interrupted" in capsys.readouterr().err
    rows = json.loads(out.read_text())["rows"]
    assert {row["what"] for row in rows} == {"textbook"}


def test_sizes_that_cannot_certify_are_one_line(capsys):
    with pytest.raises(SystemExit, match="2"):
        benchmark.main([*TINY, "--n", "1000", "--points", "0"])
    assert "n_center = 1000" in capsys.readouterr().err


def test_the_scaling_benchmark_compares_caches_byte_for_byte(tmp_path):
    for cache, value in (("a", "1"), ("b", "1"), ("c", "2")):
        (tmp_path / cache / "encoder" / "key").mkdir(parents=True)
        (tmp_path / cache / "encoder" / "key" / "w.bin").write_text(value)
        (tmp_path / cache / "encoder" / "key" / "stage.json").write_text(cache)  # seconds may differ
    assert scaling.differences(tmp_path / "a", tmp_path / "b") == []
    assert scaling.differences(tmp_path / "a", tmp_path / "c") == ["encoder/key/w.bin"]
    (tmp_path / "b" / "encoder" / "key" / "more.bin").touch()
    assert scaling.differences(tmp_path / "a", tmp_path / "b") == ["encoder/key/more.bin"]


def test_the_scaling_table_says_what_was_measured():
    row = {"workers": 4, "processes": 1, "stages": 52, "seconds": 1306.4, "ratio": 2.376}
    assert scaling.written([row]).splitlines()[2] == "| 4 | 1 | 52 | 1,306 | 2.38 |"


def test_costs_are_products_of_measured_figures():
    report = json.loads((cost.HERE / "certification.json").read_text())
    encode = {name: 0.25 * k for k, name in enumerate(cost.FLOWS, 1)}
    table = cost.cost_table(report, encode)
    timed = [r for r in report["rows"] if r["what"] != "textbook"]
    assert len(table) == len(cost.FLOWS) * len(timed)
    hours = table["core hours, 1e+06 faces"]
    assert np.allclose(hours, table["core s a face"] * 1e6 / 3600)
    assert np.allclose(table["of it encoding %"] / 100 * table["core s a face"], table["flow"].map(encode))
    most = cost.operations_table({"a flow": 3e9}, {("monte_carlo", 2): 1e9}).iloc[0]
    assert (most["GFLOP a face"], most["of it encoding %"]) == (4, 75)
    assert most["GPU hours, 1e+06 faces"] == pytest.approx(4e9 * 1e6 / cost.RATE / 3600)
    kept = cost.storage_table(report, 30.0).set_index("what")
    assert kept["GB, 1e+09 faces"].tolist() == pytest.approx([30, 4 * report["sizes"]["d"]])
    assert 5 < cost.row_bytes() < 500
    lines = cost.written(table).splitlines()
    assert len(lines) == len(table) + 2 and len({line.count("|") for line in lines}) == 1


def test_encoding_is_timed_on_one_core():
    assert 0 < cost.encode_seconds(1, 4, image_size=16, count=2) < 5


def test_operations_are_counted_as_the_code_for_gpus_runs():
    thin, thick = (cost.encode_operations(steps, 4, image_size=16) for steps in (1, 2))
    assert 0 < thin < thick < 2 * thin + 1
    sizes = benchmark.Sizes(1, d=48, hidden=16, output=8, n=1300, votes=1000)
    decision, sampled = (
        cost.certify_operations(mode, sizes, 2) for mode in ("exact_decision", "monte_carlo")
    )
    assert 2 * 48 * 16 <= decision < sampled  # the first layer alone
    with pytest.raises(ValueError, match="not batched"):
        cost.certify_operations("exact_decision", benchmark.Sizes(2))


def test_what_a_rerun_changes_is_counted(tmp_path, capsys):
    before = pd.DataFrame(
        {"task": ["a", "b"], "certified_fairness": [90.0, 50.0], "outcome": ["supported"] * 2}
    )
    after = before.assign(certified_fairness=[88.0, 51.0], outcome=["supported", "inconclusive"])
    for name, table in (("old", before), ("new", after), ("other", after.assign(task="c"))):
        (tmp_path / name / "tables").mkdir(parents=True)
        table.to_csv(tmp_path / name / "tables" / "01_verdict.csv", index=False)
    old, new, other = (str(tmp_path / name) for name in ("old", "new", "other"))
    assert rerun.main([old, new, "--table", f"{new}/rerun.md"]) == 0
    row = (tmp_path / "new" / "rerun.md").read_text().splitlines()[2]
    assert row == "| 01 | 2 | 1.5 | 2.0 |  |  | 1 |  |"
    for mistake, said in ((other, "other rows"), (str(tmp_path), "share no table")):
        with pytest.raises(SystemExit, match="2"):
            rerun.main([mistake, new])
        assert said in capsys.readouterr().err


def test_a_walk_of_the_slider_is_timed_and_compared(tiny_study):
    rows = frames.alone(tiny_study, 2)
    assert [(r["frame"], r["presses"]) for r in rows] == [("new", 4), ("cached", 4)]
    assert all(0 < r["median ms"] <= r["95 % under"] for r in rows)
    steps = iter(range(1, 9))
    twice = frames.walk("twice as slow", lambda step: 2.0 * next(steps), 2)
    assert [r["median ms"] for r in twice] == [2 * 3.5, 2 * 5.5]  # 1, 2, 5, 6 and 3, 4, 7, 8
    once = [r | {"median ms": r["median ms"] / 2} for r in twice]
    assert frames.with_ratios(once + twice)["ratio"].tolist() == [1, 1, 2, 2]
