"""The stage cache: each computed thing is kept under a key made of everything it depends on.

A key is a hash of the stage's name, the version of its code, its parameters and the keys of what
it was made from, so a result can never be read under parameters that did not make it.
A stage is written to a temporary folder and then renamed; checksums are verified on reading, and a
damaged stage is computed again with a warning.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import uuid
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lassi_lib.study.params import ROOT


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
        """Return whether the stage is kept and undamaged; a damaged one is removed with a warning."""
        folder = self.folder(stage)
        if folder in self._verified:
            return True
        if not folder.exists():
            return False
        problem = self._problem(folder)
        if problem:
            warnings.warn(
                f"cached stage {stage.name}/{stage.key} is damaged ({problem}): computed again", stacklevel=2
            )
            shutil.rmtree(folder)
            return False
        self._verified.add(folder)
        return True

    def fetch(self, stage: Stage, compute: Callable[[Path], dict | None]) -> Path:
        """Return the folder of a stage, computing it first if needed.

        Parameters
        ----------
        stage : Stage
            What is wanted.
        compute : callable
            Writes its files into the folder it is given; may return facts for ``stage.json``.
        """
        folder = self.folder(stage)
        if self.has(stage):
            return folder
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
            (draft / "stage.json").write_text(json.dumps(record, indent=1))
            try:
                draft.rename(folder)
            except OSError:  # another process finished the same stage first: its result is the same
                if not folder.exists():
                    raise
        finally:
            self._nested.pop()
            self._nested[-1] += time.perf_counter() - started
            shutil.rmtree(draft, ignore_errors=True)
        self._verified.add(folder)
        return folder

    def record(self, stage: Stage) -> dict[str, Any]:
        """Return the ``stage.json`` of a kept stage: parameters, seconds and facts."""
        return json.loads((self.folder(stage) / "stage.json").read_text())

    @staticmethod
    def _problem(folder: Path) -> str:
        """Return what is wrong with a kept stage, or an empty string."""
        try:
            expected = json.loads((folder / "stage.json").read_text())["checksums"]
            wrong = [name for name, value in expected.items() if checksum(folder / name) != value]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return f"{type(error).__name__} while reading"
        return f"checksum of {wrong[0]}" if wrong else ""


def checksum(path: Path) -> str:
    """Return the blake2b digest of a file, read in blocks."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 24):
            digest.update(block)
    return digest.hexdigest()
