"""What encoders still know is said once per encoder, with intervals over seeds and test faces."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lassi_lib.study.experiment import Experiment
from lassi_lib.study.knowledge import knowledge_table
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
