"""Causes by experiment, on rendered faces: the label correlation dialled, the attribute vector swapped.

On photographs an attribute's correlation with the task, its vector's length and what the vector shares
with the task come together. Here one is changed and all else kept: flow, other factors, nuisances, seeds.

*Intervals.* A cell is one trained encoder: a condition (phi, or a kind of vector) and a seed. Cells of one
condition differ by the chance of training, which two or three seeds show badly, and some conditions scatter
more than others. So comparisons give each condition its own variance, with Welch's degrees of freedom
(simulated with two seeds: 95 % intervals cover 97 %, and 92 % where one condition scatters nine times as much;
a pooled variance would cover 76 to 88 % there), and single conditions share one. Test points count as in
`statistics.crossed_variance`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from lassi_lib.certification.modes import ABSTAINED, FAIR
from lassi_lib.errors import StudyError
from lassi_lib.similarity.kinds import angle_of, is_same_task, turned_freely
from lassi_lib.study.experiment import Experiment, Question, experiments_of, parse_pair
from lassi_lib.study.params import load_pipeline
from lassi_lib.study.plan import asked
from lassi_lib.study.statistics import crossed_variance, parts_of, with_ends
from lassi_lib.study.study import Study
from lassi_lib.study.vectors import boundaries
from lassi_lib.study.verdicts import Verdict, beyond_seeds, decided, worst_of

_CELEBA = "CelebA"  # the correlation as it is
REFERENCE = "mean_difference"
_MODES = ("monte_carlo", "exact_decision")
_RATES = ("accuracy", "certified_fairness", "exact_fairness")


# ---- experiments ------------------------------------------------------------------------------------


def dialled(
    study: Study,
    pair: str,
    phis: Sequence[float | str],
    methods: Sequence[str],
    seeds: Sequence[int],
    confidence: float = 0.95,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ask a pair on faces whose two labels have the given phi coefficients.

    Rows: one per test point, seed, method, phi and mode (``monte_carlo``, ``exact_decision``). Summary: one
    per phi and method, rates in percent, ``ratio_percent`` = 100 d_cs / d_rs (geometric mean; below 100 is
    certified) with intervals, median radii, length and cosines of the vector.

    Parameters
    ----------
    study : Study
        Of rendered faces, with a shipped flow.
    pair : str
        'Task/Attribute', of one attribute.
    phis : sequence of float or str
        The phi coefficients; 'CelebA' is the law as it is.
    methods, seeds : sequence of str, sequence of int
        Methods of the pipeline, and seeds of their trainings.
    confidence : float
        Of the two-sided intervals.

    Raises
    ------
    StudyError
        If the study's faces are not rendered or its flow not shipped (it must stay), or a phi is out of reach.
    """
    return _asked(study, pair, phis, [REFERENCE], methods, seeds, "phi", confidence)


