"""The page over all profiles: its numbers are the printed ones, its links lead somewhere, failures are shown."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest
from bs4 import BeautifulSoup

from lassi_lib.errors import StudyError
from lassi_lib.study import batch, params, record
from lassi_lib.study.overview import CLAIM_1, finding, write_overview
from lassi_lib.study.questions import SENTENCES, titles
from lassi_lib.study.results import save_verdict

CLAIM, AUDIT = "01_claim1_certified_fairness", "10_audit"
HOSTILE = "<script>alert(1)</script> \"&' <b>"


def run_of(**notebooks):
    """Return a run.json with the entries given by notebook's name."""
    facts = {
        "image_size": 64,
        "images": {"train": 1000, "test": 50},
        "bits_per_dim": 1.5,
        "device": "a laptop",
    }
    entries = {
        n: {"status": "ok", "minutes": 2.34, "parameters": {"seeds": [42, 0]}} | e
        for n, e in notebooks.items()
    }
    return {"first_line": "Made up.", "facts": facts, "pipeline": {}, "notebooks": entries}


def judged(path, baseline=True):
    """Write a table of two judged pairs."""
    t = pd.DataFrame(
        {"certified_fairness": [81.25, 93.0], "accuracy": [70.0, 72.0], "outcome_these_models": ["supported", "inconclusive"],
         "outcome": ["inconclusive", "inconclusive"],
         "n_seeds": [2, 2], "n_points": [1050, 1050], "constant_would_do": [True, False]}
    )  # fmt: skip
    if baseline:
        t = t.assign(certified_fairness_baseline=[0.0, 1.04], accuracy_baseline=[71.0, 71.0])
        t = t.assign(fairness_gain=[81.25, 91.96], accuracy_loss=[1.0, -1.0])
    path.parent.mkdir(parents=True, exist_ok=True)
    t.to_csv(path, index=False)


@pytest.fixture
def results(tmp_path):
    """Results of three made-up profiles: one whole, one failed and hostile, one folder without a run."""
    folder = tmp_path / "results"
    good, bad = folder / "good", folder / "bad <&> #1"
    for profile in (good, bad):
        profile.mkdir(parents=True)
        (profile / "index.html").write_text("x")
    (folder / "other").mkdir()
    (good / "run.json").write_text(json.dumps(run_of(**{CLAIM: {}, AUDIT: {}})))
    for name in (f"{CLAIM}.html", f"{AUDIT}.html", "figures/f.png"):
        (good / name).parent.mkdir(exist_ok=True)
        (good / name).write_text("x")
    save_verdict(good, CLAIM, "not supported", "Two pairs fail.", "figures/f.png", "Bars of two pairs")
    save_verdict(good, AUDIT, "supported", "Fine.", "figures/none.png", "A lost figure")
    judged(good / "tables" / "01_verdict.csv")
    findings = {
        "sure": ["certain", "chance"],
        "finding": ["1 of 9 <b>odd</b> (at fault also by: y)", "chance & co"],
    }
    findings |= {
        "check": ["<sum>", "z"],
        "source": ["merk2023"] * 2,
        "table": ["Table 1"] * 2,
        "numbers": [9, 9],
        "about": ["number", "comparison"],
        "at_fault": [1, 2],
        "not_above": [1, 2],
    }
    pd.DataFrame(findings).to_csv(good / "tables" / "10_ranked.csv", index=False)
    failed = {"status": "failed", "error": HOSTILE}
    said = {"outcome": HOSTILE, "verdict": HOSTILE}
    (bad / "run.json").write_text(json.dumps(run_of(**{CLAIM: failed, "03_claim3_transfer": said})))
    for name in (f"{CLAIM}.failed.html", "03_claim3_transfer.html"):
        (bad / name).write_text("x")
    return folder


@pytest.fixture
def page(results):
    return BeautifulSoup(write_overview(results).read_text(), "html.parser")


def answers(page, number):
    """Return the answers to a question by profile."""
    entry = page.select_one(f"#q{number} dl")
    return {dt.text: dd for dt, dd in zip(entry.find_all("dt"), entry.find_all("dd"), strict=True)}


