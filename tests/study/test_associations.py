"""Associations of labels against closed forms and simulation; printed tables with known mistakes are found out."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lassi_lib.data.label_law import celeba_label_law
from lassi_lib.errors import StudyError
from lassi_lib.study.associations import (
    associations,
    beside_printed,
    celeba_associations,
    common_factors,
    definitions_tried,
    phi_coefficient,
    printed_cells,
    readable_beside,
    strongest_text,
    table_8_text,
)
from tests.study.test_annotations import real_annotations

TASKS = ["Smiling", "Wearing_Hat", "Attractive", "Wearing_Necklace"]


def label_table(rng, n=4000):
    z = 0.6 * rng.normal(size=n)
    rates = {"Bald": 0.1, "Chubby": 0.2, "Smiling": 0.5, "Wearing_Hat": 0.08}
    side = {"Bald": -1}  # goes against the others
    return pd.DataFrame(
        {a: (rng.normal(size=n) + side.get(a, 1) * z > -stats.norm.ppf(r)) * 1 for a, r in rates.items()}
    )


def test_counts_rates_and_phi_agree_with_their_definitions():
    labels = label_table(np.random.default_rng(0))
    table = associations(labels, ["Bald", "Chubby"], ["Smiling", "Wearing_Hat"])
    assert len(table) == 4
    for row in table.itertuples():
        a, t = labels[row.attribute], labels[row.task]
        assert (row.both, row.n) == ((a & t).sum(), len(labels))
        assert row.both + row.attribute_only + row.task_only + row.neither == row.n
        assert row.attribute_rate == pytest.approx(100 * a.mean())
        assert row.base_rate == pytest.approx(100 * t.mean())
        assert row.rate_with == pytest.approx(100 * t[a == 1].mean())
        assert row.rate_without == pytest.approx(100 * t[a == 0].mean())
        assert row.ratio == pytest.approx(t[a == 1].mean() / t.mean())
        assert row.phi == pytest.approx(np.corrcoef(a, t)[0, 1])
        exact = stats.binomtest(int(row.both), int(a.sum())).proportion_ci(0.95, "exact")
        assert (row.rate_with_low, row.rate_with_high) == pytest.approx((100 * exact.low, 100 * exact.high))
        assert row.phi_low < row.phi < row.phi_high


@pytest.mark.parametrize(
    "p", [(0.02, 0.05, 0.1, 0.83), (0.25, 0.25, 0.25, 0.25), (0.4, 0.1, 0.1, 0.4), (0.005, 0.02, 0.4, 0.575)]
)
def test_the_interval_of_phi_covers(p):
    a, b, c, d = p
    truth = (a * d - b * c) / np.sqrt((a + b) * (c + d) * (a + c) * (b + d))
    counts = np.random.default_rng(1).multinomial(600, p, size=4000).T
    _, low, high = phi_coefficient(*counts)
    covered = np.mean((low <= truth) & (truth <= high))
    assert 0.935 < covered < 0.985  # 4,000 draws: standard error 0.0034
    assert np.mean(high < truth) < 0.045 and np.mean(low > truth) < 0.045


def test_perfect_empty_and_constant_variables():
    phi, low, high = phi_coefficient(50, 0, 0, 50)
    assert phi == pytest.approx(1) and 0.85 < low < 1 and high == pytest.approx(1)
    phi, low, high = phi_coefficient(0, 10, 30, 60)
    assert low < phi < high < 0.1
    assert all(np.isnan(phi_coefficient(0, 0, 40, 60)))
    labels = pd.DataFrame({"Bald": [0, 0, 0], "Smiling": [1, 0, 1]})
    row = associations(labels, ["Bald"], ["Smiling"]).iloc[0]
    assert np.isnan(row["rate_with"]) and np.isnan(row["phi"]) and row["base_rate"] == pytest.approx(200 / 3)


def test_mistakes_of_the_user_are_named():
    labels = label_table(np.random.default_rng(0), 50)
    with pytest.raises(StudyError, match="did you mean 'Bald'"):
        associations(labels, ["bald"], ["Smiling"])
    with pytest.raises(StudyError, match="more than two classes"):
        associations(labels.assign(Age=np.arange(50) % 3), ["Bald"], ["Age"])


def printed_from(table, factor):
    """Print a table of associations by a rule: percentages times a task's factor, folded ratios."""
    p = (table["rate_with"] * table["task"].map(factor)).round(1)
    b = table["base_rate"].round(1)
    cells = table[["attribute", "task"]].assign(percent=p, base_rate=b)
    return cells.assign(ratio=np.maximum(p / b, b / p).round(2))


