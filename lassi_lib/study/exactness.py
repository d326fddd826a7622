"""What sampling could not say: the same models judged in several modes, and what makes the difference."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lassi_lib.certification.modes import MODES
from lassi_lib.errors import StudyError
from lassi_lib.similarity.kinds import find_kind
from lassi_lib.study.experiment import Experiment, Question
from lassi_lib.study.statistics import (
    EXPERIMENT,
    PAIR,
    outcomes,
    paired_difference,
    parts_of,
    rated,
    summarise,
    with_ends,
)
from lassi_lib.study.study import Study
from lassi_lib.study.tables import ranges

if TYPE_CHECKING:
    import torch


def fairness_by_mode(rows: pd.DataFrame, confidence: float = 0.95, seeds: str = "random") -> pd.DataFrame:
    """Return one row per pair, method and mode: the share of points found fair, and left undecided.

    The rows are those of `Study.run` in several modes. With ``seeds="fixed"`` intervals are over points alone:
    these trained models, new faces.
    """
    table = summarise(rows, (*EXPERIMENT, "mode"), confidence, seeds)
    undecided = rows["status"].eq("UNDECIDED").groupby([rows[c] for c in (*EXPERIMENT, "mode")], sort=False)
    table["undecided"] = 100 * undecided.mean().to_numpy()
    table = table.rename(columns=lambda name: name.replace("certified_fairness", "fair"))
    shown = ["task", "sensitive", "method", "mode", "n_seeds", "n_points", "fair", "fair_low", "fair_high"]
    order = table["mode"].map(list(MODES).index)
    table = table.assign(order=order, pair=table.groupby(list(PAIR), sort=False).ngroup())
    table["rank"] = table["method"].map(list(dict.fromkeys(table["method"])).index)
    return table.sort_values(["pair", "rank", "order"], ignore_index=True)[[*shown, "undecided"]]


def undecided_text(table: pd.DataFrame) -> str:
    """Say how much the exact modes left undecided, from the table of `fairness_by_mode`."""
    exact = table[table["mode"].isin(("exact_smoothing", "exact_decision"))]
    if exact.empty:
        return "No exact mode was asked for."
    worst = exact.loc[exact["undecided"].idxmax()]
    if worst["undecided"] == 0:
        return "The exact modes left no point undecided."
    row = f"{worst['task']}, {worst['sensitive']}, {worst['method']}, {worst['mode']}"
    return f"The exact modes left at most {worst['undecided']:.1f} % of points undecided ({row})."


def gap_by_mode(
    rows: pd.DataFrame, method: str = "LASSI", baseline: str = "Naive", confidence: float = 0.95
) -> pd.DataFrame:
    """Return, per pair and mode, what `method` gains over `baseline` in points judged fair.

    `share of the certified gap` is the gain in this mode over the gain in mode ``monte_carlo``, a ratio of
    two estimates without an interval: read it where the certified gain is clear. In mode
    ``exact_smoothing`` what is missing to 100 % is the price of sampling, and more than 100 % says that
    sampling cost the method more than the baseline. Modes about the unsmoothed models (``exact_decision``,
    ``empirical``) also differ by the smoothing, which is looseness only where that changes the models little.
    """
    table = []
    for key, pair in parts_of(rows, PAIR):
        found = {
            mode: paired_difference(part, method, baseline, "certified", confidence)
            for mode, part in pair.groupby("mode", sort=False)
            if {method, baseline} <= set(part["method"])
        }
        for mode in sorted(found, key=list(MODES).index):
            gain, certified = found[mode].difference, found.get("monte_carlo")
            share = 100 * gain / certified.difference if certified and certified.difference > 0 else np.nan
            row = key | {"mode": mode} | with_ends("gain", gain, *found[mode].interval)
            table.append(row | {"share of the certified gap": share})
    return pd.DataFrame(table).drop(columns=["dataset", "vector_type"])


# what is taken away from, or added to, the exactly smoothed certificate: name -> (d_cs, d_rs)
_VARIANTS = {
    "exact": lambda r: (r["d_cs"], r["d_rs"]),
    "factor 2": lambda r: (r["d_cs"] * r["sharper"], r["d_rs"]),
    "no factor": lambda r: (r["d_cs"] / 3, r["d_rs"]),
    "with Delta": lambda r: (r["d_cs_delta"], r["d_rs"]),
    "with Delta, Hoeffding": lambda r: (r["d_cs_hoeffding"], r["d_rs"]),
    "with ceiling of d_rs": lambda r: (r["d_cs"], np.minimum(r["d_rs"], r["ceiling"])),
}


def looseness(study: Study, rows: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Return what share of points each loose step of the published certificate costs.

    One attribute: the published Monte Carlo certificate; the exactly smoothed one; the same with one
    loose step put back (the mass reserve Delta; Hoeffding's slack on top of it; the ceiling of d_rs);
    with the sharper factor 2 that `exact_smoothing` proves; and with no factor at all, which no proof
    covers: it shows how much hangs on it. Intervals are over seeds and points.
    """
    from lassi_lib.certification.exact_smoothing import ETA, FACTOR, WINDOW
    from lassi_lib.certification.spec import d_rs_ceiling

    exact = rows[rows["mode"] == "exact_smoothing"].copy()
    if exact.empty:
        raise StudyError("looseness(): no rows of mode exact_smoothing: it is offered for one attribute")
    keys = list(zip(exact["method"], exact["task"], exact["sensitive"], strict=True))
    ceilings = {k: d_rs_ceiling(study.spec(k[0], "", k[1], k[2].split("+"))) for k in set(keys)}
    exact["ceiling"] = [ceilings[k] for k in keys]
    settings = study.pipeline.certification  # the windows of all points in question reach the center's
    reach = exact["vector_type"].map(lambda kind: find_kind(kind).epsilon)  # unit vectors: 10
    near = exact["center_t"].abs() <= reach * (WINDOW * settings.sigma_cs - settings.epsilon)
    exact["sharper"] = np.where(near, (2 + ETA) / FACTOR, 1.0)  # see the docstring of exact_smoothing
    shares = [("as published", rows[(rows["mode"] == "monte_carlo") & _of(rows, exact)])]
    for name, radii in _VARIANTS.items():
        d_cs, d_rs = radii(exact)
        shares.append((name, exact.assign(status=np.where(d_cs < d_rs, "CERTIFIED", "NOT_CERTIFIED"))))
    table = []
    for name, judged in shares:
        for key, part in parts_of(judged, EXPERIMENT):
            fair = rated("fair", outcomes(part, "certified"), confidence)
            table.append(key | {"certificate": name} | fair)
    table = pd.DataFrame(table).drop(columns=["dataset", "vector_type"])
    place = table.groupby(["task", "sensitive"], sort=False).ngroup()
    return table.iloc[place.argsort(kind="stable")].reset_index(drop=True)


