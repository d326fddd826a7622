"""The table of published facts: complete, as printed, and strictly filtered."""

import pandas as pd
import pytest

from lassi_lib.errors import StudyError
from lassi_lib.study.published import FACTS, merk_beside_eccv, published

COUNTS = {
    ("merk2023", "Table 1"): 40, ("merk2023", "Table 2"): 16, ("merk2023", "Table 3"): 8,
    ("merk2023", "Table 4"): 72, ("merk2023", "Table 5"): 16, ("merk2023", "Table 8"): 36,
    ("eccv2022", "Table 1 (quoted in Merk Table 1)"): 32,
    ("eccv2022", "main paper, FairFace table (quoted in Merk Table 1)"): 8,
    ("eccv2022", "Table 2 (quoted in Merk Table 2)"): 12,
    ("eccv2022", "Supp. Table 18 (quoted in Merk Table 2)"): 4,
    ("eccv2022", "Table 3 (quoted in Merk Table 3)"): 8,
    ("eccv2022", "Supp. Table 5"): 15, ("eccv2022", "Supp. Table 6"): 12, ("eccv2022", "Supp. Table 7"): 40,
    ("eccv2022", "Supp. Table 8"): 136, ("eccv2022", "Supp. Table 9"): 34,
    ("eccv2022", "Supp. Table 10"): 176, ("eccv2022", "Supp. Table 12"): 60,
    ("eccv2022", "Supp. Table 13"): 30, ("eccv2022", "Supp. Table 14"): 60,
    ("eccv2022", "Supp. Table 15"): 42, ("eccv2022", "Supp. Table 16"): 10,
    ("eccv2022", "Supp. Table 17"): 36, ("eccv2022", "Supp. Table 18"): 54,
    ("eccv2022", "Supp. Table 19"): 6, ("eccv2022", "Supp. App. D text"): 2,
    ("iclr2022", "Table 1"): 18, ("iclr2022", "Table 2"): 6, ("fls2025", "headline"): 3,
}  # fmt: skip


def test_every_table_is_there_with_all_its_numbers():
    facts = published()
    assert facts.groupby(["source", "table"]).size().to_dict() == COUNTS and len(facts) == 992
    assert facts["value"].notna().all() and facts["note"].notna().all()
    assert ",".join(facts.columns) == (
        "source,table,dataset,image_size,task,sensitive,vector_type,method,metric,sigma_cs,sigma_rs,lambda2,"
        "value,std,n_seeds,split,n_eval,note"
    )
    rates = facts[facts["metric"].isin(["accuracy", "certified_fairness", "empirical_fairness"])]
    assert rates["value"].between(0, 100).all() and (rates["std"].dropna() >= 0).all()
    assert rates["method"].notna().all() and rates["dataset"].notna().all()
    keys = [c for c in facts.columns if c not in ("value", "std", "n_seeds", "note")]
    assert not rates.duplicated(keys).any()


@pytest.mark.parametrize(
    "where, value, std",
    [
        ("merk2023/Table 1/CelebA/Smiling/Pale_Skin/Naive/certified_fairness", 0.3, None),
        ("merk2023/Table 1/CelebA/Wearing_Earrings/Blond_Hair/LASSI/accuracy", 86.4, None),
        ("merk2023/Table 1/FairFace/Age-3/Race=Black/LASSI/certified_fairness", 93.4, None),
        ("eccv2022/Supp. Table 12/CelebA/Wearing_Earrings/Pale_Skin/Naive/certified_fairness", 24.3, 35.6),
        ("eccv2022/Supp. Table 12/CelebA/Smiling/Pale_Skin+Young/LASSI/certified_fairness", 97.3, 0.9),
        ("eccv2022/Supp. Table 12/CelebA/Smiling/Young/DataAug/certified_fairness", 43.0, 30.7),
    ],
)
def test_known_numbers(where, value, std):
    names = ("source", "table", "dataset", "task", "sensitive", "method", "metric")
    row = published(**dict(zip(names, where.split("/"), strict=True))).iloc[0]
    assert row["value"] == value and (row["std"] == std if std else pd.isna(row["std"]))


def test_notes_stand_on_their_own():
    text = FACTS.read_text(encoding="utf-8").lower()
    assert not [word for word in ("ocr", "grim:", "/work", "[n]", "page_note") if word in text]
    assert text.count("\n") == 993


def test_filters_take_one_name_or_several_and_leave_the_facts_alone():
    two = published(table="Supp. Table 12", method=["Naive", "LASSI"], metric="accuracy")
    assert set(two["method"]) == {"Naive", "LASSI"} and len(two) == 20
    two["value"] = -1.0
    assert (published(table="Supp. Table 12")["value"] >= 0).all()


@pytest.mark.parametrize(
    "wish, hint",
    [
        ({"task": "smiling"}, "task 'smiling' is unknown; did you mean 'Smiling'"),
        ({"table": "Table 11"}, "did you mean 'Table 1'"),
        ({"sensitive": "Pale Skin"}, "did you mean 'Pale_Skin'"),
        ({"method": ["LASSI", "Lassy"]}, "method 'Lassy' is unknown"),
        ({"metric": "acuracy"}, "did you mean 'accuracy'"),
        ({"source": "eccv"}, "did you mean 'eccv2022'"),
        ({"dataset": "celeba"}, "did you mean 'CelebA'"),
        ({"dataset": "FairFace", "task": "Smiling"}, "leave out one"),
    ],
)
def test_unknown_or_impossible_filters_are_one_line_errors(wish, hint):
    with pytest.raises(StudyError) as error:
        published(**wish)
    assert hint in str(error.value) and "\n" not in str(error.value)


def test_table_1_joins_both_papers_and_finds_the_quotation_slip():
    table = merk_beside_eccv("Table 1", ["Supp. Table 12"])
    assert len(table) == 8 * 3 * 2 and not table.duplicated(["task", "sensitive", "method", "metric"]).any()
    assert "Heavy_Makeup" not in set(table["sensitive"])  # in the supplement, not in Merk's table
    slips = table[table["note"] != ""]
    assert slips[["task", "sensitive", "method", "metric"]].to_numpy().tolist() == [
        ["Wearing_Earrings", "Pale_Skin", "LASSI", "accuracy"]
    ]
    slip = slips.iloc[0]
    assert (slip["merk"], slip["eccv"], slip["eccv_std"], slip["eccv_quoted"]) == (85.7, 85.0, 0.5, 85.5)
    assert "85.5" in slip["note"] and "85.0" in slip["note"]
    augmented = table[table["method"] == "DataAug"]
    assert augmented["merk"].isna().all() and augmented[["eccv", "eccv_std"]].notna().all().all()
    rest = table[table["method"] != "DataAug"]
    assert rest[["merk", "eccv", "eccv_std"]].notna().all().all()
    assert (rest["merk_seeds"] == 2).all() and (table["eccv_seeds"] == 5).all()
    first = table.iloc[0]
    assert (first["task"], first["sensitive"], first["method"]) == ("Smiling", "Pale_Skin", "Naive")


def test_table_1_of_fairface_has_no_deviations():
    table = merk_beside_eccv("Table 1", ["Supp. Table 12"], dataset="FairFace")
    assert len(table) == 8 and table["eccv_std"].isna().all() and table["eccv"].notna().all()
    with pytest.raises(StudyError, match="did you mean 'FairFace'"):
        merk_beside_eccv("Table 1", dataset="fairface")


def test_a_table_without_such_numbers_is_empty():
    none = merk_beside_eccv("Table 4", image_size=128)
    assert none.empty and "eccv" in none and "note" in none