def swapped(
    study: Study,
    pair: str,
    kinds: Sequence[str],
    methods: Sequence[str],
    seeds: Sequence[int],
    phi: float | str = _CELEBA,
    confidence: float = 0.95,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ask a pair along other vectors; the mean difference, their reference, comes first. Else as `dialled`.

    ``random``, the ``degraded_<degrees>`` and the ``..._matched`` kinds are as long as the mean difference, so
    that they differ from it in direction alone; ``true_factor`` and ``partialled`` have their own length.

    Parameters
    ----------
    study, pair : Study, str
        As in `dialled`.
    kinds : sequence of str
        Kinds of vectors beside the mean difference, as `similarity.kinds.find_kind` knows them.
    methods, seeds : sequence of str, sequence of int
        As in `dialled`.
    phi : float or str
        One phi coefficient of the two labels; 'CelebA' is the law as it is.
    confidence : float
        Of the two-sided intervals.
    """
    return _asked(study, pair, [phi], _kinds(kinds), methods, seeds, "vector_type", confidence)


def dialled_law(pair: str, phis: Sequence[float | str]) -> pd.DataFrame:
    """Return what happens to the labels' law: phi, the latent correlation rho, and what moves along.

    `changed most` names the attributes whose phi with the dialled one moves most (from -> to), `rms change
    of phi` counts all of them. Correlations between other attributes stay.
    """
    from lassi_lib.data.synthfaces import law_of

    task, (attribute,) = parse_pair(pair)
    own, rows = law_of(), []
    t, s = own.names.index(task), own.names.index(attribute)
    for phi in phis:
        law = own if phi == _CELEBA else law_of(pair, float(phi))
        now, before = law.phi[s], own.phi[s]
        change = np.where(np.isin(np.arange(len(now)), [t, s]), 0.0, now - before)
        most = [f"{own.names[k]} {before[k]:+.2f} -> {now[k]:+.2f}" for k in np.argsort(-abs(change))[:3]]
        rho = f"{law.loadings[t] @ law.loadings[s]:+.2f}"
        row = {"pair": pair, "phi": round(now[t], 6) + 0.0, "rho": rho}
        row["changed most"] = "nothing: CelebA's law" if phi == _CELEBA else ", ".join(most)
        rows.append(row | {"rms change of phi": f"{(change**2).mean() ** 0.5:.3f}"})
    return pd.DataFrame(rows).sort_values("phi", ignore_index=True)


def wanted(study: Study, given: dict[str, Any]) -> Iterator[tuple[Study, Experiment, Question]]:
    """Yield the certificates of notebook 05, of its pairs and of rendered faces, for the plan of a run."""
    yield from asked(study, given)
    faces = study if given["rendered"] == given["profile"] else study.of(load_pipeline(given["rendered"]))
    pair, outlier, judged = given["dial_pair"], given["dial_outlier"], [given["judged_method"]]
    methods, seeds, kinds = given["cause_methods"], given["cause_seeds"], given["swap_kinds"]
    for conditions in (
        _conditions(faces, pair, given["phis"], [REFERENCE], methods, seeds),
        _conditions(faces, outlier, given["outlier_phis"], [REFERENCE], judged, seeds),
        _conditions(faces, pair, [given["swap_phi"]], _kinds(kinds), methods, seeds),
        _conditions(faces, outlier, [_CELEBA], _kinds(given["outlier_kinds"]), judged, seeds),
    ):
        for _, _, sub, experiments in conditions:
            yield from ((sub, e, Question(mode)) for e in experiments for mode in _MODES)
    chosen = {"pairs": given["strip_pairs"], "methods": given["methods"], "seeds": given["seeds"][:1]}
    for e in experiments_of(study.pipeline, chosen):
        yield study, e, Question("exact_decision")


def _kinds(kinds: Sequence[str]) -> list[str]:
    return list(dict.fromkeys([REFERENCE, *kinds]))


def _conditions(
    study: Study, pair: str, phis: Sequence, kinds: Sequence[str], methods: Sequence, seeds: Sequence
) -> Iterator[tuple[float | str, float, Study, list[Experiment]]]:
    """Yield per phi, in rising order: its name and value, the study of such faces, the experiments on them."""
    _, names = parse_pair(pair)
    data = study.pipeline.data
    if data.name != "synthfaces" or not study.pipeline.glow.checkpoint or len(names) > 1:
        raise StudyError(f"pair '{pair}': dialling takes rendered faces, a shipped flow and one attribute")
    asked = {"pairs": [pair], "vector_types": kinds, "methods": methods, "seeds": seeds}
    values = {p: dialled_law(pair, [p])["phi"].item() if p == _CELEBA else float(p) for p in phis}
    for name, phi in sorted(values.items(), key=lambda item: item[1]):
        dial = {} if name == _CELEBA else {"dial": pair, "dial_phi": phi}
        sub = study.of(replace(study.pipeline, data=replace(data, **dial)))
        yield name, phi, sub, experiments_of(sub.pipeline, asked)


def _asked(study, pair, phis, kinds, methods, seeds, by, confidence):
    """Run all conditions; return rows and summary, whose conditions differ in the column `by`."""
    (task, names), parts, facts = parse_pair(pair), [], {}
    for name, phi, sub, experiments in _conditions(study, pair, phis, kinds, methods, seeds):
        for mode in _MODES:
            parts.append(sub.run(experiments, Question(mode)).assign(phi=phi))
        for kind in kinds:
            facts[phi, kind] = {"celebas": name == _CELEBA} | _vector_facts(sub, task, names[0], kind)
    rows = pd.concat(parts, ignore_index=True)
    return rows, _summary(rows, by, facts, confidence)


def _vector_facts(study: Study, task: str, attribute: str, kind: str) -> dict[str, float]:
    """Return the vector's length and its cosines with the task's normal, mean difference, true factor."""
    from lassi_lib.data.synthfaces import factor_of
    from lassi_lib.similarity.diagnostics import cosines

    a = study.vector(attribute, kind, task)[None]
    beside = {"task": boundaries(study)[task].w, "mean difference": study.vector(attribute, REFERENCE)}
    if factor_of(attribute):
        beside["true factor"] = study.vector(attribute, "true_factor")
    found = {f"cos {name}": cosines(a, b[None]).item() for name, b in beside.items()}
    return {"norm": float(a.double().norm())} | found


# ---- estimates --------------------------------------------------------------------------------------


def _cube(rows: pd.DataFrame, by: str, quantity: str) -> tuple[list, np.ndarray]:
    """Return the levels of `by` and the values [m seeds, n points, k levels] of one pair and method.

    `quantity`: one of `_RATES` (0/1, abstentions count as wrong and unfair) or 'ratio', log(d_cs / d_rs):
    points that abstain in one cell are left out of all.
    """
    rows = rows[rows["mode"] == ("exact_decision" if quantity == "exact_fairness" else "monte_carlo")]
    if quantity == "ratio":
        value = np.log((rows["d_cs"] / rows["d_rs"].where(rows["d_rs"] > 0)).clip(lower=1e-6))
    else:
        correct, fair = rows["prediction"] == rows["label"], rows["status"].isin(FAIR)
        value = (correct if quantity == "accuracy" else fair).astype(float)
    levels, seeds = list(rows[by].unique()), list(rows["seed"].unique())
    wide = rows.assign(value=value).pivot(index="index", columns=["seed", by], values="value").dropna()
    return levels, np.stack([[wide[s, level].to_numpy() for level in levels] for s in seeds]).swapaxes(1, 2)


def estimate(
    y: np.ndarray,
    weights: np.ndarray,
    tail: float,
    *,
    pooled: bool = False,
    seeds: str = "random",
    rates: bool = False,
) -> tuple[float, float, float]:
    """Return ``sum_k weights_k mean_k`` with bounds, each wrong with probability `tail`.

    Trainings may scatter more in one condition than in another, so each has a variance of its own and the
    degrees of freedom are Welch's.

    Parameters
    ----------
    y : numpy.ndarray
        [m seeds, n points, k conditions]: every seed and condition a training of its own, on the same points.
    weights : numpy.ndarray
        [k].
    tail : float
        Probability, below 1/2.
    pooled : bool
        One variance of training for all conditions instead: steadier with two seeds, and wrong for
        comparisons where conditions differ in it.
    seeds : {'random', 'fixed'}
        'fixed' leaves the chance of training out: these trained models alone.
    rates : bool
        Values are 0/1: bounds stay in the possible range, and two imagined points, one for either side,
        keep the variance positive (Bonett & Price 2012).

    Returns
    -------
    tuple of float
        Value, low and high; NaN for fewer than two points.
    """
    m, n, k = y.shape
    if n < 2:
        return (np.nan,) * 3
    d, most = y @ weights, weights.clip(0).sum()
    value, squared, least = d.mean(), 0.0, weights.sum() - most
    if seeds == "random" and m > 1:
        variances = y.mean(1).var(0, ddof=1)
        parts = weights**2 * (variances.mean() if pooled else variances) / m
        if parts.any():
            freedom = (m - 1) * (k if pooled else parts.sum() ** 2 / (parts**2).sum())
            squared = special.stdtrit(freedom, tail) ** 2 * parts.sum()
    if rates:
        d = np.concatenate([d, np.full((m, 1), most), np.full((m, 1), least)], axis=1)
    margin = np.sqrt(squared + special.ndtri(tail) ** 2 * crossed_variance(d, seeds)[2])
    low, high = value - margin, value + margin
    return (value, max(low, least), min(high, most)) if rates else (value, low, high)


def _estimated(y: np.ndarray, quantity: str, weights: np.ndarray, tail: float, **how: Any) -> np.ndarray:
    """Return value, low, high of a quantity: points for rates, a factor for the ratio."""
    rate = quantity in _RATES
    found = np.array(estimate(y, weights, tail, rates=rate, **how))
    return 100 * found.clip(-1, 1) if rate else np.exp(found)  # a fitted line may leave the possible


def _summary(rows: pd.DataFrame, by: str, facts: dict, confidence: float) -> pd.DataFrame:
    table = []
    for (task, sensitive, method), part in rows.groupby(["task", "sensitive", "method"], sort=False):
        cubes = {q: _cube(part, by, q) for q in (*_RATES, "ratio")}
        for k, level in enumerate(cubes["ratio"][0]):
            here = part[(part[by] == level) & (part["mode"] == "monte_carlo")]
            phi, kind = here[["phi", "vector_type"]].iloc[0]
            row: dict[str, Any] = {"task": task, "sensitive": sensitive, "phi": phi, "vector_type": kind}
            row |= {"celebas": facts[phi, kind]["celebas"], "method": method}
            row |= {"n_seeds": here["seed"].nunique(), "n_points": here["index"].nunique()}
            row["abstained"] = 100 * here["status"].isin(ABSTAINED).mean()
            for q, cube in cubes.items():
                found = _estimated(cube[1], q, np.eye(len(cube[0]))[k], (1 - confidence) / 2, pooled=True)
                name, found = (q, found) if q in _RATES else ("ratio_percent", 100 * found)
                row |= with_ends(name, *found)
            table.append(row | here[["d_cs", "d_rs"]].median().to_dict() | facts[phi, kind])
    return pd.DataFrame(table)


# ---- comparisons ------------------------------------------------------------------------------------


def _questions(rows: pd.DataFrame, by: str) -> Iterator[tuple[dict[str, Any], pd.DataFrame, Callable]]:
    """Yield every comparison that the rows allow: its columns, its rows, the weights of the levels of `by`."""

    def slope(levels: list) -> np.ndarray:  # least squares on |phi|, times its range
        x = np.abs(levels) - np.abs(levels).mean()
        return np.ptp(x) * x / (x @ x)

    keys = ["task", "sensitive", "method", *["phi"] * (by != "phi")]
    for row, part in parts_of(rows, keys):
        first, *others = part[by].unique()
        if by == "phi" and others:
            ends = np.abs([first, *others])
            yield row | {"compared": f"|phi| {ends.max():.2f} against {ends.min():.2f}"}, part, slope
        for kind in others if by != "phi" else ():
            yield row | {"vector_type": kind}, part, partial(_minus, kind, REFERENCE)


def _minus(one: str, other: str, levels: list) -> np.ndarray:
    return np.array([float(k == one) - float(k == other) for k in levels])


def _effects(part: pd.DataFrame, by: str, weights: Callable, tail: float, seeds: str = "random"):
    """Return factor, fairness change and exact change with their ends."""
    names = {"factor": "ratio", "fairness change": "certified_fairness", "exact change": "exact_fairness"}
    row = {}
    for name, quantity in names.items():
        levels, y = _cube(part, by, quantity)
        found = _estimated(y, quantity, weights(levels), tail, seeds=seeds)
        row |= with_ends(name, *found)
    return row


def phi_effects(rows: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Return the trend over |phi|, per pair and method: the fitted change from the weakest to the strongest.

    ``factor`` multiplies d_cs / d_rs; changes of certified and exactly decided fairness are in points, each
    with an interval. Pairs asked at one phi alone have no row.
    """
    tail = (1 - confidence) / 2
    return pd.DataFrame([row | _effects(part, "phi", w, tail) for row, part, w in _questions(rows, "phi")])


def kind_effects(rows: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Return every kind of vector against the mean difference, paired over points; columns as `phi_effects`."""
    tail, by = (1 - confidence) / 2, "vector_type"
    return pd.DataFrame([row | _effects(part, by, w, tail) for row, part, w in _questions(rows, by)])


def causes_verdict(
    dial_rows: pd.DataFrame,
    swap_rows: pd.DataFrame,
    min_factor: float = 1.25,
    confidence: float = 0.95,
    method: str = "LASSI",
) -> Verdict:
    """Judge each explanation of low certified fairness by the experiment that it predicts.

    *label correlation*: d_cs / d_rs grows with |phi|. *vector drags the task along*: at equal length it is larger
    along the mean difference than along the true factor's direction, and along a turned vector that keeps its
    cosine with the task's normal than along one turned as far that does not. *poor vector*: at equal length it
    grows when the mean difference is turned away and keeps that cosine (without keeping it, a turned vector would
    be both poorer and less of the task). Each is supported
    when the lower one-sided bound of the growth's factor is at least `min_factor`, not supported when the
    upper one is below it, else inconclusive.

    The outcome is that of *label correlation*, over its pairs. The table has a row per explanation and
    experiment; `outcome_these_models` leaves the chance of training out.

    Parameters
    ----------
    dial_rows, swap_rows : pandas.DataFrame
        Rows of `dialled` and of `swapped`, of one pair or several.
    min_factor : float
        Factor by which d_cs / d_rs has to grow.
    confidence : float
        Of the one-sided bounds; what it leaves is divided over the table's rows (Bonferroni).
    method : str
        Whose rows are judged.
    """
    asked = []
    for row, *question in _questions(dial_rows[dial_rows["method"] == method], "phi"):
        asked.append(({"explanation": "label correlation"} | row, *question, "phi"))
    if not asked:
        raise StudyError(f"causes: no pair of method '{method}' was asked at several phis: dial one")
    for row, part, weights in _questions(swap_rows[swap_rows["method"] == method], "vector_type"):
        kind, at = row.pop("vector_type"), f"phi {row.pop('phi'):.2f}:"
        if kind == "true_factor_matched":
            row |= {"explanation": "vector drags the task along", "compared": f"{at} against true factor"}
            asked.append((row, part, partial(_minus, REFERENCE, kind), "vector_type"))
        elif is_same_task(kind):
            turned = f"{at} turned by {angle_of(kind):g} degrees"
            poor = {"explanation": "poor vector", "compared": f"{turned}, as much of the task"}
            asked.append((row | poor, part, weights, "vector_type"))
            freely = turned_freely(kind)
            if (part["vector_type"] == freely).any():
                drags = {
                    "explanation": "vector drags the task along",
                    "compared": f"{turned}, with and without it",
                }
                asked.append((row | drags, part, partial(_minus, kind, freely), "vector_type"))
    table, tail = [], (1 - confidence) / len(asked)
    for row, part, weights, by in asked:
        found = {seeds: _effects(part, by, weights, tail, seeds) for seeds in ("random", "fixed")}
        first = {c: row[c] for c in ("explanation", "task", "sensitive", "compared")} | found["random"]
        for column, effect in zip(("outcome", "outcome_these_models"), found.values(), strict=True):
            first[column] = decided(effect["factor_low"], effect["factor_high"], min_factor)
        table.append(first)
    table = pd.DataFrame(table)
    table["outcome"] = beyond_seeds(table["outcome"], dial_rows["seed"].nunique())
    outcomes = {name: worst_of(p["outcome"]) for name, p in table.groupby("explanation", sort=False)}
    return Verdict(
        outcomes["label correlation"], _text(table, outcomes, min_factor, confidence, method), table
    )


_TOGETHER = {  # (label correlation, vector drags the task along)
    ("supported", "supported"): (
        "Correlation acts, and through the vector: less along one with less of the task."
    ),
    ("supported", "not supported"): "Correlation acts along vectors with less of the task as well.",
    ("not supported", "supported"): "The vector's direction matters, the label correlation does not.",
    ("not supported", "not supported"): "Neither correlation nor the vector's direction matters.",
}


def _text(table: pd.DataFrame, outcomes: dict, min_factor: float, confidence: float, method: str) -> str:
    """Say the outcomes, their numbers, what they mean together, and the rule."""
    said = "; ".join(f"{name} is {outcome}" for name, outcome in outcomes.items())
    text = [f"Of the explanations of low certified fairness, put to the test by experiment: {said}."]
    text += [
        f"{r['explanation'].capitalize()}, {r['task']}/{r['sensitive']}, {r['compared']}: {r['outcome']}, "
        f"d_cs / d_rs of {method} is {r['factor']:.2f} [{r['factor_low']:.2f}, {r['factor_high']:.2f}] times as "
        f"large, certified fairness changes by {r['fairness change']:+.1f} points (these models alone: "
        f"{r['outcome_these_models']})."
        for r in table.to_dict("records")
    ]
    both = outcomes["label correlation"], outcomes.get("vector drags the task along")
    text.append(_TOGETHER.get(both, "Together they leave open how correlation acts."))
    text.append(
        f"Rule: supported when the factor's lower bound is at least {min_factor:g}, not supported when its "
        f"upper bound is below that, else inconclusive (one-sided {100 * confidence:g} % bounds, Bonferroni "
        f"over {len(table)} rows, chance of training and test points counted); an explanation is supported "
        "when all its rows are, not supported when any is not."
    )
    return " ".join(text)
