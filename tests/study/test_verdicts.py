"""A verdict follows from its table by the stated rule, and errs no more often than it says."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lassi_lib.errors import StudyError
from lassi_lib.study.statistics import PairedDifference
from lassi_lib.study.verdicts import Verdict, VerdictRule, _judge, claim_1_verdict, decided, tally, worst_of
from tests.study.test_statistics import make_rows, noisy_rows, probit_study

RULE = VerdictRule(min_fairness_gain=20, max_accuracy_loss=5)


def pair(rng, sensitive, gain, loss=0.0, m=3, n=1000, majority=0.5, accuracy=0.85):
    """Rows of Naive (10 % certified) and LASSI (`gain` more, `loss` less accurate) on shared points."""
    labels = (np.arange(n) < majority * n).astype(int)
    hard, luck = rng.random(n), rng.random((m, n))
    frames = []
    for method, right, fair in (("Naive", accuracy, 0.1), ("LASSI", accuracy - loss, 0.1 + gain)):
        correct = np.where(luck < 0.05, rng.random((m, n)), hard) < right
        certified = np.where(luck < 0.05, rng.random((m, n)), rng.permutation(hard)) < fair
        predictions = np.where(correct, labels, 1 - labels)
        frames.append(make_rows(labels, predictions, certified, method=method, sensitive=sensitive))
    return pd.concat(frames)


def test_supported_not_supported_and_inconclusive():
    rng = np.random.default_rng(1)
    good, small, dear, close = (
        pair(rng, "Pale_Skin", 0.8),
        pair(rng, "Young", 0.05),
        pair(rng, "Blond_Hair", 0.8, loss=0.3),
        pair(rng, "Pale_Skin+Young", 0.21, n=150),
    )
    assert claim_1_verdict(good, RULE).outcome == "supported"
    assert claim_1_verdict(small, RULE).outcome == "not supported"
    assert claim_1_verdict(dear, RULE).outcome == "not supported"
    assert claim_1_verdict(close, RULE).outcome == "inconclusive"
    assert claim_1_verdict(pd.concat([good, close]), RULE).outcome == "inconclusive"
    every = claim_1_verdict(pd.concat([close, good, small, dear]), RULE)
    assert every.outcome == "not supported"
    assert every.table["outcome"].tolist() == ["inconclusive", "supported", "not supported", "not supported"]
    assert every.table["sensitive"].tolist() == ["Pale_Skin+Young", "Pale_Skin", "Young", "Blond_Hair"]


@pytest.mark.parametrize("adjust", ["holm", "none"])
def test_the_outcome_can_be_read_off_the_bounds(adjust):
    rng = np.random.default_rng(2)
    rule = VerdictRule(20, 5, adjust=adjust)
    for _ in range(12):
        gains = rng.uniform(0.15, 0.35, 6)
        rows = pd.concat([pair(rng, f"A{i}", g, 0.02, n=300) for i, g in enumerate(gains)])
        table = claim_1_verdict(rows, rule).table
        shown = (table["fairness_gain_low"] >= 20) & (table["accuracy_loss_high"] <= 5)
        assert (shown == (table["outcome"] == "supported")).all()
        assert (table["p_adjusted"] >= table["p_value"]).all()
        refuted = (table["fairness_gain_high"] < 20) | (table["accuracy_loss_low"] > 5)
        assert (refuted == (table["outcome"] == "not supported")).all()
        assert (table["bound_confidence"] >= 95).all() and (
            adjust == "holm" or (table["bound_confidence"] == 95).all()
        )


@pytest.mark.parametrize("m", [2, 5])
def test_a_gain_just_at_the_limit_is_rarely_called_supported(m):
    """Eight pairs whose true gain is the required 20 points: any 'supported' in at most 5 % (+ 3 sd)."""
    rng, runs, wrong = np.random.default_rng(3), 400, 0
    level = stats.norm.ppf(0.2) * np.sqrt(1 + 0.1**2 + 1)
    free = [PairedDifference.of(np.zeros((m, 300)))] * 8
    for _ in range(runs):
        gained, rate = probit_study(rng, 8, m, 300, level, seed_sd=0.1, point_sd=1.0)
        gains = [PairedDifference.of(d) for d in gained.astype(int)]
        wrong += (_judge(gains, free, RULE, np.full(8, True))["outcome"] == "supported").any()
    assert rate == pytest.approx(0.2) and wrong <= runs * 0.05 + 3 * np.sqrt(runs * 0.05 * 0.95)


def test_numbers_of_the_table_are_those_of_the_rows():
    rows = pair(np.random.default_rng(4), "Young", 0.7, 0.02)
    row = claim_1_verdict(rows, RULE).table.iloc[0]
    fair = rows.assign(fair=rows["status"] == "CERTIFIED").groupby("method")["fair"].mean() * 100
    right = (rows["label"] == rows["prediction"]).groupby(rows["method"]).mean() * 100
    assert row["certified_fairness"] == pytest.approx(fair["LASSI"])
    assert row["certified_fairness_baseline"] == pytest.approx(fair["Naive"])
    assert row["fairness_gain"] == pytest.approx(fair["LASSI"] - fair["Naive"])
    assert row["accuracy_loss"] == pytest.approx(right["Naive"] - right["LASSI"])
    assert row["fairness_gain_low"] < row["fairness_gain"] < row["fairness_gain_high"]


def test_the_words_are_made_from_the_rule_and_the_table():
    rows = pair(np.random.default_rng(5), "Young", 0.8)
    verdict = claim_1_verdict(rows, VerdictRule(12.5, 3.25, confidence=0.9))
    assert verdict.text.startswith("Claim 1 is supported: of 1 pairs 1 supported, 0 not supported")
    assert {"12.5", "3.25", "90"} <= set(re.findall(r"\d+(?:\.\d+)?", verdict.text))
    assert "Holm" not in verdict.text  # one pair: nothing to adjust
    both = pd.concat([rows, pair(np.random.default_rng(6), "Bald", 0.8)])
    assert "Holm's levels over 2 pairs" in claim_1_verdict(both, RULE).text
    assert "Holm" not in claim_1_verdict(both, VerdictRule(20, 5, adjust="none")).text


def test_pairs_without_room_for_the_gain_are_named():
    """Where Naive is certified for 96 %, nothing can gain 20 points: that is no evidence against LASSI."""
    rng = np.random.default_rng(8)
    full = pair(rng, "Bald", 0.8).assign(vector_type="ramaswamy")
    full.loc[full["method"] == "Naive", "status"] = "CERTIFIED"
    text = claim_1_verdict(pd.concat([pair(rng, "Young", 0.8), full]), RULE).text
    assert "In 1 of 2 pairs (Smiling, Bald (ramaswamy)) Naive has more than 80 %: no room" in text
    assert "no room" not in claim_1_verdict(pair(rng, "Young", 0.8), RULE).text


def test_a_near_constant_classifier_is_marked():
    rng = np.random.default_rng(7)
    rows = pd.concat([pair(rng, "Young", 0.8), pair(rng, "Bald", 0.8, majority=0.86)])
    verdict = claim_1_verdict(rows, RULE)
    assert verdict.table["constant_would_do"].tolist() == [False, True]
    assert "1 of 2 pairs (Smiling, Bald)" in verdict.text
    assert "constant classifier" not in claim_1_verdict(rows[rows["sensitive"] == "Young"], RULE).text


def test_seeds_that_disagree_leave_it_open_though_the_models_at_hand_pass():
    rng = np.random.default_rng(8)
    n = 2000
    labels = np.arange(n) % 2
    naive = make_rows(labels, np.tile(labels, (2, 1)), np.zeros((2, n)), method="Naive")
    fair = rng.random((2, n)) < np.array([[0.4], [0.98]])
    verdict = claim_1_verdict(pd.concat([naive, make_rows(labels, np.tile(labels, (2, 1)), fair)]), RULE)
    assert verdict.outcome == "inconclusive"
    assert verdict.table["outcome_these_models"].tolist() == ["supported"]
    assert "1 of 1 pairs are supported: 2 seeds say too little" in verdict.text
    one = pd.concat([naive, make_rows(labels, np.tile(labels, (2, 1)), fair)]).query("seed == 1")
    single = claim_1_verdict(one, RULE)
    assert single.outcome == "inconclusive" and "one seed says nothing of another training" in single.headline
    assert single.table["outcome_these_models"].tolist() == ["supported"]
    assert "for the models as trained, 1 of 1 pairs are supported." in single.text
    other = pd.concat([naive, make_rows(labels, np.tile(labels, (2, 1)), fair)]).assign(sensitive="Other")
    mixed = claim_1_verdict(pd.concat([one, other]), RULE)
    assert "(1 of 2 pairs have one seed, which says nothing of another training)" in mixed.headline
    assert "over seeds and points; a pair with one seed counts as p = 1" in mixed.text


def test_pairs_with_one_seed_lend_the_others_no_strength():
    """They stay in Holm's family, last: the pairs with several seeds are tested as if these had p = 1."""
    rng = np.random.default_rng(9)
    rows = pd.concat([pair(rng, f"A{i}", 0.8) for i in range(4)])
    few = rows[rows["sensitive"].isin(["A0", "A1"]) | (rows["seed"] == 0)]
    table = claim_1_verdict(few, RULE).table.set_index("sensitive")
    assert table["p_value"].isna().tolist() == [False, False, True, True]
    assert (table["outcome"] == "inconclusive").tolist() == [False, False, True, True]
    assert (table["outcome_these_models"] == "supported").all()
    p = table["p_value"].dropna().sort_values()
    assert table.loc[p.index[0], "p_adjusted"] == pytest.approx(4 * p.iloc[0])
    assert sorted(table["bound_confidence"].head(2)) == pytest.approx(
        [100 * (1 - 0.05 / 3), 100 * (1 - 0.05 / 4)]
    )