def test_every_link_and_picture_of_the_page_is_there(results, page):
    from urllib.parse import unquote

    paths = [tag["href"] for tag in page.find_all("a")] + [tag["src"] for tag in page.find_all("img")]
    assert len(paths) > len(SENTENCES)
    for path in paths:
        assert not re.match(r"[a-z]+:|/", path), path
        target = page.select_one(path) if path.startswith("#") else (results / unquote(path)).is_file()
        assert target, path
    assert not page.find_all(["script", "link", "iframe"])
    assert page.find("meta", attrs={"name": "viewport"}) and "prefers-color-scheme" in page.style.text


def test_the_rows_and_columns_are_all_there(page):
    table = page.table
    assert [th.text for th in table.thead.find_all("th")] == ["bad <&> #1", "good"]
    assert [tr.th.a.text for tr in table.tbody.find_all("tr")] == list(titles().values())
    assert sorted(SENTENCES) == [f"{i:02d}" for i in range(1, 13)]


def test_claim_1_is_told_in_numbers_before_the_table(page, results):
    said = page.dl.text
    assert "1 statement judged by runs on its own images: 1 not supported. Claim 1, for the models" in said
    assert "in 2 of 2 pairs of task and attributes LASSI certifies more test faces than Naive" in said
    assert "(81.2 to 92.0 points), at an accuracy -1.0 to +1.0 points from Naive's." in said


def test_the_first_table_is_kept_in_words_for_the_readme(results, page):
    lines = (results / "overview.md").read_text().splitlines()
    assert lines[0].startswith("| question | ")
    assert len(lines) == 2 + len(SENTENCES)
    assert len({line.count("|") for line in lines}) == 1
    claim = next(line for line in lines if line.startswith("| Claim 1"))
    assert (
        "| **not supported**<br>81.2 to 93.0 % certified (Naive 0.0 to 1.0)<br>supported: 0 of 2 pairs<br>"
        "as trained: 1 of 2 pairs, 0 beyond a constant classifier |" in claim
    )


def test_claim_1s_pairs_of_all_profiles_stand_in_one_table(results):
    names = list(CLAIM_1)
    for profile in results.glob("*/run.json"):
        tables = profile.parent / "tables"
        tables.mkdir(exist_ok=True)
        row = {"extra": "x", **{n: f"{n} 1" for n in names}} | {"fairness_gain": 1.25, "task": "a|b"}
        row |= {"fairness_gain_low": 1.0, "fairness_gain_high": 1.55}
        del row["fairness gain"]
        pd.DataFrame([row]).to_csv(tables / "01_verdict.csv", index=False)
    (results / "good" / "tables" / "01_verdict.csv").write_text("task\nof another kind\n")
    write_overview(results)
    head, _, *lines = (results / "claim_1.md").read_text().splitlines()
    assert head == f"| profile | {' | '.join(CLAIM_1.values())} |"
    cells = {n: f"{n} 1" for n in names} | {"fairness gain": "1.2 [1.0, 1.6]", "task": "a\\|b"}
    assert lines == [f"| bad &lt;&amp;> #1 | {' | '.join(cells.values())} |"]


def test_a_verdict_comes_with_its_numbers_minutes_and_page(page):
    said = answers(page, "01")["good"]
    assert said.b.text == "not supported" and said.b["class"] == ["bad"]
    for words in (
        "Two pairs fail.",
        "81.2 to 93.0 % certified (Naive 0.0 to 1.0), 70.0 to 72.0 % accurate (Naive 71.0)",
        "supported: 0 of 2 pairs; as trained: 1 of 2 pairs, 0 beyond a constant classifier; 2 seeds, 1,050 test images.",
        "In 1 pair LASSI is not shown to be more accurate",
        "2.3 minutes",
    ):
        assert words in said.text
    assert said.a["href"] == f"good/{CLAIM}.html"
    image = page.select_one("#q01 img")
    assert (image["src"], image["alt"]) == ("good/figures/f.png", "Bars of two pairs (good)")
    assert not page.select("#q10 img")  # its picture is lost
    assert "supported: 0 of 2 pairs" in page.table.text and "as trained: 1 of 2 pairs" in page.table.text


def test_failed_missing_and_hostile_results_are_shown_as_what_they_are(page):
    failed = answers(page, "01")["bad <&> #1"]
    assert failed.b.text == "failed" and failed.b["class"] == ["bad"]
    assert HOSTILE in failed.text and failed.a["href"].endswith(f"{CLAIM}.failed.html")
    assert answers(page, "02")["good"].text.strip() == "not run"
    assert HOSTILE in answers(page, "03")["bad <&> #1"].text and not page.find_all("script")
    assert all(f.outcome == "not asked here" for f in [finding(Path("nowhere/fairface"), "06")])


