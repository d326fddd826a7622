"""Execution of throw-away notebooks: each way to fail gets its own verdict."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from lassi_lib.errors import StudyError
from lassi_lib.study import notebooks
from lassi_lib.study.cache import Stage
from lassi_lib.study.notebooks import artefacts_of, execute, parameters_of
from tests.study.sources import check_source

ROOT = Path(__file__).parents[2]
PARAMETERS = "n: int = 1  # how many\nfolder: str = ''"
SLEEP = "import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(60)"


def write(path, *code, parameters=PARAMETERS, artefacts=()):
    v4 = nbformat.v4
    cells = [
        v4.new_markdown_cell("# A question"),
        v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
    ]
    cells += [v4.new_code_cell(source) for source in code]
    metadata = {"lassi": {"artefacts": list(artefacts)}}
    nbformat.write(v4.new_notebook(cells=cells, metadata=metadata), path)
    return path


def run(folder, *code, timeout=60.0, parameters=None, artefacts=(), stages=()):
    source = write(folder / "source.ipynb", *code, artefacts=artefacts)
    options = {"log_path": folder / "01.log", "cwd": folder, "stages": stages}
    return execute(source, folder / "results" / "01.ipynb", parameters or {}, timeout=timeout, **options)


def gone(pid, seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.1)
    return False


# ---- sources ------------------------------------------------------------------------------------


def test_parameters_are_read_with_type_and_default(tmp_path):
    cell = (
        "n: int = 3  # how many\nrate: float = 1\nnames: list[str] = ['a=b', '#c']  # which\ntext: str = ''"
    )
    found = parameters_of(write(tmp_path / "a.ipynb", parameters=cell))
    assert list(found) == ["n", "rate", "names", "text"]
    assert found["n"] == ("int", 3)
    assert found["rate"] == ("float", 1)
    assert found["names"] == ("list", ["a=b", "#c"])


@pytest.mark.parametrize(
    "cell",
    [
        "n = 3",
        "n: int",
        "n: int = f()",
        "import os",
        "n: int = 'x'",
        "n: int = True",
        "n: Path = 1",
        "n: int =",
    ],
)
def test_other_lines_in_the_parameters_cell_are_refused_in_one_line(tmp_path, cell):
    with pytest.raises(StudyError, match="parameters cell") as error:
        parameters_of(write(tmp_path / "a.ipynb", parameters=cell))
    assert "\n" not in str(error.value)


def test_clean_source_passes_and_each_trace_of_a_run_is_refused(tmp_path):
    path = write(tmp_path / "a.ipynb", "1")
    check_source(path)
    clean = json.loads(path.read_text())

    def refused(change, match):
        notebook = json.loads(json.dumps(clean))
        change(notebook)
        path.write_text(json.dumps(notebook))
        with pytest.raises(StudyError, match=match):
            check_source(path)

    refused(lambda n: n["cells"][2].update(execution_count=4), "execution count")
    refused(lambda n: n["cells"][2].update(outputs=[{"output_type": "stream"}]), "outputs")
    refused(lambda n: n["metadata"].update(papermill={}), "papermill")
    refused(lambda n: n["cells"][2]["metadata"].update(tags=["injected-parameters"]), "traces")
    refused(lambda n: n["cells"][2]["metadata"].update(tags=["parameters"]), "2 cells are tagged")
    refused(lambda n: n["cells"][1].update(metadata={}), "0 cells are tagged")
    shown = "figure\nll.glow_explorer(study, attributes)"
    refused(lambda n: n["cells"][2].update(source=shown), "shows an explorer in the batch run")
    refused(lambda n: n.pop("cells"), "cannot be read")


@pytest.mark.parametrize("name", ["../x.csv", "/etc/x"])
def test_artefacts_lie_inside_the_results(tmp_path, name):
    with pytest.raises(StudyError, match="inside the results"):
        artefacts_of(write(tmp_path / "a.ipynb", artefacts=[name]))


def test_unknown_and_unplain_parameters_are_refused_before_anything_runs(tmp_path):
    with pytest.raises(StudyError, match="did you mean 'folder'"):
        run(tmp_path, parameters={"foldr": "x"})
    with pytest.raises(ValueError, match="plain"):
        run(tmp_path, parameters={"folder": tmp_path})
    assert not (tmp_path / "results").exists()


# ---- verdicts -----------------------------------------------------------------------------------


def test_success_is_rendered_without_a_trace_of_this_machine_and_equal_each_time(tmp_path):
    code = (
        "import os, sys, warnings\nwarnings.warn('careful')\nprint(os.getcwd(), n, folder, sys.executable)",
        "os.makedirs('results/tables', exist_ok=True)\nfacts = [sys.executable, os.environ['MPLBACKEND']]\n"
        "open('results/tables/a.txt', 'w').write(' '.join(facts + [os.environ['LASSI_QUIET']]))",
        "   ",
    )
    data = tmp_path.parent / "somewhere" / "celeba"
    options = {"parameters": {"n": 5, "folder": str(data)}, "artefacts": ["tables/a.txt"]}
    first = run(tmp_path, *code, **options)
    content = first.path.read_bytes()
    assert (first.ok, first.error, first.path.name) == (True, "", "01.ipynb")
    # the kernel is this interpreter, whatever kernels are installed
    assert (tmp_path / "results/tables/a.txt").read_text() == f"{sys.executable} agg 1"
    text = content.decode()
    assert '". 5 …/celeba <python>/' in text and "UserWarning: careful" in text
    for trace in (
        str(tmp_path),
        str(ROOT),
        sys.prefix,
        str(data.parent),
        "ipykernel_",
        "papermill",
        "start_time",
    ):
        assert trace not in text
    notebook = nbformat.read(first.path, as_version=4)
    nbformat.validate(notebook)
    assert [c.execution_count for c in notebook.cells if c.cell_type == "code"] == [1, 2, 3, 4, None]

    again = execute(
        tmp_path / "source.ipynb", first.path, options["parameters"],
        timeout=60, log_path=tmp_path / "log", cwd=tmp_path,
    )  # fmt: skip
    assert again.ok and again.path.read_bytes() == content


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (["1/0", "n"], "code cell 2 (1/0) raised ZeroDivisionError: division by zero"),
        (["import sys\nsys.exit(0)", "n"], "code cell 2 (import sys) raised SystemExit: 0"),
        (["n", "import os\nos.kill(os.getpid(), 9)"], "Kernel died; code cell 3 (import os) had not ended"),
        (
            ["n", "import os, time\nos.kill(os.getppid(), 9)\ntime.sleep(60)"],
            "its process was ended from outside (SIGKILL; the system does so when memory runs out: use fewer "
            "--workers); code cell 3 (import os, time) had not ended",
        ),
        (["n"], "declared artefact a.csv is missing or empty"),
    ],
    ids=["raising", "sys.exit(0)", "killed in its last cell", "executor killed", "missing artefact"],
)
def test_each_failure_has_its_verdict_and_replaces_an_older_success(tmp_path, code, error):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "01.ipynb").write_text("an older success")
    outcome = run(tmp_path, *code, artefacts=["a.csv"])
    assert not outcome.ok and outcome.error.endswith(error)
    assert [p.name for p in (tmp_path / "results").iterdir()] == ["01.failed.ipynb"]
    notebook = nbformat.read(outcome.path, as_version=4)
    assert notebook.metadata.lassi.error == outcome.error
    assert outcome.error in notebook.cells[0].source
    assert not any("papermill" in str(c) for c in notebook.cells)


def test_timeout_kills_the_kernel_and_a_success_replaces_the_failure(tmp_path):
    outcome = run(tmp_path, SLEEP, timeout=12.0)  # on a busy machine a kernel takes seconds to begin
    assert "not finished after 12 s; code cell 2 (import os, time) had not ended" in outcome.error
    assert 12 <= outcome.seconds < 30
    assert gone(int((tmp_path / "pid").read_text()), 0.5)
    assert run(tmp_path, "n").ok
    assert [p.name for p in (tmp_path / "results").iterdir()] == ["01.ipynb"]


@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_study_leaves_no_kernel_and_the_old_result(tmp_path, blow):
    write(tmp_path / "source.ipynb", SLEEP)
    (tmp_path / "01.ipynb").write_text("an older success")
    command = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background shell ignores it
        "from lassi_lib.study.notebooks import execute\n"
        "execute('source.ipynb', '01.ipynb', {}, timeout=60, log_path='log', cwd='.')"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    study = subprocess.Popen(
        [sys.executable, "-c", command], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + 30
    while not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text()):
        assert time.monotonic() < until and study.poll() is None
        time.sleep(0.05)
    kernel = int((tmp_path / "pid").read_text())
    study.send_signal(blow)
    assert study.wait(20) != 0  # under a second when the machine is idle
    assert gone(kernel, 20)
    assert (tmp_path / "01.ipynb").read_text() == "an older success"


def test_only_a_clash_at_the_start_is_tried_again_and_only_once(tmp_path, monkeypatch):
    def stand_in(troubles, count):
        def runner(job, source, *_):
            notebook = nbformat.read(source, as_version=4)
            notebook.cells[1].execution_count = count
            runner.calls += 1
            return next(troubles), notebook

        runner.calls = 0
        monkeypatch.setattr(notebooks, "_run", runner)
        return run(tmp_path), runner.calls

    clash = "ZMQError: Address already in use"
    assert stand_in(iter([clash, clash, clash]), None)[1] == 2
    assert stand_in(iter(["DeadKernelError: Kernel died"]), None)[1] == 1
    outcome, calls = stand_in(iter([clash]), 1)
    assert calls == 1 and clash in outcome.error


def test_an_artefact_of_an_earlier_run_does_not_count(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("x\n1\n")
    before = {"a.csv": notebooks._stamp(path)}
    assert "not written by this run" in notebooks._artefacts_verdict(tmp_path, before)
    os.utime(path, ns=(1, before["a.csv"] + 1))
    assert notebooks._artefacts_verdict(tmp_path, before) == ""
    path.write_text("x\n")
    assert "a.csv holds no rows" in notebooks._artefacts_verdict(tmp_path, before)


def test_numbers_must_come_from_the_stages_that_were_planned(tmp_path):
    """What a notebook reads is noted by the cache itself, whatever its parameters claim."""
    read = (
        "from lassi_lib.study.cache import Stage, StageCache\n"
        "for n in (1, 1, 2):\n    StageCache('cache').fetch(Stage('s', n, {}), lambda folder: None)"
    )
    keys = [f"s/{Stage('s', n, {}).key}" for n in (1, 2, 3)]
    outcome = run(tmp_path, read, stages=keys[:2])
    assert outcome.ok and outcome.stages == tuple(sorted(keys[:2]))
    outcome = run(tmp_path, read, stages=keys)
    assert f"1 of 3 results planned for it were not read by it (first: {keys[2]})" in outcome.error


def test_unrun_and_disordered_cells_are_seen():
    def cells(*counts, reply=True):
        metadata = {"execution": {"shell.execute_reply": "now"} if reply else {}}
        new = nbformat.v4.new_code_cell
        return nbformat.v4.new_notebook(
            cells=[new("x", execution_count=c, metadata=metadata) for c in counts]
        )

    assert notebooks._cells_verdict(cells(1, 2, 4), "") == ""
    assert "code cell 2 (x) did not run" in notebooks._cells_verdict(cells(1, 1), "")
    assert "code cell 1 (x) did not run" in notebooks._cells_verdict(cells(1, reply=False), "")


def test_importing_the_module_loads_nothing_heavy():
    code = (
        "import sys, lassi_lib.study.notebooks, lassi_lib.study.render\n"
        "print({'torch', 'papermill', 'nbconvert', 'nbformat', 'pandas'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
