"""How the experiments' part of a run scales with workers: seconds from an empty cache, same results?

    python -m benchmarks.scaling --profile demo --only 01 --seeds 42 --workers 1 2 4 --processes 4 --json benchmarks/scaling.json

Every number of workers starts from an empty cache (the flow's checkpoint is shipped) and computes all
stages that the profile's notebooks ask for. Stages are compared byte for byte with those of the first.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from lassi_lib.errors import StudyError
from lassi_lib.study.engine import work_through
from lassi_lib.study.experiment import with_seeds
from lassi_lib.study.params import load_notebook_params, notebooks_of
from lassi_lib.study.plan import steps_of_notebooks
from lassi_lib.study.study import Study
from lassi_lib.study.tables import markdown


def measure(
    profile: str,
    names: list[str],
    workers: int,
    cache: Path,
    data_root: str = "",
    processes: int = 1,
    seeds: list[int] | None = None,
) -> dict:
    """Compute all stages of notebooks into an empty cache; return seconds and the number of stages.

    `processes` is how many share a certificate's points where there is one worker; on a cluster always one.
    """
    study = Study(profile, cache=cache, data_root=data_root, workers=processes)
    params = {n: load_notebook_params(profile, n) for n in names}
    if seeds:
        params = {n: with_seeds(p, seeds) for n, p in params.items()}
    steps = steps_of_notebooks(study, params)
    started = time.perf_counter()
    stages = work_through(study, steps, workers=workers)
    seconds = time.perf_counter() - started
    return {"workers": workers, "processes": processes, "stages": stages, "seconds": seconds}


def differences(one: Path, other: Path) -> list[str]:
    """Return the files of stages (but for the records of their seconds) that differ between two caches."""
    files = {p.relative_to(c) for c in (one, other) for p in c.rglob("*") if p.is_file()}
    files = {f for f in files if f.name != "stage.json" and f.parts[0] != "locks"}
    both = [(f, one / f, other / f) for f in sorted(files)]
    return [
        str(f) for f, a, b in both if not (a.exists() and b.exists() and a.read_bytes() == b.read_bytes())
    ]


def written(rows: list[dict]) -> str:
    """Return the rows as a Markdown table."""
    shown = [
        {
            "workers": str(r["workers"]),
            "processes a certificate": str(r["processes"]),
            "stages": str(r["stages"]),
            "seconds": f"{r['seconds']:,.0f}",
            "times as fast": f"{r['ratio']:.2f}",
        }
        for r in rows
    ]
    return markdown(pd.DataFrame(shown), list(shown[0]))


def write(
    path: Path, profile: str, names: list[str], seeds: list[int], rows: list[dict], differ: list[str]
) -> None:
    """Write the report as JSON, and its rows as a table beside it."""
    machine = {"cpu": platform.machine(), "threads": os.cpu_count(), "python": platform.python_version()}
    report = {"machine": machine, "profile": profile, "notebooks": names, "seeds": seeds}
    path.write_text(json.dumps(report | {"rows": rows, "differ": differ}, indent=1) + "\n")
    path.with_suffix(".md").write_text(written(rows))


@contextmanager
def _kept(folder: Path | None) -> Iterator[Path]:
    """Yield a folder for caches: the given one if it is empty, or one that is removed at the end."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="lassi-scaling-") as temporary:
            yield Path(temporary)
        return
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise StudyError(f"--keep {folder}: not empty, and every measurement starts from an empty cache")
    yield folder


def main(argv: list[str] | None = None) -> int:
    """Measure every number of workers, print the table, write the JSON; 1 if results differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="smoke")
    parser.add_argument("--only", nargs="+", default=[], metavar="NB", help="these notebooks, by beginning")
    parser.add_argument("--seeds", type=int, nargs="+", default=[], help="instead of the params' own")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument(
        "--processes", type=int, default=0, help="measure one worker with so many processes a certificate too"
    )
    parser.add_argument("--data-root", default="")
    parser.add_argument("--json", type=Path, help="write the table there")
    parser.add_argument("--keep", type=Path, help="an empty folder in which the caches are kept")
    args = parser.parse_args(argv)
    rows, differ = [], []
    try:
        names = [n for n in notebooks_of(args.profile) if not args.only or n.startswith(tuple(args.only))]
        with _kept(args.keep) as folder:
            runs = [(n, 1) for n in args.workers] + [(1, args.processes)] * (args.processes > 1)
            caches = [folder / str(i) for i in range(len(runs))]
            for (n, processes), cache in zip(runs, caches, strict=True):
                row = measure(args.profile, names, n, cache, args.data_root, processes, args.seeds)
                rows.append(row | {"ratio": rows[0]["seconds"] / row["seconds"] if rows else 1.0})
                differ += differences(caches[0], cache)
                print(
                    "{workers} workers, {processes} processes a certificate: {stages} stages, {seconds:.0f} s, ratio {ratio:.2f}".format(
                        **rows[-1]
                    )
                )
                if args.json:  # after every row: an interruption keeps what was measured
                    write(args.json, args.profile, names, args.seeds, rows, differ)
    except StudyError as error:
        parser.error(str(error))
    print(f"{len(differ)} files differ" if differ else "all stages identical, byte for byte")
    return 1 if differ else 0


if __name__ == "__main__":
    raise SystemExit(main())
