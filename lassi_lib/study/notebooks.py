"""Execute a notebook in a process of its own, and judge for ourselves whether it succeeded.

papermill alone is not enough: after a killed kernel it marks every cell completed, and ``sys.exit(0)``
in a cell returns normally with the later cells unrun. A notebook succeeds only if every code cell ran
to its end, in order and without an error, and if every file it declares in its metadata
(``"lassi": {"artefacts": ["tables/claim1.csv"]}``, relative to the profile's results) was written by
this very run, is whole (`artefacts.fault_of`), and if it read from the cache the stages planned for it.
Exactly one file stands for the latest run: ``NN.ipynb`` after a success, ``NN.failed.ipynb`` after a
failure. An interruption changes neither.
"""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, NoReturn

from lassi_lib.errors import StudyError, nearest
from lassi_lib.files import whole
from lassi_lib.study.artefacts import fault_of

PLAIN_TYPES = {"int": int, "float": float, "str": str, "bool": bool, "list": list, "dict": dict}
# What is said when a kernel has lost the race for a port; nothing has run yet, so it may start again.
_START_TROUBLE = ("Address already in use", "Kernel died before replying", "Kernel didn't respond in")


class Parameter(NamedTuple):
    """One line of a parameters cell, ``name: type = default``."""

    type: str
    default: Any


@dataclass(frozen=True)
class NotebookOutcome:
    """What became of a notebook: `error` is one line, empty if `ok`; `path` is what was written.

    `stages` are those that it read from the cache, as ``name/key``.
    """

    ok: bool
    seconds: float
    error: str
    path: Path
    stages: tuple[str, ...] = ()


def parameters_of(path: str | Path) -> dict[str, Parameter]:
    """Read the cell tagged 'parameters': name -> (type name, default), in its order.

    The type of ``x: list[str] = []`` is given as 'list'.

    Raises
    ------
    StudyError
        If there is not exactly one such cell, or a line is not ``name: type = value``.
    """
    cells = [c for c in _read(path)["cells"] if "parameters" in c["metadata"].get("tags", ())]
    if len(cells) != 1:
        raise StudyError(f"{path}: {len(cells)} cells are tagged 'parameters': tag exactly one")
    source, found = "".join(cells[0]["source"]), {}
    try:
        for node in ast.parse(source).body:
            if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value):
                raise ValueError(f"line {node.lineno}")
            kind, default = ast.unparse(node.annotation).partition("[")[0], ast.literal_eval(node.value)
            allowed = (int, float) if kind == "float" else PLAIN_TYPES[kind]  # 1 will do for 1.0
            if not isinstance(default, allowed) or (isinstance(default, bool) and kind != "bool"):
                raise ValueError(f"{default!r} is not of type {kind}")
            found[node.target.id] = Parameter(kind, default)
    except (SyntaxError, ValueError, KeyError) as error:
        raise StudyError(f"{path}: parameters cell: write 'name: type = value' ({error})") from None
    return found


def artefacts_of(path: str | Path) -> tuple[str, ...]:
    """Return the files a notebook declares that it writes, relative to the profile's results."""
    names = tuple(_read(path)["metadata"].get("lassi", {}).get("artefacts", ()))
    for name in names:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise StudyError(
                f"{path}: artefact '{name}' must lie inside the results folder: mend the metadata"
            )
    return names


