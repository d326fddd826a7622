"""The stage cache: each computed thing is kept under a key made of everything it depends on.

A key is a hash of the stage's name, the version of its code, its parameters and the keys of what
it was made from, so a result can never be read under parameters that did not make it.
A stage is written to a draft folder and then renamed; checksums are verified on reading, and a
damaged stage is computed again with a warning. Whoever computes or removes a stage holds its lock:
another run over the same cache waits and takes the result, and a draft found under the lock is what a
killed run left behind. A cache that holds all that is asked for is only read, never written.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lassi_lib.study.strict import ROOT

if TYPE_CHECKING:
    import pandas as pd

# what a damaged record may raise
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True)
class Stage:
    """What a cached result is made from: name, code version, parameters, parents' keys."""

    name: str
    version: int
    params: dict[str, Any]
    parents: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The content key, 24 hexadecimal digits."""
        parts = {"name": self.name, "version": self.version, "params": self.params, "parents": self.parents}
        return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=12).hexdigest()


class StageCache:
    """Stages in folders ``<root>/<stage>/<key>/``; `root` defaults to $LASSI_CACHE or .cache/."""

    def __init__(self, root: str | Path | None = None) -> None:
        self.root = Path(root or os.environ.get("LASSI_CACHE") or ROOT / ".cache")
        self._verified: set[Path] = set()
        self._nested = [0.0]  # seconds spent in stages that a stage asked for while being computed

    def folder(self, stage: Stage) -> Path:
        """Return where a stage is (or would be) kept."""
        return self.root / stage.name / stage.key

    def has(self, stage: Stage) -> bool:
        """Return whether the stage is kept and undamaged; of a damaged one a warning says what is wrong."""
        folder = self.folder(stage)
        if folder in self._verified:
            return True
        if not os.path.lexists(folder):
            return False
        problem = self._problem(folder)
        if problem:
            warnings.warn(
                f"cached stage {stage.name}/{stage.key} is damaged ({problem}): computed again", stacklevel=2
            )
            return False
        self._verified.add(folder)
        return True

    def fetch(self, stage: Stage, compute: Callable[[Path], dict | None], *, part: bool = False) -> Path:
        """Return the folder of a stage, computing it first if needed.

        `compute` writes its files into the folder it is given, and may return facts for ``stage.json``.
        A `part` is in no plan: its seconds count for the stage that asks for it, too, also where it is
        kept from an interrupted run.
        """
        folder = self.folder(stage)
        if asked := os.environ.get("LASSI_READ"):  # the batch run asks what a notebook's numbers come from
            with Path(asked).open("a") as file:
                file.write(f"{stage.name}/{stage.key}\n")
        if self.has(stage):
            if part:
                self._nested[-1] -= self.record(stage)["seconds"]
            return folder
        with self._lock(stage):
            if not self.has(stage):
                self._compute(stage, compute, part)
        return folder

    def rows(
        self, stage: Stage, make: Callable[[], pd.DataFrame], name: str = "rows", *, part: bool = False
    ) -> pd.DataFrame:
        """Return the table ``<name>.csv`` that a stage (or a `part` of one) is, making it first if needed."""
        import pandas as pd

        def compute(folder: Path) -> None:
            make().to_csv(folder / f"{name}.csv", index=False)

        return pd.read_csv(self.fetch(stage, compute, part=part) / f"{name}.csv")

    def _lock(self, stage: Stage) -> AbstractContextManager[None]:
        lock = self.root / "locks" / f"{stage.name}-{stage.key}"
        return held(lock, f"waiting for stage {stage.name}/{stage.key}, which another process computes")

    def _compute(self, stage: Stage, compute: Callable[[Path], dict | None], part: bool) -> None:
        folder = self.folder(stage)
        for left in (folder, *folder.parent.glob(f"*{stage.key}.*.tmp")):  # damaged, or of a killed run
            _delete(left)
        draft = folder.parent / f"{stage.key}.{uuid.uuid4().hex[:8]}.tmp"
        draft.mkdir(parents=True)
        started = time.perf_counter()
        self._nested.append(0.0)
        try:
            facts = compute(draft) or {}
            seconds = time.perf_counter() - started - self._nested[-1]
            record = {
                "stage": stage.name,
                "version": stage.version,
                "params": stage.params,
                "parents": stage.parents,
                "seconds": round(seconds, 3),
                "facts": facts,
                "checksums": {p.name: checksum(p) for p in sorted(draft.iterdir())},
            }
            record["checksum"] = _of_record(record)
            (draft / "stage.json").write_text(json.dumps(record, indent=1))
            draft.rename(folder)
        finally:
            within = self._nested.pop()
            self._nested[-1] += within if part else time.perf_counter() - started
            shutil.rmtree(draft, ignore_errors=True)
        self._verified.add(folder)

    def remove(self, stage: Stage) -> None:
        """Forget a stage, if it is kept."""
        if os.path.lexists(self.folder(stage)):
            with self._lock(stage):
                _delete(self.folder(stage))
        self._verified.discard(self.folder(stage))

    def seconds(self, name: str) -> list[tuple[dict[str, Any], list[str], float]]:
        """Return parameters, parents and seconds of every kept stage of a name whose record can be read."""
        found = []
        for path in self.root.glob(f"{name}/*/stage.json"):
            with suppress(*_UNREADABLE):
                record = json.loads(path.read_text())
                found.append((dict(record["params"]), list(record["parents"]), float(record["seconds"])))
        return found

    def record(self, stage: Stage) -> dict[str, Any]:
        """Return the ``stage.json`` of a kept stage: parameters, seconds and facts."""
        return json.loads((self.folder(stage) / "stage.json").read_text())

    @staticmethod
    def _problem(folder: Path) -> str:
        """Return what is wrong with a kept stage, or an empty string."""
        try:
            record = json.loads((folder / "stage.json").read_text())
            made_by = (record["stage"], record["version"], record["params"], tuple(record["parents"]))
            if Stage(*made_by).key != folder.name:
                return "another stage's record"
            if record.get("checksum", _of_record(record)) != _of_record(record):  # older ones have none
                return "checksum of stage.json"
            expected = record["checksums"]
            there = {p.name for p in folder.iterdir() if not p.name.startswith(".")}  # .nfs..., .DS_Store
            odd = sorted(there ^ {*expected, "stage.json"})
            if odd:
                return f"{odd[0]} is {'foreign' if odd[0] in there else 'missing'}"
            wrong = [name for name, value in expected.items() if checksum(folder / name) != value]
        except _UNREADABLE as error:
            return f"{type(error).__name__} while reading"
        return f"checksum of {wrong[0]}" if wrong else ""


@contextmanager
def held(path: Path, busy: str) -> Iterator[None]:
    """Hold a lock file, which is gone afterwards; print `busy` once where another process has it."""
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(busy, file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: a waiting process notices and makes a new one
        lock.release()


def _of_record(record: dict[str, Any]) -> str:
    """Return the digest of a stage's record without its own checksum."""
    rest = json.loads(json.dumps({k: v for k, v in record.items() if k != "checksum"}))  # as it is read back
    return hashlib.blake2b(json.dumps(rest, sort_keys=True).encode(), digest_size=16).hexdigest()


def _delete(path: Path) -> None:
    """Delete a folder, or what stands in its place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def checksum(path: Path) -> str:
    """Return the blake2b digest of a file, read in blocks."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 24):
            digest.update(block)
    return digest.hexdigest()
