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


_PICTURED = re.compile(
    r"figure|bars?\b|curve|rows?\b|dots?\b|heat map|stroke|marks?\b|pictures?|shows?\b|looks?\b|faces|images"
)


def unframed_figures(path: str | Path) -> list[int]:
    """Return the numbers of the cells whose figure no text introduces, or none concludes before the next figure."""
    cells = json.loads(Path(path).read_text(encoding="utf-8"))["cells"]
    text = ["".join(cell["source"]) for cell in cells]
    prose = [cell["cell_type"] == "markdown" for cell in cells]
    figures = [i for i, source in enumerate(text) if not prose[i] and "ll.save_figure(" in source]
    found = []
    for i, last, following in zip(figures, [-1, *figures], [*figures[1:], len(cells)], strict=False):
        before, after = range(last + 1, i), range(i + 1, following)
        introduced = any(prose[k] and _PICTURED.search(text[k]) for k in before)
        concluded = any(prose[k] or "print(" in text[k] for k in after)
        found += [] if introduced and concluded else [i]
    return found
