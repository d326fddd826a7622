"""Longer trainings share what the published one has; gains, gaps and verdicts follow from their rows."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from lassi_lib.errors import StudyError
from lassi_lib.study.experiment import Experiment
from lassi_lib.study.params import load_pipeline
from lassi_lib.study.published import published
from lassi_lib.study.sensitivity import variants
from lassi_lib.study.study import Study
from lassi_lib.study.training_length import (
    ORIGINAL,
    equally_long,
    gap_text,
    length_experiments,
    length_gains,
    length_table,
    length_verdict,
    lengthened,
    lowest_epochs,
    printed_rates,
    training_history,
)
from lassi_lib.study.verdicts import VerdictRule, claim_1_verdict
from tests.study.test_statistics import make_rows

LAST = "LASSI keep=last"
GROUPS = [{"pairs": ["Smiling/Pale_Skin"], "methods": ["LASSI"], "seeds": [0, 1]}]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The smoke pipeline with fewer faces, two epochs, and LASSI for four more."""
    pipeline = load_pipeline("smoke")
    data = replace(pipeline.data, n_train=300, n_valid=60, n_test=20)
    pipeline = replace(pipeline, data=data, encoder=replace(pipeline.encoder, epochs=2))
    plain = Study(pipeline, device="cpu", cache=tmp_path_factory.mktemp("cache"), workers=1)
    return lengthened(plain, {"LASSI": [6]})


def rows_of(fair, right=0.9, n=400, m=3):
    """Rows of several methods: shares certified (and right) of the same points, the same in every seed."""
    labels, parts = np.arange(n) % 2, []
    for method, share in fair.items():
        certified = np.arange(n) < share * n
        good = np.arange(n)[::-1] < (right[method] if isinstance(right, dict) else right) * n
        predictions = np.where(good, labels, 1 - labels)
        parts.append(
            make_rows(labels, [predictions] * m, [certified] * m, sensitive="Pale_Skin", method=method)
        )
    return pd.concat(parts, ignore_index=True)


def test_a_method_is_kept_at_its_last_epoch_and_trained_for_longer(study):
    assert variants(study, "LASSI") == [LAST, f"{LAST} epochs=6"]
    asked = length_experiments(study, GROUPS)
    assert [(e.method, e.seed) for e in asked] == [
        (method, seed) for method in ("LASSI", LAST, f"{LAST} epochs=6") for seed in (0, 1)
    ]
    keys = {study.encoder_stage(e).key for e in asked}
    assert len(keys) == len(asked)
    plain = Study(study.pipeline, cache=study.cache.root)
    assert plain.encoder_stage(asked[0]).key == study.encoder_stage(asked[0]).key
    assert "keep" not in study.encoder_stage(asked[0]).params  # encoders kept so far stay valid
    assert study.encoder_stage(asked[2]).params["keep"] == "last"


def test_the_history_says_which_epoch_was_kept_and_where_losses_are_lowest(study):
    experiments = length_experiments(study, GROUPS)
    history = training_history(study, experiments)
    kept = history[history["selected"]].set_index(["seed", "kept", "epochs"])
    for seed in (0, 1):
        assert kept.loc[(seed, "last epoch", 2), "epoch"] == 2
        assert kept.loc[(seed, "last epoch", 6), "epoch"] == 6
        original_rule = history[(history["seed"] == seed) & (history["kept"] == ORIGINAL)]
        best = original_rule.loc[original_rule["valid_loss"].idxmin(), "epoch"]
        assert kept.loc[(seed, ORIGINAL, 2), "epoch"] == best
    assert set(history["steps"]) == {2 * 3, 6 * 3}  # 300 faces in batches of 100

    losses = ["valid_cls", "valid_adv", "valid_loss"]
    of = history[history["seed"] == 0].set_index(["kept", "epochs", "epoch"])
    short, long = of.loc[(ORIGINAL, 2), losses], of.loc[("last epoch", 6), losses]
    assert short.to_numpy() == pytest.approx(
        long.loc[:2].to_numpy()
    )  # a longer training begins as a shorter one

    table = lowest_epochs(history)
    assert table["seed"].tolist() == [0, 1] and (table["epochs"] == 6).all()
    first = long["valid_loss"].idxmin()
    assert (table["lowest total"][0], table["its step"][0]) == (first, 3 * first)
    assert table["lowest cls"][0] == long["valid_cls"].idxmin()
    assert (table["adv there"][0], table["adv last"][0]) == (long["valid_adv"][first], long["valid_adv"][6])


def test_the_table_names_length_and_steps_and_sets_print_beside_the_published_training(study):
    rows = study.run(length_experiments(study, GROUPS))
    table = length_table(study, rows)
    assert table["method"].tolist() == ["LASSI"] * 3
    assert table["kept"].tolist() == [ORIGINAL, "last epoch", "last epoch"]
    assert table[["epochs", "steps"]].to_numpy().tolist() == [[2, 6], [2, 6], [6, 18]]
    cell = {"task": "Smiling", "sensitive": "Pale_Skin", "method": "LASSI", "table": "Supp. Table 12"}
    printed = published(metric="certified_fairness", **cell)["value"].item()
    assert table["eccv_certified_fairness"].fillna(-1).tolist() == [printed, -1, -1]
    assert printed_rates("accuracy").index.is_unique


