"""Seconds per certified point at the papers' sizes: the textbook algorithm, and every mode of `certify`.

    python -m benchmarks.certification --points 2 --json benchmarks/certification.json
    python -m benchmarks.certification --points 0 --scaling benchmarks

The textbook side is Algorithm 1 as one would write it first, reasonably but without our tricks: noise
z + t A written out in d dimensions, float32 torch with all threads on each of the 30,000 samples,
10,000 candidates tried one by one (with all threads or one, whichever is faster), 100,000 noisy
representations. It is timed with one attribute; its cost hardly depends on their number. No checkpoint is needed: encoders are
random, with BatchNorm statistics measured on random latents. What the cost of a point depends on is the
number of linear pieces of R on the sampled line, and that grows with the length of the attribute
vectors: at the default, 10 (those of CelebA are 8 to 16 long), a random encoder has a few hundred, like
LASSI's trained encoders; plain ones have 1,000 to 3,000 (``--length 60``).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import beta, norm
from torch import nn

from lassi_lib import numerics
from lassi_lib.certification.batched import offers
from lassi_lib.certification.certify import MODES, CertificationSpec, certify
from lassi_lib.certification.network import Restriction
from lassi_lib.certification.problem import Problem, weights_of
from lassi_lib.certification.spec import radius_quantile, required_mass
from lassi_lib.errors import StudyError
from lassi_lib.learning.representation import Representation, initialisation
from lassi_lib.progress import progress
from lassi_lib.similarity.sets import SimilaritySet
from lassi_lib.streams import torch_stream
from lassi_lib.study.tables import markdown as as_markdown

AIMS = {"monte_carlo": 300, "exact_smoothing": 1000, "exact_decision": 3000}  # one attribute, one CPU
_BATCH = 2000  # samples that the textbook runs at a time: 100 MB of latents
_MOST = 2000  # points that a mode is timed on at most


@dataclass(frozen=True)
class Sizes:
    """What the cost depends on; the papers' values by default. n = n_0 samples, `length` = ||a||."""

    attributes: int = 1
    d: int = 12_288
    hidden: int = 2048
    output: int = 512
    n: int = 10_000
    votes: int = 100_000
    length: float = 10.0

    def spec(self) -> CertificationSpec:
        """Return the papers' noise and failure probabilities with these sample sizes."""
        return CertificationSpec(
            1.0, 0.65, sigma_rs=10.0, n_center=self.n, n_radius=self.n, n_votes=self.votes
        )


