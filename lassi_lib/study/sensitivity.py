"""How much hangs on the hyperparameters: sigma_cs, sigma_rs, lambda_2 and the training's choices.

ECCV 2022, supplement, Tables 8 to 10. A variant of a method is a method of its own, named after what
differs ('LASSI lambda_2=0.01'); since stages do not depend on names, it shares every cached stage that
its settings leave as they were.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import pairwise, product
from typing import Any

import numpy as np
import pandas as pd

from lassi_lib.errors import StudyError, nearest
from lassi_lib.study.cache import Stage
from lassi_lib.study.experiment import Experiment, Question, experiments_by, experiments_of
from lassi_lib.study.knowledge import knowledge_table
from lassi_lib.study.published import published
from lassi_lib.study.statistics import PAIR, parts_of, summarise
from lassi_lib.study.study import Study
from lassi_lib.study.verdicts import Verdict, VerdictRule, beyond_seeds, change, of_seeds, worst_of

VOTED = "exact center, votes"
SETTINGS = ("lambda_2", "sigma_cs", "sigma_rs")
_CELL = ["task", "sensitive", "method", *SETTINGS]
_RATES = ("accuracy", "certified_fairness")


def varied(study: Study, method: str, **lists: Iterable) -> Study:
    """Return the study with further methods: each value of each setting in turn, the others as they were.

    Settings are those of `MethodParams`, e.g. ``lambda_2=[0.0, 0.01]``; cache and data are shared.
    """
    methods, exceptions = dict(study.pipeline.methods), study.pipeline.exceptions
    if method not in methods:
        raise StudyError(f"varied(): method '{method}' is unknown{nearest(method, methods)}")
    known = asdict(methods[method])
    for name, values in lists.items():
        if name not in known:
            raise StudyError(f"varied(): '{name}' is no setting of a method{nearest(name, known)}")
        for value in values:
            value = type(known[name])(value)  # 0 and 0.0 must give one key
            variant = f"{method} {name}={value if isinstance(value, str) else f'{value:g}'}"
            methods[variant] = replace(methods[method], **{name: value})
            exceptions = {  # what the method does differently for a pair, its variant does too
                key: of | {variant: {k: v for k, v in of[method].items() if k != name}}
                if method in of
                else of
                for key, of in exceptions.items()
            }
    return study.of(replace(study.pipeline, methods=methods, exceptions=exceptions))


def variants(study: Study, method: str) -> list[str]:
    """Return the names of a method's variants, in the order in which `varied` made them."""
    return [name for name in study.pipeline.methods if name.startswith(f"{method} ")]


def wanted(study: Study, given: dict[str, Any]) -> Iterator[tuple[Study, Experiment, Question]]:
    """Yield the certificates of notebook 08, for the plan of a run."""
    sampled, exact = Question(), Question("exact_smoothing")
    along = varied(study, "LASSI", lambda_2=given["lambda_2"])
    trained = {name: given[name] for name in ("batch_norm", "sampling", "radius_scale")}
    changed = varied(study, "LASSI", **trained)
    noises = [Question(mode, sigma_cs=x) for x in given["sigma_cs"] for mode in (sampled.mode, exact.mode)]
    for sub, methods, questions in (
        (along, variants(along, "LASSI"), [sampled, exact]),
        (study, given["methods"], [exact]),
        (study, given["smoothed"], noises),
        (changed, ["LASSI", *variants(changed, "LASSI")], [sampled]),
    ):
        experiments = experiments_of(sub.pipeline, given | {"methods": methods})
        yield from ((sub, e, q) for e in experiments for q in questions)


def steps(study: Study, given: dict[str, Any]) -> Iterator[tuple[Study, Stage, str, tuple]]:
    """Yield the classifiers of notebook 08's grids, for the plan: study, stage, verb, arguments."""
    along = varied(study, "LASSI", lambda_2=given["lambda_2"])
    methods = list(dict.fromkeys([*given["methods"], *given["smoothed"]]))
    for sub, names in ((study, methods), (along, variants(along, "LASSI"))):
        for e in experiments_of(sub.pipeline, given | {"methods": names}):
            other = varied(sub, e.method, sigma_rs=given["sigma_rs"])
            for sigma in given["sigma_rs"]:
                variant = _with_noise(e, sigma)
                yield other, other.classifier_stage(variant), "classifier", (variant,)


def _with_noise(e: Experiment, sigma_rs: float) -> Experiment:
    """Return an experiment of the variant that `varied` names after sigma_rs."""
    return replace(e, method=f"{e.method} sigma_rs={sigma_rs:g}")


