"""A results folder is replaced as a whole: a reader finds the old results or the new ones, never a mixture.

New results grow in a draft beside the folder, ``.NAME.PID.tmp``, and take its place by two renames, the
old ones waiting as ``.NAME.PID.old``. Whoever does this holds ``.NAME.lock``. A run killed on the way
leaves some of the three behind; the next one puts old results back that had been moved away, and
removes the rest.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lassi_lib.study.cache import held


@contextmanager
def drafted(output: Path) -> Iterator[Path]:
    """Yield a draft of `output`, a copy of what is there; it becomes `output` unless an error is raised.

    A second run waits, and says so, until the first has finished.
    """
    output = output.resolve()  # of a link, what it points to is replaced
    busy = f"waiting for {output}, into which another run writes"
    with held(output.with_name(f".{output.name}.lock"), busy):
        _clean_up(output)
        draft = output.with_name(f".{output.name}.{os.getpid()}.tmp")
        try:
            if output.exists():
                shutil.copytree(output, draft)
            else:
                draft.mkdir()
            yield draft
            if output.exists():
                output.rename(draft.with_suffix(".old"))
            draft.rename(output)
        finally:
            _clean_up(output)


def _clean_up(output: Path) -> None:
    ours = re.compile(rf"\.{re.escape(output.name)}\.\d+\.(tmp|old)")
    for left in sorted(output.parent.iterdir()):  # .old before .tmp of one run
        if not ours.fullmatch(left.name):
            continue
        if left.suffix == ".old" and not output.exists():
            left.rename(output)
        else:
            shutil.rmtree(left, ignore_errors=True)
