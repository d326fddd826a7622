"""Ordinary classifiers and end points: rows, published numbers beside them, and a verdict on paper."""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest

from lassi_lib.certification.certify import certify
from lassi_lib.study import vectors
from lassi_lib.study.annotations import Annotations
from lassi_lib.study.base_fairness import (
    _endpoints_stage,
    accuracy_table,
    attribute_table,
    base_rows,
    change_verdict,
    endpoint_predictions,
    endpoint_rows,
    fairness_table,
    mismatch_text,
)
from lassi_lib.study.cache import Stage
from lassi_lib.study.experiment import Experiment, Question
from lassi_lib.study.params import BaseParams, load_pipeline
from lassi_lib.study.study import Study
from tests.study.test_statistics import make_rows


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The smoke pipeline with few faces and base classifiers of one epoch."""
    pipeline = load_pipeline("smoke")
    data = replace(pipeline.data, n_train=200, n_valid=20, n_test=12)
    base = BaseParams(threads=1, hidden=[16], epochs=1, batch_size=50)
    methods = {"LASSI": replace(pipeline.methods["LASSI"], sigma_rs=0.01)}  # hardly any abstention
    encoder = replace(pipeline.encoder, epochs=1)
    certification = replace(pipeline.certification, n_center=10_000)
    small = replace(
        pipeline, data=data, base=base, encoder=encoder, methods=methods, certification=certification
    )
    return Study(small, device="cpu", cache=tmp_path_factory.mktemp("cache"), workers=1)


def test_the_resnet_may_have_epochs_of_its_own(study):
    other = study.pipeline, replace(study.pipeline, base=replace(study.pipeline.base, resnet_epochs=3))
    plain, more = (Study(p, device="cpu") for p in other)
    stages = [
        [vectors.base_classifier_stage(s, kind, "Smiling", 0) for s in (plain, more)]
        for kind in ("latent", "resnet18")
    ]
    assert stages[0][0].key == stages[0][1].key
    assert "resnet_epochs" not in stages[0][0].params  # kept classifiers stay valid
    assert [stage.params["epochs"] for stage in stages[1]] == [1, 3]


def test_base_classifiers_are_examined_on_the_grid(study):
    rows = base_rows(
        study, ["Smiling", "Smiling/Young"], ["ResNet18", "zG_classifier"], [0], ["valid", "test"]
    )
    assert rows.groupby(["sensitive", "method", "split"]).size().tolist() == [12, 20] * 4
    table = fairness_table(rows[rows["sensitive"] != ""], "Supp. Table 7", ["split"], 0.95)
    cell = table.set_index(["method", "split"])
    assert cell["eccv"]["ResNet18", "valid"] == 87.7
    assert cell["n_points"]["zG_classifier", "test"] == 12
    C, z = vectors.base_classifier(study, "latent", "Smiling", 0), study.latents("test")
    moved = [C.predict(z + t * study.vector("Young")) for t in np.linspace(-1, 1, 9)]
    constant = 100 * (np.stack(moved) == moved[4]).all(0).mean()
    assert cell["constant"]["zG_classifier", "test"] == pytest.approx(constant)
    alone = rows[rows["sensitive"] == ""]
    assert set(alone["status"]) == {"UNDECIDED"}
    of_pair = rows[(rows["sensitive"] != "")]
    assert alone["prediction"].tolist() == of_pair["prediction"].tolist()


def test_accuracies_stand_beside_both_majorities(study):
    rows = base_rows(study, ["Smiling"], ["zG_classifier"], [0, 1], ["valid", "test"])
    smiling = np.r_[np.ones(100), np.zeros(100), np.ones(300), np.zeros(100), np.ones(312 * 64)]
    split = np.repeat(["train", "valid", "test"], [200, 400, 312 * 64])
    labels = {"CelebA": Annotations("CelebA", pd.DataFrame({"Smiling": smiling}), split)}
    table = accuracy_table(rows, labels).set_index("split")
    assert table["eccv_accuracy"].to_dict() == {"valid": 89.4, "test": 87.2}
    assert table["eccv_majority"].to_dict() == {"valid": 51.7, "test": 52.6}
    assert table["majority in label file"].to_dict() == {"valid": 75.0, "test": 100.0}
    assert (table["n_seeds"] == 2).all()
    assert table["majority in all of CelebA"].to_numpy() == pytest.approx(51.8, abs=0.1)
    assert accuracy_table(rows, {})["majority in label file"].isna().all()
    facts = attribute_table(study, ["Young", "Smiling"], labels).set_index("attribute")
    assert facts.loc["Young", ["positives, ECCV 2022", "length, ECCV 2022"]].tolist() == [77.9, 7.8]
    assert facts.loc["Smiling", "label file"] == 50
    assert facts.loc["Young", "here"] == pytest.approx(100 * study.labels("train", "Young").mean())
    assert facts.loc["Young", "all of CelebA"] == pytest.approx(77.4, abs=0.1)


def test_end_points_are_those_of_the_smoothed_pipeline(study):
    e = Experiment("synthfaces", "Smiling", ("Young",), "mean_difference", "LASSI", 0)
    rows = endpoint_rows(study, [e])
    answers = dict(list(rows.groupby("answer")))
    assert {name: len(part) for name, part in answers.items()} == dict.fromkeys(answers, 12)
    plain = study.certificates(e, Question("empirical"))
    assert (answers["end points, plain"]["status"] == "PASSED").to_list() == plain["fair_endpoints"].to_list()
    # against the prediction at the shifted latent itself
    C, a = study.classifier(e), study.vector("Young")
    R, z = study.representation(e), study.latents("test")
    there = np.stack([C(R(z + t * a)).argmax(1).numpy() for t in (-1.0, 1.0)])
    smoothed = answers["end points, smoothed"]
    same = (there == smoothed["prediction"].to_numpy()).all(0)
    passed = (smoothed["status"] == "PASSED").to_numpy()
    seen = (smoothed["prediction"] >= 0).to_numpy()
    assert seen.sum() >= 6
    assert (passed == same)[seen].mean() > 0.7  # smoothing moves a few near-ties
    assert not passed[~seen].any()
    # no more is asked than the answer needs: -1 once an end point has another prediction
    asked = endpoint_predictions(study, e).to_numpy()
    similarity, spec = study.set_and_spec(e, Question())
    all_of = [
        certify(R, C, similarity, similarity.points(z, t[None]), smoothed["label"], spec, seed=0,
                indices=np.arange(12) + k * 1_000_000_007)["prediction"]
        for k, t in enumerate(similarity.endpoints(), 1)
    ]  # fmt: skip
    everywhere = np.stack(all_of, axis=1)
    known = seen[:, None] & np.stack([seen, everywhere[:, 0] == smoothed["prediction"]], axis=1)
    assert 0 < known.sum() < known.size
    assert np.array_equal(asked, np.where(known, everywhere, -1))
    assert np.array_equal(passed, seen & (everywhere == smoothed["prediction"].to_numpy()[:, None]).all(1))
    table = fairness_table(rows, "Supp. Table 13", ["answer"], 0.95).set_index("answer")
    assert table["eccv"].dropna().to_dict() == {"end points, smoothed": 99.6}
    assert table["mismatches"].sum() == smoothed["mismatch"].sum()


def test_end_points_known_before_an_interruption_are_not_asked_again(study, monkeypatch):
    from lassi_lib.certification import certify as module

    e = Experiment("synthfaces", "Smiling", ("Young",), "mean_difference", "LASSI", 0)
    known, asked = endpoint_predictions(study, e), []
    study.cache.remove(_endpoints_stage(study, e))
    for k in (1, 2):
        study.cache.remove(Stage("end_point", 1, {"k": k}, (_endpoints_stage(study, e).key,)))

    def until(last, *args, label, **options):
        if label.startswith(f"end point {last + 1}"):
            raise KeyboardInterrupt
        asked.append(label)
        return certify(*args, label=label, **options)

    monkeypatch.setattr(module, "certify", partial(until, 1))
    with pytest.raises(KeyboardInterrupt):
        endpoint_predictions(study, e)
    monkeypatch.setattr(module, "certify", partial(until, 2))
    assert endpoint_predictions(study, e).equals(known)
    assert asked == [f"end point {k} {e.label}" for k in (1, 2)]


def decided(changed, m=3, n=1000):
    labels = np.zeros(n, dtype=int)
    fair = np.arange(n) >= changed * n
    return make_rows(labels, labels[None].repeat(m, 0), fair[None].repeat(m, 0)).assign(method="ResNet18")


def test_a_share_is_judged_by_its_bounds():
    parts = {"Young": 0.02, "Pale_Skin": 0.2, "Blond_Hair": 0.055}
    rows = pd.concat([decided(share).assign(sensitive=name) for name, share in parts.items()])
    verdict = change_verdict(rows, 5.0)
    assert verdict.table["outcome"].tolist() == ["not supported", "supported", "inconclusive"]
    assert verdict.table["changed"].tolist() == pytest.approx([2, 20, 5.5])
    assert verdict.outcome == "not supported"
    assert "1 supported, 1 inconclusive, 1 not supported" in verdict.text
    assert "over seeds and points" in verdict.text and "one seed" not in verdict.text
    single = change_verdict(rows[rows["seed"] == rows["seed"].iloc[0]], 5.0)
    assert single.outcome == "inconclusive" and "one seed says nothing" in single.headline
    assert "over test points" in single.text and "1 of 3 are supported" in single.text
    alone = change_verdict(rows[rows["sensitive"] == "Blond_Hair"], 5.0).table
    assert alone["changed_low"][0] > verdict.table["changed_low"][2]  # bounds widen with their number


def test_mismatches_are_counted_by_points_and_runs(study):
    e = Experiment("synthfaces", "Smiling", ("Young",), "mean_difference", "LASSI", 0)
    rows = endpoint_rows(study, [e])
    smoothed = rows["answer"] == "end points, smoothed"
    rows["mismatch"] = rows["mismatch"].where(~smoothed, False)
    assert "at an end point: 0 of " in mismatch_text(rows, 0.011) and ", in 0 of 1 runs." in mismatch_text(
        rows, 0.011
    )
    rows.loc[rows.index[smoothed][:2], "mismatch"] = True
    again = pd.concat([rows, rows.assign(seed=1, mismatch=False)])
    text = mismatch_text(again, 0.011)
    n = 2 * (rows["status"] == "CERTIFIED").sum()
    assert f"at an end point: 2 of {n} (the certificate allows a share of 0.011), in 1 of 2 runs." in text
    assert text.endswith("In print 8 of 150 runs have one such point each.")
