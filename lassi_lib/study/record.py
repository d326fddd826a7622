"""run.json: what made the results of a profile, and whether they still are what they say.

Every notebook's entry says by itself what made it (commit, parameters, data, versions, device, minutes),
because a run of some notebooks keeps the entries of the others. Pages and index are written from here.
"""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lassi_lib.errors import StudyError
from lassi_lib.files import whole
from lassi_lib.study.artefacts import files_of
from lassi_lib.study.changes import changes, previous
from lassi_lib.study.checksums import in_words
from lassi_lib.study.params import (
    NOTEBOOKS,
    ROOT,
    load_notebook_params,
    load_pipeline,
    notebooks_of,
    profiles,
)

if TYPE_CHECKING:
    from lassi_lib.study.notebooks import NotebookOutcome

PACKAGES = ("torch", "torchvision", "numpy", "scipy", "pandas", "statsmodels", "matplotlib", "seaborn",
            "papermill", "nbconvert", "jupyterlab")  # fmt: skip
_ADDED = {"injected-parameters", "failure"}  # tags of the cells that a run adds
CODE = ("lassi_lib", "notebooks", "params", "checkpoints", "run_all.py")  # what makes results


def made_by(started: datetime, device: str, data: dict[str, Any]) -> dict[str, Any]:
    """Return what all notebooks of a run have in common: code, versions, time, device and data."""
    commit, changed = code_state()
    return {
        "commit": commit + " + changes" * bool(changed),
        "changed": changed,
        "started": started.isoformat(timespec="milliseconds"),
        "device": device,
        "data": data,
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
    }


def code_state() -> tuple[str, list[str]]:
    """Return the commit of the code, and the files of it that differ from that commit."""
    git = ["git", "-C", str(ROOT)]
    try:
        said = [
            subprocess.run([*git, *command], capture_output=True, text=True, check=True).stdout
            for command in (
                ["rev-parse", "--short=12", "HEAD"],
                ["status", "--porcelain", "--untracked-files=all", "--", *CODE],
            )
        ]
    except (OSError, subprocess.CalledProcessError):
        return "unknown (no git)", []
    return said[0].strip(), [line[3:] for line in said[1].splitlines()]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def run_record(
    profile: str,
    facts: dict[str, Any],
    seconds: dict[str, float],
    params: dict[str, dict],
    made: dict[str, Any],
    runs: dict[str, NotebookOutcome],
    before: Path,
) -> dict[str, Any]:
    """Return the content of run.json; notebooks that did not run now keep the entry of the results `before`.

    Parameters
    ----------
    profile : str
        Name of the profile.
    facts, seconds : dict
        The study's (`Study.facts`, `Study.seconds`).
    params : dict of dict
        Parameters of each notebook, by its name.
    made : dict
        From `made_by`.
    runs : dict of NotebookOutcome
        What became of the notebooks that ran, by name.
    before : Path
        The results folder that this run will replace.
    """
    pipeline, old = load_pipeline(profile), read_json(before / "run.json")
    settings = json.loads(json.dumps(asdict(pipeline)))
    entries = {n: e for n, e in old.get("notebooks", {}).items() if n in notebooks_of(profile)}
    for entry in entries.values():  # its settings may not be those of this run
        if old.get("pipeline") != settings:
            entry.setdefault("pipeline", old.get("pipeline", {}))
    for name, run in runs.items():
        said = read_json(run.path.parent / "verdicts" / f"{name}.json") if run.ok else {}
        entries[name] = {
            "status": "ok" if run.ok else "failed",
            "error": run.error,
            "minutes": round(run.seconds / 60, 2),
            "outcome": said.get("outcome", ""),
            "verdict": said.get("text", ""),
            "picture": said.get("picture", ""),
            "alt": said.get("alt", ""),
            "parameters": params[name],
            "stages": {"read": len(run.stages), "digest": _short("\n".join(run.stages))},
            **made,
        }
    return {
        "profile": profile,
        "first_line": pipeline.first_line,
        "facts": facts,
        "minutes_of_experiments": round(sum(seconds.values()) / 60, 1),
        "seconds_of_stages": {k: round(v, 1) for k, v in seconds.items()},
        "pipeline": settings,
        "notebooks": dict(sorted(entries.items())),
    }