class Setting:
    """Random models of some sizes, and as many random latents as one asks for."""

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes
        self.spec = sizes.spec().validate()
        self._generator = torch_stream(0, "benchmark/certification")
        with initialisation(0, "benchmark/certification"):
            self.representation = Representation(sizes.d, (sizes.hidden, sizes.hidden // 2), sizes.output)
            self.classifier = nn.Linear(sizes.output, 2)
        for layer in self.representation.norms:
            layer.momentum = 1.0  # the statistics of the one batch
        with torch.no_grad():
            self.representation.train()(self.latents(256))
        self.representation.eval().requires_grad_(False)
        vectors = torch.randn(sizes.attributes, sizes.d, generator=self._generator)
        vectors *= sizes.length / vectors.norm(dim=1, keepdim=True)
        self.similarity = SimilaritySet(vectors, self.spec.epsilon)

    def problem(self, encoder: Restriction) -> Problem:
        """Return what all points have in common, for an encoder restricted to the attribute vectors."""
        return Problem(encoder.without_first(), self.similarity, *weights_of(self.classifier), self.spec, 0)

    def latents(self, count: int) -> torch.Tensor:
        """Draw latents, float32 [count, d]."""
        return torch.randn(count, self.sizes.d, generator=self._generator)


@torch.no_grad()
def textbook(setting: Setting, z: torch.Tensor, device: str, label: str) -> dict[str, float]:
    """Certify one latent [d] by Algorithm 1 (ECCV 2022) without tricks; returns d_cs and d_rs (NaN: abstained)."""
    spec, generator = setting.spec, torch_stream(0, f"benchmark/{label}", device=device)
    models = (setting.representation, setting.classifier, setting.similarity.vectors, z)
    representation, classifier, vectors, z = (x.to(device) for x in models)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    def noisy(count: int) -> torch.Tensor:
        sizes = [_BATCH] * (count // _BATCH) + [count % _BATCH]
        return torch.cat(
            [representation(z + spec.sigma_cs * normal(m, len(vectors)) @ vectors) for m in sizes if m]
        )

    candidates = noisy(spec.n_center)

    def median(i: int) -> float:
        away = torch.linalg.vector_norm(candidates - candidates[i], dim=1)
        return float(np.median(away.cpu().numpy()))

    with numerics.threads(_faster(median, torch.get_num_threads())):
        rho, row = min((median(i), i) for i in progress(range(spec.n_center), label=label, unit="candidate"))
    center = candidates[row]
    inside = int(((noisy(spec.n_center) - center).norm(dim=1) <= rho).sum())
    distances = (noisy(spec.n_radius) - center).norm(dim=1).cpu().numpy()
    d_cs = 3 * np.quantile(distances, radius_quantile(spec)) if inside >= required_mass(spec) else np.nan

    def votes(count: int) -> torch.Tensor:
        sizes = [10_000] * (count // 10_000) + [count % 10_000]
        classes = [classifier(center + spec.sigma_rs * normal(m, len(center))).argmax(1) for m in sizes if m]
        return torch.cat(classes).bincount(minlength=2)

    top = int(votes(spec.n_class).argmax())
    k = int(votes(spec.n_votes)[top])
    p_a = beta.ppf(spec.alpha_rs, k, spec.n_votes - k + 1)
    d_rs = spec.sigma_rs * norm.ppf(p_a) if p_a >= 0.5 else np.nan
    return {"d_cs": float(d_cs), "d_rs": float(d_rs)}


def _faster(step: Callable[[int], Any], threads: int) -> int:
    """Return 1 or `threads`, whichever runs a small step faster: on a busy machine threads wait."""
    seconds = {}
    for count in (1, threads):
        with numerics.threads(count):
            start = time.perf_counter()
            for i in range(10):
                step(i)
            seconds[count] = time.perf_counter() - start
    return min(seconds, key=seconds.get)


def time_textbook(setting: Setting, z: torch.Tensor, device: str, threads: int) -> dict[str, Any]:
    """Return a row of the table: the textbook's seconds for every latent of `z`."""
    seconds, found = [], []
    with numerics.threads(threads), numerics.full_precision():
        for i, latent in enumerate(z):
            start = time.perf_counter()
            found.append(textbook(setting, latent, device, f"textbook, {device}, {i + 1}/{len(z)}"))
            seconds.append(time.perf_counter() - start)
    return {
        "what": "textbook",
        "attributes": setting.sizes.attributes,
        "device": device,
        "workers": threads,
        "points": len(z),
        "s_per_point": float(np.median(seconds)),
        "d_cs": [f["d_cs"] for f in found],
    }


@torch.no_grad()
def time_points(setting: Setting, mode: str, seconds: float) -> dict[str, Any]:
    """Time a mode point by point on one core, set-up and first layer not counted, for some seconds."""
    certify_point = import_module(f"lassi_lib.certification.{mode}").certify_point
    start = time.perf_counter()
    encoder = Restriction(setting.representation, setting.similarity.vectors)
    set_up = time.perf_counter() - start
    problem = setting.problem(encoder)
    times, rows = [], []
    with numerics.threads(1):
        z = setting.latents(32)
        start = time.perf_counter()
        first = encoder.first(z)
        first_layer = (time.perf_counter() - start) / 32
        certify_point(problem, first[0], 0)  # warms up
        stop = time.perf_counter() + seconds
        for i in itertools.count():
            if len(times) >= 3 and (time.perf_counter() > stop or i >= _MOST):
                break
            if i % 32 == 0:
                first = encoder.first(setting.latents(32))
            start = time.perf_counter()
            rows.append(certify_point(problem, first[i % 32], i))
            times.append(time.perf_counter() - start)
    rows = pd.DataFrame(rows)
    pieces = [c for c in ("n_pieces", "n_cells") if c in rows]
    return {
        "set_up_s": set_up,
        "first_layer_s": first_layer,
        "one_core_median_s": float(np.median(times)),
        "one_core_95_s": float(np.quantile(times, 0.95)),
        "one_core_mean_s": float(np.mean(times)),
        "over_1_s": float(np.mean(np.array(times) > 1)),
        "timed": len(times),
        "pieces": float(rows[pieces[0]].median()) if pieces else np.nan,
        "status": rows["status"].value_counts().to_dict(),
    }


def time_mode(setting: Setting, mode: str, device: str, workers: int, seconds: float) -> dict[str, Any]:
    """Return a row of the table: one call of `certify`, set-up included, for about `seconds`.

    The processes are started, and the GPU is warmed up, before.
    """
    row = {"what": mode, "attributes": setting.sizes.attributes, "device": device, "workers": workers}
    points = _MOST
    if device == "cpu":
        row |= time_points(setting, mode, seconds / 2)
        points = min(max(int(seconds * workers / row["one_core_mean_s"]), 8 * workers), _MOST)

    def run(count: int) -> float:
        z = setting.latents(count)
        start = time.perf_counter()
        certify(
            setting.representation, setting.classifier, setting.similarity, z, np.zeros(count, int),
            setting.spec, seed=0, indices=range(count), mode=mode, workers=workers, device=device,
            label=f"{mode}, {setting.sizes.attributes} attributes",
        )  # fmt: skip
        return time.perf_counter() - start

    run(2 * workers if device == "cpu" else 64)
    return row | {"points": points, "s_per_point": run(points) / points}


def measure(sizes: Sizes, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the table's rows one by one, so that an interruption keeps what is done."""
    places = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    if len(places) == 1:
        print("CUDA: not measured, torch sees no GPU")
    for attributes in args.attributes:
        setting = Setting(replace(sizes, attributes=attributes))
        z = setting.latents(args.points)
        if attributes == args.attributes[0] and args.points:
            for place in places:
                yield time_textbook(setting, z, place, args.workers)
        for mode in args.modes:
            if attributes > MODES[mode]:
                continue
            for place in places:
                if place == "cpu" or offers(mode, attributes):
                    yield time_mode(setting, mode, place, args.workers, args.seconds)


def with_ratios(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Return the rows as a table, with the ratio to the textbook on the CPU (one attribute's)."""
    table = pd.DataFrame(rows)
    base = table.loc[(table["what"] == "textbook") & (table["device"] == "cpu"), "s_per_point"]
    table["ratio"] = base.iloc[0] / table["s_per_point"] if len(base) else np.nan
    return table


def show(table: pd.DataFrame) -> None:
    """Print the table for people, and which aims are met."""
    columns = ["what", "attributes", "device", "workers", "points", "s_per_point", "ratio",
               "one_core_median_s", "one_core_95_s", "pieces"]  # fmt: skip
    digits = dict.fromkeys(("s_per_point", "one_core_median_s", "one_core_95_s"), "{:.4f}".format)
    digits |= {"ratio": "{:,.0f}".format, "pieces": "{:,.0f}".format}
    shown = table.reindex(columns=columns)
    print(shown.to_string(index=False, formatters=digits, na_rep="", justify="right"))
    one = table[(table["attributes"] == 1) & (table["device"] == "cpu") & table["ratio"].notna()]
    for mode, aim in AIMS.items():
        for ratio in one.loc[one["what"] == mode, "ratio"]:
            print(f"{mode}: {ratio:,.0f} x the textbook (aim {aim:,}): {'met' if ratio >= aim else 'missed'}")
    two = table[(table["attributes"] == 2) & (table["what"] == "exact_decision") & (table["device"] == "cpu")]
    for share in two.get("over_1_s", []):
        print(f"exact_decision, 2 attributes: {100 * (1 - share):.1f} % of points under 1 s (aim 95 %)")


def markdown(table: pd.DataFrame) -> str:
    """Return the table for README.md: seconds per point with all processes and on one core, and ratios."""

    def number(value: Any, form: str) -> str:
        return format(value, form) if pd.notna(value) else ""

    shown = [
        {
            "what": row["what"],
            "attributes": str(row["attributes"]),
            "device": row["device"],
            "s per point": number(row["s_per_point"], ".4f"),
            "ratio": number(row["ratio"], ",.0f"),
            "one core: median": number(row.get("one_core_median_s"), ".4f"),
            "95 % under": number(row.get("one_core_95_s"), ".4f"),
        }
        for row in table.to_dict("records")
    ]
    return as_markdown(pd.DataFrame(shown), [name for name in shown[0] if name not in ("what", "device")])


AXES: dict[str, tuple[str, tuple[float, ...]]] = {
    "samples n = n0": ("n", (0.125, 0.35, 1, 3)),
    "latent dimension d": ("d", (1 / 16, 1 / 4, 1, 4)),
    "width of the first hidden layer": ("hidden", (1 / 8, 1 / 4, 1 / 2, 1, 2)),
    "sensitive attributes": ("attributes", (1, 2, 3)),
}


def scaling(sizes: Sizes, modes: list[str], seconds: float, keep: Callable[[dict], None]) -> None:
    """Measure seconds per point on one core (first layer included) along every axis; `keep` each."""
    steps = [(axis, field, by) for axis, (field, factors) in AXES.items() for by in factors]
    for axis, field, by in progress(steps, label="scaling", unit="size"):
        value = int(getattr(sizes, field) * by)
        varied = replace(sizes, **{field: value})
        if field == "d":  # random latents grow with d: vectors that do so too keep the number of pieces
            varied = replace(varied, length=sizes.length * by**0.5)
        setting = Setting(varied)
        for mode in modes:
            if varied.attributes <= MODES[mode]:
                row = time_points(setting, mode, seconds)
                cost = row["one_core_median_s"] + row["first_layer_s"]
                keep({"axis": axis, "value": value, "mode": mode, "s_per_point": cost} | row)


def draw_scaling(table: pd.DataFrame, folder: Path) -> None:
    """Write certification_scaling.csv and .png to a folder."""
    from lassi_lib.display.style import StudyFigure, save_figure, use_style

    use_style()
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "certification_scaling.csv", index=False)
    figure = StudyFigure(figsize=(9, 6.5), layout="constrained")
    for axes, axis in zip(figure.subplots(2, 2, sharey=True).flat, AXES, strict=True):
        for marker, mode in zip("os^Dvp", MODES, strict=False):
            part = table[(table["axis"] == axis) & (table["mode"] == mode)]
            axes.plot(part["value"], part["s_per_point"], marker=marker, label=mode)
        axes.set(xscale="log", yscale="log", xlabel=axis)
        values = sorted(table.loc[table["axis"] == axis, "value"].unique())
        axes.set_xticks(values, [f"{v:,}" for v in values])
        axes.minorticks_off()
    for axes in figure.axes[::2]:
        axes.set_ylabel("seconds per point, one core")
    figure.axes[0].legend()
    alt = "Seconds per certified point against samples, latent dimension, width and attributes, per mode"
    save_figure(figure, folder, "certification_scaling", alt)
    print(f"{folder / 'certification_scaling.csv'} and .png written")


def machine() -> dict[str, Any]:
    """Return what the seconds depend on beside the sizes."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "cpu": platform.processor() or platform.machine(),
        "threads": os.cpu_count(),
        "gpu": gpu,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table and write the files; on Ctrl-C what there is so far."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = Sizes()
    parser.add_argument("--points", type=int, default=2, help="points of the textbook, 15 to 60 s each")
    parser.add_argument("--seconds", type=float, default=10.0, help="time for every mode and its sizes")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="threads and processes")
    parser.add_argument("--attributes", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=list(MODES))
    parser.add_argument("--json", type=Path, help="write the table there, and as .md beside it")
    parser.add_argument("--scaling", type=Path, help="measure how cost grows instead; folder to write to")
    for name in ("d", "hidden", "output", "n", "votes", "length"):
        default = getattr(sizes, name)
        parser.add_argument(f"--{name}", type=type(default), default=default)
    args = parser.parse_args(argv)
    sizes = Sizes(1, args.d, args.hidden, args.output, args.n, args.votes, args.length)
    rows: list[dict[str, Any]] = []
    interrupted = False
    try:
        if args.scaling:
            scaling(sizes, args.modes, args.seconds / 5, rows.append)
        else:
            for row in measure(sizes, args):
                rows.append(row)
                text = f"{row['s_per_point']:.4f} s a point on {row['points']} points"
                print(f"{row['what']}, {row['attributes']} attribute(s), {row['device']}: {text}", flush=True)
    except StudyError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        interrupted = True
        print("interrupted: this is what was measured before", file=sys.stderr)
    if rows and args.scaling:
        draw_scaling(pd.DataFrame(rows), args.scaling)
    elif rows:
        table = with_ratios(rows)
        show(table)
        if args.json:
            records = json.loads(table.to_json(orient="records"))
            report = {"machine": machine(), "sizes": asdict(sizes), "rows": records}
            args.json.parent.mkdir(parents=True, exist_ok=True)
            args.json.write_text(json.dumps(report, indent=1) + "\n")
            args.json.with_suffix(".md").write_text(markdown(table))
    return 130 if interrupted else 0


if __name__ == "__main__":
    raise SystemExit(main())
