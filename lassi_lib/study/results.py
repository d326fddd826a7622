"""Where a notebook puts what a reader opens: rows, verdicts, and the folder they lie in."""

from __future__ import annotations

import gzip
import io
import json
import os
from pathlib import Path
from typing import Any

import pandas as pd

from lassi_lib.files import whole
from lassi_lib.study.asked import check_by_hand
from lassi_lib.study.strict import ROOT


def results_folder(profile: str, output: str = "") -> Path:
    """Return (and create) the results folder: `output`, else $LASSI_OUTPUT, else results/<profile>.

    The batch run uses the variables, so that no folder of its machine stands in a rendered page. Every
    notebook calls this before it computes anything, so its parameters are checked here (`check_by_hand`).
    """
    check_by_hand()
    folder = Path(output or os.environ.get("LASSI_OUTPUT") or ROOT / "results" / profile)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def save_rows(rows: pd.DataFrame, folder: Path, name: str) -> Path:
    """Write raw certificate rows to certificates/<name>.csv.gz: equal rows give equal bytes."""
    text = io.StringIO()
    rows.to_csv(text, index=False, float_format="%.6g", lineterminator="\n")
    path = Path(folder) / "certificates" / f"{name}.csv.gz"
    with whole(path) as draft:
        draft.write_bytes(gzip.compress(text.getvalue().encode(), compresslevel=9, mtime=0))
    return path


def save_verdict(
    folder: Path, name: str, outcome: str, text: str, picture: str = "", alt: str = ""
) -> dict[str, Any]:
    """Write verdicts/<name>.json, which the index shows: outcome, one sentence, a picture's path.

    Parameters
    ----------
    folder : Path
        The results folder.
    name : str
        The notebook's name.
    outcome : str
        The verdict in a word or two: 'supported'.
    text : str
        The verdict in a sentence.
    picture, alt : str
        A figure's path below `folder`, and what is to be read where it cannot be seen.
    """
    verdict = {"outcome": outcome, "text": text, "picture": picture, "alt": alt}
    path = Path(folder) / "verdicts" / f"{name}.json"
    with whole(path) as draft:
        draft.write_text(json.dumps(verdict, indent=1) + "\n")
    return verdict
