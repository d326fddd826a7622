"""Claims 2 and 3: verdicts that follow from their tables, and tables of a small study."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from lassi_lib.errors import StudyError
from lassi_lib.similarity.diagnostics import cosines
from lassi_lib.similarity.kinds import DISCOVERED_NAMES
from lassi_lib.study.claims import (
    discovery_table,
    kinds_of,
    named_by_kind,
    transfer_verdict,
    vector_kinds_table,
)
from lassi_lib.study.experiment import Experiment, experiments_of
from lassi_lib.study.params import MethodParams, load_pipeline
from lassi_lib.study.study import Study
from lassi_lib.study.vectors import boundaries, search_history
from tests.study.test_statistics import make_rows


def transferred(task, accuracy, fair, majority=0.5, m=5, n=1000, seed=0):
    """Rows of one pair: a share `accuracy` right and a share `fair` certified, the same for all seeds."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) < majority * n).astype(int)
    right, certified = rng.random(n) < accuracy, rng.random(n) < fair
    rows = make_rows(
        labels, np.where(right, labels, 1 - labels)[None].repeat(m, 0), certified[None].repeat(m, 0)
    )
    return rows.assign(method="LASSI_transfer", task=task)


def test_claim_3_needs_fairness_and_more_than_a_constant():
    good = transferred("Smiling", 0.85, 0.97)
    unfair = transferred("Wavy_Hair", 0.85, 0.60)
    empty = transferred("Oval_Face", 0.69, 0.99, majority=0.7)
    close = transferred("Wearing_Hat", 0.85, 0.90, n=100)
    outcomes = {
        name: transfer_verdict(rows, 90).outcome
        for name, rows in (("good", good), ("unfair", unfair), ("empty", empty), ("close", close))
    }
    assert outcomes["good"] == "supported"
    assert outcomes["unfair"] == "not supported"
    assert outcomes["empty"] in ("not supported", "inconclusive")
    assert outcomes["close"] == "inconclusive"
    every = transfer_verdict(pd.concat([good, unfair]), 90)
    assert every.outcome == "not supported"
    assert every.table["outcome"].tolist() == ["supported", "not supported"]
    assert "of 2 pairs 1 supported, 1 not supported" in every.text
    assert every.text.endswith("for the models as trained: 1 supported, 1 not supported, 0 inconclusive.")
    with pytest.raises(StudyError, match="no certificate rows"):
        transfer_verdict(good[:0], 90)


def test_bounds_widen_with_the_number_of_pairs():
    one = transferred("Smiling", 0.85, 0.95)
    alone = transfer_verdict(one, 90).table
    among = transfer_verdict(pd.concat([one, *(one.assign(task=f"T{i}") for i in range(9))]), 90).table
    assert among["certified_fairness_low"][0] < alone["certified_fairness_low"][0]


def test_groups_are_a_union_of_products():
    pipeline = load_pipeline("smoke")
    shared = {"methods": ["Naive", "LASSI"], "seeds": [0]}
    groups = [
        {"pairs": ["Smiling/Young"], "vector_types": ["mean_difference", "random"]},
        {"pairs": ["Smiling/Young", "Smiling/Bald"], "methods": ["LASSI"]},
    ]
    found = experiments_of(pipeline, {"groups": groups, **shared})
    assert len(found) == 5  # 4 of the first group, and of the second the pair that is new
    assert kinds_of(groups) == ["mean_difference", "random"]
    for wrong in ([{"vector_types": ["random"]}], ["Smiling/Young"], [{"pairs": ["Smiling/Young"], "x": 1}]):
        with pytest.raises(StudyError, match="group"):
            experiments_of(pipeline, {"groups": wrong, **shared})
    with pytest.raises(StudyError, match="perpendicular"):
        experiments_of(
            pipeline, {"groups": [{"pairs": ["Smiling/Young"], "vector_types": ["perpendiclar"]}], **shared}
        )


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The smoke pipeline with fewer faces and a transfer method."""
    pipeline = load_pipeline("smoke")
    data = replace(pipeline.data, n_train=300, n_valid=60, n_test=24)
    transfer = MethodParams(sigma_rs=0.5, lambda_1=0.0, lambda_2=0.05, lambda_3=0.1, epochs=1)
    small = replace(pipeline, data=data, methods=pipeline.methods | {"LASSI_transfer": transfer})
    return Study(small, device="cpu", cache=tmp_path_factory.mktemp("cache"), workers=1)


def test_one_transfer_encoder_serves_all_tasks(study):
    one = Experiment("synthfaces", "Smiling", ("Young",), "mean_difference", "LASSI_transfer", 0)
    other = replace(one, task="Wearing_Hat")
    assert study.encoder_stage(one).key == study.encoder_stage(other).key
    assert study.classifier_stage(one).key != study.classifier_stage(other).key


def test_searches_of_discovered_vectors_are_told_with_the_slip_and_without(study):
    groups = [
        {"pairs": ["Smiling/biased_attr_0"], "vector_types": ["discovered"]},
        {"pairs": ["Smiling/biased_attr_1"], "vector_types": ["discovered_mended", "discovered"]},
    ]
    table = discovery_table(study, groups, "Smiling")
    assert table["vector"].tolist() == [*DISCOVERED_NAMES] * 2
    assert table["kind"].tolist() == ["discovered"] * 3 + ["discovered_mended"] * 3
    by_kind = table.groupby("kind")
    assert (by_kind["norm ratio"].min()["discovered"], by_kind["off plane"].min()["discovered"]) > (5, 100)
    assert by_kind["norm ratio"].max()["discovered_mended"] < 1.01
    assert by_kind["off plane"].max()["discovered_mended"] < 1e-3
    normal = boundaries(study)["Smiling"].w
    for row in table.to_dict("records"):
        a = study.vector(row["vector"], row["kind"], "Smiling")
        assert row["cos task"] == pytest.approx(cosines(a[None], normal[None]).item(), abs=1e-4)
    history = search_history(study, "discovered_mended", "Smiling")
    assert table["change last"].tolist()[3:] == [100 * row["change_last"] for row in history]
    assert discovery_table(study, [{"pairs": ["Smiling/Young"]}], "Smiling").empty


def test_vectors_are_described_by_kind(study):
    table = vector_kinds_table(study, ["Young"], ["mean_difference", "perpendicular"], "Smiling")
    assert table["norm"].tolist() == pytest.approx([float(study.vector("Young").norm()), 1.0], rel=1e-5)
    assert table["cos mean difference"][0] == pytest.approx(1, abs=1e-5)
    assert table["cos task"].abs().max() < 1
    named = named_by_kind(pd.DataFrame({"sensitive": ["Young"], "vector_type": ["mean_difference"]}))
    assert named["sensitive"].item() == "Young (mean difference)"
