"""The command line of `run_all.py`: options, the variables that stand for them, and what they may be.

Every mistake is a `StudyError`: one line that names the option (or its variable) and says what is allowed.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NoReturn

from lassi_lib.errors import StudyError, nearest
from lassi_lib.study.strict import ROOT

RESULTS = ROOT / "results"
VARIABLES = ("output", "cache", "data_root", "device", "workers")  # LASSI_OUTPUT and so on
DEFAULTS = {"output": "", "cache": "", "data_root": "", "device": "auto", "workers": "1"}
DEVICES = ("auto", "cpu", "cuda")
SCHEDULER = r"(tcp|tls|ws|wss|ucx)://([^\s/:]+|\[[\da-fA-F:.]+\])(:\d+)?"
# folders of the study's own files, which no results may be written into
OURS = ("lassi_lib", "notebooks", "params", "tests", "docs", "benchmarks", "checkpoints", "saved_models")
_EPILOG = (
    "LASSI_OUTPUT, LASSI_CACHE, LASSI_DATA_ROOT, LASSI_DEVICE and LASSI_WORKERS stand for the options of "
    "these names where they are not given; LASSI_QUIET=1 shows no progress. Exit codes: 0 all verdicts written, 1 a notebook failed, 2 a "
    "mistake in options, parameters or files, 130 interrupted."
)


class Parser(argparse.ArgumentParser):
    """A command line whose mistakes are a `StudyError`, not a page of usage."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print."""
        raise StudyError(f"{message.removeprefix('argument ')} (see --help)")


class _Joined(argparse.Action):
    """Several words of a command line, kept as one with commas."""

    def __call__(self, parser: Any, args: argparse.Namespace, values: Any, option: Any = None) -> None:
        setattr(args, self.dest, ",".join(values))


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    p = Parser(
        prog="run_all.py",
        description="Run the LASSI reproducibility study.",
        epilog=_EPILOG,
        allow_abbrev=False,
    )

    def text(name: str, metavar: str, help: str, default: str | None = "", **more: Any) -> None:
        p.add_argument(f"--{name}", default=default, metavar=metavar, help=help, **more)

    several = {"nargs": "+", "action": _Joined}  # 01,07 or 01 07

    text("profile", "NAME", "which data and sizes, see --list (default: demo)", "demo")
    text("only", "NB", "these notebooks, by number or name: 01,07", None, **several)
    text("skip", "NB", "all notebooks but these: 03,05", **several)
    text("seeds", "S", "seeds instead of the params' own: 42,0", **several)
    text("force", "STAGE", "compute these stages and all that follows again")
    text("scheduler", "ADDRESS", "a running Dask cluster: tcp://host:port, or its scheduler file (.json)")
    text("data-root", "DIR", "folder of the data set's official files", None)
    text("output", "DIR", "where results go (default: results/PROFILE)", None)
    text("cache", "DIR", "where stages are kept (default: .cache)", None)
    text("device", "NAME", "auto, cpu or cuda (default: auto)", None)
    text("workers", "N", "processes of a local Dask cluster (default: 1, without)", None)
    p.add_argument("--dry-run", action="store_true", help="print the plan, compute nothing")
    failing = p.add_mutually_exclusive_group()
    failing.add_argument(
        "--keep-going", action="store_true", help="run the other notebooks when one fails (the default)"
    )
    failing.add_argument("--fail-fast", action="store_true", help="stop at the first notebook that fails")
    p.add_argument("-v", "--verbose", action="store_true", help="say what is computed, stage by stage")
    p.add_argument("--list", action="store_true", help="print profiles, notebooks and expected minutes")
    p.add_argument(
        "--overview", action="store_true", help="make all pages of results/ and its index anew, run nothing"
    )
    return p


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options, those not given taken from their variables; `said` quotes them for messages.

    Raises
    ------
    StudyError
        If an option is unknown, or its value cannot be.
    """
    p = parser()
    args, rest = p.parse_known_args(argv)
    if rest:
        known = [option for action in p._actions for option in action.option_strings]
        raise StudyError(f"'{rest[0]}' is no option{nearest(rest[0], known)} (see --help)")
    args.said = {}
    for name in VARIABLES:
        given, variable = getattr(args, name), f"LASSI_{name.upper()}"
        value = given if given is not None else os.environ.get(variable) or DEFAULTS[name]
        args.said[name] = f"{variable}={value}" if given is None else f"--{name.replace('_', '-')} {value}"
        setattr(args, name, value)
    if args.device not in DEVICES:
        raise StudyError(f"{args.said['device']}: write one of {', '.join(DEVICES)}")
    most = max(16, 2 * (os.cpu_count() or 1))
    if not re.fullmatch(r"[0-9]{1,9}", args.workers) or not 1 <= int(args.workers) <= most:
        raise StudyError(f"{args.said['workers']}: write a whole number, 1 to {most} on this machine")
    args.workers = int(args.workers)
    is_file = args.scheduler.endswith(".json") and os.path.isfile(args.scheduler)
    if args.scheduler and not is_file and not re.fullmatch(SCHEDULER, args.scheduler):
        raise StudyError(
            f"--scheduler {args.scheduler}: write tcp://host:port or name a scheduler file (.json)"
        )
    args.seeds = _seeds(args.seeds)
    return args


def require_packages() -> None:
    """End the program with one line where a package that the study needs is not installed."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    missing = []
    for name in (re.match(r"[\w.-]+", line)[0] for line in declared):
        try:
            version(name)
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        are = "is" if len(missing) == 1 else "are"
        print(
            f"error: {', '.join(missing)} {are} not installed: pip install -r requirements.txt",
            file=sys.stderr,
        )
        sys.exit(2)


