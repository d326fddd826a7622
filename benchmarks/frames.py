"""Milliseconds from a key on the Glow explorer's slider to the painted picture, in JupyterLab and Chromium.

    python -m benchmarks.frames --json benchmarks/frames.json

Profile smoke: the demo's flow and image size, with few faces. The slider walks to both ends (new: one step in
eight decodes itself and the next ones) and back (cached: all are decoded). Ratios are to the same walk in this
process, without a browser.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.certification import machine
from lassi_lib.display.explorers import glow_explorer
from lassi_lib.study.study import Study
from lassi_lib.study.tables import markdown
from tests.browser.conftest import FLAGS, NAMES, ROOT, run_all, served

ATTRIBUTE = "Young"
WALK = (("new", 1), ("cached", -1), ("new", -1), ("cached", 1))  # away from t = 0, and back
PRESS = """([image, handle, key]) => new Promise((done, fail) => {
  const start = performance.now(), before = image.src;
  setTimeout(() => fail(new Error(`${key}: no other picture in a minute`)), 60_000);
  new MutationObserver(async (_, observer) => {
    if (image.src === before) return;
    observer.disconnect();
    await image.decode();
    requestAnimationFrame(() => done(performance.now() - start));
  }).observe(image, { attributeFilter: ["src"] });
  handle.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
})"""


def walk(where: str, press: Callable[[int], float], steps: int) -> list[dict]:
    """Return a row per kind of frame, from the milliseconds that `press(step)` returns."""
    found = [(frame, press(step)) for frame, step in WALK for _ in range(steps)]
    kinds = {frame: [ms for f, ms in found if f == frame] for frame, _ in WALK}
    return [
        {"frame": k, "where": where, "presses": len(v), "median ms": np.median(v), "95 % under": np.percentile(v, 95)}
        for k, v in kinds.items()
    ]  # fmt: skip


def alone(study: Study, steps: int = 20) -> list[dict]:
    """Measure the explorer in this process."""
    slider = glow_explorer(study, [ATTRIBUTE]).sliders[ATTRIBUTE]

    def press(step: int) -> float:
        start = time.perf_counter()
        slider.index += step
        return 1_000 * (time.perf_counter() - start)

    return walk("explorer alone", press, steps)


def in_browser(page, address: str, folder: Path, steps: int = 20) -> list[dict]:
    """Measure it in a tab of Chromium, with JupyterLab at an address over a folder of notebooks."""
    notebook = json.loads((ROOT / "notebooks" / "00_generative_model.ipynb").read_text())
    cell = next(c for c in notebook["cells"] if c["cell_type"] == "code")
    source = f"import lassi_lib as ll\nll.glow_explorer(ll.Study('smoke', device='cpu'), [{ATTRIBUTE!r}])"
    (folder / "frames.ipynb").write_text(json.dumps(notebook | {"cells": [cell | {"source": source}]}))
    run_all(page, address, "frames.ipynb")
    image = page.wait_for_selector(".lassi-glow img[alt*='t = 0']", timeout=120_000)
    handle = page.locator(".widget-hslider", has_text=ATTRIBUTE).locator(".noUi-handle").element_handle()

    def press(step: int) -> float:
        page.wait_for_timeout(100)  # the kernel has answered all that was before
        return page.evaluate(PRESS, [image, handle, "ArrowRight" if step > 0 else "ArrowLeft"])

    return walk("JupyterLab", press, steps)


def with_ratios(rows: list[dict]) -> pd.DataFrame:
    """Return the rows, and every median as a multiple of the first one of the same kind of frame."""
    table = pd.DataFrame(rows)
    return table.assign(ratio=table["median ms"] / table.groupby("frame")["median ms"].transform("first"))


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, write it."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the table there, and as .md beside it")
    args = parser.parse_args(argv)
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        parser.error("no Chromium here: make browser")
    rows = alone(Study("smoke", device="cpu"))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        with served(Path(folder), environment, f"--ServerApp.root_dir={folder}") as address:
            browser = driver.chromium.launch(executable_path=path, args=FLAGS)
            rows += in_browser(browser.new_page(), address, Path(folder))
    table = with_ratios(rows)
    text = markdown(table.map(lambda x: f"{x:.1f}" if isinstance(x, float) else str(x)), list(table)[2:])
    print(text, end="")
    if args.json:
        report = {"machine": machine(), "rows": table.to_dict("records")}
        args.json.write_text(json.dumps(report, indent=1) + "\n")
        args.json.with_suffix(".md").write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