def test_what_is_wrong_is_listed_and_the_rest_counted(page):
    wrong = page.find("h2", string=re.compile("wrong")).find_next("ol")
    assert [li.text for li in wrong.find_all("li")] == [
        "Merk et al. 2023, Table 1 (check: <sum>) 1 of 9 <b>odd</b>"
    ]
    assert wrong.find_previous("p").text.startswith("1 printed numbers cannot be")
    assert "1 further findings" in wrong.find_next("p").text


def test_no_results_at_all_is_one_line(tmp_path):
    with pytest.raises(StudyError, match=r"run_all\.py"):
        write_overview(tmp_path)


def test_damaged_files_are_no_results(results):
    (results / "good" / "tables" / "01_verdict.csv").write_text("a,b\n1\n")
    (results / "good" / "tables" / "10_ranked.csv").write_text("")
    (results / "bad <&> #1" / "run.json").write_text("{")
    page = BeautifulSoup(write_overview(results).read_text(), "html.parser")
    assert [th.text for th in page.table.thead.find_all("th")] == ["good"]
    assert "certified (" not in answers(page, "01")["good"].text
    assert "has not run yet" in page.text


# ---- stale ---------------------------------------------------------------------------------------


def notebook(path, *cells):
    code = [{"cell_type": "code", "source": [s], "metadata": {"tags": tags}} for s, tags in cells]
    path.write_text(
        json.dumps({"cells": [*code, {"cell_type": "markdown", "source": ["x"], "metadata": {}}]})
    )


def test_a_run_is_stale_when_code_parameters_or_settings_changed_since(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "NOTEBOOKS", tmp_path)
    folder = tmp_path / "demo"
    (folder / "verdicts").mkdir(parents=True)
    given = params.load_notebook_params("demo", CLAIM)
    pipeline = json.loads(json.dumps(asdict(params.load_pipeline("demo"))))

    def stale(parameters=given, pipeline=pipeline, code="a = 1"):
        notebook(tmp_path / f"{CLAIM}.ipynb", ("a = 1", []))
        notebook(folder / f"{CLAIM}.ipynb", ("b = 2", ["injected-parameters"]), (code, []))
        run = run_of(**{CLAIM: {"parameters": parameters}}) | {"pipeline": pipeline}
        (folder / "run.json").write_text(json.dumps(run))
        return finding(folder, "01").stale

    assert stale() == ""
    assert "code has changed" in stale(code="a = 3")
    assert "parameters have changed" in stale(parameters=given | {"seeds": [7]})
    other = pipeline | {"encoder": pipeline["encoder"] | {"epochs": 6}}
    assert "settings have changed" in stale(pipeline=other)
    del other["encoder"]["epochs"]  # a setting that the run did not know yet
    assert stale(pipeline=other | {"description": "other words", "a setting that is gone": 1}) == ""
    write_overview(tmp_path)
    assert "(stale)" not in (tmp_path / "index.html").read_text()
    stale(code="a = 3")
    assert "(stale)" in write_overview(tmp_path).read_text()


# ---- the command line ----------------------------------------------------------------------------


def test_the_overview_is_made_on_request(results, capsys):
    assert batch.main(["--overview", "--output", str(results)]) == 0
    assert "index.html" in capsys.readouterr().out and (results / "index.html").is_file()
    assert batch.main(["--overview", "--output", str(results / "other")]) == 2
    assert "holds no results" in capsys.readouterr().err


def test_one_seed_is_said_whatever_the_verdicts_table_holds(results):
    path = results / "good" / "run.json"
    run = json.loads(path.read_text())
    for entry in run["notebooks"].values():
        entry["parameters"]["seeds"] = [42]
    path.write_text(json.dumps(run))
    table = results / "good" / "tables" / "01_verdict.csv"
    pd.read_csv(table).assign(n_seeds=1).to_csv(table, index=False)
    assert finding(results / "good", "01").held == (
        "81.2 to 93.0 % certified (Naive 0.0 to 1.0)",
        "as trained: 1 of 2 pairs, 0 beyond a constant classifier",
        "one seed",
    )
    assert finding(results / "good", "10").held == ("one seed",)
    pd.read_csv(table).assign(n_seeds=[1, 3]).to_csv(table, index=False)
    assert finding(results / "good", "01").held[1:] == (
        "supported: 0 of 2 pairs",
        "as trained: 1 of 2 pairs, 0 beyond a constant classifier",
        "one seed: 1 pair",
    )


