"""Results are replaced as a whole, at whatever file operation a run is killed and however many write."""

import subprocess
import sys
import time

import pytest

from lassi_lib.study.draft import drafted
from lassi_lib.study.params import ROOT

NAMES = ("run.json", "table.csv", "page.html")


def write(folder, content):
    for name in NAMES:
        (folder / name).write_text(content)


def content(folder):
    """Return what every file of a results folder says; they must agree."""
    (said,) = {(folder / name).read_text() for name in NAMES}
    return said


def test_a_draft_starts_as_a_copy_and_replaces_the_results(tmp_path):
    output = tmp_path / "deep" / "out"
    for number in range(2):
        with drafted(output) as draft:
            assert draft.parent == output.parent
            assert not number or content(draft) == "0"
            write(draft, str(number))
            assert not number or content(output) == "0"
        assert content(output) == str(number)
        assert [p.name for p in output.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("trouble", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_trouble_leaves_the_old_results_and_nothing_else(tmp_path, trouble):
    output = tmp_path / "out"
    output.mkdir()
    write(output, "old")
    with pytest.raises(BaseException, match=r"No space|^$"), drafted(output) as draft:
        (draft / "table.csv").write_text("new")
        raise trouble
    assert content(output) == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "out"
    link.symlink_to(tmp_path / "elsewhere")
    with drafted(link) as draft:
        write(draft, "new")
    assert link.is_symlink()
    assert content(tmp_path / "elsewhere") == "new"


def test_what_belongs_to_other_folders_is_left_alone(tmp_path):
    others = [".out.2.17.tmp", ".out.tmp", ".outer.17.tmp", ".out.17.old.txt"]
    for name in others:
        (tmp_path / name).mkdir()
    (tmp_path / ".out.17.tmp").mkdir()
    with drafted(tmp_path / "out") as draft:
        write(draft, "new")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*others, "out"])


KILLED = """
import os, pathlib, signal, sys
from lassi_lib.study.draft import drafted

output, left = pathlib.Path(sys.argv[1]), 0
CHANGES = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir")

def count(event, arguments):
    global left
    if event in CHANGES and counting:
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

def replace(content):
    with drafted(output) as draft:
        for name in ("run.json", "table.csv", "page.html"):
            (draft / name).write_text(content)

def said():
    found = {p.read_text() for p in output.iterdir()}
    assert len(found) == 1, found
    return found.pop()

counting = False
sys.addaudithook(count)
replace("old")
killed = []
while True:
    pid = os.fork()
    if not pid:
        left, counting = len(killed) + 1, True
        replace("new")
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0:
        break
    seen = said() if output.exists() else "away"  # moved away for the moment between two renames
    class Stop(Exception): pass
    try:
        with drafted(output):
            raise Stop  # the next run, which gives up
    except Stop:
        pass
    assert os.listdir(output.parent) == [output.name]
    assert said() == ("old" if seen == "away" else seen)
    killed.append(seen)
    replace("old")
print(*killed)
"""


def test_killed_at_any_file_operation_the_next_run_finds_old_or_new_results_whole(tmp_path):
    command = [sys.executable, "-c", KILLED, tmp_path / "out"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = done.stdout.split()
    assert len(found) > 15
    # first the old results, for one moment none, then the new ones
    assert found == sorted(found, key=["old", "away", "new"].index)
    assert found.count("away") == 1 and found[0] == "old" and found[-1] == "new"


WRITER = """
import pathlib, sys, time
from lassi_lib.study.draft import drafted

output, name = pathlib.Path(sys.argv[1]), sys.argv[2]
for number in range(10):
    with drafted(output) as draft:
        for file in ("run.json", "table.csv", "page.html"):
            (draft / file).write_text(f"{name}{number}")
            time.sleep(0.002)
"""


def test_several_writers_take_turns_and_say_so(tmp_path):
    output = tmp_path / "out"
    options = {"cwd": ROOT, "stderr": subprocess.PIPE, "text": True}
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, output, name], **options) for name in ("a", "b", "c")
    ]
    seen, until = set(), time.monotonic() + 60
    while any(writer.poll() is None for writer in writers):
        assert time.monotonic() < until
        try:
            files = [(output / name).read_text() for name in NAMES]
        except FileNotFoundError:  # between the two renames
            continue
        seen.update(files)
    said = "".join(writer.communicate()[1] for writer in writers)
    assert [writer.returncode for writer in writers] == [0, 0, 0], said
    assert f"waiting for {output}, into which another run writes" in said
    assert content(output)[1] == "9"
    assert len(seen) > 1
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
