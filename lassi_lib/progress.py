"""Progress bars with an estimate of the time left; silent when `LASSI_QUIET` is set."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def progress(
    iterable: Iterable | None = None,
    *,
    total: int | None = None,
    label: str = "",
    unit: str = "it",
) -> Any:
    """Wrap `iterable` (or count by hand with ``.update``) in the study's progress bar.

    Plain text bars (not `tqdm.auto`): a notebook widget would be dead in a rendered page. In a
    log file, where there is no terminal, a line is written every 30 seconds instead of ten a second.
    """
    quiet = bool(os.environ.get("LASSI_QUIET"))
    interval = 0.2 if sys.stderr.isatty() else 30.0
    return tqdm(
        iterable,
        total=total,
        desc=label,
        unit=unit,
        disable=quiet,
        mininterval=interval,
        dynamic_ncols=True,
        leave=False,
    )
