"""What encoders still know is said once per encoder, with intervals over seeds and test faces."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from lassi_lib.study.experiment import Experiment
from lassi_lib.study.knowledge import auc_interval, knowledge_table
from lassi_lib.study.params import MethodParams, load_pipeline
from lassi_lib.study.study import Study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The smoke pipeline with fewer faces and a transfer method."""
    pipeline = load_pipeline("smoke")
    data = replace(pipeline.data, n_train=300, n_valid=60, n_test=60)
    transfer = MethodParams(sigma_rs=0.5, lambda_1=0.0, lambda_2=0.05, lambda_3=0.1, epochs=1)
    small = replace(pipeline, data=data, methods=pipeline.methods | {"LASSI_transfer": transfer})
    return Study(small, device="cpu", cache=tmp_path_factory.mktemp("cache"), workers=1)


ONE = Experiment("synthfaces", "Smiling", ("Young",), "mean_difference", "LASSI_transfer", 0)


def test_an_encoder_of_several_tasks_stands_once(study):
    (row,) = knowledge_table(
        study, [ONE, replace(ONE, task="Wearing_Hat")], ["Smiling", "Pale_Skin"]
    ).to_dict("records")
    assert (row["trained for"], row["sensitive"], row["method"]) == ("none", "Young", "LASSI_transfer")
    assert 1 <= row["effective rank_low"] < row["effective rank"] < row["effective rank_high"] <= 300
    assert row["faces"] == 300 and "vector_type" not in row
    for name in ("AUC Smiling", "AUC Pale_Skin"):
        assert 0 <= row[f"{name}_low"] < row[name] < row[f"{name}_high"] <= 100


def test_seeds_share_a_row_and_widen_what_two_trainings_leave_open(study):
    alone = knowledge_table(study, [ONE], ["Young"])
    other = knowledge_table(study, [replace(ONE, seed=1)], ["Young"])
    both = knowledge_table(study, [ONE, replace(ONE, seed=1)], ["Young"])
    assert len(both) == 1
    mean = (alone["effective rank"] + other["effective rank"]).item() / 2
    assert both["effective rank"].item() == pytest.approx(mean)
    widths = [np.log(t["effective rank_high"] / t["effective rank_low"]).item() for t in (alone, both)]
    assert widths[1] > widths[0]


def test_more_confidence_needs_more_room(study):
    at = [knowledge_table(study, [ONE], ["Young"], confidence).iloc[0] for confidence in (0.9, 0.99)]
    for name in ("effective rank", "AUC Young"):
        assert at[1][f"{name}_low"] < at[0][f"{name}_low"] < at[0][f"{name}_high"] < at[1][f"{name}_high"]


def test_kinds_of_vectors_are_told_apart(study):
    table = knowledge_table(study, [ONE, replace(ONE, vector_type="random")], ["Young"])
    assert table["vector_type"].tolist() == ["mean_difference", "random"]


def test_an_encoder_that_maps_everything_to_one_point_knows_nothing(study, monkeypatch):
    monkeypatch.setattr("lassi_lib.study.knowledge.embed", lambda _, z: torch.ones(len(z), 8))
    row = knowledge_table(study, [ONE], ["Young"]).iloc[0]
    assert row["effective rank"] == row["effective rank_high"] == 0
    assert row["AUC Young"] == 50 and row["AUC Young_low"] < 40 and row["AUC Young_high"] > 60


def test_an_attribute_that_every_test_face_has_or_none_has_no_auc(study):
    labels = study.labels

    class Uniform:
        """The study, where every test face has Bald."""

        def __getattr__(self, name):
            return getattr(study, name)

        def labels(self, split, attribute):
            y = labels(split, attribute)
            return np.ones_like(y) if (split, attribute) == ("test", "Bald") else y

    row = knowledge_table(Uniform(), [ONE], ["Bald", "Young"]).iloc[0]
    assert np.isnan([row["AUC Bald"], row["AUC Bald_low"], row["AUC Bald_high"]]).all()
    assert row["AUC Young"] >= 0


@pytest.mark.parametrize(
    "shift, positives, m", [(0.5, 60, 1), (2.0, 30, 1), (3.0, 20, 1), (2.5, 12, 1), (1.0, 40, 3)]
)
def test_the_interval_of_an_auc_covers(shift, positives, m):
    """New points, and new seeds, whose probes separate the classes better or worse."""
    rng, inside, n = np.random.default_rng(33), 0, 400
    y = (np.arange(n) < positives).astype(int)
    apart = np.exp(rng.normal(0, 0.1 if m > 1 else 0, (600, m))) * shift
    truth = stats.norm.cdf(
        np.exp(np.random.default_rng(1).normal(0, 0.1 if m > 1 else 0, 10**5)) * shift / 2**0.5
    )
    for each in apart:
        noise = rng.normal(0, 1, n) * 0.8 + rng.normal(0, 1, (m, n)) * 0.6
        low, high = auc_interval(each[:, None] * y + noise, y)[1:]
        inside += low <= truth.mean() <= high
    assert inside / 600 > 0.945
    assert inside / 600 < (0.995 if m == 1 else 1)


def test_a_perfect_probe_of_few_positives_is_not_certain():
    y = np.array([1] * 5 + [0] * 200)
    value, low, high = auc_interval(np.array([y + 0.0]), y)
    assert (value, high) == (1, 1) and 0.4 < low < 0.95
    mirrored = auc_interval(-np.array([y + 0.0]), y)
    assert mirrored == pytest.approx((0, 0, 1 - low))
    one = auc_interval(np.arange(201.0)[None], (np.arange(201) == 100).astype(int))
    assert one[0] == 0.5 and one[1] < 0.1 and one[2] > 0.9
    dead = auc_interval(np.ones((2, 205)), y)
    assert dead[0] == 0.5 and dead[1] < 0.1 and dead[2] > 0.9
    assert np.isnan(auc_interval(np.ones((2, 3)), np.ones(3, int))).all()
