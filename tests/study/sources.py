"""What a notebook's source must be before it is committed."""

import json
import re
from pathlib import Path

from lassi_lib.errors import StudyError
from lassi_lib.study.notebooks import artefacts_of, parameters_of


def check_source(path: str | Path) -> None:
    """Check that a notebook is a clean source; a `StudyError` names the first fault.

    A source has no outputs, counts or traces of a run, exactly one parameters cell, and an explorer only
    where the batch run shows the figure instead.
    """
    parameters_of(path)
    artefacts_of(path)
    notebook = json.loads(Path(path).read_text(encoding="utf-8"))
    faults = [key for key in ("papermill", "widgets") if key in notebook["metadata"]]
    for number, cell in enumerate(notebook["cells"], 1):
        if cell.get("outputs") or cell.get("execution_count") is not None:
            faults.append(f"cell {number} has outputs or an execution count")
        if {"papermill", "execution"} & set(cell["metadata"]) or "injected" in str(
            cell["metadata"].get("tags")
        ):
            faults.append(f"cell {number} has traces of a run")
        for line in "".join(cell["source"]).splitlines():
            if "_explorer(" in line and not re.fullmatch(
                r"ll\.\w+_explorer\(.*\) if interactive else figure", line
            ):
                faults.append(f"cell {number} shows an explorer in the batch run")
    if faults:
        raise StudyError(f"{path}: not a clean source ({faults[0]}): clear outputs and metadata")