def execute(
    source: str | Path,
    output: str | Path,
    parameters: dict[str, Any],
    *,
    timeout: float,
    log_path: str | Path,
    cwd: str | Path,
    stages: Collection[str] = (),
) -> NotebookOutcome:
    """Run one notebook in its own process and kernel (this interpreter), then judge it.

    Parameters
    ----------
    source : path
        The notebook.
    output : path
        results/<profile>/NN.ipynb; artefacts are looked up beside it.
    parameters : dict
        Plain values for names of the parameters cell.
    timeout : float
        Seconds after which the kernel and all its children are killed.
    log_path : path
        Gets what the notebook prints and its kernel says. It may name this machine's folders, so it is kept
        out of the results.
    cwd : path
        The folder that the notebook runs in.
    stages : collection of str
        Stages (``name/key``) that its numbers must come from: if it has not read all of them, it has failed.

    Raises
    ------
    StudyError
        If the notebook has no such parameter.
    ValueError
        If a value is not plain (papermill would inject it as a string).
    """
    source, output, log_path, cwd = (Path(p).resolve() for p in (source, output, log_path, cwd))
    known = parameters_of(source)
    for name, value in parameters.items():
        if name not in known:
            raise StudyError(f"{source.name} has no parameter '{name}'{nearest(name, known)}")
        if not isinstance(value, (bool, int, float, str, list, dict)):
            raise ValueError(f"parameter {name} must be a plain value, not {value!r}")
    stamps = {name: _stamp(output.parent / name) for name in artefacts_of(source)}
    for folder in (output.parent, log_path.parent):
        folder.mkdir(parents=True, exist_ok=True)

    started = time.monotonic()
    for attempt in (1, 2):
        with tempfile.TemporaryDirectory(prefix="lassi-", ignore_cleanup_errors=True) as job:
            trouble, notebook = _run(Path(job), source, parameters, timeout, log_path, cwd)
            read = _lines(Path(job) / "read.txt")
        begun = any(cell.get("execution_count") for cell in notebook.cells)
        if attempt == 2 or begun or not any(text in trouble for text in _START_TROUBLE):
            break
    seconds = time.monotonic() - started
    scrub = _scrubber((cwd, output.parent, Path(__file__).parents[2]), parameters)
    error = scrub(
        _cells_verdict(notebook, trouble)
        or _artefacts_verdict(output.parent, stamps)
        or _stages_verdict(stages, read)
    )
    return NotebookOutcome(not error, seconds, error, _save(notebook, output, error, scrub), read)


def not_executed(source: str | Path, output: str | Path, error: str) -> NotebookOutcome:
    """Write a notebook that could not even begin, as a failed one with its error; see `execute`."""
    import nbformat

    source, output = Path(source).resolve(), Path(output).resolve()
    scrub = _scrubber((source.parent, output.parent, Path(__file__).parents[2]), {})
    error, notebook = scrub(error), nbformat.read(source, as_version=4)
    return NotebookOutcome(False, 0.0, error, _save(notebook, output, error, scrub))


def _save(notebook: Any, output: Path, error: str, scrub: Callable[[str], str]) -> Path:
    """Write a notebook to `output`, or as failed beside it if there is an error; return where."""
    import nbformat

    failed = output.with_suffix(".failed.ipynb")
    path, obsolete = (failed, output) if error else (output, failed)
    with whole(path) as draft:
        draft.write_text(nbformat.writes(_clean(notebook, error, scrub)) + "\n", encoding="utf-8")
    obsolete.unlink(missing_ok=True)
    return path


