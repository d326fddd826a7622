"""Certificates against true counterfactuals: tables worked out by hand, and both kinds of drawn data."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from lassi_lib.data.shapes3d import factors_of
from lassi_lib.errors import StudyError
from lassi_lib.study.experiment import Experiment
from lassi_lib.study.faces import label_table, traversals, vector_table
from lassi_lib.study.ground_truth import (
    beside_table_19,
    ground_truth_verdict,
    kept,
    readable_truth,
    true_answers,
    true_distances,
    true_images,
    true_latents,
    truth_table,
)
from lassi_lib.study.params import MethodParams, load_pipeline
from lassi_lib.study.study import Study
from tests.study.test_statistics import make_rows


def told(rows, answers):
    """Rows of mode monte_carlo, and answers [m, n, v] of the smoothed models; all plain decisions are 0."""
    rows = rows.assign(mode="monte_carlo")
    m, n, v = answers.shape
    first = rows.iloc[0]
    table = pd.DataFrame({"prediction": answers.ravel(), "decision": 0})
    table["seed"], table["index"] = np.repeat(np.arange(m), n * v), np.tile(np.repeat(np.arange(n), v), m)
    names = ("dataset", "task", "sensitive", "vector_type", "method")
    return rows, table.assign(attribute="Young", value=0.0, **{name: first[name] for name in names})


def case(m=1):
    """Six points: certified and kept, certified and broken, not certified and kept, two broken, abstained."""
    labels = np.array([1, 1, 0, 0, 1, 0])
    rows = make_rows(
        labels, np.tile([1, 1, 0, 1, 1, -1], (m, 1)), np.tile([1, 1, 0, 0, 0, 0], (m, 1)).astype(bool)
    )
    answers = np.array([[1, 1], [1, 0], [0, 0], [0, 0], [1, -1], [-1, -1]])
    return told(rows, np.tile(answers, (m, 1, 1)))


def test_kept_compares_with_the_point_itself_and_differ_among_counterfactuals():
    points = kept(*case()).set_index("index")
    assert points["fair"].tolist() == [True, True, False, False, False, False]
    assert points["kept"].tolist() == [True, False, True, False, False, True]
    assert points["differ"].tolist() == [False, True, False, False, True, False]


def test_exact_modes_are_held_against_unsmoothed_decisions():
    rows, answers = case()
    exact = rows.assign(mode="exact_decision", prediction=[0, 0, 0, 1, 0, 0], status="VERIFIED")
    assert kept(exact, answers)["kept"].tolist() == [True, True, True, False, True, True]


@pytest.mark.parametrize("m", [1, 3])
def test_truth_table_counts_and_does_not_take_seeds_for_points(m):
    rows, answers = case(m)
    (row,) = truth_table(kept(rows, answers), rows).to_dict("records")
    assert (row["n_fair"], row["n_broken"], row["n_others"]) == (2 * m, m, 4 * m)
    assert (row["kept_fair"], row["kept_others"]) == (50, 50)
    assert row["emp_unfair"] == pytest.approx(100 / 3)
    assert row["certified_fairness"] == pytest.approx(100 / 3)
    # Clopper & Pearson of 1 of 2 and of 2 of 4, however many seeds said so
    assert (row["kept_fair_low"], row["kept_fair_high"]) == pytest.approx((1.2579, 98.7421), abs=1e-3)
    assert (row["kept_others_low"], row["kept_others_high"]) == pytest.approx((6.7586, 93.2414), abs=1e-3)
    assert readable_truth(pd.DataFrame([row]))["found fair"].tolist() == [2 * m]


def test_a_group_without_points_has_no_share():
    rows, answers = case()
    rows["status"] = rows["status"].replace("CERTIFIED", "NOT_CERTIFIED")
    (row,) = truth_table(kept(rows, answers), rows).to_dict("records")
    assert row["n_fair"] == 0 and np.isnan(row["kept_fair"]) and row["kept_others"] == 50
    assert ground_truth_verdict(pd.DataFrame([row]), 95).outcome == "inconclusive"


@pytest.mark.parametrize(
    ("fair", "broken", "outcome"),
    [(300, 0, "supported"), (300, 60, "not supported"), (20, 0, "inconclusive")],
)
def test_verdict_follows_from_the_bounds(fair, broken, outcome):
    row = {"task": "Smiling", "sensitive": "Young", "attribute": "Young", "method": "LASSI", "n_seeds": 1}
    row |= {"mode": "monte_carlo", "n_fair": fair, "n_broken": broken, "kept_others": 90.0}
    row["kept_fair"] = 100 * (1 - broken / fair)
    nothing = row | {"method": "LASSI_ball", "n_fair": 0, "n_broken": 0, "kept_fair": np.nan}
    table = pd.DataFrame([row, row | {"method": "Naive", "n_broken": fair}, nothing])
    verdict = ground_truth_verdict(table, 95)
    assert verdict.outcome == outcome and verdict.table["outcome"].tolist() == [outcome]
    assert f"Of {fair} certified points, {broken} change" in verdict.text
    both = ground_truth_verdict(table, 95, ["LASSI", "LASSI_ball"])
    assert both.outcome == outcome and both.table["outcome"].tolist() == [outcome, "nothing certified"]
    assert both.table["kept_fair_low"][0] == verdict.table["kept_fair_low"][0]
    with pytest.raises(StudyError, match="monte_carlo"):
        ground_truth_verdict(table.assign(mode="exact_decision"), 95)


def test_bounds_are_shared_out_over_the_attributes():
    row = {"task": "Smiling", "sensitive": "Young", "method": "LASSI", "n_seeds": 2, "mode": "monte_carlo"}
    row |= {"n_fair": 120, "n_broken": 0, "kept_fair": 100.0, "kept_others": 90.0}
    alone = ground_truth_verdict(pd.DataFrame([row | {"attribute": "a"}]), 95).table
    among = ground_truth_verdict(pd.DataFrame([row | {"attribute": a} for a in "abcd"]), 95).table
    assert alone["kept_fair_low"][0] == pytest.approx(100 * 0.05 ** (1 / 60))  # two seeds, 60 points
    assert among["kept_fair_low"][0] == pytest.approx(100 * 0.0125 ** (1 / 60))


# ---- drawn data --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    pipeline = load_pipeline("smoke")
    data = replace(pipeline.data, n_train=300, n_valid=60, n_test=6)
    return Study(
        replace(pipeline, data=data), device="cpu", cache=tmp_path_factory.mktemp("cache"), workers=1
    )


def test_a_face_with_its_own_factor_is_the_face_itself(faces):
    data = faces.dataset("test")
    own = data.extras["factors"][:, data.extras["factor_names"].index("paleness")]
    drawn = true_images(faces, "Pale_Skin", [float(own[2]), 2.0], [2, 3])
    assert drawn.shape == (2, 2, 3, 48, 48)
    assert torch.equal(drawn[0, 0], data.images[2])
    assert not torch.equal(drawn[0, 1], data.images[2])
    with pytest.raises(StudyError, match="no factor"):
        true_images(faces, "Attractive", [1.0], [0])
    real = faces.of(replace(faces.pipeline, data=replace(faces.pipeline.data, name="celeba")))
    real._memo["dataset", "test"] = data
    with pytest.raises(StudyError, match="photographs"):
        true_images(real, "Pale_Skin", [1.0], [0])


def test_answers_of_faces_cover_every_attribute_point_and_value_and_are_kept(faces, monkeypatch):
    e = Experiment("synthfaces", "Smiling", ("Pale_Skin", "Young"), "mean_difference", "LASSI", 0)
    answers = true_answers(faces, [e], [-1.0, 1.0])
    assert len(answers) == 2 * 6 * 2 and set(answers["attribute"]) == {"Pale_Skin", "Young"}
    z = true_latents(faces, "Young", [-1.0, 1.0])
    with torch.no_grad():
        decisions = faces.classifier(e)(faces.representation(e)(z[:, 1])).argmax(1)
    here = answers[(answers["attribute"] == "Young") & (answers["value"] == 1)]
    assert here["decision"].tolist() == decisions.tolist() and here["index"].tolist() == list(range(6))
    distances = true_distances(faces, [e, replace(e, seed=1)], [-1.0, 1.0])
    assert distances["attribute"].tolist() == ["Pale_Skin", "Young"]
    assert (distances["left by any epsilon %"] <= distances["left %"] + 1e-9).all()
    assert (distances["left %"] < 100).all()
    monkeypatch.setattr("lassi_lib.study.ground_truth.true_latents", None)  # never asked for again
    pd.testing.assert_frame_equal(true_answers(faces, [e], [-1.0, 1.0]), answers)
    pd.testing.assert_frame_equal(true_distances(faces, [e], [-1.0, 1.0]), distances)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """The profile shapes3d with few pictures and hardly any training."""
    p = load_pipeline("shapes3d")
    p = replace(
        p,
        data=replace(p.data, image_size=32, n_train=300, n_valid=60, n_test=3),
        glow=replace(p.glow, n_steps=1, n_blocks=2, width=8, n_images=640),
        encoder=replace(p.encoder, hidden=[32, 32], output=32, n_candidates=3, epochs=2, batch_size=50),
        methods={name: replace(m, sigma_rs=1.0) for name, m in p.methods.items()},
        certification=replace(p.certification, n_center=2_000, n_radius=2_000, n_votes=5_000),
    )
    return Study(p, device="cpu", cache=tmp_path_factory.mktemp("cache"), workers=1)


def shape_experiment(method="LASSI"):
    return Experiment("shapes3d", "object_hue", ("orientation",), "pairs", method, 42)


def test_encoders_see_the_biased_split_and_vectors_the_whole_one(shapes):
    biased, whole = shapes.dataset("biased"), shapes.dataset("train")
    hue, turn = biased.label("object_hue"), biased.label("orientation")
    assert len(biased) == len(whole) == 300
    assert (((hue < 5) & (turn < 7)) | ((hue >= 5) & (turn > 7))).all()
    assert len(np.unique(whole.label("orientation"))) == 15
    e = shape_experiment()
    assert shapes.latents_stage("biased").key in shapes.encoder_stage(e).parents
    assert shapes.latents_stage("train").key not in shapes.encoder_stage(e).parents
    assert shapes.vector_stages(e)[0].parents == (shapes.latents_stage("train").key,)
    assert shapes.similarity(e.sensitive).n == 49
    assert "correlated" in shapes.facts()["note"]
    ball = replace(e, method="LASSI_ball")
    assert shapes.settings(e).sampling == "box"
    assert shapes.encoder_stage(e).key != shapes.encoder_stage(ball).key


def test_turned_shapes_are_the_official_neighbours(shapes):
    data = shapes.dataset("test")
    turns = list(range(15))
    drawn = true_images(shapes, "orientation", turns, range(3))
    own = factors_of(data.ids)[:, 5]
    assert torch.equal(drawn[torch.arange(3), torch.from_numpy(own)], data.images)
    z = true_latents(shapes, "orientation", turns)
    assert torch.allclose(z[torch.arange(3), torch.from_numpy(own)], shapes.latents("test"), atol=1e-4)
    with pytest.raises(StudyError, match=r"0\.\.14"):
        true_images(shapes, "orientation", [15], [0])


def test_table_19_in_miniature(shapes):
    experiments, turns = [shape_experiment(m) for m in ("Naive", "LASSI", "LASSI_ball")], list(range(15))
    rows = shapes.run(experiments)
    table = truth_table(kept(rows, true_answers(shapes, experiments, turns)), rows)
    assert table["method"].tolist() == ["Naive", "LASSI", "LASSI_ball"]
    beside = beside_table_19(table)
    assert beside["method"].tolist()[:6] == ["Naive"] * 3 + ["LASSI"] * 3
    both = beside.set_index(["method", "metric"])
    assert both.at[("LASSI", "certified fairness"), "published"] == 81.3
    assert both.at[("Naive", "emp unfair"), "ours"] == pytest.approx(table["emp_unfair"][0])
    low, high = both.loc[("LASSI", "accuracy"), ["low", "high"]]
    assert both.at[("LASSI", "accuracy"), "within_interval"] == (low <= 100 <= high)
    assert both["ours"].notna().all() and both["published"].isna().sum() == 3  # LASSI_ball
    assert both["within_interval"].isna().sum() == 3
    faces_only = beside_table_19(table.assign(sensitive="Young"))
    assert len(faces_only) == 6 and faces_only["ours"].isna().all()
    distances = true_distances(shapes, experiments, turns)
    assert len(distances) == 1 and 0 < distances["left %"][0] < 100


def test_attributes_of_many_classes_have_labels_and_a_longest_direction(shapes):
    labels = label_table(shapes, ["orientation"])
    assert len(labels) == 15 and labels["biased %"][7] == 0 and labels["train %"][7] > 0
    table = vector_table(shapes, ["orientation", "scale"])
    longest = shapes.vector("orientation").double().norm(dim=1).max()
    assert table["norm"][0] == pytest.approx(float(longest), rel=1e-6)
    strips, _ = traversals(shapes, ["orientation"], index=0, t=np.array([-1.0, 0.0, 1.0]))
    assert strips["orientation"].shape == (3, 3, 32, 32)


def test_only_shapes_can_be_biased(faces):
    assert faces.training_split == "train"
    assert isinstance(faces.pipeline.methods["LASSI"], MethodParams)
    with pytest.raises(StudyError, match="biased"):
        from lassi_lib.study import params

        data = replace(faces.pipeline.data, biased=True)
        params._check_values(replace(faces.pipeline, data=data), "params/x/pipeline.yaml")
