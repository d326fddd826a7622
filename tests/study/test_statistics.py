"""Intervals keep their promise in simulated studies; rates are right at their known extremes."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lassi_lib.errors import StudyError
from lassi_lib.study.published import published
from lassi_lib.study.statistics import (
    EXPERIMENT,
    MEASURES,
    PairedDifference,
    clopper_pearson,
    compare,
    crossed_variance,
    holm,
    jackknife_margin,
    mean_interval,
    outcomes,
    paired_difference,
    parts_of,
    rate_interval,
    rated,
    summarise,
    with_ends,
)


def make_rows(labels, predictions, certified, seeds=None, **experiment):
    """Certificate rows: labels [n], predictions [m, n] (-1: abstained at the centre), certified [m, n]."""
    predictions, certified = np.atleast_2d(predictions), np.atleast_2d(certified).astype(bool)
    m, n = predictions.shape
    seeds = list(range(m)) if seeds is None else seeds
    gone = predictions < 0
    status = np.where(gone, "ABSTAINED_CENTER", np.where(certified, "CERTIFIED", "NOT_CERTIFIED"))
    d_cs = np.where(gone, np.nan, 1.0 + np.arange(n) / n)
    names = dict(zip(EXPERIMENT, ("toy", "Smiling", "Young", "mean_difference", "LASSI"), strict=True))
    return pd.DataFrame(
        dict(names | experiment)
        | {
            "seed": np.repeat(seeds, n),
            "index": np.tile(np.arange(n), m),
            "label": np.tile(labels, m),
            "prediction": predictions.ravel(),
            "status": status.ravel(),
            "d_cs": d_cs.ravel(),
            "d_rs": np.where(gone, np.nan, 2.0).ravel(),
        }
    )


def noisy_rows(rng, accuracy=0.9, fairness=0.95, m=3, n=400, majority=0.5, **experiment):
    labels = (np.arange(n) < majority * n).astype(int)
    right = rng.random((m, n)) < accuracy
    certified = rng.random((m, n)) < fairness
    return make_rows(labels, np.where(right, labels, 1 - labels), certified, **experiment)


def probit_study(rng, n_studies, m, n, mu, seed_sd, point_sd):
    """Outcomes [n_studies, m, n] of a crossed probit model, and the rate of the population."""
    shape = (n_studies, m, n)
    level = mu + seed_sd * rng.standard_normal((n_studies, m, 1))
    level = level + point_sd * rng.standard_normal((n_studies, 1, n), dtype=np.float32)
    y = level + rng.standard_normal(shape, dtype=np.float32) > 0
    return y, stats.norm.cdf(mu / np.sqrt(1 + seed_sd**2 + point_sd**2))


# ---- Clopper-Pearson ----------------------------------------------------------------------------


def test_clopper_pearson_known_values_and_edges():
    assert clopper_pearson(0, 10) == pytest.approx((0.0, 0.30849710781))  # 1 - 0.025^(1/10)
    assert clopper_pearson(10, 10) == pytest.approx((0.69150289219, 1.0))
    assert clopper_pearson(306, 312) == pytest.approx((0.9586, 0.9929), abs=5e-5)
    assert clopper_pearson(0, 0) == (0.0, 1.0)
    low, high = clopper_pearson(np.array([0, 5, 10]), 10)
    assert np.all(np.diff(low) > 0) and np.all(np.diff(high) > 0) and low[0] == 0 and high[2] == 1
    wide = clopper_pearson(3, 10, 0.99)
    assert wide[0] < low[1] and clopper_pearson(3, 10, 0.9)[0] > wide[0]
    for bad in ((-1, 10), (11, 10)):
        with pytest.raises(ValueError, match="0 <= k <= n"):
            clopper_pearson(*bad)


def test_clopper_pearson_never_covers_less_than_it_promises():
    n = 30
    low, high = clopper_pearson(np.arange(n + 1), n)
    for p in np.linspace(0.01, 0.99, 99):
        inside = (low <= p) & (p <= high)
        assert stats.binom.pmf(np.arange(n + 1), n, p)[inside].sum() >= 0.95


# ---- crossed design -----------------------------------------------------------------------------


def test_the_two_parts_of_the_variance_add_up_to_the_truth():
    """Against the variance of the mean seen over 4,000 simulated studies, within 7 % (3 sd)."""
    y, _ = probit_study(np.random.default_rng(3), 4000, 3, 200, 0.8, 0.15, 1.0)
    mean, v_seeds, v_points = crossed_variance(y)
    assert (v_seeds + v_points).mean() == pytest.approx(mean.var(), rel=0.07)
    _, zero, all_points = crossed_variance(y, seeds="fixed")
    assert np.all(zero == 0) and np.all(all_points >= v_points)
    with pytest.raises(StudyError, match="did you mean 'fixed'"):
        crossed_variance(y, seeds="fixd")


def test_one_seed_gives_the_exact_interval_on_points():
    y = np.zeros((1, 312))
    y[0, :306] = 1
    assert rate_interval(y) == pytest.approx(clopper_pearson(306, 312))


def test_the_interval_is_never_narrower_than_on_points_and_stays_within_0_and_1():
    rng = np.random.default_rng(5)
    for m in (1, 2, 5):
        y, _ = probit_study(rng, 300, m, 100, 1.0, 0.3, 1.0)
        low, high = rate_interval(y)
        exact_low, exact_high = clopper_pearson(y.mean((-2, -1)) * 100, 100)
        assert np.all(low <= exact_low + 1e-12) and np.all(high >= exact_high - 1e-12)
        assert np.all(low >= 0) and np.all(high <= 1)


# mean level, sd of seeds, sd of points: accuracy 85 %, steady and not; certified 98 % and 39 %
@pytest.mark.parametrize(
    "mu, seed_sd, point_sd", [(1.6, 0.0, 1.2), (1.6, 0.15, 1.2), (3.5, 0.3, 1.2), (-0.5, 1.0, 1.0)]
)
def test_rate_interval_covers_new_seeds_and_new_points(mu, seed_sd, point_sd):
    """Nominal 95 % must cover at least 93 % of 4,000 studies of 2 to 5 seeds and 300 to 2,000 points."""
    rng = np.random.default_rng(11)
    for m, n in ((2, 300), (3, 300), (5, 300), (2, 2000), (5, 1000)):
        y, rate = probit_study(rng, 4000, m, n, mu, seed_sd, point_sd)
        low, high = rate_interval(y)
        assert ((low <= rate) & (rate <= high)).mean() >= 0.93, (m, n)


def test_rate_interval_covers_less_where_rates_of_seeds_are_skewed_as_its_docstring_says():
    rng = np.random.default_rng(14)
    for m, least in ((2, 0.93), (3, 0.90), (5, 0.87)):
        y, rate = probit_study(rng, 2000, m, 300, 2.5, 1.2, 1.0)  # seeds' rates 91 +- 12
        low, high = rate_interval(y)
        assert least <= ((low <= rate) & (rate <= high)).mean() <= 0.96, m


# as Supp. Table 12: LASSI's 98.0 +- 0.5, 86.5 +- 2.7, Naive's 0.6 +- 0.5, 38.2 +- 23.4
@pytest.mark.parametrize("mean, sd", [(0.98, 0.005), (0.865, 0.027), (0.006, 0.005), (0.382, 0.234)])
def test_rate_interval_covers_with_the_published_spread_of_seeds(mean, sd):
    rng = np.random.default_rng(12)
    total = mean * (1 - mean) / sd**2 - 1
    for m, n in ((2, 312), (5, 312), (3, 2000)):
        of_seed = rng.beta(mean * total, (1 - mean) * total, (1000, m, 1))
        shared = rng.standard_normal((1000, 1, n), dtype=np.float32)  # points that are hard for all seeds
        level = stats.norm.ppf(np.clip(of_seed, 1e-9, 1 - 1e-9)) + np.sqrt(0.6) * shared
        y = level + np.sqrt(0.4) * rng.standard_normal((1000, m, n), dtype=np.float32) > 0
        low, high = rate_interval(y)
        assert ((low <= mean) & (mean <= high)).mean() >= 0.93, (m, n)


def test_fixed_seeds_cover_the_rate_of_the_models_at_hand():
    rng = np.random.default_rng(13)
    seed_level = np.array([0.3, 1.2])[:, None]
    rate = stats.norm.cdf(seed_level / np.sqrt(2)).mean()
    y = seed_level + rng.standard_normal((2000, 1, 500)) + rng.standard_normal((2000, 2, 500)) > 0
    low, high = rate_interval(y, seeds="fixed")
    assert ((low <= rate) & (rate <= high)).mean() >= 0.95
    assert np.median(high - low) < 0.1  # where two seeds counted as random would say almost nothing
    assert np.median(np.subtract(*rate_interval(y)[::-1])) > 0.9


# ---- paired differences -------------------------------------------------------------------------


def paired_study(rng, n_studies, m, n, shift, seed_sd):
    """Differences [n_studies, m, n] of two methods that share hard points, and their true mean."""
    points = rng.standard_normal((n_studies, 1, n), dtype=np.float32)
    one, two = (
        mu + seed_sd * rng.standard_normal((n_studies, m, 1)) + points
        + 0.5 * rng.standard_normal((n_studies, m, n), dtype=np.float32) > 0
        for mu in (1.5 + shift, 1.5)
    )  # fmt: skip
    sd = np.sqrt(1.25 + seed_sd**2)
    return one.astype(np.int8) - two, 100 * (stats.norm.cdf((1.5 + shift) / sd) - stats.norm.cdf(1.5 / sd))


@pytest.mark.parametrize("seed_sd", [0.0, 0.2])
@pytest.mark.parametrize("m, n", [(2, 300), (2, 1500), (3, 300), (5, 1000)])
def test_paired_interval_covers_and_its_test_errs_at_most_as_often_as_it_says(m, n, seed_sd):
    rng = np.random.default_rng(21)
    same, _ = paired_study(rng, 1000, m, n, 0.0, seed_sd)
    low, high = PairedDifference.of(same).interval
    assert ((low > 0) | (high < 0)).mean() <= 0.07  # exchangeable methods: type I error
    other, truth = paired_study(rng, 1000, m, n, 0.6, seed_sd)
    low, high = PairedDifference.of(other).interval
    assert ((low <= truth) & (truth <= high)).mean() >= 0.93


def test_one_seed_paired_interval_covers_and_mcnemar_is_exact():
    rng = np.random.default_rng(22)
    d, truth = paired_study(rng, 3000, 1, 300, 0.4, 0.0)
    low, high = PairedDifference.of(d).interval
    assert ((low <= truth) & (truth <= high)).mean() >= 0.93
    same, _ = paired_study(rng, 400, 1, 300, 0.0, 0.0)
    p = np.array([PairedDifference.of(x).p_value for x in same])
    assert (p <= 0.05).mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
    ten = PairedDifference.of(np.array([[1] * 9 + [-1] + [0] * 90]))
    assert ten.p_value == pytest.approx(22 / 1024)  # two-sided binomial, 1 or fewer of 10, twice
    assert ten.difference == pytest.approx(8.0)


def test_the_test_and_the_interval_agree():
    """p_above is the tail whose lower bound lies at the threshold; extremes stay finite and ordered."""
    rng = np.random.default_rng(23)
    d, _ = paired_study(rng, 20, 3, 200, 0.3, 0.2)
    for x in d:
        result = PairedDifference.of(x)
        for threshold in (-5.0, 0.0, 4.0):
            p = result.p_above(threshold)
            bound = result.bounds(p)[0] if p < 0.5 else result.bounds(1 - p)[1]
            assert bound == pytest.approx(threshold, abs=1e-6)
        assert (result.p_value <= 0.05) == (not result.interval[0] < 0 < result.interval[1])
    for m in (1, 3):
        everywhere = PairedDifference.of(np.ones((m, 2000)))
        nowhere = PairedDifference.of(np.zeros((m, 2000)))
        assert everywhere.p_value < 1e-6 and everywhere.interval[0] > 99
        assert nowhere.p_value == 1.0 and -1 < nowhere.interval[0] < 0 < nowhere.interval[1] < 1


def test_pairing_beats_comparing_two_intervals():
    rng = np.random.default_rng(24)
    one = noisy_rows(rng, 0.9, 0.9, m=1)
    two = one.copy().assign(method="Naive")
    lost = rng.permutation(400)[:14]
    two.loc[lost, "status"] = "NOT_CERTIFIED"
    rows = pd.concat([one, two])
    result = paired_difference(rows, "LASSI", "Naive")
    table = summarise(rows).set_index("method")
    assert table.loc["LASSI", "certified_fairness_low"] < table.loc["Naive", "certified_fairness_high"]
    assert result.p_value < 0.001 and result.interval[0] > 0
    back = paired_difference(rows, "Naive", "LASSI")
    assert back.difference == -result.difference and back.p_value == pytest.approx(result.p_value)
    assert paired_difference(rows, "LASSI", "Naive", "correct").difference == 0


def test_paired_difference_is_strict():
    rng = np.random.default_rng(25)
    rows = pd.concat([noisy_rows(rng, m=2), noisy_rows(rng, m=2, method="Naive")])
    with pytest.raises(StudyError, match="did you mean 'LASSI'"):
        paired_difference(rows, "LASI", "Naive")
    with pytest.raises(StudyError, match="several pairs"):
        paired_difference(pd.concat([rows, rows.assign(task="Bald")]), "LASSI", "Naive")
    with pytest.raises(StudyError, match="differ in seeds or test points"):
        paired_difference(rows[(rows["method"] == "LASSI") | (rows["seed"] == 0)], "LASSI", "Naive")
    with pytest.raises(StudyError, match="did you mean 'certified'"):
        paired_difference(rows, "LASSI", "Naive", "certifed")


def test_holm_against_a_hand_example_and_family_wise_error():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]).tolist() == [1.0, 1.0] and holm([]).shape == (0,) and holm([0.2])[0] == 0.2
    p = np.random.default_rng(26).random((4000, 8))
    assert np.mean([(holm(x) <= 0.05).any() for x in p]) == pytest.approx(0.05, abs=0.012)


# ---- numbers that are no rates ---------------------------------------------------------------------


@pytest.mark.parametrize("m", [1, 3])
def test_the_interval_of_a_mean_covers_new_seeds_and_points(m):
    rng, inside = np.random.default_rng(31), 0
    for _ in range(1000):
        values = 5 + rng.normal(0, 0.3 if m > 1 else 0, (m, 1)) + rng.gamma(2, 1, (1, 200)) - 2
        low, high = mean_interval(values + rng.normal(0, 0.5, (m, 200)))
        inside += low <= 5 <= high
    assert 0.93 < inside / 1000 < 0.98


def test_points_without_a_number_count_for_the_mean_alone():
    values = np.array([[1.0, 2.0, 3.0, np.nan], [2.0, 3.0, 4.0, 9.0]])
    low, high = mean_interval(values)
    assert (low + high) / 2 == pytest.approx(np.nanmean(values)) or low == 0
    assert np.isnan(mean_interval(np.array([[np.nan, np.nan, 1.0]]))).all()
    assert np.isnan(mean_interval(np.array([[1.0, 2.0, np.inf, 3.0]]))).all()
    assert mean_interval(np.array([[0.0, 0.0, 0.1]]))[0] == 0


def test_the_jackknife_covers_the_truth_of_a_curved_statistic():
    """The logarithm of a mean, over seeds and 20 groups of points."""
    rng, inside, n = np.random.default_rng(32), 0, 400
    for _ in range(600):
        points = rng.exponential(1.0, n)
        seeds = np.exp(rng.normal(0, 0.05, 3))
        y = points * seeds[:, None] * rng.uniform(0.8, 1.2, (3, n))
        group = np.arange(n) % 20
        values = np.log([[x.mean(), *(x[group != g].mean() for g in range(20))] for x in y])
        inside += abs(values[:, 0].mean()) <= jackknife_margin(values)
    assert 0.93 < inside / 600 < 0.995
    one = values[:1]
    known = np.sqrt(19 * one[0, 1:].var()) * stats.t.ppf(0.975, 19)
    assert jackknife_margin(one) == pytest.approx(known)


# ---- summaries ----------------------------------------------------------------------------------


def test_summary_by_hand():
    labels = [1, 1, 1, 0]
    predictions = [[1, 1, 0, 0], [1, 0, -1, 1]]
    rows = make_rows(labels, predictions, [[1, 1, 1, 0], [1, 1, 0, 0]])
    row = summarise(rows).iloc[0]
    assert tuple(summarise(rows).columns) == EXPERIMENT + MEASURES
    assert (row["n_seeds"], row["n_points"]) == (2, 4)
    assert row["accuracy"] == pytest.approx(100 * 4 / 8)  # the abstention is an error
    assert row["accuracy_sd"] == pytest.approx(np.std([75, 25], ddof=1))
    assert row["balanced_accuracy"] == pytest.approx(100 * (3 / 6 + 1 / 2) / 2)
    assert row["majority_rate"] == 75 and row["constant_would_do"]
    assert row["predicted_positive"] == pytest.approx(100 * 4 / 7)
    assert row["predicted_majority"] == pytest.approx(100 * 4 / 7)
    assert row["abstained"] == row["abstained_center"] == 12.5 and row["abstained_classifier"] == 0
    assert row["certified_fairness"] == pytest.approx(100 * 5 / 8)
    assert row["certified_and_correct"] == pytest.approx(100 * 3 / 8)
    assert row["d_cs_mean"] == pytest.approx(rows["d_cs"].sum() / 7) and row["d_rs_mean"] == 2.0
    assert row["d_cs_median"] == pytest.approx(1.25)
    assert row["d_cs_mean_low"] < row["d_cs_mean"] < row["d_cs_mean_high"]


@pytest.mark.parametrize("m", [1, 4])
def test_summary_at_the_extremes(m):
    n = 312
    labels = np.arange(n) % 2
    every = summarise(make_rows(labels, np.tile(labels, (m, 1)), np.ones((m, n)))).iloc[0]
    for rate in ("accuracy", "certified_fairness", "certified_and_correct"):
        assert every[rate] == every[f"{rate}_high"] == 100
        assert every[f"{rate}_low"] == pytest.approx(100 * 0.025 ** (1 / n))
    assert not every["constant_would_do"]
    none = summarise(make_rows(labels, np.tile(1 - labels, (m, 1)), np.zeros((m, n)))).iloc[0]
    assert none["accuracy"] == none["certified_fairness"] == none["certified_fairness_low"] == 0
    assert none["certified_fairness_high"] == pytest.approx(100 - 100 * 0.025 ** (1 / n))
    gone = summarise(make_rows(labels, np.full((m, n), -1), np.zeros((m, n)))).iloc[0]
    assert gone["abstained"] == 100 and gone["accuracy"] == 0 and gone["balanced_accuracy"] == 0
    assert np.isnan([gone["predicted_majority"], gone["d_cs_mean"], gone["d_rs_mean"]]).all()
    constant = summarise(make_rows(labels, np.ones((m, n), int), np.ones((m, n)))).iloc[0]
    assert constant["certified_fairness"] == 100 and constant["balanced_accuracy"] == 50
    assert constant["constant_would_do"] and constant["predicted_positive"] == 100


def test_summary_of_more_than_two_classes_and_of_single_seeds():
    labels = np.array([0, 1, 2, 2])
    rows = make_rows(labels, [[0, 1, 2, 2], [0, 0, 2, 2]], np.ones((2, 4)))
    row = summarise(rows).iloc[0]
    assert (
        np.isnan(row["predicted_positive"]) and row["predicted_majority"] == 50 and row["majority_rate"] == 50
    )
    each = summarise(rows, by=[*EXPERIMENT, "seed"])
    assert each["accuracy"].tolist() == [100, 75] and each["accuracy_sd"].isna().all()
    assert row["balanced_accuracy"] == pytest.approx(each["balanced_accuracy"].mean())


def test_summary_does_not_depend_on_the_order_of_rows():
    rng = np.random.default_rng(31)
    rows = pd.concat([noisy_rows(rng), noisy_rows(rng, 0.8, 0.2, method="Naive")])
    shuffled = rows.sample(frac=1, random_state=1)
    by_method = [summarise(r).sort_values("method", ignore_index=True) for r in (rows, shuffled)]
    pd.testing.assert_frame_equal(*by_method)


def test_contradictory_rows_are_refused():
    rows = noisy_rows(np.random.default_rng(32), m=2, n=20)
    with pytest.raises(StudyError, match="each once"):
        outcomes(rows.iloc[1:], "correct")
    with pytest.raises(StudyError, match="each once"):
        outcomes(pd.concat([rows, rows]), "correct")
    with pytest.raises(StudyError, match="did you mean 'CERTIFIED'"):
        outcomes(rows.replace({"status": {"CERTIFIED": "CERTIFED"}}), "correct")
    with pytest.raises(StudyError, match="must go together"):
        outcomes(rows.assign(status="ABSTAINED_CENTER"), "correct")
    with pytest.raises(StudyError, match="two labels"):
        outcomes(rows.assign(label=rows["label"].where(rows["seed"] == 0, 0)), "correct")
    with pytest.raises(StudyError, match="no column 'methd'; did you mean 'method'"):
        summarise(rows, by=["methd"])


# ---- published against ours ---------------------------------------------------------------------


def test_compare_matches_cells_and_checks_the_prediction_interval():
    rng = np.random.default_rng(41)
    summary = summarise(
        pd.concat([noisy_rows(rng, 0.86, 0.99, m=2), noisy_rows(rng, 0.6, 0.4, m=2, method="Naive")])
    )
    table = compare(summary, published(table="Supp. Table 12"))
    assert len(table) == 4 and table["metric"].tolist() == ["accuracy", "certified_fairness"] * 2
    cell = table[(table["method"] == "LASSI") & (table["metric"] == "accuracy")].iloc[0]
    assert (cell["published"], cell["published_sd"], cell["published_seeds"]) == (86.3, 1.3, 5)
    q = (0.863 * 312 + 2) / 316
    points = (100 * 1.959964) ** 2 * q * (1 - q) * (1 / 312 + 1 / 400)
    seeds = (2.776445 * 1.3) ** 2 * (1 / 5 + 1 / 2)
    assert cell["prediction_margin"] == pytest.approx(np.sqrt(seeds + points), rel=1e-5)
    assert cell["within_prediction"] and cell["within_interval"]
    naive = table[(table["method"] == "Naive") & (table["metric"] == "accuracy")].iloc[0]
    assert not naive["within_prediction"] and naive["difference"] == pytest.approx(naive["ours"] - 86.3)


def test_compare_without_a_published_deviation_or_number():
    rng = np.random.default_rng(42)
    summary = summarise(pd.concat([noisy_rows(rng), noisy_rows(rng, sensitive="Chubby", task="Bald")]))
    table = compare(summary, published(source="merk2023", table="Table 1", dataset="CelebA"))
    assert table["within_prediction"].isna().all()
    assert table["within_interval"].notna().tolist() == [True, True, False, False]
    assert table["published"].isna().tolist() == [False, False, True, True]
    with pytest.raises(StudyError, match="several published numbers"):
        compare(summary, pd.concat([published(table="Supp. Table 12")] * 2))


def test_prediction_interval_holds_for_repetitions_of_the_published_study():
    """Both studies simulated: a fresh one falls inside about 95 % of the time (at least 93 %)."""
    rng = np.random.default_rng(43)
    inside = []
    for _ in range(400):
        y, _ = probit_study(rng, 1, 5, 312, 1.6, 0.1, 1.2)
        again, _ = probit_study(rng, 1, 2, 600, 1.6, 0.1, 1.2)
        of_seed = 100 * y[0].mean(1)
        theirs = published(
            table="Supp. Table 12", task="Smiling", sensitive="Young", method="LASSI", metric="accuracy"
        )
        theirs = theirs.assign(value=of_seed.mean(), std=of_seed.std(ddof=1))
        ours = {k: ["x"] for k in EXPERIMENT} | {"n_seeds": [2], "n_points": [600]}
        ours |= {k: theirs[k] for k in EXPERIMENT[1:]}
        for rate in ("accuracy", "certified_fairness"):
            ours |= {f"{rate}{end}": [100 * again.mean()] for end in ("", "_low", "_high")}
        table = compare(pd.DataFrame(ours), theirs)
        inside.append(bool(table.loc[table["metric"] == "accuracy", "within_prediction"].item()))
    assert np.mean(inside) >= 0.93


def test_a_rate_with_its_ends_makes_three_columns():
    assert with_ends("x", 1.0, 0.5, 2.0) == {"x": 1.0, "x_low": 0.5, "x_high": 2.0}
    y = np.array([[1.0, 1.0, 0.0, 1.0]])
    low, high = rate_interval(y, 0.9, "fixed")
    assert rated("fair", y, 0.9, "fixed") == {"fair": 75.0, "fair_low": 100 * low, "fair_high": 100 * high}


def test_parts_come_in_the_order_of_first_occurrence_with_their_columns():
    rows = pd.DataFrame({"task": list("BAB"), "seed": [0, 0, 0], "value": [1, 2, 3]})
    found = [(key, list(part["value"])) for key, part in parts_of(rows, ("task", "seed"))]
    assert found == [({"task": "B", "seed": 0}, [1, 3]), ({"task": "A", "seed": 0}, [2])]