def test_a_faultless_printed_table_has_no_disagreement_and_its_definitions_are_found():
    table = associations(
        label_table(np.random.default_rng(2)), ["Bald", "Chubby"], ["Smiling", "Wearing_Hat"]
    )
    cells = printed_from(table, {"Smiling": 1, "Wearing_Hat": 1})
    beside = beside_printed(table, cells)
    flags = [c for c in beside if "disagrees" in c]
    assert len(flags) == 5 and not beside[flags].any().any()
    best = definitions_tried(beside).groupby("printed").first()
    assert best.loc["percentage", "definition"] == "P(task | attribute)"
    assert best.loc["ratio", "definition"] == "the larger of percentage / base rate and its inverse"
    assert (best["reproduced"] == best["cells"]).all()
    factors = common_factors(beside)
    assert ((factors["factor_low"] <= 1) & (factors["factor_high"] >= 1)).all()


def test_a_doubled_column_and_a_wrong_ratio_are_found():
    table = associations(
        label_table(np.random.default_rng(2)), ["Bald", "Chubby"], ["Smiling", "Wearing_Hat"]
    )
    cells = printed_from(table, {"Smiling": 1, "Wearing_Hat": 2})
    cells.loc[0, "ratio"] += 0.3
    beside = beside_printed(table, cells)
    assert list(beside["percent_disagrees"]) == [t == "Wearing_Hat" for t in beside["task"]]
    assert list(beside["ratio_disagrees_with_row"]) == [True, False, False, False]
    assert beside["ratio_disagrees"].sum() == 3 and not beside["base_rate_disagrees"].any()
    factors = common_factors(beside).set_index("task")
    assert factors.loc["Wearing_Hat", "factor_low"] <= 2 <= factors.loc["Wearing_Hat", "factor_high"]
    assert factors.loc["Wearing_Hat", "factor_low"] > 1.9
    assert (
        "Bald/Smiling"
        in definitions_tried(beside).query("computed_from == 'printed cells'")["exceptions"].iloc[0]
    )


def test_the_printed_table_is_held_completely_and_one_ratio_does_not_fit_its_own_row():
    cells = printed_cells()
    assert len(cells) == 16 and cells.notna().all().all()
    assert list(dict.fromkeys(cells["task"])) == TASKS
    folded = np.maximum(cells["percent"] / cells["base_rate"], cells["base_rate"] / cells["percent"])
    wrong = cells[(folded - cells["ratio"]).abs() > 0.1]
    assert wrong[["attribute", "task"]].to_numpy().tolist() == [["Big_Lips", "Wearing_Necklace"]]


def test_works_on_rendered_faces_labels():
    law = celeba_label_law()
    labels = pd.DataFrame(law.draw(3000, seed=0)[0], columns=list(law.names))
    cells = printed_cells()
    table = associations(labels, cells["attribute"].unique(), cells["task"].unique())
    assert len(beside_printed(table, cells)) == 16 and table["phi"].abs().max() < 1


def test_shipped_shares_give_the_counts_of_the_official_labels():
    names = ["Chubby", "Pale_Skin", "Young"], ["Smiling", "Wearing_Hat", "Oval_Face"]
    pd.testing.assert_frame_equal(
        celeba_associations(*names), associations(real_annotations()["CelebA"].labels, *names)
    )
    with pytest.raises(StudyError, match="did you mean 'Chubby'"):
        celeba_associations(["chubby"], ["Smiling"])


def test_celebas_labels_contradict_the_columns_of_two_rare_tasks():
    cells = printed_cells()
    table = celeba_associations(cells["attribute"].unique(), cells["task"].unique())
    beside = beside_printed(table, cells)
    assert (beside["n"] == 202_599).all() and not beside["base_rate_disagrees"].any()
    wrong = beside[beside["percent_disagrees"]]
    assert len(wrong) == 8 and set(wrong["task"]) == {"Wearing_Hat", "Wearing_Necklace"}
    assert wrong["percent_factor"].between(1.97, 2.03).all()
    text = readable_beside(beside)
    worst = text[(text["attribute"] == "Big_Lips") & (text["task"] == "Wearing_Necklace")].iloc[0]
    assert worst["disagrees"] == "percentage, ratio, ratio with its row"
    assert worst["percentage, printed / recomputed"] == "42.0 / 21.04"
    assert worst["ratio, printed / recomputed"] == "3.15 / 1.71"
    assert "1.06 / 0.47 = 1/2.12" in set(text["ratio, printed / recomputed"])
    assert (
        "8 of 16 printed percentages" in (words := " ".join(table_8_text(beside).split()))
        and "15 of 16 cells" in words
    )
    turned = beside[beside["direction_disagrees"]]
    assert set(turned["attribute"]) == {"Big_Lips", "Narrow_Eyes"} and set(turned["task"]) == {"Wearing_Hat"}
    factors = common_factors(beside).set_index("task")
    assert factors.loc["Wearing_Hat", "factor_low"] < 2 < factors.loc["Wearing_Hat", "factor_high"]


def test_the_strongest_associations_are_named():
    names = ["Bald", "Young", "Chubby", "Male"]
    table = pd.DataFrame({"attribute": names, "task": "Smiling", "phi": [0.05, -0.3, 0.2, -0.01]})
    assert strongest_text(table) == (
        "Strongest: Young with Smiling (-0.30), Chubby with Smiling (+0.20), Bald with Smiling (+0.05). In 2 of 4 "
        "cells |phi| is below 0.1."
    )
