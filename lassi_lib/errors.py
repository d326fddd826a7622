"""The one exception that stands for a user's mistake, and how its text is made and shown."""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

_REMEDIES = {  # what a user can do about an error of the file system
    errno.ENOSPC: "free some space, or name other folders with --cache and --output",
    errno.EROFS: "name other folders with --cache and --output",
    errno.EACCES: "mend its permissions, or name other folders with --cache and --output",
    errno.ENOTDIR: "move the file away that stands where a folder belongs",
    errno.EISDIR: "move the folder away that stands where a file belongs",
}
_KEPT = "what is finished is kept, the same command goes on"
_LIKE = {errno.EDQUOT: errno.ENOSPC, errno.EFBIG: errno.ENOSPC, errno.EPERM: errno.EACCES}
_LIKE |= {errno.EEXIST: errno.ENOTDIR}


class StudyError(ValueError):
    """A mistake the user can mend; its text is one line: what, where, what to do.

    `run_all.py` prints the text alone and exits with code 2, and notebooks show the text alone: nobody sees a
    traceback for it.
    """

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows in place of a traceback."""
        return [f"{type(self).__name__}: {printable(str(self))}"]


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


def mendable(error: Exception) -> str:
    """Return one line for an error of the machine that the user can mend, '' for any other.

    safetensors reports such errors in its text alone.
    """
    if type(error).__name__ == "OutOfMemoryError":  # torch's, in training: its batch is part of the result
        return f"the GPU's memory is too small: end what else uses it, or take --device cpu; {_KEPT}"
    found = re.search(r"\(os error (\d+)\)", str(error))
    code = error.errno if isinstance(error, OSError) else int(found[1]) if found else None
    remedy = _REMEDIES.get(_LIKE.get(code, code))
    if remedy is None:
        return ""
    where = f"{error.filename}: " if getattr(error, "filename", None) else ""
    return f"{where}{os.strerror(code)}: {remedy}; {_KEPT}"


@contextmanager
def about(what: str) -> Iterator[None]:
    """Put ``what: `` (a file, a key) before the text of every `StudyError` of the block."""
    try:
        yield
    except StudyError as error:
        raise StudyError(f"{what}: {error}") from None


def printable(text: str) -> str:
    """Return a text with control characters written out: no name may move the cursor or colour the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def one_line(error: object) -> str:
    """Return an error's text as one printable line, shortened where it is very long."""
    text = printable(str(error))
    return text if len(text) <= 800 else f"{text[:400]} ... {text[-397:]}"
