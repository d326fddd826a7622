"""What it costs to audit many faces: core and GPU hours, storage and where the time goes, from measured figures.

    python -m benchmarks.cost --table benchmarks/cost.md

Times one face through the flow here (one core), takes the seconds of every certificate mode on one core
from certification.json and the size of a row from committed certificates, and multiplies. Faces do not
depend on each other, so hours divide by the number of cores. Encoders are trained once and do not count.

GPU hours are no measurement: the floating-point operations of matrix products and convolutions are counted
as the code for GPUs runs (`certify_batch`), and divided by a rate that a GPU is assumed to keep up.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from pathlib import Path

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.certification import Setting, Sizes
from lassi_lib.certification.batched import certify_batch, offers
from lassi_lib.certification.network import Restriction
from lassi_lib.flow.glow import Glow, GlowConfig
from lassi_lib.study.tables import markdown

HERE = Path(__file__).resolve().parent
FLOWS = {"flow of celeba20k": (8, 64), "the papers' flow": (32, 512)}  # steps K, width
ROWS = HERE.parent / "results" / "celeba20k" / "certificates" / "01_claim1.csv.gz"
FACES = (10**6, 10**9)
RATE = 1e13  # operations a second that a GPU is assumed to keep up
BATCHED = [("exact_decision", 1), ("monte_carlo", 1), ("monte_carlo", 2), ("monte_carlo", 3)]


def encode_seconds(n_steps: int, width: int, image_size: int = 64, count: int = 16) -> float:
    """Return the seconds of one face through a flow on one core: the best of three blocks."""
    torch.set_num_threads(1)
    glow, x = Glow(GlowConfig(image_size, n_steps, 4, width)).eval(), torch.rand(count, 3, *[image_size] * 2)
    times = []
    with torch.no_grad():
        for _ in range(4):  # the first one warms up
            started = time.perf_counter()
            glow.encode(x - 0.5)
            times.append((time.perf_counter() - started) / count)
    return min(times[1:])


@torch.no_grad()
def encode_operations(n_steps: int, width: int, image_size: int = 64) -> int:
    """Return the operations of one face through a flow, a product and its sum counted as two."""
    glow = Glow(GlowConfig(image_size, n_steps, 4, width)).eval()
    with FlopCounterMode(display=False) as counter:
        glow.encode(torch.zeros(1, 3, image_size, image_size))
    return counter.get_total_flops()


@torch.no_grad()
def certify_operations(mode: str, sizes: Sizes, count: int = 16) -> float:
    """Return the operations of one certificate of a mode that is batched for GPUs: the mean of some."""
    if not offers(mode, sizes.attributes):
        raise ValueError(f"{mode} is not batched for {sizes.attributes} attributes")
    setting = Setting(sizes)
    encoder = Restriction(setting.representation, setting.similarity.vectors)
    problem = setting.problem(encoder)
    with FlopCounterMode(display=False) as counter:
        certify_batch(problem, encoder.first(setting.latents(count)), range(count), mode)
    return counter.get_total_flops() / count


def operations_table(encode: dict[str, float], certify: dict[tuple[str, int], float]) -> pd.DataFrame:
    """Return a row per flow, mode and number of attributes: operations a face, and GPU hours at `RATE`."""
    rows = []
    for flow, through in encode.items():
        for (mode, attributes), more in certify.items():
            row = {
                "flow": flow,
                "mode": mode,
                "attributes": attributes,
                "GFLOP a face": (through + more) / 1e9,
            }
            row["of it encoding %"] = 100 * through / (through + more)
            row |= {f"GPU hours, {n:.0e} faces": (through + more) * n / RATE / 3600 for n in FACES}
            rows.append(row)
    return pd.DataFrame(rows)


def row_bytes(path: Path = ROWS) -> float:
    """Return the bytes of one certificate's row as it is kept: compressed text."""
    with gzip.open(path, "rt") as file:
        rows = sum(1 for _ in file) - 1
    return path.stat().st_size / rows


def cost_table(report: dict, encode: dict[str, float]) -> pd.DataFrame:
    """Return a row per flow, mode and number of attributes: seconds of a core a face, and core hours."""
    rows = []
    for flow, seconds in encode.items():
        for r in report["rows"]:
            if not r["one_core_mean_s"]:
                continue
            whole = seconds + r["one_core_mean_s"]
            row = {"flow": flow, "mode": r["what"], "attributes": r["attributes"], "core s a face": whole}
            row["of it encoding %"] = 100 * seconds / whole
            row |= {f"core hours, {n:.0e} faces": whole * n / 3600 for n in FACES}
            rows.append(row)
    return pd.DataFrame(rows)


def storage_table(report: dict, bytes_of_row: float) -> pd.DataFrame:
    """Return what must be kept of so many faces, in gigabytes."""
    kept = {"certificates, one row a face": bytes_of_row, "latents, if kept": 4.0 * report["sizes"]["d"]}
    return pd.DataFrame(
        [
            {"what": name, "bytes a face": size} | {f"GB, {n:.0e} faces": size * n / 1e9 for n in FACES}
            for name, size in kept.items()
        ]
    )


def written(table: pd.DataFrame) -> str:
    """Return a table as Markdown with figures that a reader can take in."""
    texts = [n for n in table if n == "attributes" or not pd.api.types.is_float_dtype(table[n])]

    def cell(name: str, value: object) -> str:
        return str(value) if name in texts else f"{value:.3g}" if value < 100 else f"{value:,.0f}"

    shown = {name: [cell(name, value) for value in table[name]] for name in table}
    return markdown(pd.DataFrame(shown), [n for n in table if n not in texts])


def main(argv: list[str] | None = None) -> int:
    """Measure, multiply, print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path, help="write the Markdown table there")
    args = parser.parse_args(argv)
    report = json.loads((HERE / "certification.json").read_text())
    encode = {name: encode_seconds(*shape) for name, shape in FLOWS.items()}
    through = {name: encode_operations(*shape) for name, shape in FLOWS.items()}
    certify = {(mode, n): certify_operations(mode, Sizes(attributes=n)) for mode, n in BATCHED}
    tables = [
        cost_table(report, encode),
        operations_table(through, certify),
        storage_table(report, row_bytes()),
    ]
    table = "\n".join(map(written, tables))
    print(table)
    if args.table:
        args.table.write_text(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
