"""The batch run behind `python run_all.py`: check everything, compute, execute notebooks, render.

Order matters. All parameters are checked before anything is computed, and everything is computed
before anything is written to results/: a mistake leaves the results of the previous run as they were.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lassi_lib.errors import StudyError, about, disk_trouble, one_line
from lassi_lib.study.cache import held
from lassi_lib.study.draft import drafted
from lassi_lib.study.options import RESULTS, cache_folder, check_packages, chosen, output_folder, parse
from lassi_lib.study.params import (
    NOTEBOOKS,
    ROOT,
    Pipeline,
    load_notebook_params,
    load_pipeline,
    notebooks_of,
    profiles,
)

if TYPE_CHECKING:
    from lassi_lib.study.experiment import Experiment
    from lassi_lib.study.plan import Step
    from lassi_lib.study.study import Study

NOTEBOOK_TIMEOUT = 4 * 3600.0  # seconds; experiments are computed before, so notebooks take minutes
PACKAGES = [
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "pandas",
    "statsmodels",
    "matplotlib",
    "seaborn",
    "papermill",
    "nbconvert",
    "jupyterlab",
]


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit code: 0 done, 1 a notebook failed, 2 user's mistake, 130."""
    try:
        args = parse(argv)
        check_packages()
        if args.list:
            print_list()
            return 0
        if args.overview:
            from lassi_lib.study.overview import write_overview

            page = write_overview(Path(args.output).resolve() if args.output else RESULTS)
            print(f"open {_shown(page)}")
            return 0
        return run_profile(args)
    except StudyError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: what is finished is kept, the same command goes on from there", file=sys.stderr)
        return 130
    except Exception as error:
        if line := disk_trouble(error):  # nothing half-written is left: drafts are removed on the way
            print(f"error: {one_line(line)}", file=sys.stderr)
            return 2
        raise


def print_list() -> None:
    """Print every profile with its notebooks and expected minutes."""
    for profile in profiles():
        pipeline = load_pipeline(profile)
        print(f"{profile}: {pipeline.description}")
        for name in notebooks_of(profile):
            print(f"  {name:36s} {_minutes(pipeline, name)}")


def run_profile(args: argparse.Namespace) -> int:
    """Check, compute, execute and render one profile; return the exit code."""
    from lassi_lib.study.engine import work_through
    from lassi_lib.study.plan import describe, following

    pipeline = load_pipeline(args.profile)
    output = output_folder(args)
    os.environ["LASSI_CACHE"] = str(cache_folder(args, output))
    names = chosen(notebooks_of(args.profile), args.only, args.skip)
    params = {name: load_notebook_params(args.profile, name) for name in names}
    if args.seeds:
        params = {name: p | {"seeds": args.seeds} if "seeds" in p else p for name, p in params.items()}
    _announce(args, pipeline, names)
    os.environ["LASSI_DATA_ROOT"] = str(Path(args.data_root).resolve()) if args.data_root else ""

    started = datetime.now(UTC)
    study, steps = plan_of(args.profile, params, args.device)
    again = following(steps, args.force) if args.force else []
    if args.dry_run:
        print(describe(study, steps, again))
        return 0
    if pipeline.glow.checkpoint:
        study.glow()  # a damaged one is noticed here
    for step in again:
        study.cache.remove(step.stage)
    work_through(study, steps, workers=args.workers, scheduler=args.scheduler)
    computed = study.facts(), study.seconds(_experiments(study, params))

    with drafted(output) as draft:
        runs = _execute(names, params, args, draft)
        info = _run_info(args.profile, params, computed, started, runs, output)
        _render(list(runs), info, draft)
    for name in runs:
        run = info["notebooks"][name]
        print(f"{name}: {run['status']} in {run['minutes']:.1f} min. {run['verdict'] or run['error']}")
    if output.parent == RESULTS:
        from lassi_lib.study.overview import write_overview

        with held(RESULTS / ".overview.lock", f"waiting for {RESULTS}/index.html, which another run writes"):
            write_overview(RESULTS)
    print(f"open {_shown(output / 'index.html')}")
    return 0 if all(run.ok for run in runs.values()) else 1


def plan_of(profile: str, params: dict[str, dict], device: str) -> tuple[Study, list[Step]]:
    """Return the profile's study and every step that its notebooks need; all names are checked first."""
    from lassi_lib.numerics import pick_device
    from lassi_lib.study.asked import check_names
    from lassi_lib.study.plan import steps_of_notebooks
    from lassi_lib.study.study import Study

    pick_device(device)
    with about(f"params/{profile}/pipeline.yaml"):
        study = Study(profile, device=device)
    pipeline = study.pipeline
    known = study.dataset("test")  # the cheapest thing that can be missing comes first
    with about(f"params/{profile}/pipeline.yaml: 'exceptions'"):
        for name in pipeline.exceptions:
            for attribute in name.replace("/", "+").split("+"):
                known.column(attribute)
    steps = {}
    for notebook, p in params.items():
        with about(f"params/{profile}/{notebook}.yaml"):
            check_names(p, pipeline, known.column)
            steps |= {s.stage.key: s for s in steps_of_notebooks(study, {notebook: p})}
    return study, list(steps.values())


def _experiments(study: Study, params: dict[str, dict]) -> list[Experiment]:
    from lassi_lib.study.experiment import experiments_of

    return list(dict.fromkeys(e for p in params.values() for e in experiments_of(study.pipeline, p)))


def _announce(args: argparse.Namespace, pipeline: Pipeline, names: list[str]) -> None:
    print(f"profile {args.profile}: {pipeline.description}", flush=True)
    for name in names:
        print(f"  {name}: {_minutes(pipeline, name)}", flush=True)


