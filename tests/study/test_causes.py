"""Causes by experiment: keys of dialled faces, intervals that cover, verdicts that follow, a small run."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from lassi_lib.errors import StudyError
from lassi_lib.study.causes import (
    _cube,
    causes_verdict,
    dialled,
    dialled_law,
    estimate,
    kind_effects,
    phi_effects,
    swapped,
)
from lassi_lib.study.experiment import Experiment
from lassi_lib.study.params import load_pipeline
from lassi_lib.study.study import Study

PHIS = np.array([0.0, 0.1, 0.2, 0.35])
SLOPE = (PHIS - PHIS.mean()) * 0.35 / ((PHIS - PHIS.mean()) ** 2).sum()


def made(by, factors, *, training=0.02, method="LASSI", m=2, n=200, seed=0):
    """Rows of a pair whose d_cs / d_rs is `factors[level]` times that of a point, up to noise."""
    rng = np.random.default_rng(seed)
    point, rows = rng.normal(-0.5, 0.5, n), []
    for level, factor in factors.items():
        for s in range(m):
            log_ratio = point + np.log(factor) + training * rng.normal() + 0.1 * rng.normal(size=n)
            fair = np.where(log_ratio < 0, "CERTIFIED", "NOT_CERTIFIED")
            part = pd.DataFrame({"index": np.arange(n), "seed": s, "d_cs": np.exp(log_ratio), "d_rs": 1.0})
            part = part.assign(status=fair, label=1, prediction=1, mode="monte_carlo", method=method)
            part = part.assign(
                task="Smiling", sensitive="Blond_Hair", phi=0.35, vector_type="mean_difference"
            )
            rows.append(part.assign(**{by: level}))
            exact = np.where(log_ratio < 1, "VERIFIED", "REFUTED")
            rows.append(rows[-1].assign(mode="exact_decision", status=exact, d_cs=np.nan, d_rs=np.nan))
    return pd.concat(rows, ignore_index=True)


@pytest.mark.parametrize("scatter", [(0.3, 0.3, 0.3, 0.3), (0.1, 0.1, 0.1, 0.9)])
def test_intervals_cover_also_where_trainings_scatter_unequally(scatter):
    """600 simulated trends with two seeds: 95 % intervals cover at least 90 %; points alone would not."""
    rng, hits, alone, n = np.random.default_rng(0), 0, 0, 60
    for _ in range(600):
        slopes = 2.0 + 0.5 * rng.normal(size=n)
        means = 1.0 + scatter * rng.normal(size=(2, 1, 4)) + slopes[:, None] * PHIS
        y = means + rng.normal(size=n)[:, None] + 0.2 * rng.normal(size=(2, n, 4))
        low, high = estimate(y, SLOPE, 0.025)[1:]
        hits += low <= 0.7 <= high
        low, high = estimate(y, SLOPE, 0.025, seeds="fixed")[1:]
        alone += low <= 0.7 <= high
    assert hits / 600 > 0.9
    assert alone / 600 < 0.7


def test_a_pooled_variance_covers_where_conditions_are_alike():
    rng, hits = np.random.default_rng(1), 0
    for _ in range(600):
        y = 0.3 * rng.normal(size=(2, 1, 4)) + 0.2 * rng.normal(size=(2, 60, 4))
        low, high = estimate(y, np.eye(4)[2], 0.025, pooled=True)[1:]
        hits += low <= 0 <= high
    assert 0.93 < hits / 600 < 0.99


def test_estimates_of_rates_stay_possible_and_uncertain():
    ones = np.ones((2, 50, 3))
    value, low, high = estimate(ones, np.eye(3)[0], 0.025, rates=True)
    assert (value, high) == (1.0, 1.0)
    assert 0.8 < low < 1
    value, low, high = estimate(ones, np.array([1.0, -1, 0]), 0.025, rates=True)
    assert value == 0
    assert -0.2 < low < 0 < high < 0.2
    assert np.isnan(estimate(ones[:, :1], np.eye(3)[0], 0.025)).all()


def test_one_seed_counts_points_alone():
    y = made("phi", dict(zip(PHIS, (1.0, 1.4, 0.8, 1.6), strict=True)), m=1)
    y = _cube(y, "phi", "ratio")[1]
    one, other = (np.ptp(estimate(y, SLOPE, 0.025, seeds=s)[1:]) for s in ("random", "fixed"))
    assert one == pytest.approx(other)


def test_one_seed_decides_nothing_about_other_trainings():
    rows = made("phi", {0.0: 1.0, 0.35: 4.0}, m=1)
    verdict = causes_verdict(rows, rows[:0].assign(vector_type="mean_difference"))
    assert verdict.outcome == "inconclusive"
    assert verdict.table["outcome_these_models"].tolist() == ["supported"]


def test_a_point_that_abstains_once_has_no_ratio_but_is_unfair():
    rows = made("phi", {0.0: 1.0, 0.35: 1.0}, n=20)
    where = (rows["index"] == 7) & (rows["seed"] == 1) & (rows["phi"] == 0) & (rows["mode"] == "monte_carlo")
    rows.loc[where, ["d_cs", "d_rs", "status", "prediction"]] = [np.nan, np.nan, "ABSTAINED_CENTER", -1]
    assert _cube(rows, "phi", "ratio")[1].shape == (2, 19, 2)
    levels, fair = _cube(rows, "phi", "certified_fairness")
    assert levels == [0.0, 0.35]
    assert fair.shape == (2, 20, 2)
    assert fair[1, 7, 0] == 0
    assert _cube(rows, "phi", "accuracy")[1].sum() == 79


def test_effects_find_what_was_put_in():
    trend = phi_effects(made("phi", {0.0: 1.0, -0.175: 2**0.5, 0.35: 2.0})).iloc[0]
    assert trend["factor_low"] < 2 < trend["factor_high"]
    assert trend["factor"] == pytest.approx(2, rel=0.05)
    assert trend["fairness change"] < -20
    kinds = kind_effects(made("vector_type", {"mean_difference": 1.0, "degraded_60": 0.5, "random": 1.0}))
    assert kinds["vector_type"].tolist() == ["degraded_60", "random"]
    assert kinds["factor"].tolist() == pytest.approx([0.5, 1.0], rel=0.05)
    assert (kinds["factor_low"] < kinds["factor"]).all()
    assert phi_effects(made("phi", {0.0: 1.0})).empty


def test_verdict_follows_from_the_factors():
    dial = made("phi", {0.0: 1.0, 0.1: 1.3, 0.35: 3.0}, m=4)
    kinds = {"true_factor_matched": 1.0, "degraded_60": 0.7, "degraded_60_same_task": 1.5}
    swap = made("vector_type", {"mean_difference": 2.0} | kinds, m=4)
    found = causes_verdict(dial, swap)
    drags = "vector drags the task along"
    assert list(zip(found.table["explanation"], found.table["outcome"], strict=True)) == [
        ("label correlation", "supported"),
        (drags, "supported"),
        ("poor vector", "not supported"),
        (drags, "supported"),
    ]
    factors = found.table["factor"].tolist()[1:]  # against the true factor, turned, with and without the task
    assert factors == pytest.approx([2.0, 0.75, 1.5 / 0.7], rel=0.05)
    turned_freely = swap[swap["vector_type"] != "degraded_60_same_task"]  # poorer, and less of the task
    assert "poor vector" not in set(causes_verdict(dial, turned_freely).table["explanation"])
    assert found.outcome == "supported"
    assert "through the vector" in found.text
    assert "at least 1.25" in found.text
    assert f"{found.table['factor'][0]:.2f} [" in found.text
    assert found.headline.endswith("poor vector is not supported.")
    flat = made("phi", {0.0: 1.0, 0.1: 1.0, 0.35: 1.0}, m=4)
    assert causes_verdict(flat, swap).outcome == "not supported"
    shaky = made("phi", {0.0: 1.0, 0.1: 1.0, 0.35: 1.4}, training=0.8, m=4)
    shaky = causes_verdict(shaky, swap).table.iloc[0]
    assert (shaky["outcome"], shaky["factor_low"] < 1.25 < shaky["factor_high"]) == ("inconclusive", True)
    two = pd.concat([dial, flat.assign(sensitive="Young")])
    assert causes_verdict(two, swap).outcome == "not supported"
    assert len(causes_verdict(two, swap).table) == 5
    with pytest.raises(StudyError, match="several phis"):
        causes_verdict(dial, swap, method="Naive")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The smoke pipeline with fewer faces."""
    pipeline = load_pipeline("smoke")
    data = replace(pipeline.data, n_train=150, n_valid=40, n_test=12)
    return Study(
        replace(pipeline, data=data), device="cpu", cache=tmp_path_factory.mktemp("cache"), workers=1
    )


