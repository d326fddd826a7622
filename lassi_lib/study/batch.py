"""The batch run behind `python run_all.py`: check everything, compute, execute notebooks, render.

Order matters. All parameters are checked before anything is computed, and everything is computed
before anything is written to results/: a mistake leaves the results of the previous run as they were.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from lassi_lib.errors import StudyError, about, mendable, one_line, printable
from lassi_lib.progress import Overall, running, say
from lassi_lib.study.cache import held
from lassi_lib.study.draft import drafted
from lassi_lib.study.options import RESULTS, cache_folder, chosen, output_folder, parse
from lassi_lib.study.params import (
    NOTEBOOKS,
    Pipeline,
    load_notebook_params,
    load_pipeline,
    notebooks_of,
    profiles,
)
from lassi_lib.study.strict import shown

if TYPE_CHECKING:
    from lassi_lib.study.experiment import Experiment
    from lassi_lib.study.notebooks import NotebookOutcome
    from lassi_lib.study.plan import Step
    from lassi_lib.study.study import Study

_ANSWERS = ("certificates", "truth", "decisions", "endpoints")  # stages that a notebook's numbers come from
_STATED_WORKERS = 4  # with which the minutes in pipeline.yaml were measured
NOTEBOOK_TIMEOUT = 4 * 3600.0  # seconds; experiments are computed before, so notebooks take minutes


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit code: 0 done, 1 a notebook failed, 2 user's mistake, 130."""
    try:
        code = _asked(parse(argv))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `| head`: whoever reads this has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        return 1
    except StudyError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: what is finished is kept, the same command goes on from there", file=sys.stderr)
        return 130
    except Exception as error:
        if line := mendable(error):  # nothing half-written is left: drafts are removed on the way
            print(f"error: {one_line(line)}", file=sys.stderr)
            return 2
        raise


def _asked(args: argparse.Namespace) -> int:
    """Do what was asked for; return the exit code."""
    if args.list:
        print_list()
        return 0
    if args.overview:
        from lassi_lib.study.overview import write_overview
        from lassi_lib.study.record import write_again

        results = Path(args.output).resolve() if args.output else RESULTS
        write_again(results)
        page = write_overview(results)
        print(f"open {shown(page, Path.cwd())}")
        return 0
    return run_profile(args)


def print_list() -> None:
    """Print every profile with its notebooks and expected minutes."""
    for profile in profiles():
        pipeline, names = load_pipeline(profile), notebooks_of(profile)
        print(f"{profile}: {printable(pipeline.description)}")
        for name in names:
            print(f"  {name:36s} {_minutes(pipeline, name)}")
        if total := _in_all(pipeline, names):
            print(f"  {'in all':36s} {total}")


def run_profile(args: argparse.Namespace) -> int:
    """Check, compute, execute and render one profile; return the exit code."""
    from lassi_lib.study.checksums import data_checksums
    from lassi_lib.study.engine import work_through
    from lassi_lib.study.experiment import with_seeds
    from lassi_lib.study.plan import describe, describe_notebooks, following
    from lassi_lib.study.record import made_by, remove_leftovers, run_record, write_pages
    from lassi_lib.study.study import device_name

    pipeline = load_pipeline(args.profile)
    output = output_folder(args)
    os.environ["LASSI_CACHE"] = str(cache_folder(args, output))
    names = chosen(notebooks_of(args.profile), args.only, args.skip)
    params = {name: load_notebook_params(args.profile, name) for name in names}
    if args.seeds:
        params = {name: with_seeds(p, args.seeds) for name, p in params.items()}
    _announce(args, pipeline, names)
    os.environ["LASSI_DATA_ROOT"] = str(Path(args.data_root).resolve()) if args.data_root else ""

    started = datetime.now(UTC)
    study, needed = plan_of(args.profile, params, args.device)
    steps = list({s.stage.key: s for own in needed.values() for s in own}.values())
    again = following(steps, args.force) if args.force else []
    if args.dry_run:
        print(describe_notebooks(study, needed))
        print(describe(study, steps, again))
        return 0
    if pipeline.glow.checkpoint:
        study.glow()  # a damaged one is noticed here
    for step in again:
        study.cache.remove(step.stage)

    def told(step: Step) -> None:
        if args.verbose:
            say(f"  {step}: {study.cache.record(step.stage)['seconds']:.1f} s")

    if args.verbose:
        print(describe(study, steps))
    lost = _Lost(study.cache.root / "logs" / args.profile / "experiments.log", args.fail_fast)
    durations = _durations(study, steps, pipeline, names, output)
    with Overall(durations, workers=args.workers):
        with suppress(_FirstFailure):
            options = {"workers": args.workers, "scheduler": args.scheduler, "seconds": durations}
            work_through(study, steps, **options, told=told, failed=lost.note)
        facts = study.facts()
        seconds = study.seconds(_experiments(study, params, output))
        made = made_by(started, device_name(study.device), data_checksums(study))
        with drafted(output) as draft:
            remove_leftovers(draft, args.profile)
            runs = _execute(needed, params, args, study, draft, lost.errors)
            run = run_record(args.profile, facts, seconds, params, made, runs, output)
            write_pages(runs, run, draft, output)
    return _concluded(run, runs, output)