def _minutes(pipeline: Pipeline, name: str) -> str:
    return f"about {pipeline.minutes[name]:g} min" if name in pipeline.minutes else "minutes not measured"


def _execute(names: list[str], params: dict, args: argparse.Namespace, draft: Path) -> dict[str, Any]:
    """Execute notebooks into a draft of the results folder.

    Each has a process of its own, as many at once as there are workers (on CUDA one: they share the GPU).
    """
    from lassi_lib.numerics import pick_device
    from lassi_lib.study.notebooks import artefacts_of, execute, kill_tree

    def run(name: str) -> Any:
        source = NOTEBOOKS / f"{name}.ipynb"
        for stale in (*artefacts_of(source), f"{name}.html", f"verdicts/{name}.json"):
            (draft / stale).unlink(missing_ok=True)
        print(f"running notebook {name}", flush=True)
        return execute(
            source,
            draft / f"{name}.ipynb",
            params[name] | {"interactive": False, "device": args.device},
            timeout=NOTEBOOK_TIMEOUT,
            log_path=ROOT / ".cache" / "logs" / f"{name}.log",
            cwd=NOTEBOOKS,
        )

    before = os.environ.get("LASSI_OUTPUT", "")
    os.environ["LASSI_OUTPUT"] = str(draft)
    try:
        if args.workers == 1 or args.fail_fast or pick_device(args.device).type == "cuda":
            runs = {}
            for name in names:
                runs[name] = run(name)
                if args.fail_fast and not runs[name].ok:
                    break
            return runs
        with ThreadPoolExecutor(args.workers) as pool:
            try:
                return dict(zip(names, pool.map(run, names), strict=True))
            except BaseException:  # Ctrl-C reaches this thread alone: the others wait for their notebooks
                pool.shutdown(wait=False, cancel_futures=True)
                kill_tree(os.getpid(), itself=False)
                raise
    finally:
        os.environ["LASSI_OUTPUT"] = before


def _run_info(
    profile: str,
    params: dict,
    computed: tuple[dict, dict],
    started: datetime,
    runs: dict[str, Any],
    output: Path,
) -> dict[str, Any]:
    """Return run.json: what made these results; notebooks not run this time keep their entry."""
    pipeline, (facts, seconds) = load_pipeline(profile), computed
    notebooks = _read_json(output / "run.json").get("notebooks", {})
    common = {
        "commit": _commit(),
        "started": started.isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version()} | {n: _version(n) for n in PACKAGES},
    }
    for name, run in runs.items():
        verdict = _read_json(run.path.parent / "verdicts" / f"{name}.json")
        notebooks[name] = {
            "status": "ok" if run.ok else "failed",
            "error": run.error,
            "minutes": round(run.seconds / 60, 2),
            "outcome": verdict.get("outcome", ""),
            "verdict": verdict.get("text", ""),
            "picture": verdict.get("picture", ""),
            "alt": verdict.get("alt", ""),
            "parameters": params[name],
            **common,
        }
    return {
        "profile": profile,
        "first_line": pipeline.first_line,
        "facts": facts,
        "minutes_of_experiments": round(sum(seconds.values()) / 60, 1),
        "seconds_of_stages": {k: round(v, 1) for k, v in seconds.items()},
        "pipeline": pipeline.as_dict(),
        "notebooks": dict(sorted(notebooks.items())),
    }


def _render(names: list[str], info: dict[str, Any], draft: Path) -> None:
    """Write the HTML pages, run.json and the index into the draft."""
    from lassi_lib.study.notebooks import artefacts_of
    from lassi_lib.study.render import IndexEntry, title_of, to_html, write_index

    entries = []
    for name, run in info["notebooks"].items():
        ok = run["status"] == "ok"
        stem = name if ok else f"{name}.failed"
        if name in names:
            note = f"Commit {run['commit']}, {info['facts']['device']}, {run['minutes']:.1f} minutes."
            for warning in to_html(draft / f"{stem}.ipynb", draft / f"{stem}.html", note=note):
                print(f"warning: {warning}", file=sys.stderr)
        said = {k: run[k] for k in ("error", "outcome", "picture", "alt")}
        entry = IndexEntry(
            name, title_of(NOTEBOOKS / f"{name}.ipynb"), ok, run["minutes"], text=run["verdict"], **said
        )
        entries.append(replace(entry, artefacts=artefacts_of(NOTEBOOKS / f"{name}.ipynb")))
    (draft / "run.json").write_text(json.dumps(info, indent=1) + "\n")
    latest = max(info["notebooks"].values(), key=lambda run: run["started"])
    facts = info["facts"]
    shown = {
        "profile": info["profile"],
        "first_line": info["first_line"],
        "data": f"{facts['dataset']}, {facts['image_size']} pixels; {facts['note'] or 'rendered by this study'}",
        "images": ", ".join(f"{split} {n:,}" for split, n in facts["images"].items()),
        "Glow": f"{facts['glow']}, {facts['bits_per_dim']:.2f} bits/dim on test images",
        "device": facts["device"],
        "computing minutes": f"{info['minutes_of_experiments']:.1f}",
        "commit": latest["commit"],
        "versions": ", ".join(f"{k} {v}" for k, v in latest["versions"].items()),
    }
    write_index(draft, entries, shown)


def _commit() -> str:
    """Return the commit of the code, marked '+ changes' if the working tree differs from it."""
    git = ["git", "-C", str(ROOT)]
    try:
        commit = subprocess.run(
            [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
        )
        code = ["lassi_lib", "notebooks", "params", "run_all.py"]
        changes = subprocess.run(
            [*git, "status", "--porcelain", "--", *code], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown (no git)"
    return commit.stdout.strip() + (" + changes" if changes.stdout.strip() else "")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def _shown(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
