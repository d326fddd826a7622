"""What a new run changed is told cell by cell, and silence means that nothing did."""

import pandas as pd
import pytest

from lassi_lib.study.changes import MOST, changes, previous

TABLE = pd.DataFrame(
    {"task": ["Smiling", "Smiling"], "sensitive": ["Young", "Bald"], "accuracy": [81.25, 70.0]}
)
RUN = {"status": "ok", "outcome": "supported", "verdict": "Two of two.", "commit": "abc", "started": "then"}


@pytest.fixture
def folders(tmp_path):
    def save(side, name="01_verdict", table=TABLE):
        path = tmp_path / side / "tables" / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(path, index=False)

    save("old")
    save("new")
    return save, lambda: changes(tmp_path / "old", tmp_path / "new", "01_claim")


def test_equal_tables_and_tables_of_others_give_nothing(folders):
    save, found = folders
    save("old", "02_x")
    save("new", "02_x", TABLE.assign(accuracy=0.0))
    save("new", "01_new")
    assert found() == []


def test_a_changed_cell_is_named_by_its_row_with_digits_that_differ(folders):
    save, found = folders
    save("new", table=TABLE.assign(accuracy=[81.2500001, 70.0]))
    (change,) = found()
    assert (change.table, change.row, change.column) == ("01_verdict", "Smiling / Young", "accuracy")
    assert (change.before, change.now) == ("81.25", "81.2500001")
    save("new", table=TABLE.assign(accuracy=[81.25, None]))
    assert (found()[0].before, found()[0].now) == ("70", "")


def test_another_last_digit_is_no_change(folders):
    save, found = folders
    save("new", table=TABLE.assign(accuracy=[81.25000000000001, 70.0]))
    assert found() == []


def test_verdicts_come_first_and_words_count(folders):
    save, found = folders
    save("old", "01_a")
    save("new", "01_a", TABLE.assign(accuracy=[1.0, 2.0]))
    save("new", table=TABLE.assign(sensitive=["Young", "Chubby"]))
    assert [c.table for c in found()] == ["01_verdict", "01_a", "01_a"]
    assert (found()[0].before, found()[0].now) == ("Bald", "Chubby")


def test_tables_of_another_size_or_damaged_ones_are_compared_as_wholes(folders, tmp_path):
    save, found = folders
    save("new", table=TABLE.head(1))
    assert [(c.before, c.now) for c in found()] == [("2 rows, 3 columns", "1 rows, 3 columns")]
    (tmp_path / "old" / "tables" / "01_verdict.csv").write_text("")
    assert found()[0].before == "unreadable"


def test_device_and_minutes_are_no_result(folders):
    save, found = folders
    setting = pd.DataFrame({"": ["device", "computing minutes"], "this run": ["CPU", "latents 1.4"]})
    save("old", "01_setting", setting)
    save("new", "01_setting", setting.assign(**{"this run": ["GPU", "latents 2.0"]}))
    assert found() == []
    seeds = pd.DataFrame({"": ["seeds"], "this run": ["42"]})
    save("old", "01_setting", pd.concat([setting, seeds]))
    save("new", "01_setting", pd.concat([setting, seeds.assign(**{"this run": ["0"]})]))
    assert [c.row for c in found()] == ["seeds"]


def test_previous_holds_what_differs_and_nothing_where_nothing_does(folders):
    save, found = folders
    assert previous(RUN, RUN | {"commit": "def", "started": "now"}, []) == {}
    assert previous({}, RUN, []) == {}
    said = previous(RUN, RUN | {"outcome": "not supported"}, [])
    assert (said["outcome"], said["commit"], said["cells"]) == ("supported", "abc", 0)
    big = pd.concat([TABLE] * MOST, ignore_index=True)
    save("old", table=big)
    save("new", table=big.assign(accuracy=1.0))
    said = previous(RUN, RUN, found())
    assert said["cells"] == 2 * MOST and len(said["listed"]) == MOST