def sensitivity_table(
    study: Study,
    experiments: Iterable[Experiment],
    sigma_cs: Iterable[float] = (),
    mode: str = "monte_carlo",
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Certify experiments in one mode and return a row per method and sigma_cs.

    Columns task, sensitive, method (without its variant), `SETTINGS` as text, certificate (the mode),
    n_seeds, n_points, accuracy, certified_fairness and d_cs_mean with intervals over seeds and points.

    Parameters
    ----------
    study : Study
        One that knows the variants, see `varied`.
    experiments : iterable of Experiment
        They may differ in anything; seeds of one experiment share a row.
    sigma_cs : sequence of float
        Noise of center smoothing, on coefficients; default: the pipeline's.
    mode : str
        One of `certification.modes.MODES`.
    confidence : float
        Of the two-sided intervals.
    """
    tables = []
    groups = experiments_by(experiments, _but_for_seed).values()
    for e, noise in product(groups, sigma_cs or [study.pipeline.certification.sigma_cs]):
        rows = study.run(e, Question(mode, sigma_cs=noise)).rename(columns={"mode": "certificate"})
        tables.append(_summary(study, e[0], rows, noise, confidence))
    return pd.concat(tables, ignore_index=True)


def certificate_grid(
    study: Study,
    experiments: Iterable[Experiment],
    sigma_cs: Iterable[float],
    sigma_rs: Iterable[float],
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Return the table of `sensitivity_table` for sigma_cs x sigma_rs, with R smoothed once per sigma_cs.

    Exact smoothing (one attribute) says where on the line z + t a the smoothed representation lies; a
    classifier trained with another sigma_rs is judged there without smoothing R again, as the original
    code does. Two certificates: ``exact`` (d_cs and d_rs without sampling), and ``exact center, votes``: the
    published one with Delta, Hoeffding's slack and votes, but the center not sampled. `ceiling` is the largest
    d_rs that the votes allow (NaN for ``exact``).

    Parameters
    ----------
    study : Study
        One that knows the experiments' methods.
    experiments : iterable of Experiment
        Of one sensitive attribute each; seeds of one experiment share a row.
    sigma_cs : iterable of float
        Noise of center smoothing, on coefficients.
    sigma_rs : iterable of float
        Noise of randomized smoothing, on representations, in the classifier's training and its votes.
    confidence : float
        Of the two-sided intervals.
    """
    from lassi_lib.certification.spec import d_rs_ceiling

    sigma_rs, tables = list(sigma_rs), []
    for group, noise in product(experiments_by(experiments, _but_for_seed).values(), list(sigma_cs)):
        other = varied(study, group[0].method, sigma_rs=sigma_rs)
        smoothed = [(e, *_centers(study, e, Question("exact_smoothing", sigma_cs=noise))) for e in group]
        for sigma in sigma_rs:
            names = {e: _with_noise(e, sigma) for e in group}
            rows = pd.concat([_judged(other, names[e], rows, r) for e, rows, r in smoothed])
            here = names[group[0]]
            table = _summary(other, here, rows, noise, confidence)
            ceiling = d_rs_ceiling(other.spec(here.method, here.vector_type, here.task, here.sensitive))
            tables.append(table.assign(ceiling=np.where(table["certificate"] == VOTED, ceiling, np.nan)))
    return pd.concat(tables, ignore_index=True)


def _but_for_seed(e: Experiment) -> Experiment:
    return replace(e, seed=0)


def _summary(
    study: Study, e: Experiment, rows: pd.DataFrame, sigma_cs: float, confidence: float
) -> pd.DataFrame:
    table = summarise(rows, ("task", "sensitive", "certificate"), confidence)
    values = (study.settings(e).lambda_2, sigma_cs, study.settings(e).sigma_rs)
    texts = {name: f"{value:g}" for name, value in zip(SETTINGS, values, strict=True)}
    table = table.assign(method=e.method.split(" ")[0], **texts)
    ends = [f"{value}{end}" for value in (*_RATES, "d_cs_mean") for end in ("", "_low", "_high")]
    return table[[*_CELL, "certificate", "n_seeds", "n_points", *ends]]


def _centers(study: Study, e: Experiment, question: Question):
    """Return the exactly smoothed rows of an experiment and the smoothed representations [N, k]."""
    import torch

    from lassi_lib.learning.representation import embed

    rows = study.certificates(e, question)
    z = study.latents("test")[rows["index"].tolist()]
    a = study.similarity(e.sensitive, e.vector_type, e.task).vectors[0]
    z = z + torch.tensor(rows["center_t"].tolist())[:, None] * a
    return rows, embed(study.representation(e), z).double().numpy()


def _judged(study: Study, e: Experiment, rows: pd.DataFrame, r: np.ndarray) -> pd.DataFrame:
    """Judge smoothed representations `r` with the classifier of `e`: both certificates, a row per point."""
    from lassi_lib.certification.monte_carlo import vote_streams
    from lassi_lib.certification.problem import weights_of
    from lassi_lib.certification.smoothing import linear_radius, smooth_classifier

    weight, bias = weights_of(study.classifier(e))
    logits, spec = r @ weight.T + bias, study.spec(e.method, e.vector_type, e.task, e.sensitive)
    points = list(zip(rows["index"], logits, strict=True))
    exact = rows.assign(certificate="exact", prediction=logits.argmax(1))
    exact["d_rs"] = [linear_radius(row, weight) for _, row in points]
    votes = [smooth_classifier(row, weight, spec, *vote_streams(e.seed, i)) for i, row in points]
    sampled = rows.assign(certificate=VOTED, d_cs=rows["d_cs_hoeffding"])
    sampled["d_rs"] = np.array([v.d_rs for v in votes], dtype=float)
    sampled["prediction"] = [v.prediction if v.d_rs is not None else -1 for v in votes]
    both = pd.concat([exact, sampled], ignore_index=True)
    both["status"] = np.where(both["d_cs"] < both["d_rs"], "CERTIFIED", "NOT_CERTIFIED")
    return both.assign(status=both["status"].where(both["d_rs"].notna(), "ABSTAINED_CLASSIFIER"))


def beside_supplement(table: pd.DataFrame) -> pd.DataFrame:
    """Return a sensitivity table with the numbers of Supp. Tables 8 to 10 beside it.

    They are the authors' tuning runs: one run each on 311 validation images (`eccv_...`; NaN where there
    are none). A variant of LASSI with lambda_2 = 0 is Naive.
    """
    facts = published(source="eccv2022", table=[f"Supp. Table {i}" for i in (8, 9, 10)])
    facts = facts.rename(columns={"lambda2": "lambda_2"})
    cells = None
    for metric in (*_RATES, "mean_center_radius"):
        part = facts[facts["metric"] == metric]
        keys = [c for c in _CELL if part[c].notna().all()]
        name = {"mean_center_radius": "d_cs_mean"}.get(metric, metric)
        part = part[[*keys, "value"]].rename(columns={"value": f"eccv_{name}"})
        cells = part if cells is None else cells.merge(part, on=keys, how="left")
    for name in SETTINGS:
        cells[name] = cells[name].map("{:g}".format)
    cells = pd.concat([cells, cells[cells["method"] == "Naive"].assign(method="LASSI")])
    return table.merge(cells, on=_CELL, how="left")


def readable_grid(table: pd.DataFrame, value: str = "certified_fairness") -> pd.DataFrame:
    """Return a grid as Supp. Tables 8 to 10 print it: a column per sigma_rs, cells 'ours (published)'."""
    text = [
        f"{ours:.1f}" + ("" if np.isnan(theirs) else f" ({theirs:.1f})")
        for ours, theirs in zip(table[value], table[f"eccv_{value}"], strict=True)
    ]
    keys = ["task", "sensitive", "method", "lambda_2", "sigma_cs", "certificate"]
    wide = table.assign(text=text).pivot(index=keys, columns="sigma_rs", values="text").reset_index()
    order = pd.MultiIndex.from_frame(table[keys].drop_duplicates())
    wide = wide.set_index(keys).loc[order, sorted(table["sigma_rs"].unique(), key=float)]
    return wide.add_prefix("sigma_rs = ").rename_axis(columns=None).reset_index()


def knowledge_along(
    study: Study, experiments: Iterable[Experiment], probes: Iterable[str], confidence: float = 0.95
) -> pd.DataFrame:
    """Return `knowledge_table` of variants that differ in lambda_2, with that column, for `setting_lines`."""
    groups = experiments_by(
        experiments, lambda e: (e.task, e.sensitive)
    )  # variants of a pair share lambda_2 = 0
    table = pd.concat([knowledge_table(study, of_pair, probes, confidence) for of_pair in groups.values()])
    lambdas = [f"{study.pipeline.methods[m].lambda_2:g}" for m in table["method"]]
    table.insert(0, "lambda_2", lambdas)
    table["method"] = table["method"].str.split(" ").str[0]
    return table.rename(columns={"trained for": "task"}).assign(certificate="")


def sampling_text(table: pd.DataFrame, grid: pd.DataFrame) -> str:
    """Say how far ``exact center, votes`` lies from ``monte_carlo`` where both tables have the same cell."""
    ours, theirs = table[table["certificate"] == "monte_carlo"], grid[grid["certificate"] == VOTED]
    both = ours.drop_duplicates(_CELL).merge(theirs, on=_CELL, suffixes=("", "_grid"))
    gap = (both["certified_fairness"] - both["certified_fairness_grid"]).abs()
    return (
        f"In {len(both)} cells that Monte Carlo certified as well, certified fairness differs from '{VOTED}' by "
        f"{gap.mean():.1f} points on average, {gap.max():.1f} at most."
    )


def lambda_steps(study: Study, rows: pd.DataFrame, rule: VerdictRule) -> pd.DataFrame:
    """Return what each step of lambda_2 changes: a row per pair and step, paired over seeds and points.

    A step from `from` to `to` has the `fairness_gain` and the `accuracy_loss` that it brings, in points,
    with bounds one-sided at the rule's confidence, divided over pairs (Bonferroni), and the gain per
    doubling of lambda_2 (0 from lambda_2 = 0 on), which compares steps of any width. `jumps` says whether
    the gain is at least `min_fairness_gain`, `stays` whether the loss is at most `max_accuracy_loss`;
    ``..._these_models`` leaves seeds out. `study` must know the variants, see `varied`.
    """
    lambdas = {m: study.pipeline.methods[m].lambda_2 for m in rows["method"].unique()}
    pairs = list(parts_of(rows, PAIR))
    tail, table = (1 - rule.confidence) / len(pairs), []
    for key, pair in pairs:
        for low, high in pairwise(sorted(lambdas, key=lambdas.get)):
            a, b = lambdas[low], lambdas[high]
            row = {"task": key["task"], "sensitive": key["sensitive"], "n_seeds": pair["seed"].nunique()}
            row |= {"from": f"{a:g}", "to": f"{b:g}"}
            for seeds, suffix in (("fixed", "_these_models"), ("random", "")):
                values, jumps, stays = change(pair, high, low, rule, tail, seeds)
                row |= values | {f"jumps{suffix}": jumps, f"stays{suffix}": stays}
            doublings = math.log2(b / a) if a > 0 else math.inf
            table.append(row | {"gain per doubling": row["fairness_gain"] / doublings})
    table = pd.DataFrame(table)
    for name in ("jumps", "stays"):
        table[name] = beyond_seeds(table[name], table["n_seeds"])
    return table


def jump_verdict(steps: pd.DataFrame, step: Sequence[float], rule: VerdictRule) -> Verdict:
    """Judge "certified fairness jumps abruptly at this step of lambda_2, accuracy stays" from `lambda_steps`."""
    here = steps[(steps["from"] == f"{step[0]:g}") & (steps["to"] == f"{step[1]:g}")]
    if here.empty:
        raise StudyError(
            f"jump_verdict(): lambda_2 has no step from {step[0]:g} to {step[1]:g} among its values"
        )
    pair = ["task", "sensitive"]
    abrupt = (
        here["gain per doubling"] == steps.groupby(pair)["gain per doubling"].transform("max")[here.index]
    )
    doublings = np.log2(steps["to"].astype(float) / steps["from"].astype(float))  # infinite from 0 on
    least = (steps["fairness_gain_low"] / doublings).groupby([steps[c] for c in pair]).transform("max")
    slower = (here["fairness_gain_high"] / doublings[here.index]) < least[here.index]
    jumps = here["jumps"].where(abrupt | (here["jumps"] != "supported"), "inconclusive")
    jumps = beyond_seeds(jumps.where(~slower, "not supported"), here["n_seeds"])
    worst = [worst_of(found) for found in (jumps, here["stays"])]
    alone = (here["jumps_these_models"] == "supported") & abrupt
    never = ((here["jumps_these_models"] == "not supported") | slower).sum()
    nor = f", does not in {never}," if never else ""
    few, counted = of_seeds(here["n_seeds"].min())
    shared = f"at a level divided over {len(here)} pairs (Bonferroni), " if len(here) > 1 else ""
    text = (
        f"From lambda_2 = {step[0]:g} to {step[1]:g}, that certified fairness jumps is {worst[0]}, and that accuracy "
        f"stays is {worst[1]}{few}. Fairness jumps when the lower {100 * rule.confidence:g} % bound of its gain is at "
        f"least {rule.min_fairness_gain:g} points and no other step gains more per doubling of lambda_2; accuracy "
        f"stays when the upper bound of its loss is at most {rule.max_accuracy_loss:g} points; not so when the "
        "opposite bounds show it (for the jump also: that another step gains more per doubling), else "
        "inconclusive. Bounds are one-sided, "
        f"{shared}{counted}. Test points alone counted, fairness jumps in {alone.sum()} of {len(here)} pairs"
        f"{nor} and accuracy stays in {(here['stays_these_models'] == 'supported').sum()}."
    )
    return Verdict(worst_of(worst), text, steps)
