"""The one exception that stands for a user's mistake."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class StudyError(ValueError):
    """A mistake the user can mend; its text is one line: what, where, what to do.

    `run_all.py` prints the text alone and exits with code 2, so no traceback is ever shown for it.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'X'?"`` for the closest known name, or a list of what there is."""
    known = list(known)
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    if not close:  # names often differ by case or by blanks alone
        folded = {k.lower().replace("_", ""): k for k in known}
        key = str(name).lower().replace("_", "").replace(" ", "")
        close = difflib.get_close_matches(key, folded, n=1, cutoff=0.5)
        close = [folded[c] for c in close]
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(known)}" if known else ""
