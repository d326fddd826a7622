"""Modes side by side: tables built from rows whose truth is known, and a small study from end to end."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from lassi_lib.errors import StudyError
from lassi_lib.study.exactness import (
    control_table,
    counterexamples,
    fairness_by_mode,
    gap_by_mode,
    looseness,
    one_attribute,
    own_radius,
    radius_sweep,
    radius_text,
    slack_text,
    undecided_text,
)
from lassi_lib.study.experiment import Experiment, Question, questions_of
from lassi_lib.study.params import load_pipeline
from lassi_lib.study.study import Study

N = 200
KEYS = {"dataset": "synthfaces", "task": "Smiling", "vector_type": "mean_difference"}


def rows_of(mode, method, fair, status=("CERTIFIED", "NOT_CERTIFIED"), seed=0, sensitive="Young", **columns):
    """The first `fair` of N points are fair; every prediction is right."""
    labels = np.arange(N) % 2
    marks = np.where(np.arange(N) < fair, *status)
    return pd.DataFrame(
        KEYS | {"sensitive": sensitive, "mode": mode, "method": method, "seed": seed, "index": np.arange(N)}
        | {"label": labels, "prediction": labels, "status": marks} | columns
    )  # fmt: skip


def four_modes():
    parts = []
    for method, counts in (("Naive", (10, 40, 120, 130)), ("LASSI", (170, 180, 190, 195))):
        for seed in (0, 1):
            mc, smooth, decided, tried = counts
            parts += [
                rows_of("monte_carlo", method, mc, seed=seed, d_cs=1.0, d_rs=2.0),
                rows_of("exact_smoothing", method, smooth, seed=seed, d_cs=1.0, d_rs=2.0),
                rows_of("exact_decision", method, decided, ("VERIFIED", "REFUTED"), seed=seed),
                rows_of("empirical", method, tried, ("PASSED", "REFUTED"), seed=seed),
            ]
    rows = pd.concat(parts, ignore_index=True)
    near = (rows["mode"] == "exact_decision") & (rows["method"] == "Naive") & (rows["index"] >= 196)
    return rows.assign(status=rows["status"].mask(near, "UNDECIDED"))


def test_every_mode_has_a_row_and_undecided_points_are_not_fair():
    table = fairness_by_mode(four_modes())
    assert table["mode"].tolist() == ["monte_carlo", "exact_smoothing", "exact_decision", "empirical"] * 2
    naive = table[table["method"] == "Naive"].set_index("mode")
    assert naive["fair"].tolist() == [5, 20, 60, 65]
    assert naive["undecided"].tolist() == [0, 0, 2, 0]
    assert ((table["fair_low"] < table["fair"]) & (table["fair"] < table["fair_high"])).all()


def test_what_is_undecided_is_said():
    table = fairness_by_mode(four_modes())
    assert "2.0 %" in undecided_text(table) and "Naive, exact_decision" in undecided_text(table)
    assert "no point" in undecided_text(table[table["method"] == "LASSI"])
    assert "No exact mode" in undecided_text(table[table["mode"] == "empirical"])


def test_the_gap_shrinks_by_what_was_looseness():
    gap = gap_by_mode(four_modes()).set_index("mode")
    assert gap["gain"].tolist() == [80, 70, 35, 32.5]
    assert gap["share of the certified gap"].tolist() == pytest.approx([100, 87.5, 43.75, 40.625])
    assert ((gap["gain_low"] < gap["gain"]) & (gap["gain"] < gap["gain_high"])).all()


def test_looseness_puts_one_step_back_at_a_time(study):
    d_rs = np.full(N, 3.0)
    exact = rows_of("exact_smoothing", "LASSI", 0, d_rs=d_rs, d_cs=np.linspace(0, 12, N))
    exact = exact.assign(d_cs_delta=exact["d_cs"] * 1.25, d_cs_hoeffding=exact["d_cs"] * 1.5)
    exact["center_t"] = np.where(np.arange(N) % 2, 0.0, 3.0)  # every other center is far out
    sampled = rows_of("monte_carlo", "LASSI", 30)
    table = looseness(study, pd.concat([sampled, exact])).set_index("certificate")["fair"]
    t = exact["d_cs"]
    expected = {
        "as published": 15.0,
        "exact": 100 * (t < 3).mean(),
        "factor 2": 100 * (t * np.where(np.arange(N) % 2, 2.001 / 3.002, 1) < 3).mean(),
        "no factor": 100 * (t < 9).mean(),
        "with Delta": 100 * (t < 2.4).mean(),
        "with Delta, Hoeffding": 100 * (t < 2).mean(),
    }
    for name, share in expected.items():
        assert table[name] == pytest.approx(share)
    assert table["with ceiling of d_rs"] <= table["exact"]
    with pytest.raises(StudyError, match="one attribute"):
        looseness(study, sampled)


def test_the_slack_leaves_out_abstentions():
    rows = rows_of("monte_carlo", "LASSI", 5, d_cs=1.0, d_rs=np.where(np.arange(N) < 50, np.nan, 3.0))
    assert own_radius(rows)["slack"].tolist() == [2.0] * 150


def test_the_sentences_under_the_figures_say_medians_and_ends():
    slack = pd.concat(
        [
            rows_of("monte_carlo", "LASSI", 5, d_cs=1.0, d_rs=3.0),
            rows_of("monte_carlo", "LASSI", 5, d_cs=1.0, d_rs=1.5, sensitive="Pale_Skin"),
            rows_of("monte_carlo", "Naive", 5, d_cs=np.arange(N), d_rs=100.0),
        ]
    )
    said = "The median d_rs - d_cs, over the pairs, monte carlo: LASSI 0.5 to 2.0, Naive 0.5."
    assert slack_text(own_radius(slack)) == said
    sweep = pd.DataFrame({"epsilon": [0.5, 1.0, 2.0], "method": "LASSI", "fair": [99.0, 95.0, 80.0]})
    said = "Constant decisions, over the pairs, at epsilon 0.5: LASSI 99.0 %; at epsilon 2: LASSI 80.0 %."
    assert radius_text(sweep) == said
    assert radius_text(sweep[:1]).count("epsilon") == 1


def test_the_control_stands_beside_what_it_controls():
    rows = four_modes()
    control = rows[rows["mode"] == "exact_decision"].assign(status="VERIFIED")
    table = control_table(rows, control)
    assert table["mode"].tolist() == ["exact_decision"] * 2
    assert table["random"].tolist() == [100, 100]
    assert table["fair"].tolist() == [60, 95]


@pytest.mark.parametrize(
    ("params", "message"),
    [({"modes": ["exact_desicion"]}, "exact_decision"), ({"epsilons": [0.0]}, "positive"),
     ({"epsilons": [True]}, "positive"), ({"control_modes": ["x"]}, "unknown")],
)  # fmt: skip
def test_impossible_questions_are_refused(params, message):
    with pytest.raises(StudyError, match=message):
        questions_of(params)


def test_questions_follow_from_the_parameters():
    assert questions_of({}) == [Question()]
    asked = questions_of({"modes": ["monte_carlo"], "control_modes": ["empirical"], "epsilons": [2]})
    assert asked == [Question(), Question("empirical", control=True), Question("exact_decision", 2.0)]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The smoke pipeline with fewer faces, in a cache of its own."""
    pipeline = load_pipeline("smoke")
    data = replace(pipeline.data, n_train=300, n_valid=60, n_test=24)
    return Study(replace(pipeline, data=data), device="cpu", cache=tmp_path_factory.mktemp("c"), workers=1)