def _seeds(given: str) -> list[int]:
    """Return the seeds of '42,0'; none where nothing is given."""
    words = given.split(",") if given else []
    if not all(re.fullmatch(r"[0-9]{1,10}", w) and int(w) < 2**32 for w in words) or len(set(words)) < len(
        words
    ):
        raise StudyError(
            f"--seeds {given}: write different whole numbers below 2^32 between commas, like 42,0"
        )
    return [int(word) for word in words]


def chosen(names: list[str], only: str | None, skip: str) -> list[str]:
    """Return the notebooks that --only and --skip leave, in order."""
    left = names if only is None else _meant(names, only, "--only")
    if skip:
        left_out = _meant(left, skip, "--skip")
        left = [name for name in left if name not in left_out]
    if not left:
        raise StudyError(f"--only {only or ''} --skip {skip} leave no notebook; known: {', '.join(names)}")
    return left


def _meant(names: list[str], given: str, option: str) -> list[str]:
    """Return the notebooks meant by an option: numbers ('01', '1') or names (or their beginnings)."""
    hits = []
    for word in filter(None, given.split(",")):
        if word.isdecimal():
            found = [n for n in names if n.split("_")[0] == word.zfill(2)]
        else:
            found = [n for n in names if n.startswith(word)]
        if not found:
            raise StudyError(f"{option} {word}: no such notebook in this profile{nearest(word, names)}")
        hits += found
    return [n for n in names if n in hits]


def output_folder(args: argparse.Namespace) -> Path:
    """Return where results go, refusing a folder that would be damaged by being replaced."""
    if not args.output:
        return RESULTS / args.profile
    output, said = _folder(args.output, args.said["output"]), args.said["output"]
    inside = output.relative_to(ROOT).parts if output.is_relative_to(ROOT) else ()
    if output == RESULTS or (inside and (inside[0] in OURS or inside[0].startswith("."))):
        raise StudyError(f"{said} belongs to the study's own files: name a folder of its own")
    if output.is_dir() and any(output.iterdir()) and not (output / "run.json").is_file():
        raise StudyError(f"{said} holds files that are not of this study: name a new or empty folder")
    return output


def cache_folder(args: argparse.Namespace, output: Path) -> Path:
    """Return where stages are kept, refusing a folder inside the one that results replace."""
    if not args.cache:
        return ROOT / ".cache"
    cache, said = _folder(args.cache, args.said["cache"]), args.said["cache"]
    if cache.is_relative_to(output):
        raise StudyError(f"{said} lies in the folder of the results, which is replaced: name another")
    return cache


def _folder(name: str, said: str) -> Path:
    """Return the path of a folder that is there or can be made."""
    try:
        path = Path(name).resolve()
        there = next(p for p in (path, *path.parents) if p.exists())
        if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
            return path
        trouble = "cannot be written" if there.is_dir() else f"{there} is a file"
    except (OSError, ValueError) as error:  # a name that is too long, or holds a NUL
        trouble = getattr(error, "strerror", None) or str(error)
    raise StudyError(f"{said}: {trouble}: name a folder of your own")