def test_pairs_that_are_not_supported_are_counted_too(results):
    table = results / "good" / "tables" / "01_verdict.csv"
    kept = pd.read_csv(table)
    kept.assign(outcome_these_models="not supported").to_csv(table, index=False)
    assert finding(results / "good", "01").held[1:] == (
        "supported: 0 of 2 pairs",
        "as trained: 0 of 2 pairs, not supported: 2",
    )
    kept.assign(outcome=["supported", "not supported"]).to_csv(table, index=False)
    assert finding(results / "good", "01").held[1] == "supported: 1 of 2 pairs, not supported: 1"


def test_classifiers_of_which_nothing_is_certified_are_counted_as_trained(results):
    (results / "good" / "tables" / "01_verdict.csv").write_text(
        "task,method,changed,outcome_these_models,outcome\n"
        "Smiling,ResNet18,44.3,supported,inconclusive\nSmiling,zG_classifier,1.3,not supported,inconclusive\n"
    )
    held = ("as trained: 1 of 2 pairs and classifiers, not supported: 1",)
    assert finding(results / "good", "01").held == held


def test_explanations_that_rest_on_rendered_faces_say_so(results):
    table = results / "good" / "tables" / "01_verdict.csv"
    rows = "explanation,published,by regression,by experiment,outcome\nlong vector,no,inconclusive,not asked,inconclusive\n"
    table.write_text(rows)
    assert finding(results / "good", "01").held == ()
    table.write_text(rows + "poor vector,yes,inconclusive,not supported,not supported\n")
    assert finding(results / "good", "01").held == ("by experiments on rendered faces",)
    page = BeautifulSoup(write_overview(results).read_text(), "html.parser")
    assert "0 statements judged by runs on its own images" in page.dl.text
    run = json.loads((results / "good" / "run.json").read_text())
    run["facts"]["dataset"] = "synthfaces"  # there they are its own
    (results / "good" / "run.json").write_text(json.dumps(run))
    page = BeautifulSoup(write_overview(results).read_text(), "html.parser")
    assert "1 statement judged by runs on its own images" in page.dl.text
    table.write_text(rows + "poor vector,yes,not supported,not supported,not supported\n")
    assert finding(results / "good", "01").held == ()


def test_pairs_in_which_naive_leaves_no_room_for_the_gain_are_counted(results):
    given = {"parameters": {"seeds": [42, 0], "min_fairness_gain": 10.0}}
    (results / "good" / "run.json").write_text(json.dumps(run_of(**{CLAIM: given})))
    assert not any("no room" in h for h in finding(results / "good", "01").held)
    table = results / "good" / "tables" / "01_verdict.csv"
    pd.read_csv(table).assign(certified_fairness_baseline=[90.0, 90.1]).to_csv(table, index=False)
    assert finding(results / "good", "01").held[-1] == "no room for the gain: 1 pair"


def test_how_far_from_print_is_said_for_faces_of_the_same_data_set(results):
    t = pd.DataFrame({"method": ["LASSI", "LASSI", "LASSI", "Naive"], "metric": ["certified_fairness"] * 4})
    t = t.assign(dataset="celeba", published_dataset="CelebA", published=[90.0, 98.0, None, 1.0])
    t = t.assign(task="Smiling", sensitive="Young")
    table = results / "good" / "tables" / "01_verdict.csv"
    pd.read_csv(table).assign(task="Smiling", sensitive=["Young", "Bald"]).to_csv(table, index=False)
    shown = t.head(1).assign(sensitive="Chubby", difference=-50.0)  # beside the others, not judged
    t = t.assign(difference=[-20.04, 1.25, -99.0, 50.0], within_prediction=[False, True, True, None])
    path = results / "good" / "tables" / "01_comparison.csv"
    pd.concat([t, shown]).to_csv(path, index=False)
    found = finding(results / "good", "01")
    assert found.held[1] == "from print: -20.0 to +1.2 points"
    assert "(2 numbers). Of all 2 means printed" in found.text and "1 of ours lie outside" in found.text
    assert "by chance 0.1 would" in found.text
    t.assign(method="LASSI_transfer").head(3).to_csv(path, index=False)  # as on the page of claim 3
    assert "from print: -20.0 to +1.2 points" in finding(results / "good", "01").held
    t.assign(dataset="synthfaces").to_csv(path, index=False)  # rendered faces are no repetition
    found = finding(results / "good", "01")
    assert not any("print" in h for h in found.held) and "print" not in found.text