def test_keys_change_where_the_dial_is_used_and_nowhere_else(study):
    data = study.pipeline.data
    known = {"name", "image_size", "bits", "n_train", "n_valid", "n_test", "seed", "max_images"}
    assert set(data.made_by()) == known
    assert replace(data, dial_phi=0.2) != data
    assert replace(data, dial_phi=0.2).made_by() == data.made_by()  # without a pair it says nothing
    assert set(data.options()) == {"n_train", "n_valid", "n_test", "seed"}
    turned = replace(data, dial="Smiling/Blond_Hair", dial_phi=0.2)
    assert set(turned.made_by()) == known | {"dial", "dial_phi"}
    assert turned.options()["dial_phi"] == 0.2
    other = Study(replace(study.pipeline, data=turned), device="cpu", cache=study.cache.root, workers=1)
    assert other.latents_stage("train").key != study.latents_stage("train").key
    assert other.glow_stage().key == study.glow_stage().key


def test_the_law_table_says_what_moves_along():
    table = dialled_law("Smiling/Blond_Hair", ["CelebA", 0.35, 0])
    assert table["phi"].tolist() == pytest.approx([0, 0.0901, 0.35], abs=1e-3)
    assert table["changed most"][1] == "nothing: CelebA's law"
    assert "Mouth_Slightly_Open +0.07 -> " in table["changed most"][2]
    assert table["rms change of phi"].astype(float).tolist() == pytest.approx([0.02, 0, 0.06], abs=0.005)


