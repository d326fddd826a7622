"""Explanations of hard pairs: found where they were planted, not found where they were not."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from lassi_lib.errors import StudyError
from lassi_lib.study.experiment import Experiment
from lassi_lib.study.outliers import (
    PREDICTORS,
    combined_verdict,
    explanations_verdict,
    hardest_text,
    left_out_r2,
    matrix_text,
    outlier_table,
    own_associations,
    pair_means,
    pair_table,
    published_outliers,
    published_outliers_text,
    regress,
)
from lassi_lib.study.params import load_pipeline
from lassi_lib.study.study import Study
from lassi_lib.study.verdicts import Verdict

RULE = {"method": "LASSI", "min_correlation": 0.3, "min_r2": 0.05}


def planted(effects, n=60, noise=0.3, seed=0):
    """Pair means of n pairs (6 tasks) whose log ratio follows the given predictors."""
    rng = np.random.default_rng(seed)
    x = pd.DataFrame(rng.standard_normal((n, len(PREDICTORS))), columns=list(PREDICTORS))
    y = sum(effects.get(name, 0.0) * x[name] for name in PREDICTORS) + noise * rng.standard_normal(n)
    names = {"task": [f"T{i % 6}" for i in range(n)], "sensitive": [f"A{i}" for i in range(n)]}
    return x.assign(**names, method="LASSI", log_ratio=y, ratio=np.exp(y), certified_fairness=50.0)


def verdict_of(effects, **options):
    table = explanations_verdict(regress(planted(effects, **options), draws=50), **RULE)
    return dict(zip(table.table["explanation"], table.table["outcome"], strict=True)), table


def test_only_the_planted_explanation_is_supported():
    assert verdict_of({"abs_phi": 1.0})[0]["label correlation"] == "supported"
    found, verdict = verdict_of({"norm_to_spread": 1.0, "log_positives": -1.0}, n=300)
    assert found["poor vector"] == found["long vector"] == "supported"
    assert found["label correlation"] == "not supported"
    assert verdict.outcome == "not supported"
    assert "300 pairs of LASSI" in verdict.text and "R2 0.9" in verdict.text


def test_an_effect_in_the_wrong_direction_supports_nothing():
    found, _ = verdict_of({"abs_phi": -1.0})
    assert found["label correlation"] == "not supported"
    assert verdict_of({"log_positives": 1.0})[0]["poor vector"] != "supported"


def test_few_pairs_decide_nothing_and_say_so():
    found, verdict = verdict_of({"abs_phi": 1.0}, n=5)
    assert set(found.values()) == {"inconclusive"}
    assert "Too few pairs" in verdict.text
    fits = regress(planted({}, n=5), draws=10)
    assert fits["slope"].isna().all() and fits["n_pairs"].eq(5).all()
    with pytest.raises(StudyError, match="no regression of method 'X'"):
        explanations_verdict(fits, **RULE | {"method": "X"})


def test_the_regression_is_least_squares_with_hc3_and_the_bootstrap_agrees():
    means = planted({"abs_phi": 1.0, "log_positives": -0.5}, n=80)
    fits = regress(means, draws=500).set_index("predictor")
    x = means[list(PREDICTORS)]
    z = ((x - x.mean()) / x.std()).to_numpy()
    fit = sm.OLS(means["log_ratio"].to_numpy(), sm.add_constant(z)).fit(cov_type="HC3")
    assert fits["slope"].to_numpy() == pytest.approx(fit.params[1:])
    half = (fits["slope_high"] - fits["slope_low"]) / 2
    assert half.to_numpy() == pytest.approx(1.99 * fit.bse[1:], rel=0.01)  # t with 75 degrees of freedom
    boot = (fits["slope_boot_high"] - fits["slope_boot_low"]) / 2
    assert boot.to_numpy() == pytest.approx(half.to_numpy(), rel=0.35)
    assert fits["vif"].between(1, 1.3).all()
    assert fits.loc["abs_phi", "r2_lost"] > fits.loc["log_positives", "r2_lost"] > 0.05
    assert abs(fits.loc["abs_cos", "r2_lost"]) < 0.05


def test_pairs_without_a_finite_ratio_are_left_out_and_counted():
    means = planted({"abs_phi": 1.0})
    means.loc[:2, "log_ratio"] = np.inf
    fits = regress(means, draws=10)
    assert fits["left_out"].eq(3).all() and fits["n_pairs"].eq(57).all()
    assert np.isfinite(fits["spearman"]).all()


def test_differences_between_tasks_do_not_count_within_them():
    means = planted({}, n=60, noise=0.01)
    task = means["task"].str[1].astype(int)
    means["log_ratio"] += 3.0 * task
    means["abs_phi"] += 3.0 * task
    row = regress(means, draws=10).set_index("predictor").loc["abs_phi"]
    assert row["spearman"] > 0.8 and abs(row["spearman_in_tasks"]) < 0.35


def test_left_out_r2_is_that_of_predicting_every_pair_from_the_others():
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((20, 3)), rng.standard_normal(20)
    error, of_mean = 0.0, 0.0
    for i in range(20):
        rest = np.arange(20) != i
        fit = np.linalg.lstsq(sm.add_constant(X[rest]), y[rest], rcond=None)[0]
        error += (y[i] - fit[0] - X[i] @ fit[1:]) ** 2
        of_mean += (y[i] - y[rest].mean()) ** 2
    assert left_out_r2(X, y) == pytest.approx(1 - error / of_mean)
    only = np.zeros((20, 1))
    only[3] = 1.0
    assert np.isnan(left_out_r2(only, y))


def test_outliers_have_their_rank_and_distance():
    means = planted({}, n=21)
    means.loc[4, "log_ratio"] = 20.0
    table = outlier_table(means, ["T4/A4", "T5/A5", "T0/Nobody"])
    assert table["sensitive"].tolist() == ["A4", "A5"]
    assert table["rank"][0] == 1 and table["n_pairs"].eq(21).all()
    assert table["robust_z"][0] > 20 > abs(table["robust_z"][1])


def test_printed_fairness_stands_beside_the_labels():
    table = published_outliers()
    assert table["sensitive"].head(2).tolist() == ["Chubby", "Bald"] and len(table) == 22
    assert table["printed_fairness"].head(2).tolist() == [5.6, 10.9]
    assert table["phi"][0] == pytest.approx(-0.237, abs=0.001)
    assert (table["ratio"] >= 1).all() and (table["phi_low"] < table["phi_high"]).all()
    text = " ".join(published_outliers_text(table).split())
    assert "Over 22 printed pairs" in text and "0.24 and 0.15" in text
    assert "Wearing_Necklace/Big_Lips (0.15, 99.8 %)" in text and "no others" in text


def test_evidence_is_combined_and_a_contradiction_decides_nothing():
    def verdict(outcomes):
        table = pd.DataFrame({"explanation": list(outcomes), "outcome": list(outcomes.values())})
        return Verdict("inconclusive", "Because.", table)

    observed = verdict(
        {"label correlation": "supported", "poor vector": "inconclusive", "vector drags the task along": "supported"}
    )  # fmt: skip
    tried = verdict({"label correlation": "not supported", "poor vector": "not supported"})
    found = combined_verdict(observed, tried)
    assert found.table["outcome"].tolist() == ["inconclusive", "not supported", "supported"]
    assert found.table["by experiment"].tolist() == ["not supported", "not supported", "not asked"]
    assert found.outcome == "not supported"
    assert "label correlation is inconclusive; poor vector is not supported" in found.headline
    assert "By ours: vector drags the task along is supported" in found.text


# ---- a small study ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    pipeline = load_pipeline("smoke")
    data = replace(pipeline.data, n_train=300, n_valid=60, n_test=24)
    return Study(
        replace(pipeline, data=data), device="cpu", cache=tmp_path_factory.mktemp("cache"), workers=1
    )


def test_a_pair_has_its_radii_and_its_explanations(study):
    experiments = [
        Experiment("synthfaces", "Smiling", (a,), "mean_difference", "LASSI", seed)
        for a, seed in (("Young", 0), ("Young", 1), ("Pale_Skin", 0))
    ]
    rows = study.run(experiments)
    table = pair_table(study, rows)
    assert len(table) == 3
    own = own_associations(study, ["Young", "Pale_Skin"], ["Smiling"]).set_index("attribute")
    assert table["phi"].tolist() == own.loc[table["sensitive"], "phi"].tolist()
    assert table["positives"][0] == study.labels("train", "Young").sum()
    norm = float(study.vector("Young").norm())
    z = study.latents("test")
    spread = float((z - z.mean(0)).square().sum(1).mean().sqrt())
    assert table["norm_to_spread"][0] == pytest.approx(norm / spread, rel=1e-4)
    first = rows[(rows["sensitive"] == "Young") & (rows["seed"] == 0)]
    mostly = first["status"].eq("CERTIFIED").mean() > 0.5
    assert (table["ratio"][0] < 1) == mostly
    means = pair_means(table)
    assert len(means) == 2 and means["n_seeds"].tolist() == [2, 1]
    assert means["ratio"][0] == pytest.approx(np.sqrt(table["ratio"][0] * table["ratio"][1]))
    with pytest.raises(StudyError, match="one_attribute"):
        pair_table(study, rows.assign(sensitive="Young+Pale_Skin"))


def test_abstentions_count_as_never_certified(study):
    e = Experiment("synthfaces", "Smiling", ("Young",), "mean_difference", "LASSI", 0)
    rows = study.run([e]).assign(d_cs=1.0, d_rs=2.0)
    assert pair_table(study, rows)["ratio"][0] == 0.5
    gone = np.arange(len(rows)) < 0.6 * len(rows)
    table = pair_table(study, rows.assign(d_rs=rows["d_rs"].mask(gone)))
    assert np.isinf(table["ratio"][0]) and table["d_rs"][0] == 0
    assert np.isinf(pair_means(table)["log_ratio"][0])


def test_the_hardest_pairs_are_named_beside_the_published_ones():
    printed = [99.0, 95.0, 6.0, 11.0, np.nan]
    table = pd.DataFrame(
        {
            "task": "Attractive",
            "sensitive": ["Bald", "Big_Lips", "Chubby", "Young", "Male"],
            "method": "LASSI",
            "certified_fairness": [97.0, 90.0, 12.0, 9.94, 1.0],
            "merk_certified_fairness": printed,
        }
    )
    said = hardest_text(pd.concat([table, table.assign(method="Naive", certified_fairness=0.0)]))
    assert said == (
        "LASSI's certified fairness of 4 pairs, published and ours: rank correlation 0.80 [-1.00, 1.00]. Hardest as "
        "published: Attractive/Chubby 6.0 %, Attractive/Young 11.0 %; here: Attractive/Young 9.9 %, "
        "Attractive/Chubby 12.0 %."
    )
    assert hardest_text(table.assign(certified_fairness=5.0)).startswith(
        "4 pairs with a published value: too few"
    )


def test_pairs_beyond_one_are_named_with_their_labels_correlation():
    means = pd.DataFrame({"task": "Smiling", "sensitive": ["Bald", "Young", "Chubby"], "method": "LASSI"})
    means = means.assign(ratio=[1.5, 0.4, np.inf], phi=[-0.3, 0.125, 0.2])
    text = matrix_text(means, "LASSI")
    assert "lie Smiling / Chubby (inf), Smiling / Bald (1.5), with |phi| of 0.20 to 0.30" in text
    assert text.endswith("; elsewhere (1) it is 0.12.")
    assert matrix_text(means[1:2], "LASSI") == "LASSI: no pair's median d_cs / d_rs lies above 1."
    assert matrix_text(means[::2], "LASSI").endswith("0.20 to 0.30.")