def _concluded(run: dict, runs: dict[str, NotebookOutcome], output: Path) -> int:
    """Bring the overview up to date and say what the notebooks that ran found; return the exit code."""
    if output.parent == RESULTS:
        from lassi_lib.study.overview import write_overview

        with held(RESULTS / ".overview.lock", f"waiting for {RESULTS}/index.html, which another run writes"):
            write_overview(RESULTS)
    for name in runs:
        entry = run["notebooks"][name]
        said = printable(entry["verdict"] or entry["error"])
        print(f"{name}: {entry['status']} in {entry['minutes']:.1f} min. {said}")
    print(f"open {shown(output / 'index.html', Path.cwd())}")
    return 0 if all(run.ok for run in runs.values()) else 1


class _FirstFailure(Exception):
    """What --fail-fast ends the experiments with."""


class _Lost:
    """What experiments failed: `errors` by stage key, in a line; the log keeps where in the code."""

    def __init__(self, log: Path, fail_fast: bool) -> None:
        self.errors: dict[str, str] = {}
        self._log, self._fail_fast = log, fail_fast
        log.unlink(missing_ok=True)

    def note(self, step: Step, error: Exception) -> None:
        """Keep a step's error, and say it if it is not that of a parent."""
        origin = getattr(error, "__notes__", [str(step)])[-1]
        kind = "" if isinstance(error, StudyError) else f"{type(error).__name__}: "
        line = one_line(f"{origin}: {kind}{error}")
        if line not in self.errors.values():
            say(f"FAILED {line}")
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with self._log.open("a", encoding="utf-8") as log:
                log.write("".join(traceback.format_exception(error)) + "\n")
        self.errors[step.stage.key] = line
        if self._fail_fast:
            raise _FirstFailure


def plan_of(profile: str, params: dict[str, dict], device: str) -> tuple[Study, dict[str, list[Step]]]:
    """Return the profile's study and the steps that each notebook needs; all names are checked first."""
    from lassi_lib.numerics import pick_device
    from lassi_lib.study.asked import check_names
    from lassi_lib.study.plan import steps_of_notebooks
    from lassi_lib.study.study import Study

    pick_device(device)
    with about(f"params/{profile}/pipeline.yaml"):
        study = Study(profile, device=device)
    pipeline = study.pipeline
    data = pipeline.data  # the cheapest thing that can be missing comes first; of drawn images one will do
    few = study.of(replace(pipeline, data=replace(data, n_test=1)))
    known = few.dataset("test")
    with about(f"params/{profile}/pipeline.yaml: 'exceptions'"):
        for name in pipeline.exceptions:
            for attribute in name.replace("/", "+").split("+"):
                known.column(attribute)
    steps = {}
    for notebook, p in params.items():
        with about(f"params/{profile}/{notebook}.yaml"):
            check_names(p, pipeline, known.column)
            steps[notebook] = steps_of_notebooks(study, {notebook: p})
    return study, steps


def _experiments(study: Study, params: dict[str, dict], output: Path) -> list[Experiment]:
    """Return the experiments of the notebooks that run now, and of those whose earlier results stay."""
    from lassi_lib.study.experiment import experiments_of
    from lassi_lib.study.record import read_json

    found = [e for p in params.values() for e in experiments_of(study.pipeline, p)]
    for name, entry in read_json(output / "run.json").get("notebooks", {}).items():
        if name not in params:
            with suppress(StudyError, KeyError, TypeError, AttributeError):  # another version's parameters
                found += experiments_of(study.pipeline, entry["parameters"])
    return list(dict.fromkeys(found))


def _announce(args: argparse.Namespace, pipeline: Pipeline, names: list[str]) -> None:
    print(f"profile {args.profile}: {printable(pipeline.description)}", flush=True)
    for name in names:
        print(f"  {name}: {_minutes(pipeline, name)}", flush=True)
    if len(names) > 1 and (total := _in_all(pipeline, names)):
        print(f"  in all: {total}", flush=True)


def _minutes(pipeline: Pipeline, name: str) -> str:
    return f"about {pipeline.minutes[name]:g} min" if name in pipeline.minutes else "minutes not measured"