def test_where_notebooks_ran_is_said_of_each_where_machines_differ(results):
    def said(**devices):
        run = run_of(**{CLAIM: {"device": devices["first"]}, AUDIT: {"device": devices["second"]}})
        (results / "good" / "run.json").write_text(json.dumps(run))
        return BeautifulSoup(write_overview(results).read_text(), "html.parser").get_text()

    assert "01 on a laptop; 10 on a server." in said(first="a laptop", second="a server")
    assert "bits/dim; a laptop." in said(first="a laptop", second="a laptop")


def test_tables_that_no_run_repeats_are_named(results):
    said = BeautifulSoup(write_overview(results).read_text(), "html.parser").get_text()
    assert "Supp. Table 14 (60 numbers: images of 128 pixels, profile celeba128), ICLR 2022 (24: " in said
    (results / "good").rename(results / "celeba128")
    said = BeautifulSoup(write_overview(results).read_text(), "html.parser").get_text()
    assert (
        "Supp. Table 14 (" not in said
        and "No run here repeats ICLR 2022 (24: an encoder on images) and" in said
    )


def test_training_length_says_what_the_longest_training_brings(results):
    groups = [{"pairs": ["Smiling/Young"], "methods": ["LASSI"], "seeds": [42]}]
    run = run_of(**{"12_training_length": {"parameters": {"groups": groups, "min_fairness_gain": 10.0}}})
    (results / "good" / "run.json").write_text(json.dumps(run))
    table = pd.DataFrame(
        {"fairness_gain": [12.04, -1.0], "n_seeds": [3, 1], "outcome": ["supported", "inconclusive"]}
    )
    table = table.assign(outcome_these_models=["supported", "not supported"])

    def held(t):
        t.to_csv(results / "good" / "tables" / "12_verdict.csv", index=False)
        return finding(results / "good", "12").held

    assert held(table) == ()
    equal = {"certified_fairness": [96.0], "certified_fairness_baseline": 1.0, "outcome": "inconclusive"}
    equal |= {"outcome_these_models": "supported", "constant_would_do": True}
    pd.DataFrame(equal).to_csv(results / "good" / "tables" / "12_claim1.csv", index=False)
    then = ("claim 1 after it: 96.0 % certified (Naive 1.0)", "supported: 0 of 1 pair")
    then += ("as trained: 1 of 1 pair, 0 beyond a constant classifier",)
    gain, trained = "-1.0 to +12.0 points certified", "as trained: 1 of 2 pairs, not supported: 1"
    assert held(table) == (gain, "supported: 1 of 2 pairs", trained, "one seed: 1 pair", *then)
    assert held(table.assign(n_seeds=1)) == (gain, trained, "one seed", *then)
    assert held(table.assign(n_seeds=3)) == (gain, "supported: 1 of 2 pairs", trained, *then)
    assert held(table[["outcome"]]) == ()


def test_sensitivity_and_ground_truth_say_what_was_measured(results):
    notebooks = {
        "08_sensitivity": {"parameters": {"seeds": [42], "step": [0.025, 0.05]}},
        "06_ground_truth": {},
    }
    (results / "good" / "run.json").write_text(json.dumps(run_of(**notebooks)))
    steps = pd.DataFrame(
        {"task": "Smiling", "sensitive": "Young", "from": [0.01, 0.025], "to": [0.025, 0.05]}
    )
    steps = steps.assign(fairness_gain=[48.65, 16.07], jumps_these_models=["supported", "not supported"])
    steps = steps.assign(**{"gain per doubling": [36.8, 16.07]})
    steps.to_csv(results / "good" / "tables" / "08_steps.csv", index=False)
    assert finding(results / "good", "08").held == (
        "as trained: 0 of 1 pair, not supported: 1", "16.1 points from 0.025 to 0.05", "steepest from 0.01 to 0.025",
        "one seed",
    )  # fmt: skip
    kept = pd.DataFrame(
        {"kept_fair": [98.26, None, 80.1], "outcome": ["supported", "nothing certified", "not supported"]}
    )
    kept.to_csv(results / "good" / "tables" / "06_verdict.csv", index=False)
    held = finding(results / "good", "06").held
    assert held == ("80.1 to 98.3 % of certified answers kept", "supported: 1 of 3 pairs, not supported: 1")