def test_gains_are_paired_and_the_longest_training_is_judged(study):
    rule = VerdictRule(10.0, 5.0)
    longest = f"{LAST} epochs=6"

    def judged(fair, **more):
        gains = length_gains(
            study, rows_of(dict(zip(("LASSI", LAST, longest), fair, strict=True)), **more), rule
        )
        return gains, length_verdict(gains, rule)

    gains, verdict = judged([0.3, 0.4, 0.8])
    assert gains["fairness_gain"].tolist() == pytest.approx([10.0, 50.0])
    assert gains["epochs"].tolist() == [2, 6]
    assert verdict.outcome == "supported" and verdict.table["epochs"].tolist() == [6]
    assert "of 1 pairs 1 supported" in verdict.text
    assert judged([0.3, 0.9, 0.3])[1].outcome == "not supported"  # of two lengths the longest counts
    assert judged([0.3, 0.3, 0.41])[1].outcome == "inconclusive"
    dear = {"LASSI": 0.9, LAST: 0.9, longest: 0.7}
    gains, verdict = judged([0.3, 0.4, 0.8], right=dear)
    assert gains["accuracy_loss"].tolist() == pytest.approx([0.0, 20.0])
    assert verdict.outcome == "not supported"
    alone, verdict = judged([0.3, 0.4, 0.8], m=1)
    assert alone["outcome"].tolist() == ["inconclusive"] * 2 and verdict.outcome == "inconclusive"
    assert verdict.table["outcome_these_models"].tolist() == ["supported"]
    assert "one seed says nothing" in verdict.headline


def test_a_length_of_fewer_seeds_is_held_against_those_seeds(study):
    many = rows_of({"LASSI": 0.3, LAST: 0.4, f"{LAST} epochs=6": 0.8})
    fewer = many[(many["seed"] == 0) | ~many["method"].str.endswith("epochs=6")]
    gains = length_gains(study, fewer, VerdictRule(10.0, 5.0))
    assert gains["n_seeds"].tolist() == [3, 1]
    assert gains["outcome"].tolist()[1] == "inconclusive"


def test_without_a_longer_training_there_is_nothing_to_judge(study):
    with pytest.raises(StudyError, match="no longer training"):
        length_verdict(pd.DataFrame(), VerdictRule(10.0, 5.0))


def test_the_distance_to_print_is_told_where_there_is_one():
    table = pd.DataFrame({"task": "Smiling", "sensitive": "Young", "method": "LASSI", "epochs": [5, 5, 50]})
    table = table.assign(kept=[ORIGINAL, "last epoch", "last epoch"], certified_fairness=[40.0, 60.0, 75.0])
    said = gap_text(table.assign(eccv_certified_fairness=[90.0, np.nan, np.nan]))
    assert "printed 90.0 %, original rule 40.0 %, last of 50 epochs 75.0 %, which is 70 % of the way" in said
    assert "No pair" in gap_text(table.assign(eccv_certified_fairness=[30.0, np.nan, np.nan]))
    assert "No pair" in gap_text(table[1:].assign(eccv_certified_fairness=np.nan))  # the control
    assert "No pair" in gap_text(table.assign(eccv_certified_fairness=np.nan))


def test_a_method_without_a_task_has_no_classification_loss(study):
    transfer = lengthened(study, {"LASSI_transfer": [3]})
    groups = [{"pairs": ["Smiling/Young"], "methods": ["LASSI_transfer"], "seeds": [0]}]
    history = training_history(transfer, length_experiments(transfer, groups))
    assert "valid_cls" not in history and history["valid_rec"].notna().all()
    assert "lowest cls" not in lowest_epochs(history)
    both = pd.concat([history, training_history(study, length_experiments(study, GROUPS))])
    table = lowest_epochs(both)
    assert table["lowest cls"].isna().tolist() == [True, False, False]


def test_experiments_of_one_seed_share_nothing_but_what_is_the_same(study):
    e = Experiment("synthfaces", "Smiling", ("Pale_Skin",), "mean_difference", "LASSI", 0)
    states = [study.representation(replace(e, method=m)).state() for m in (LAST, f"{LAST} epochs=6")]
    assert any(not np.array_equal(states[0][k], states[1][k]) for k in states[0])


def test_claim_1_is_asked_again_of_methods_trained_equally_long(study):
    both = lengthened(study, {"Naive": [6]})
    naive = "Naive keep=last epochs=6"
    rows = rows_of({"Naive": 0.0, "LASSI": 0.3, LAST: 0.4, f"{LAST} epochs=6": 0.8, naive: 0.2})
    alone = rows_of({f"{LAST} epochs=6": 0.9}).assign(sensitive="Young")  # no Naive beside it
    long = equally_long(both, pd.concat([rows, alone], ignore_index=True))
    assert set(long["method"]) == {"Naive", "LASSI"} and set(long["sensitive"]) == {"Pale_Skin"}
    table = claim_1_verdict(long, VerdictRule(10.0, 5.0)).table
    assert table["fairness_gain"].tolist() == pytest.approx([60.0])
    gains = length_gains(both, rows, VerdictRule(10.0, 5.0))
    assert set(gains["method"]) == {"LASSI"} and gains["fairness_gain"].tolist() == pytest.approx(
        [10.0, 50.0]
    )
    with pytest.raises(StudyError, match="no pair has both Naive and LASSI, trained equally long"):
        equally_long(both, alone)
    with pytest.raises(StudyError, match="same largest number of epochs"):
        equally_long(lengthened(study, {"Naive": [4]}), rows.replace(naive, "Naive keep=last epochs=4"))
    with pytest.raises(StudyError, match="name both in 'groups'"):
        equally_long(study, rows)


def test_the_control_is_trained_longest_alone_and_has_no_history_here(study):
    groups = [GROUPS[0] | {"methods": ["Naive", "LASSI"], "seeds": [0]}]
    both = lengthened(study, {"Naive": [3]})
    experiments = length_experiments(both, groups)
    assert [e.method for e in experiments if e.method.startswith("Naive")] == ["Naive keep=last epochs=3"]
    assert set(training_history(both, experiments)["method"]) == {"LASSI"}