def _in_all(pipeline: Pipeline, names: list[str]) -> str:
    """Return the stated minutes of all these notebooks, '' where some are not stated."""
    if not names or set(names) - pipeline.minutes.keys():
        return ""
    minutes = sum(pipeline.minutes[name] for name in names)
    return f"about {minutes:.0f} min from an empty cache, with --workers {_STATED_WORKERS}"


def _durations(
    study: Study, steps: list[Step], pipeline: Pipeline, names: list[str], output: Path
) -> dict[str, float | None]:
    """Return what is left to do with the seconds it took before: stages by key, notebooks by name.

    What was never recorded shares what the profile's stated minutes leave, if it states any, beside all that
    is recorded or already done.
    """
    from lassi_lib.study.plan import expected_seconds, missing
    from lassi_lib.study.record import read_json

    expected = expected_seconds(study, steps)
    left: dict[str, float | None] = {s.stage.key: expected[s.stage.key] for s in missing(study, steps)}
    before = read_json(output / "run.json").get("notebooks", {})
    left |= {name: 60 * before.get(name, {}).get("minutes", 0) or None for name in names}
    unknown = [key for key, seconds in left.items() if seconds is None]
    stated = 60 * _STATED_WORKERS * sum(pipeline.minutes.get(name, 0) for name in names)
    done = (seconds for key, seconds in expected.items() if key not in left)
    rest = stated - sum(filter(None, (*left.values(), *done)))
    return left | {key: rest / len(unknown) for key in unknown if rest > 0}


def _execute(
    needed: dict[str, list[Step]],
    params: dict,
    args: argparse.Namespace,
    study: Study,
    draft: Path,
    lost: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, NotebookOutcome]:
    """Execute notebooks, by name with the steps they need, into a draft of the results folder.

    Each has a process of its own, as many at once as there are workers (on CUDA one: they share the GPU). One
    that needs a stage which is `lost` (its error by key) has failed before it began.
    """
    from lassi_lib.numerics import pick_device
    from lassi_lib.study.notebooks import kill_tree

    def run(name: str) -> NotebookOutcome:
        return _execute_one(name, needed[name], params[name], args, study, draft, lost)

    before = os.environ.get("LASSI_OUTPUT", "")
    os.environ["LASSI_OUTPUT"] = str(draft)
    try:
        if args.fail_fast and lost:  # the experiments have stopped: the first that cannot begin says why
            first = next(name for name, own in needed.items() if any(s.stage.key in lost for s in own))
            return {first: run(first)}
        if args.workers == 1 or args.fail_fast or pick_device(args.device).type == "cuda":
            runs = {}
            for name in needed:
                runs[name] = run(name)
                if args.fail_fast and not runs[name].ok:
                    break
            return runs
        with ThreadPoolExecutor(args.workers) as pool:
            try:
                return dict(zip(needed, pool.map(run, needed), strict=True))
            except BaseException:  # Ctrl-C reaches this thread alone: the others wait for their notebooks
                pool.shutdown(wait=False, cancel_futures=True)
                kill_tree(os.getpid(), itself=False)
                raise
    finally:
        os.environ["LASSI_OUTPUT"] = before


def _execute_one(
    name: str,
    needed: list[Step],
    params: dict,
    args: argparse.Namespace,
    study: Study,
    draft: Path,
    lost: Mapping[str, str],
) -> NotebookOutcome:
    """Execute one notebook into a draft; one that fails keeps its own file there and nothing else."""
    from lassi_lib.study.artefacts import files_of
    from lassi_lib.study.notebooks import artefacts_of, execute, not_executed

    source, target = NOTEBOOKS / f"{name}.ipynb", draft / f"{name}.ipynb"
    declared = artefacts_of(source)
    for stale in files_of(draft, name, declared):
        stale.unlink()
    errors = dict.fromkeys(lost[s.stage.key] for s in needed if s.stage.key in lost)
    if errors:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        return not_executed(source, target, f"{next(iter(errors))}{more}")
    log = study.cache.root / "logs" / args.profile / f"{name}.log"
    with running(name, f"notebook {name}"):
        outcome = execute(
            source,
            target,
            params | {"interactive": False, "device": args.device},
            timeout=NOTEBOOK_TIMEOUT,
            log_path=log,
            cwd=NOTEBOOKS,
            stages=[f"{s.stage.name}/{s.stage.key}" for s in needed if s.verb in _ANSWERS],
        )
    if outcome.ok:
        say(f"finished notebook {name} in {outcome.seconds / 60:.1f} min")
    else:
        for left in set(files_of(draft, name, declared)) - {outcome.path}:
            left.unlink()  # it may have written some of its files before it failed
        say(
            f"FAILED notebook {name}: {printable(outcome.error)}\n  what it printed: {shown(log, Path.cwd())}"
        )
    return outcome
