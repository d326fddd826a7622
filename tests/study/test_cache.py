"""The stage cache computes once, notices damage, and never mixes parameters."""

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from lassi_lib.errors import mendable
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


def test_a_table_is_made_once_and_read_back(tmp_path):
    table, made = pd.DataFrame({"index": [3, 1], "x": [0.1, float("nan")]}), []
    stage, cache = Stage("table", 1, {}), StageCache(tmp_path)
    for _ in range(2):
        found = cache.rows(stage, lambda: made.append(1) or table, "numbers")
        pd.testing.assert_frame_equal(found, table)
    assert made == [1] and (cache.folder(stage) / "numbers.csv").is_file()


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


def spoil_record(folder, **changes):
    path = folder / "stage.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def flip_a_bit(folder):
    content = bytearray((folder / "value.txt").read_bytes())
    content[3] ^= 1
    (folder / "value.txt").write_bytes(content)


def put_a_file_in_place(folder):
    shutil.rmtree(folder)
    folder.write_text("a file")


def put_a_broken_link_in_place(folder):
    shutil.rmtree(folder)
    folder.symlink_to("nowhere")


def put_another_stage_in_place(folder):
    shutil.copytree(
        StageCache(folder.parents[1]).fetch(Stage("thing", 2, {}), Counter()), folder, dirs_exist_ok=True
    )


DAMAGES = {
    "truncated": lambda folder: (folder / "value.txt").write_text("forty"),
    "a bit flipped": flip_a_bit,
    "empty": lambda folder: (folder / "value.txt").write_text(""),
    "a file is missing": lambda folder: (folder / "value.txt").unlink(),
    "a folder for a file": lambda folder: (folder / "value.txt").unlink() or (folder / "value.txt").mkdir(),
    "a foreign file": lambda folder: (folder / "other.txt").write_text("foreign"),
    "a foreign folder": lambda folder: (folder / "other").mkdir(),
    "record missing": lambda folder: (folder / "stage.json").unlink(),
    "record empty": lambda folder: (folder / "stage.json").write_text(""),
    "record cut": lambda folder: (folder / "stage.json").write_text("{"),
    "record a list": lambda folder: (folder / "stage.json").write_text("[1]"),
    "record a number": lambda folder: (folder / "stage.json").write_text("1"),
    "record not text": lambda folder: (folder / "stage.json").write_bytes(b"\xff\xfe\x00"),
    "record nested deeply": lambda folder: (folder / "stage.json").write_text("[" * 100_000),
    "checksums a list": lambda folder: spoil_record(folder, checksums=["value.txt"]),
    "checksums null": lambda folder: spoil_record(folder, checksums=None),
    "parents a number": lambda folder: spoil_record(folder, parents=1),
    "facts changed": lambda folder: spoil_record(folder, facts={"fact": 41}),
    "seconds changed": lambda folder: spoil_record(folder, seconds=-1.0),
    "another stage": put_another_stage_in_place,
    "a file for the folder": put_a_file_in_place,
    "a broken link for the folder": put_a_broken_link_in_place,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_stage_is_computed_again_with_a_warning(tmp_path, damage):
    compute, stage = Counter(), Stage("thing", 1, {})
    DAMAGES[damage](StageCache(tmp_path).fetch(stage, compute))
    cache = StageCache(tmp_path)
    assert isinstance(cache.seconds("thing"), list)
    with pytest.warns(UserWarning, match=f"cached stage thing/{stage.key} is damaged .*: computed again"):
        again = cache.fetch(stage, compute)
    assert compute.calls == 2
    assert (again / "value.txt").read_text() == "forty-two"
    assert StageCache(tmp_path).has(stage)
    assert cache.record(stage)["facts"] == {"fact": 2}


def test_records_without_a_checksum_and_files_of_the_system_do_no_harm(tmp_path):
    compute, stage = Counter(), Stage("thing", 1, {})
    folder = StageCache(tmp_path).fetch(stage, compute)
    record = json.loads((folder / "stage.json").read_text())
    del record["checksum"]  # as before there were checksums of records
    (folder / "stage.json").write_text(json.dumps(record))
    (folder / ".DS_Store").write_text("left by a file manager")
    StageCache(tmp_path).fetch(stage, compute)
    assert compute.calls == 1


def test_asking_for_a_damaged_stage_changes_nothing(tmp_path):
    """Another run may be mending it: what is removed is removed under the stage's lock."""
    stage = Stage("thing", 1, {})
    folder = StageCache(tmp_path).fetch(stage, Counter())
    (folder / "value.txt").write_text("forty")
    with pytest.warns(UserWarning, match="damaged"):
        assert not StageCache(tmp_path).has(stage)
    assert (folder / "value.txt").read_text() == "forty"


def test_facts_with_numbers_for_names_are_no_damage(tmp_path):
    stage = Stage("thing", 1, {})
    StageCache(tmp_path).fetch(stage, lambda folder: {"history": {10: 0.5, 9: float("nan")}})
    assert StageCache(tmp_path).has(stage)


def test_a_folder_in_the_way_of_a_lock_is_one_clear_line(tmp_path):
    stage = Stage("thing", 1, {})
    (tmp_path / "locks" / f"thing-{stage.key}").mkdir(parents=True)
    with pytest.raises(OSError) as error:
        StageCache(tmp_path).fetch(stage, Counter())
    assert "move the folder away" in mendable(error.value)


def test_a_file_in_the_way_of_the_cache_is_one_clear_line(tmp_path):
    (tmp_path / "thing").write_text("mine")
    with pytest.raises(OSError) as error:
        StageCache(tmp_path).fetch(Stage("thing", 1, {}), Counter())
    assert "move the file away" in mendable(error.value)
    assert (tmp_path / "thing").read_text() == "mine"


@pytest.mark.parametrize("place", ["compute", "record", "rename"])
def test_a_disk_that_fills_up_leaves_nothing_half_written(tmp_path, monkeypatch, place):
    full, stage = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), Stage("thing", 1, {})

    def fail(*_, **__):
        raise full

    def compute(folder):
        (folder / "value.txt").write_text("forty-two")
        if place == "compute":
            fail()
        elif place == "record":
            monkeypatch.setattr(Path, "write_text", fail)
        else:
            monkeypatch.setattr(Path, "rename", fail)

    with pytest.raises(OSError, match="No space left"):
        StageCache(tmp_path).fetch(stage, compute)
    monkeypatch.undo()
    assert list((tmp_path / "thing").iterdir()) == []
    assert list((tmp_path / "locks").iterdir()) == []
    StageCache(tmp_path).fetch(stage, Counter())