def test_modes_of_a_trained_model_agree_with_each_other(study):
    one = Experiment("synthfaces", "Smiling", ("Pale_Skin",), "mean_difference", "Naive", 0)
    two = replace(one, sensitive=("Pale_Skin", "Young"))
    assert one_attribute([one, two]) == [one]
    rows = {m: study.run([one, two], Question(m)) for m in ("exact_smoothing", "exact_decision", "empirical")}
    assert rows["exact_smoothing"]["sensitive"].unique().tolist() == ["Pale_Skin"]
    decided, tried = rows["exact_decision"], rows["empirical"]
    assert len(decided) == len(tried) == 48
    refuted = tried["status"] == "REFUTED"
    assert not (refuted & (decided["status"] == "VERIFIED")).any()
    wide = study.run([one], Question("exact_decision", 4.0))
    narrow = study.run([one], Question("exact_decision", 0.25))
    verified = wide["status"] == "VERIFIED"
    assert (narrow.loc[verified, "status"] == "VERIFIED").all()
    assert verified.sum() < (narrow["status"] == "VERIFIED").sum()
    control = study.run([one], Question("exact_decision", control=True))
    assert not control["margin"].equals(decided.loc[decided["sensitive"] == "Pale_Skin", "margin"])
    sweep = radius_sweep(study, [one], [0.25, 4.0])
    assert sweep["fair"].tolist() == [100 * (r["status"] == "VERIFIED").mean() for r in (narrow, wide)]


def test_counterexamples_are_faces_that_the_classifier_tells_apart(study):
    import torch

    e = Experiment("synthfaces", "Smiling", ("Pale_Skin",), "mean_difference", "Naive", 0)
    rows = study.run([e], Question("exact_decision", 4.0))
    faces, similar, table = counterexamples(study, rows, 3)
    assert faces.shape == similar.shape == (len(table), 3, 48, 48) or len(faces) == len(table)
    assert 0 < len(table) <= 3
    assert table["margin"].is_monotonic_increasing
    z = study.latents("test")[table["index"].tolist()]
    t = torch.tensor(rows.set_index("index").loc[table["index"], "witness_1"].tolist()).double()
    moved = z.double() + t[:, None] * study.vector("Pale_Skin").double()
    R, C = study.representation(e).double(), study.classifier(e).double()
    with torch.no_grad():
        assert C(R(z.double())).argmax(1).tolist() == table["prediction"].tolist()
        assert C(R(moved)).argmax(1).tolist() == table["witness_class"].tolist()