def _short(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def made_line(entry: dict[str, Any]) -> str:
    """Return in one line what made a notebook's page."""
    commit = entry.get("commit", "unknown")
    if entry.get("changed"):
        commit += f" in {len(entry['changed'])} files"
    given = json.dumps(entry.get("parameters", {}), sort_keys=True)
    known = entry.get("versions", {})
    versions = ", ".join(f"{k} {known.get(k, 'unknown')}" for k in ("python", "torch", "numpy"))
    return (
        f"Made {entry.get('started', 'on a day unknown')[:10]} at commit {commit}, parameters {_short(given)}; "
        f"data: {in_words(entry.get('data', {}))}; {versions}; {entry.get('device', 'device not recorded')}; "
        f"{entry['minutes']:.1f} minutes. All versions and parameters: run.json."
    )


def stale(folder: Path, name: str, run: dict[str, Any]) -> str:
    """Say what has changed since a notebook ran: its code, its parameters, or the profile's settings.

    `run` is the content of the folder's run.json.
    """
    source, executed = NOTEBOOKS / f"{name}.ipynb", folder / f"{name}.ipynb"
    if source.is_file() and executed.is_file() and _code(source) != _code(executed):
        return "the notebook's code has changed since"
    entry, profile = run["notebooks"][name], run.get("profile", folder.name)
    try:
        if profile in profiles() and name in notebooks_of(profile):
            if load_notebook_params(profile, name) != entry.get("parameters"):
                return "its parameters have changed since"
            made_with = entry.get("pipeline", run.get("pipeline", {}))
            if _differ(made_with, asdict(load_pipeline(profile))):
                return "the profile's settings have changed since"
    except StudyError as error:
        return str(error)
    return ""


def _code(path: Path) -> list[str]:
    """Return a notebook's code cells, without those that a run adds and the defaults that it replaces."""
    cells = [c for c in read_json(path).get("cells", []) if c["cell_type"] == "code"]
    return [_text(c) for c in cells if not {"parameters", *_ADDED} & _tags(c)]


def _tags(cell: dict[str, Any]) -> set[str]:
    return set(cell["metadata"].get("tags", ()))


def mend_prose(executed: Path, source: Path) -> None:
    """Give an executed notebook the text of its source as it is now; code and what it printed stay.

    One whose code has changed since keeps its text: it speaks of the old code. That the text is younger than the
    run is noted in the notebook's metadata, and said at the foot of its page.
    """
    if not source.is_file() or _code(source) != _code(executed):
        return
    ran = read_json(executed)
    old = [c for c in ran["cells"] if c["cell_type"] != "markdown"]
    new, place = [], 0
    for cell in read_json(source)["cells"]:
        if cell["cell_type"] == "markdown":
            new.append(cell)
            continue
        new.append(old[place])
        place += 1
        while place < len(old) and _ADDED & _tags(old[place]):
            new.append(old[place])
            place += 1
    if [_text(c) for c in new] != [_text(c) for c in ran["cells"]]:
        ran["cells"] = new
        ran["metadata"].setdefault("lassi", {})["prose"] = "mended after the run"
        with whole(executed) as draft:
            draft.write_text(json.dumps(ran, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _text(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def _differ(then: Any, now: Any) -> bool:
    """Whether a recorded setting has another value now; settings that came later do not count."""
    if isinstance(then, dict) and isinstance(now, dict):
        words = ("description", "first_line", "minutes")
        return any(_differ(v, now[k]) for k, v in then.items() if k in now and k not in words)
    return json.loads(json.dumps(then)) != json.loads(json.dumps(now))  # a tuple is kept as a list


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON mapping; empty where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


# ---- files ----------------------------------------------------------------------------------------


def remove_leftovers(folder: Path, profile: str) -> None:
    """Remove from a results folder what belongs to notebooks that the profile has no longer."""
    for name in read_json(folder / "run.json").get("notebooks", {}).keys() - set(notebooks_of(profile)):
        for path in files_of(folder, name):
            path.unlink()


def write_pages(ran: Iterable[str], run: dict[str, Any], folder: Path, before: Path) -> None:
    """Write run.json, previous.json, the pages of the notebooks that ran now, and the index.

    `run` is `run_record`, `folder` the draft of the results folder, `before` the results that it will replace.
    """
    old = {k: v for k, v in read_json(before / "previous.json").items() if k in run["notebooks"]}
    old_entries = read_json(before / "run.json").get("notebooks", {})
    for name in ran:
        entry = run["notebooks"][name]
        stem = name if entry["status"] == "ok" else f"{name}.failed"
        for warning in _page(folder / f"{stem}.ipynb", entry):
            print(f"warning: {warning}", file=sys.stderr)
        found = changes(before, folder, name) if entry["status"] == "ok" else []
        old[name] = previous(old_entries.get(name, {}), entry, found) or old.get(name, {})
    for name, content in (("run", run), ("previous", {k: v for k, v in sorted(old.items()) if v})):
        (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    write_profile_index(folder)


def _page(executed: Path, entry: dict[str, Any]) -> list[str]:
    """Render a notebook that ran beside itself, with what its entry in run.json says; return warnings."""
    from lassi_lib.study.render import to_html

    verdict = (entry.get("outcome", ""), entry.get("verdict", ""))
    prose = read_json(executed).get("metadata", {}).get("lassi", {}).get("prose", "")
    note = made_line(entry) + f" Its prose was {prose}." * bool(prose)
    return to_html(executed, executed.with_suffix(".html"), note=note, verdict=verdict)


def write_profile_index(folder: Path) -> Path:
    """Write the index of a results folder from its run.json and previous.json; return its path."""
    from lassi_lib.study.notebooks import artefacts_of
    from lassi_lib.study.render import IndexEntry, title_of, write_index

    run, before = read_json(folder / "run.json"), read_json(folder / "previous.json")
    latest = max(run["notebooks"].values(), key=lambda entry: entry["started"])
    entries = []
    for name, entry in run["notebooks"].items():
        source = NOTEBOOKS / f"{name}.ipynb"
        there = source.is_file()
        reason = stale(folder, name, run) if there else "the study has no such notebook any more"
        said = {k: entry[k] for k in ("error", "outcome", "picture", "alt")}
        entries.append(
            IndexEntry(
                name,
                title_of(source) if there else name,
                entry["status"] == "ok",
                entry["minutes"],
                text=entry["verdict"],
                artefacts=artefacts_of(source) if there else (),
                stale=reason,
                made=made_line(entry),
                before=before.get(name, {}),
                **said,
            )
        )
    facts = run["facts"]
    shown = {
        "profile": run["profile"],
        "first_line": run["first_line"],
        "data": f"{facts['dataset']}, {facts['image_size']} pixels; {facts['note'] or 'rendered by this study'}",
        "images": ", ".join(f"{split} {n:,}" for split, n in facts["images"].items()),
        "checksums": in_words(latest.get("data", {})),
        "Glow": f"{facts['glow']}, {facts['bits_per_dim']:.2f} bits/dim on test images",
        "device": latest.get("device") or facts["device"],
        "computing minutes": f"{run['minutes_of_experiments']:.1f}",
        "commit": latest["commit"],
        "versions": ", ".join(f"{k} {v}" for k, v in latest["versions"].items()),
    }
    up = "../index.html" if (folder.parent / "index.html").is_file() else ""
    return write_index(folder, entries, shown, up)


def write_again(results: Path) -> None:
    """Render the pages and indices of all profiles below `results` anew, with the notebooks' present prose."""
    for path in sorted(results.glob("[!.]*/run.json")):
        run = read_json(path)
        if not (run.get("profile") and run.get("facts") and run.get("notebooks")):
            continue
        for name, entry in run["notebooks"].items():
            executed = path.parent / f"{name}{'' if entry.get('status') == 'ok' else '.failed'}.ipynb"
            if executed.is_file():
                mend_prose(executed, NOTEBOOKS / f"{name}.ipynb")
                _page(executed, entry)
        write_profile_index(path.parent)