def _read(path: str | Path) -> dict:
    try:
        notebook = json.loads(Path(path).read_text(encoding="utf-8"))
        return {"metadata": notebook["metadata"], "cells": notebook["cells"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StudyError(f"{path} cannot be read as a notebook ({error}): restore it") from None


def _lines(path: Path) -> tuple[str, ...]:
    """Return a file's different lines in order; none where there is no file."""
    return tuple(sorted(set(path.read_text().split()))) if path.is_file() else ()


def _stamp(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.exists() else None


def _run(
    job: Path, source: Path, parameters: dict, timeout: float, log_path: Path, cwd: Path
) -> tuple[str, Any]:
    """Execute `source` in a process; return its trouble in words (or '') and what was saved."""
    import nbformat

    (job / "job.json").write_text(json.dumps({"source": str(source), "parameters": parameters}))
    # Whatever kernels are installed here, 'python3' shall be the interpreter that runs the study.
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = job / "jupyter" / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"}))
    library = str(Path(__file__).resolve().parents[2])
    own = {"LASSI_QUIET": "1", "MPLBACKEND": "agg", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    # Notebooks run side by side, and another number of threads would change the last digits of sums.
    own |= {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), "OMP_WAIT_POLICY": "PASSIVE"}
    own["LASSI_READ"] = str(job / "read.txt")  # where the cache notes what is read
    own["PYTHONPATH"] = os.pathsep.join(filter(None, (library, os.environ.get("PYTHONPATH"))))
    # Own folders: no kernel, start-up file or history of the user has a say in the results.
    folders = {"JUPYTER_PATH": "jupyter", "JUPYTER_RUNTIME_DIR": "runtime", "IPYTHONDIR": "ipython"}
    own |= {name: str(job / folder) for name, folder in folders.items()}

    command = [sys.executable, "-m", "lassi_lib.study.notebooks", str(job)]
    streams = {"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
    with (
        open(log_path, "wb") as log,
        subprocess.Popen(
            command, cwd=cwd, env=os.environ | own, stdout=log, start_new_session=True, **streams
        ) as process,
    ):
        try:
            code = process.wait(timeout)
            trouble = _ended(code) if code else ""
        except subprocess.TimeoutExpired:
            kill_tree(process.pid)
            trouble = f"stopped: not finished after {timeout:g} s"
        except BaseException:  # Ctrl-C: leave no kernel behind
            kill_tree(process.pid)
            raise
    with suppress(OSError):
        trouble = (job / "trouble.txt").read_text()
    try:
        return trouble, nbformat.read(job / "notebook.ipynb", as_version=4)
    except (OSError, ValueError):  # killed before or while saving
        return trouble, nbformat.read(source, as_version=4)


def _ended(code: int) -> str:
    """Say in words how a process ended that did not say so itself; a negative code is minus a signal."""
    if code >= 0:
        return f"its process ended with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    why = "; the system does so when memory runs out: use fewer --workers" if name == "SIGKILL" else ""
    return f"its process was ended from outside ({name}{why})"


def kill_tree(pid: int, *, itself: bool = True) -> None:
    """Kill a process with its descendants: a kernel is not in its parent's process group."""
    import psutil

    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if itself:
            process.suspend()  # so that it starts nothing while its children are counted
        family = process.children(recursive=True) + [process] * itself
        _kill(family)
        psutil.wait_procs(family, timeout=1)


def _kill(family: list) -> None:
    import psutil

    for member in family:
        with suppress(psutil.Error):
            # multiprocessing's helper ends by itself, when it has removed what the others leave
            if "resource_tracker" not in " ".join(member.cmdline()):
                member.kill()


def leave(code: int) -> NoReturn:
    """End this process with an exit code; after Ctrl-C (130) at once, with all that it started.

    In good order, Dask alone would take more than ten seconds for it.
    """
    if code == 130:
        import psutil

        sys.stdout.flush()
        _kill(psutil.Process().children(recursive=True))
        os._exit(code)
    sys.exit(code)


def _cells_verdict(notebook: Any, trouble: str) -> str:
    """Return '' if every code cell ran to its end, else one line with the first failure."""
    cells, last = [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()], 0
    for number, cell in enumerate(cells, 1):
        where = f"code cell {number} ({cell.source.strip().splitlines()[0][:60]})"
        for output in cell.outputs:
            if output.output_type == "error":
                return " ".join(f"{where} raised {output.ename}: {output.evalue}".split())
        # A cell has its count as soon as it starts, the reply's time only when it has ended.
        replied = "shell.execute_reply" in cell.metadata.get("execution", {})
        if trouble and not replied:
            return " ".join(f"{trouble}; {where} had not ended".split())
        if not replied or cell.execution_count <= last:
            return f"{where} did not run to its end, or out of order"
        last = cell.execution_count
    return " ".join(trouble.split())


def _artefacts_verdict(folder: Path, stamps: dict[str, int | None]) -> str:
    """Return '' if every declared file was written and is whole, given the times (ns) of those before."""
    for name, before in stamps.items():
        if fault := fault_of(folder / name):
            return f"declared artefact {name} {fault}"
        if _stamp(folder / name) == before:
            return f"declared artefact {name} was not written by this run"
    return ""


def _stages_verdict(planned: Collection[str], read: Collection[str]) -> str:
    """Return '' if everything planned for a notebook was read by it, so that its numbers are this run's."""
    left = sorted(set(planned) - set(read))
    if not left:
        return ""
    return f"{len(left)} of {len(planned)} results planned for it were not read by it (first: {left[0]})"


def _scrubber(ours: tuple[Path, ...], parameters: dict[str, Any]) -> Callable[[str], str]:
    """Return a function that takes the folders of this machine out of a text; `ours` become '.'."""
    folders = {sys.prefix: "<python>", sys.base_prefix: "<python>", tempfile.gettempdir(): "<tmp>"}
    folders |= {str(Path.home()): "~"} | {str(folder.resolve()): "." for folder in ours}
    for value in parameters.values():
        if isinstance(value, str) and os.path.isabs(value):
            folders.setdefault(value.rstrip("/"), f"…/{Path(value).name}")
    folders |= {os.path.realpath(folder): short for folder, short in folders.items()}
    longest_first = sorted((f for f in folders if len(f) > 1), key=len, reverse=True)
    pattern = re.compile(f"({'|'.join(map(re.escape, longest_first))})(?![\\w-])(/?)")

    def scrub(text: str) -> str:
        text = re.sub(r"[^\s'\"]*ipykernel_\d+/\d+\.py", "<cell>", text)  # holds a process id as well
        return pattern.sub(lambda m: f"{folders[m[1]]}{m[2]}".removeprefix("./"), text)

    return scrub


def _clean(notebook: Any, error: str, scrub: Callable[[str], str]) -> Any:
    """Keep what a reader needs: no times, no process ids, no folders of this machine."""
    import nbformat

    def scrubbed(value: Any) -> Any:
        if isinstance(value, list):
            return [scrubbed(v) for v in value]
        if isinstance(value, dict):
            return nbformat.from_dict({k: v if k == "image/png" else scrubbed(v) for k, v in value.items()})
        return scrub(value) if isinstance(value, str) else value

    kept = ("kernelspec", "language_info", "lassi")
    notebook.metadata = nbformat.from_dict({k: v for k, v in notebook.metadata.items() if k in kept})
    notebook.metadata.setdefault("lassi", nbformat.from_dict({}))["error"] = error
    notebook.cells = [c for c in notebook.cells if "papermill-error" not in str(c.metadata.get("tags"))]
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({k: v for k, v in cell.metadata.items() if k == "tags"})
        if "injected-parameters" in cell.metadata.get("tags", ()):
            cell.id, cell.source = "injected-parameters", scrub(cell.source)
        if cell.cell_type != "code":
            continue
        outputs: list[Any] = []
        for output in scrubbed(cell.outputs):
            if outputs and output.output_type == "stream" and outputs[-1].get("name") == output.name:
                outputs[-1].text += output.text  # where a kernel cuts a text is chance
            else:
                outputs.append(output)
        cell.outputs = outputs
    if error:
        text = f"**This notebook failed**\n\n```text\n{error.replace('`', chr(39))}\n```"
        banner = nbformat.v4.new_markdown_cell(text, id="failure", metadata={"tags": ["failure"]})
        notebook.cells.insert(0, banner)
    return notebook


def _main(job: Path) -> int:
    """Run one job (``python -m lassi_lib.study.notebooks FOLDER``, which only `execute` calls)."""
    import logging

    import papermill

    def watch(parent: int = os.getppid()) -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        kill_tree(os.getpid(), itself=False)  # the study was killed: its kernel must not go on
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    task, output = json.loads((job / "job.json").read_text()), job / "notebook.ipynb"
    options = {"kernel_name": "python3", "language": "python", "progress_bar": False, "log_output": True}
    try:
        papermill.execute_notebook(task["source"], output, task["parameters"], **options)
    except Exception as error:
        print(re.sub(r"\x1b\[[\d;]*m", "", str(error)), flush=True)  # the traceback, for the log
        line = (str(error).strip().splitlines() or [""])[-1]
        (job / "trouble.txt").write_text(f"{type(error).__name__}: {line}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1])))
