"""Published sentences hold printed numbers, and every question has a statement that is judged."""

import re

from lassi_lib.study.params import load_notebook_params, notebooks_of, profiles
from lassi_lib.study.published import published
from lassi_lib.study.questions import ASKED_GAIN, JUDGED, SENTENCES


def test_every_number_of_a_published_sentence_is_printed_in_a_paper():
    """Values, differences of values, table numbers and counts: nothing else may stand in a sentence."""
    values = published()["value"]
    known = {f"{v:.1f}" for v in values}
    for number, sentence in SENTENCES.items():
        text = sentence()
        for value in re.findall(r"(?<![+\-\d.])\d+\.\d(?!\d)", text):
            assert value in known, (number, value)


def test_known_cells_stand_in_the_sentences():
    said = {number: sentence() for number, sentence in SENTENCES.items()}

    def cell(**filters):
        return f"{published(**filters)['value'].item():.1f} %"

    merk = {"source": "merk2023", "method": "LASSI", "metric": "certified_fairness"}
    for sensitive in ("Bald", "Chubby"):
        words = f"Attractive with {sensitive} ({cell(task='Attractive', sensitive=sensitive, **merk)})"
        assert words in said["05"]
    shapes = {"table": "Supp. Table 19", "method": "LASSI"}
    assert f"LASSI certifies {cell(metric='certified_fairness', **shapes)}" in said["06"]
    rows = published(
        table="Supp. Table 10", metric="certified_fairness", method="LASSI", sensitive="Pale_Skin"
    )
    below, at = (
        rows.loc[where, "value"].max() for where in (rows["lambda2"] < 0.05, rows["lambda2"] == 0.05)
    )
    assert f"Smiling with Pale_Skin: up to lambda_2 = 0.025 at most {below:.1f} %" in said["08"]
    assert f"at 0.05 up to {at:.1f} %" in said["08"]
    rows = published(table="Table 1", dataset="CelebA", metric="certified_fairness", method="LASSI")["value"]
    assert f"LASSI certifies {rows.min():.1f} to {rows.max():.1f} %" in said["01"]
    assert "(8 rows)" in said["01"] and "(16 rows, " in said["04"]


def test_rows_with_a_small_gain_in_print_are_counted_by_the_rule_of_the_parameters():
    rows = published(table="Table 4", dataset="CelebA", metric="certified_fairness")
    by = rows.pivot(index=["task", "sensitive"], columns="method", values="value")
    small = (by["LASSI"] - by["Naive"] < ASKED_GAIN).sum()
    assert 0 < small < 16 and f"(16 rows, {small} of them with a gain below" in SENTENCES["04"]()
    for profile in profiles():
        for name in notebooks_of(profile):
            if name[:2] in ("01", "02", "04"):
                assert load_notebook_params(profile, name)["min_fairness_gain"] == ASKED_GAIN, (profile, name)


def test_every_question_has_a_statement_that_is_judged():
    assert list(JUDGED) == list(SENTENCES)