def test_a_stage_that_is_kept_is_read_without_writing(tmp_path, monkeypatch):
    stage = Stage("thing", 1, {})
    StageCache(tmp_path).fetch(stage, Counter())
    for name in ("mkdir", "unlink", "rename", "write_text"):
        monkeypatch.setattr(Path, name, lambda *_, **__: pytest.fail("the cache was written"))
    assert StageCache(tmp_path).fetch(stage, Counter()).is_dir()


def test_a_removed_stage_is_computed_again(tmp_path):
    cache, compute, stage = StageCache(tmp_path), Counter(), Stage("thing", 1, {})
    cache.remove(stage)  # what is not kept need not be removed
    for _ in range(2):
        cache.fetch(stage, compute)
        cache.remove(stage)
        assert not cache.has(stage)
    assert compute.calls == 2
    assert list((tmp_path / "locks").iterdir()) == []


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


def test_seconds_of_a_part_count_for_the_whole_also_after_an_interruption(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("lassi_lib.study.cache.time.perf_counter", lambda: clock[0])
    cache, whole, parts = (
        StageCache(tmp_path),
        Stage("whole", 1, {}),
        [Stage("part", 1, {"k": k}) for k in range(3)],
    )
    inner, made = Stage("inner", 1, {}), []

    def passes(seconds):
        clock[0] += seconds

    def slow(k, folder):
        cache.fetch(inner, lambda folder: passes(50))
        passes(20 + k)
        made.append(k)

    def compute(folder, until=3):
        passes(1)
        for k, part in enumerate(parts[:until]):
            cache.fetch(part, partial(slow, k), part=True)
        if until < 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.fetch(whole, partial(compute, until=2))
    assert not cache.has(whole)
    cache.fetch(whole, compute)
    assert made == [0, 1, 2]
    assert [cache.record(part)["seconds"] for part in parts] == [20, 21, 22]  # without the inner stage's
    assert cache.record(whole)["seconds"] == 64
