"""The stage cache computes once, notices damage, and never mixes parameters."""

import json
import subprocess
import sys
import time

import pytest

from lassi_lib.study.cache import Stage, StageCache
from lassi_lib.study.params import ROOT


class Counter:
    def __init__(self):
        self.calls = 0

    def __call__(self, folder):
        self.calls += 1
        (folder / "value.txt").write_text("forty-two")
        return {"fact": self.calls}


def test_a_stage_is_computed_once_and_kept(tmp_path):
    compute, stage = Counter(), Stage("thing", 1, {"a": 1})
    for _ in range(2):
        folder = StageCache(tmp_path).fetch(stage, compute)
        assert (folder / "value.txt").read_text() == "forty-two"
    assert compute.calls == 1
    record = StageCache(tmp_path).record(stage)
    assert record["params"] == {"a": 1}
    assert record["facts"] == {"fact": 1}
    assert record["seconds"] >= 0


@pytest.mark.parametrize(
    "other",
    [
        Stage("thing", 1, {"a": 2}),
        Stage("thing", 2, {"a": 1}),
        Stage("other", 1, {"a": 1}),
        Stage("thing", 1, {"a": 1}, ("parent",)),
        Stage("thing", 1, {"a": 1, "b": 0}),
    ],
)
def test_everything_a_stage_depends_on_changes_its_key(other):
    assert other.key != Stage("thing", 1, {"a": 1}).key


def test_the_order_of_parameters_does_not_matter():
    assert Stage("s", 1, {"a": 1, "b": 2}).key == Stage("s", 1, {"b": 2, "a": 1}).key


@pytest.mark.parametrize("damage", ["truncate", "remove", "record", "list"])
def test_a_damaged_stage_is_computed_again_with_a_warning(tmp_path, damage):
    compute, stage = Counter(), Stage("thing", 1, {})
    folder = StageCache(tmp_path).fetch(stage, compute)
    if damage == "truncate":
        (folder / "value.txt").write_text("forty")
    elif damage == "remove":
        (folder / "value.txt").unlink()
    elif damage == "record":
        (folder / "stage.json").write_text("{")
    else:
        (folder / "stage.json").write_text(json.dumps([1]))
    with pytest.warns(UserWarning, match="damaged"):
        again = StageCache(tmp_path).fetch(stage, compute)
    assert compute.calls == 2
    assert (again / "value.txt").read_text() == "forty-two"


def test_a_failed_computation_leaves_nothing_behind(tmp_path):
    stage = Stage("thing", 1, {})

    def compute(folder):
        (folder / "value.txt").write_text("half")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        StageCache(tmp_path).fetch(stage, compute)
    assert list((tmp_path / "thing").iterdir()) == []


def test_of_two_runs_over_one_cache_one_computes_and_the_other_waits(tmp_path, capfd):
    """The first run is another process, in the middle of the stage when the second asks for it."""
    code = (
        "import sys, time, pathlib\n"
        "from lassi_lib.study.cache import Stage, StageCache\n"
        "def slow(folder):\n"
        "    print('computing', flush=True)\n"
        "    time.sleep(1)\n"
        "    (folder / 'value.txt').write_text('theirs')\n"
        "StageCache(sys.argv[1]).fetch(Stage('thing', 1, {}), slow)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, cwd=ROOT)
    assert other.stdout.readline() == b"computing\n"
    compute = Counter()
    folder = StageCache(tmp_path).fetch(Stage("thing", 1, {}), compute)
    assert (folder / "value.txt").read_text() == "theirs"
    assert compute.calls == 0
    assert "waiting for stage thing" in capfd.readouterr().err
    assert other.wait() == 0
    other.stdout.close()
    assert list((tmp_path / "locks").iterdir()) == []


def test_what_a_killed_run_left_behind_is_removed(tmp_path):
    compute, stage = Counter(), Stage("thing", 1, {})
    left = tmp_path / "thing" / f"{stage.key}.0123abcd.tmp"
    left.mkdir(parents=True)
    (left / "value.txt").write_text("half")
    lock = tmp_path / "locks" / f"thing-{stage.key}"
    lock.parent.mkdir()
    lock.touch()  # a lock that nobody holds any more
    StageCache(tmp_path).fetch(stage, compute)
    assert [p.name for p in (tmp_path / "thing").iterdir()] == [stage.key]
    assert compute.calls == 1


def test_seconds_do_not_count_the_stages_asked_for_on_the_way(tmp_path):
    cache, inner, outer = StageCache(tmp_path), Stage("inner", 1, {}), Stage("outer", 1, {})

    def slow(folder):
        time.sleep(0.3)

    cache.fetch(outer, lambda folder: cache.fetch(inner, slow) and None)
    assert cache.record(inner)["seconds"] >= 0.3
    assert cache.record(outer)["seconds"] < 0.2