def _of(rows: pd.DataFrame, other: pd.DataFrame) -> pd.Series:
    """Mark the rows whose sensitive attributes occur in `other`."""
    return rows["sensitive"].isin(other["sensitive"].unique())


def radius_sweep(
    study: Study, experiments: Iterable[Experiment], epsilons: Iterable[float], confidence: float = 0.95
) -> pd.DataFrame:
    """Return the share of points whose decision is exactly constant, for several radii epsilon.

    The encoders are those trained for the pipeline's radius. One row per pair, method and epsilon, with
    intervals over points alone: the same models are asked about every radius.
    """
    experiments, parts = list(experiments), []
    for epsilon in epsilons:
        rows = study.run(experiments, Question("exact_decision", float(epsilon)))
        parts.append(fairness_by_mode(rows, confidence, "fixed").assign(epsilon=float(epsilon)))
    table = pd.concat(parts, ignore_index=True)
    return table[["task", "sensitive", "method", "epsilon", "n_seeds", "fair", "fair_low", "fair_high"]]


def control_table(rows: pd.DataFrame, control: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Return fairness along the attribute's vector beside that along a random one of equal length."""
    keys = ["task", "sensitive", "method", "mode"]
    ours, theirs = (fairness_by_mode(r, confidence) for r in (rows, control))
    names = {c: c.replace("fair", "random") for c in ("fair", "fair_low", "fair_high")}
    return ours.merge(theirs[[*keys, *names]].rename(columns=names), on=keys)[
        [*keys, "fair", "fair_low", "fair_high", *names.values()]
    ]


def counterexamples(
    study: Study, rows: pd.DataFrame, count: int = 6
) -> tuple[torch.Tensor, torch.Tensor, pd.DataFrame]:
    """Return the worst refuted points of one experiment: the faces, their similar counterparts, a table.

    Faces D(z) and D(z + t A), uint8 [m, 3, S, S] each, are treated differently by C; the deepest violations
    among the rows (mode ``exact_decision``) come first, `count` at most. The table has index, t (a tuple),
    prediction, witness_class and margin.
    """
    import torch

    from lassi_lib.data.preprocess import to_uint8

    worst = rows[rows["status"] == "REFUTED"].nsmallest(count, "margin")
    names = str(rows["sensitive"].iloc[0]).split("+")
    t = worst[[f"witness_{i + 1}" for i in range(len(names))]].to_numpy(float)
    z = study.latents("test")[worst["index"].tolist()]
    A = study.similarity(names, rows["vector_type"].iloc[0], rows["task"].iloc[0]).vectors
    both = torch.cat([z, z + torch.tensor(t, dtype=z.dtype) @ A])
    faces, similar = to_uint8(study.decode(both)).chunk(2) if len(worst) else (z[:0], z[:0])
    table = worst[["index", "prediction", "witness_class", "margin"]].reset_index(drop=True)
    table["witness_class"] = table["witness_class"].astype(int)
    table.insert(1, "t", [tuple(round(float(x), 3) for x in row) for row in t])
    return faces, similar, table


def counterexamples_by_pair(
    study: Study, rows: pd.DataFrame
) -> list[tuple[str, torch.Tensor, torch.Tensor, pd.DataFrame]]:
    """Return `counterexamples` for every pair of the rows, each with the label 'Task / Attribute'."""
    parts = rows.groupby(["task", "sensitive"], sort=False)
    count = 6 if len(parts) <= 6 else 4  # a page of pictures stays under 2 MB
    return [
        (f"{task} / {sensitive}".replace("_", " "), *counterexamples(study, part, count))
        for (task, sensitive), part in parts
    ]


def own_radius(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with d_rs - d_cs: positive is certified. Abstentions are left out."""
    seen = rows.dropna(subset=["d_cs", "d_rs"])
    return seen.assign(slack=seen["d_rs"] - seen["d_cs"])


def slack_text(slack: pd.DataFrame) -> str:
    """Say where the median face of each pair lies, by mode and method, from the rows of `own_radius`."""
    medians = slack.groupby([*PAIR, "mode", "method"], sort=False)["slack"].median().reset_index()
    return f"The median d_rs - d_cs, over the pairs, {ranges(medians, ['mode', 'method'], 'slack', '')}."


def radius_text(sweep: pd.DataFrame) -> str:
    """Say how constant decisions are on the smallest and on the largest set of `radius_sweep`."""
    ends = dict.fromkeys((sweep["epsilon"].min(), sweep["epsilon"].max()))
    said = (f"epsilon {e:g}: {ranges(sweep[sweep['epsilon'] == e], ['method'], 'fair')}" for e in ends)
    return f"Constant decisions, over the pairs, at {'; at '.join(said)}."


def one_attribute(experiments: Iterable[Experiment]) -> list[Experiment]:
    """Return the experiments with a single sensitive attribute."""
    return [e for e in experiments if len(e.sensitive) == 1]