def test_a_small_run_of_both_experiments(study):
    rows, summary = dialled(study, "Smiling/Blond_Hair", ["CelebA", 0.35], ["Naive", "LASSI"], [0])
    assert summary[["phi", "method"]].drop_duplicates().shape[0] == len(summary) == 4
    assert len(rows) == 4 * 2 * 12
    assert summary["celebas"].tolist() == [True, False] * 2
    assert summary["cos task"][1] > summary["cos task"][0]  # more of a smile in the mean difference
    assert (summary["certified_fairness_low"] <= summary["certified_fairness"]).all()
    e = Experiment("synthfaces", "Smiling", ("Blond_Hair",), "mean_difference", "LASSI", 0)
    plain = study.certificates(e)  # CelebA's phi is the study as it is
    ours = rows[(rows["phi"] < 0.1) & (rows["method"] == "LASSI") & (rows["mode"] == "monte_carlo")]
    assert ours["d_cs"].tolist() == pytest.approx(plain["d_cs"].tolist(), nan_ok=True)
    kinds = ["partialled_matched", "degraded_90", "degraded_60_same_task"]
    rows, summary = swapped(study, "Smiling/Blond_Hair", kinds, ["LASSI"], [0], 0.35)
    assert summary["vector_type"].tolist() == ["mean_difference", *kinds]
    assert summary["norm"].tolist() == pytest.approx([summary["norm"][0]] * 4, rel=1e-4)
    assert summary["cos mean difference"][2:].tolist() == pytest.approx([0, 0.5], abs=1e-4)
    assert summary["cos task"][3] == pytest.approx(summary["cos task"][0], abs=1e-4)
    assert len(kind_effects(rows)) == 3


def test_what_cannot_be_dialled_is_refused(study):
    trained = replace(study.pipeline, glow=replace(study.pipeline.glow, checkpoint=""))
    for one, pair in ((Study(trained, device="cpu"), "Smiling/Young"), (study, "Smiling/Young+Blond_Hair")):
        with pytest.raises(StudyError, match="a shipped flow and one attribute"):
            dialled(one, pair, [0.0], ["LASSI"], [0])
    with pytest.raises(StudyError, match="out of reach"):
        dialled(study, "Smiling/Blond_Hair", [0.9], ["LASSI"], [0])