@pytest.mark.parametrize(
    "wrong, hint",
    [
        ({"min_fairness_gain": -1}, "min_fairness_gain = -1"),
        ({"min_fairness_gain": "20"}, "min_fairness_gain = '20'"),
        ({"max_accuracy_loss": 100}, "max_accuracy_loss"),
        ({"confidence": 95}, "confidence = 95 is no number from 0.5 to below 1"),
        ({"confidence": float("nan")}, "confidence"),
        ({"adjust": "bonferroni"}, "use holm or none"),
    ],
)
def test_impossible_rules_are_refused(wrong, hint):
    with pytest.raises(StudyError, match=re.escape(hint)):
        VerdictRule(**({"min_fairness_gain": 20, "max_accuracy_loss": 5} | wrong))


def test_rows_that_cannot_be_judged_are_refused():
    rows = noisy_rows(np.random.default_rng(9))
    with pytest.raises(StudyError, match="no certificate rows"):
        claim_1_verdict(rows.iloc[:0], RULE)
    with pytest.raises(StudyError, match="no rows of method 'Naive'"):
        claim_1_verdict(rows, RULE)


def test_the_headline_is_the_first_sentence():
    verdict = Verdict(
        "supported", "Claim 1 is supported: of 2 pairs 2 supported. The rule says so.", pd.DataFrame()
    )
    assert verdict.headline == "Claim 1 is supported: of 2 pairs 2 supported."


@pytest.mark.parametrize(
    ("found", "outcome"),
    [
        (["supported", "supported"], "supported"),
        (["supported", "inconclusive"], "inconclusive"),
        (["inconclusive", "not supported", "supported"], "not supported"),
    ],
)
def test_several_outcomes_come_to_the_worst_of_them(found, outcome):
    assert worst_of(found) == outcome


def test_bounds_decide_on_either_side_of_the_threshold_and_nan_decides_nothing():
    bounds = [(5, 9), (1, 4), (4, 6), (np.nan, np.nan)]
    found = pd.Series([decided(low, high, 5) for low, high in bounds])
    assert list(found) == ["supported", "not supported", "inconclusive", "inconclusive"]
    assert tally(found) == "1 supported, 1 not supported, 2 inconclusive"
    assert tally(found, ["failed"]) == "0 failed"
