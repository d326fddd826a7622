"""Tables: the same columns for every profile, full precision in csv, whole files or none."""

from csv import DictReader

import numpy as np
import pandas as pd
import pytest

from lassi_lib.errors import StudyError
from lassi_lib.study.published import merk_beside_eccv, published
from lassi_lib.study.statistics import compare, summarise
from lassi_lib.study.tables import SHOWN, present, ranges, save_table, side_by_side, span
from tests.study.test_statistics import noisy_rows


@pytest.fixture
def summary():
    rng = np.random.default_rng(1)
    other = noisy_rows(rng, method="Naive", sensitive="Pale_Skin+Young")
    return summarise(pd.concat([noisy_rows(rng), other]))


def test_what_is_always_shown(summary):
    shown = present(summary)
    assert list(shown.columns) == [
        "task", "sensitive", "method", "seeds", "points", "certified fairness", "accuracy", "majority rate",
        "constant would do", "certified and correct", "balanced accuracy", "most predicted class",
        "abstained",
    ]  # fmt: skip
    one_seed = summarise(noisy_rows(np.random.default_rng(2), m=1, n=30))
    assert list(present(one_seed).columns) == list(shown.columns)
    row, cells = summary.iloc[0], shown.iloc[0]
    low, high = row["certified_fairness_low"], row["certified_fairness_high"]
    assert cells["certified fairness"] == f"{row['certified_fairness']:.1f} [{low:.1f}, {high:.1f}]"
    assert cells["constant would do"] == "no" and cells["seeds"] == "3"
    assert shown.map(lambda x: isinstance(x, str)).all().all() and len(SHOWN) == len(shown.columns)


def test_other_tables_keep_their_columns(summary):
    one = present(merk_beside_eccv("Table 1", ["Supp. Table 12"]))
    assert one.iloc[0]["Merk et al."] == "85.4" and one.iloc[2]["Merk et al."] == ""
    two = present(compare(summary, published(table="Supp. Table 12")))
    assert "[" in two["ours"].iloc[0] and "low" not in two and set(two["within prediction"]) <= {"yes", "no"}
    odd = present(
        pd.DataFrame({"x": [-0.04, np.nan], "p_value": [1e-9, 0.03], "pass": [np.True_, np.False_]})
    )
    assert odd.to_numpy().tolist() == [["0.0", "< 0.0001", "yes"], ["", "0.0300", "no"]]
    signs = present(pd.DataFrame({"cos normal": [-0.004, -0.006], "cos_task": [-0.001, 0.004]}))
    assert signs.to_numpy().tolist() == [["0.00", "0.00"], ["-0.01", "0.00"]]


def test_the_csv_has_every_digit_and_the_others_are_rounded(summary, tmp_path):
    csv, md, tex = save_table(summary, tmp_path / "tables", "claim_1")
    with csv.open(encoding="utf-8", newline="") as file:
        again = list(DictReader(file))
    assert list(again[0]) == list(summary.columns)
    for column in ("accuracy", "certified_fairness_low", "balanced_accuracy", "d_cs_mean"):
        assert [float(row[column]) for row in again] == summary[column].tolist()
    assert [p.name for p in (csv, md, tex)] == ["claim_1.csv", "claim_1.md", "claim_1.tex"]
    lines = md.read_text().splitlines()
    assert len(lines) == 2 + len(summary) and {line.count("|") for line in lines} == {len(SHOWN) + 1}
    text = tex.read_text()
    assert r"{Pale\_Skin+Young}" in text and r"\toprule" in text and r"\bottomrule" in text
    assert text.count(r"\\") == 1 + len(summary) and text.count("&") == (1 + len(summary)) * (len(SHOWN) - 1)
    assert sorted(p.name for p in (tmp_path / "tables").iterdir()) == [
        "claim_1.csv",
        "claim_1.md",
        "claim_1.tex",
    ]
    before = [p.read_bytes() for p in (csv, md, tex)]
    assert [p.read_bytes() for p in save_table(summary, tmp_path / "tables", "claim_1")] == before


def test_special_characters_are_escaped(tmp_path):
    table = pd.DataFrame({"a|b_c": ["<b> & 5%", "x^2 ~ {1}\\"]})
    _, md, tex = save_table(table, tmp_path, "odd")
    assert r"| a\|b c |" in md.read_text() and "&lt;b> &amp; 5%" in md.read_text()
    assert r"{$<$b$>$ \& 5\%}" in tex.read_text()
    assert r"{x\textasciicircum{}2 \textasciitilde{} \{1\}\textbackslash{}}" in tex.read_text()


def test_a_failed_write_leaves_the_old_table_and_no_draft(summary, tmp_path, monkeypatch):
    paths = save_table(summary, tmp_path, "claim_1")
    before = [p.read_bytes() for p in paths]

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(StudyError, match=r"claim_1.csv' cannot be written: No space left"):
        save_table(summary.iloc[:1], tmp_path, "claim_1")
    assert [p.read_bytes() for p in paths] == before and len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("name", ["../evil", "a/b", ".hidden", ""])
def test_a_table_cannot_leave_its_folder(summary, tmp_path, name):
    with pytest.raises(StudyError, match="not a plain file name"):
        save_table(summary, tmp_path / "in", name)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_one_line(summary, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="cannot be written") as error:
        save_table(summary, tmp_path / "file" / "tables", "x")
    assert "\n" not in str(error.value)


def test_small_numbers_keep_their_digits_and_rows_have_no_numbers():
    table = pd.DataFrame(
        {"bits/dim": [1.8042], "largest reconstruction error": [1.1e-6], "cos Young": [-0.234]}
    )
    shown = present(table)
    assert shown.iloc[0].tolist() == ["1.80", "1.1e-06", "-0.23"]
    assert list(shown.index) == [""]


def test_side_by_side_keeps_order_and_leaves_gaps_empty():
    table = pd.DataFrame(
        {"task": ["b", "b", "a"], "mode": ["y", "x", "y"], "fair": [50.0, 20.0, 99.96]}
        | {"fair_low": [40.0, 10.0, 99.0], "fair_high": [60.0, 30.0, 100.0], "other": [1, 2, 3]}
    )
    wide = side_by_side(table, "mode", "fair", ["task"])
    assert wide.columns.tolist() == ["task", "y", "x"]
    assert wide.to_numpy().tolist() == [
        ["b", "50.0 [40.0, 60.0]", "20.0 [10.0, 30.0]"],
        ["a", "100.0 [99.0, 100.0]", ""],
    ]


def test_ranges_are_those_of_each_value_and_leave_out_what_is_missing():
    table = pd.DataFrame(
        {
            "mode": ["monte_carlo"] * 3 + ["exact"],
            "method": ["LASSI", "Naive", "LASSI", "LASSI"],
            "fair": [97.04, 3.0, 65.5, np.nan],
        }
    )
    assert ranges(table, ["method"], "fair") == "LASSI 65.5 to 97.0 %, Naive 3.0 %"
    assert ranges(table, ["mode", "method"], "fair", "") == ("monte carlo: LASSI 65.5 to 97.0, Naive 3.0")


def test_spans_are_of_printed_digits():
    assert (span([5.55, 98.94]), span([3]), span([-0.04, 0.0])) == ("5.5 to 98.9", "3.0", "0.0")
    assert span([2, 2], 0) == "2" and span([300, 2004], 0) == "300 to 2,004"
