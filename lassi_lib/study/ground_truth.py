"""Do certificates hold for true counterfactuals? Only images that are drawn can be asked.

A certificate speaks of latents z + t A; that these are the same individual, only paler, is the flow's
claim. Faces of `synthfaces` and pictures of `shapes3d` can be drawn again with the factor behind the
sensitive attribute changed and nothing else. Their predictions are the truth that a certificate stands for
(ECCV 2022, supplement, Table 19); the distance of their latents from the similarity set says why it does,
or does not, reach them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lassi_lib.certification.modes import FAIR
from lassi_lib.errors import StudyError
from lassi_lib.study import vectors
from lassi_lib.study.cache import Stage
from lassi_lib.study.experiment import Experiment, Question, experiments_of
from lassi_lib.study.published import published
from lassi_lib.study.statistics import EXPERIMENT, clopper_pearson, parts_of, rated, summarise, with_ends
from lassi_lib.study.study import Study
from lassi_lib.study.verdicts import OUTCOMES, Verdict, tally, worst_of

if TYPE_CHECKING:
    import torch

MODE = [*EXPERIMENT, "mode"]
SAMPLES, DELTA = 2_000, 0.1  # of center smoothing at a counterfactual, see `true_answers`


# ---- drawing ---------------------------------------------------------------------------------------


def true_images(
    study: Study, attribute: str, values: Sequence[float], indices: Sequence[int]
) -> torch.Tensor:
    """Return test images (n positions) drawn again with one factor at v values, uint8 [n, v, 3, S, S].

    Faces: +1 clearly shows the attribute, -1 clearly does not. 3D Shapes: the factor's codes 0, 1, ...

    Raises
    ------
    StudyError
        If the data set cannot be drawn, the attribute has no factor, or the factor no such value.
    """
    import torch

    data, p = study.dataset("test"), study.pipeline.data
    if p.name == "shapes3d":
        from lassi_lib.data.shapes3d import read_shapes, variations

        every = variations(data.ids[np.asarray(indices)], attribute)
        if not set(values) <= set(range(every.shape[1])):
            raise StudyError(
                f"'{attribute}' has the values 0..{every.shape[1] - 1}, not all of {list(values)}"
            )
        chosen = every[:, [int(v) for v in values]]
        where = {"source": p.source, "data_root": study.data_root, "image_size": p.image_size}
        return read_shapes(chosen, **where).unflatten(0, chosen.shape)
    if p.name != "synthfaces":
        raise StudyError(f"'{p.name}' holds photographs: true counterfactuals need a data set that is drawn")
    from lassi_lib.data.synthfaces import render_counterfactual

    factor = vectors.factor_behind(attribute)
    return torch.stack([render_counterfactual(data, indices, factor, float(v)) for v in values], dim=1)


def true_latents(study: Study, attribute: str, values: Sequence[float]) -> torch.Tensor:
    """Return the latents of all certified test images' `true_images`, float32 [n, v, d]."""

    def make() -> torch.Tensor:
        import torch

        images = true_images(study, attribute, values, _positions(study))
        z = torch.cat([study.encode(block) for block in images.flatten(0, 1).split(256)])
        return z.unflatten(0, images.shape[:2])

    return study.once((study.latents_stage("test").key, attribute, tuple(values)), make)


def _positions(study: Study) -> np.ndarray:
    """Return which test images are certified."""
    return np.arange(0, study.latent_facts("test")["images"], study.pipeline.certification.test_every)


# ---- predictions at true counterfactuals -------------------------------------------------------------


def true_answers(study: Study, experiments: Iterable[Experiment], values: Sequence[float]) -> pd.DataFrame:
    """Return what the models say of each certified image's counterfactuals, attribute by attribute.

    One row per experiment, attribute, point and value: `decision` is argmax C(R(z')), `prediction` that of the
    smoothed models (-1 where they abstain). No radius is asked for, so fewer samples do (`SAMPLES`), with
    a Delta (`DELTA`) that keeps abstention as rare as in the certificates.
    """
    parts = []
    for e in experiments:
        for attribute in e.sensitive:
            part = answers(study, e, attribute, values)
            parts.append(part.assign(**e.columns(), attribute=attribute))
    return pd.concat(parts, ignore_index=True)


def steps(study: Study, given: dict[str, Any]) -> Iterator[tuple[Study, Stage, str, tuple]]:
    """Yield what notebook 06 asks beside certificates, for the plan: study, stage, verb, arguments."""
    values = tuple(given["values"])
    for e in experiments_of(study.pipeline, given):
        for a in e.sensitive:
            yield study, _answers_stage(study, e, a, values), "truth", (e, a, values)


def answers(study: Study, e: Experiment, attribute: str, values: Sequence[float]) -> pd.DataFrame:
    """Return `true_answers` of one experiment and attribute, from the stage cache."""
    stage = _answers_stage(study, e, attribute, values)
    return study.cache.rows(stage, lambda: _answers(study, e, attribute, values))


def _answers_stage(study: Study, e: Experiment, attribute: str, values: Sequence[float]) -> Stage:
    params = {"attribute": attribute, "values": list(values), "samples": SAMPLES, "delta": DELTA}
    return Stage("truth", 1, params, (study.certificates_stage(e).key,))


def _answers(study: Study, e: Experiment, attribute: str, values: Sequence[float]) -> pd.DataFrame:
    import torch

    from lassi_lib.certification.certify import certify
    from lassi_lib.certification.spec import required_n_radius

    positions, z = _positions(study), true_latents(study, attribute, values).flatten(0, 1)
    R, C = study.representation(e), study.classifier(e)
    with torch.no_grad():
        decision = torch.cat([C(R(part.to(study.device))).argmax(1).cpu() for part in z.split(1024)])
    similarity, spec = study.set_and_spec(e, Question())
    spec = replace(spec, n_center=min(SAMPLES, spec.n_center), delta=DELTA)
    smoothed = certify(
        R,
        C,
        similarity,
        z,
        np.zeros(len(z)),
        replace(spec, n_radius=required_n_radius(spec)),
        seed=e.seed,
        indices=(1 + np.arange(len(z))) * study.latent_facts("test")["images"],  # streams of their own
        workers=study.workers,
        device=study.device,
        label=f"truth of {attribute}, {e.label}",
    )
    answers = {"decision": decision.numpy(), "prediction": smoothed["prediction"].to_numpy()}
    return pd.DataFrame(
        {"index": positions.repeat(len(values)), "value": np.tile(values, len(positions))} | answers
    )


def kept(rows: pd.DataFrame, answers: pd.DataFrame) -> pd.DataFrame:
    """Return, per certificate and attribute, whether true counterfactuals keep the prediction.

    `rows` are certificates in one or several modes, `answers` the `true_answers` of the same experiments. Modes
    about the models as they are (exact_decision, empirical) are held against decisions, the others against
    smoothed predictions. Columns: the point and its `status`, whether that is `fair`, whether all
    counterfactuals get the point's own prediction (`kept`), and whether they `differ` from one another (as
    in Table 19; abstention is a class of its own).
    """
    both = rows[[*MODE, "seed", "index", "status", "prediction"]].merge(
        answers, on=[*EXPERIMENT, "seed", "index"], suffixes=("", "_true")
    )
    plain = both["mode"].isin(("exact_decision", "empirical"))
    both["truth"] = both["decision"].where(plain, both["prediction_true"])
    both["kept"] = both["truth"] == both["prediction"]
    grouped = both.groupby([*MODE, "seed", "attribute", "index"], sort=False)
    table = grouped.agg(status=("status", "first"), kept=("kept", "all"), classes=("truth", "nunique"))
    table = table.reset_index().assign(differ=lambda t: t["classes"] > 1).drop(columns="classes")
    return table.assign(fair=table["status"].isin(FAIR))


def truth_table(points: pd.DataFrame, rows: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Return one row per experiment, mode and attribute: rates, EmpUnfair, and whether certificates hold.

    `emp_unfair` is the share of points (`kept`) whose true counterfactuals differ, `kept_fair` the share of those
    found fair that keep their prediction on all of them, `kept_others` that of all others (who may keep abstaining), in percent;
    `n_fair`, `n_others` and `n_broken` (found fair, not kept) are counts over all seeds. Intervals of the kept shares
    are Clopper and Pearson's for these trained models: seeds judge the same points and count as one.
    """
    rates = summarise(rows, MODE, confidence)
    shown = [f"{rate}{end}" for rate in ("accuracy", "certified_fairness") for end in ("", "_low", "_high")]
    table = []
    for row, part in parts_of(points, (*MODE, "attribute")):
        m, groups = part["seed"].nunique(), {"fair": part[part["fair"]], "others": part[~part["fair"]]}
        differ = part.sort_values(["seed", "index"])["differ"].to_numpy().reshape(m, -1)
        row |= {f"n_{name}": len(group) for name, group in groups.items()}
        row |= rated("emp_unfair", differ, confidence)
        for name, group in groups.items():
            k, n = int(group["kept"].sum()), len(group)
            ends = (k / n, *clopper_pearson(k / m, n / m, confidence)) if n else (np.nan,) * 3
            row |= with_ends(f"kept_{name}", *(100 * x for x in ends))
        table.append(row | {"n_broken": int((part["fair"] & ~part["kept"]).sum())})
    return rates[[*MODE, "n_seeds", "n_points", *shown]].merge(pd.DataFrame(table), on=MODE)


def readable_truth(table: pd.DataFrame) -> pd.DataFrame:
    """Return what a reader needs of the `truth_table`."""
    shown = ["task", "sensitive", "attribute", "method", "mode", "n_seeds", "n_points", "n_fair", "n_broken"]
    rates = ("kept_fair", "kept_others", "emp_unfair")
    table = table[[*shown, *(f"{rate}{end}" for rate in rates for end in ("", "_low", "_high"))]]
    return table.rename(columns={"n_fair": "found fair", "n_broken": "broken"})


def beside_table_19(table: pd.DataFrame) -> pd.DataFrame:
    """Return Table 19 of the ECCV supplement, and our `truth_table` beside it where it has the same pair."""
    keys, names = ["task", "sensitive", "method", "metric"], {"": "ours", "_low": "low", "_high": "high"}
    theirs = published(source="eccv2022", table="Supp. Table 19")[[*keys, "value"]]
    ours = table[(table["mode"] == "monte_carlo") & table["sensitive"].isin(theirs["sensitive"])]
    parts = [theirs.rename(columns={"value": "published"})]
    for metric in theirs["metric"].unique():
        found = ours.rename(columns={metric + end: name for end, name in names.items()})
        parts.append(found.assign(metric=metric)[[*keys, *names.values()]])
    both = pd.concat(parts).groupby(keys, sort=False, as_index=False).first()  # of each column what is there
    within = both["published"].between(both["low"], both["high"]).astype("boolean")
    both["within_interval"] = within.where(both[["published", "low"]].notna().all(axis=1))
    return both.assign(metric=both["metric"].str.replace("_", " "))


# ---- why: where true counterfactuals lie --------------------------------------------------------------


def true_distances(study: Study, experiments: Iterable[Experiment], values: Sequence[float]) -> pd.DataFrame:
    """Return how near the similarity sets come to true counterfactuals, per set and attribute.

    `displacement` is the root mean square of ||z' - z|| over points and values; `left %` what remains of it
    after the best step within the set, `left by any epsilon %` after the best step in the set's span, and
    `needed epsilon` the median of the epsilon that this step takes.
    """
    from lassi_lib.similarity.diagnostics import distance_to_set

    rows = {}
    for e in experiments:
        similarity, stages = study.similarity(e.sensitive, e.vector_type, e.task), study.vector_stages(e)
        for attribute in e.sensitive:

            def make(attribute: str = attribute, similarity=similarity) -> pd.DataFrame:
                z = study.latents("test")[_positions(study)]
                moved = true_latents(study, attribute, values) - z[:, None]
                return pd.DataFrame(distance_to_set(moved.flatten(0, 1), similarity))

            params = {"attribute": attribute, "values": list(values), "epsilon": similarity.epsilon}
            params["test_every"] = study.pipeline.certification.test_every
            parents = (study.latents_stage("test").key, *(stage.key for stage in stages))
            stage = Stage("distance", 1, params, parents)
            if stage.key in rows:
                continue
            found = study.cache.rows(stage, make)
            length, left, outside = ((found[c] ** 2).mean() ** 0.5 for c in ("length", "distance", "outside"))
            row = {"sensitive": "+".join(e.sensitive), "attribute": attribute, "displacement": length}
            row |= {"left %": 100 * left / length, "left by any epsilon %": 100 * outside / length}
            row |= {"needed epsilon": found["needed"].median(), "epsilon": similarity.epsilon}
            rows[stage.key] = row
    return pd.DataFrame(list(rows.values()))


# ---- verdict ------------------------------------------------------------------------------------------


def ground_truth_verdict(
    table: pd.DataFrame, min_kept: float, methods: Sequence[str] = ("LASSI",), confidence: float = 0.95
) -> Verdict:
    """Judge whether the published certificate holds for true counterfactuals, by the `truth_table`.

    An attribute of a pair is supported when the lower bound of `kept_fair` is at least `min_kept` percent,
    not supported when the upper bound falls short, else inconclusive; where nothing was certified there is
    nothing to judge. Bounds are one-sided at `confidence`, divided over the rows that are judged
    (Bonferroni), for these trained models; the answers of several seeds about one face count as one answer.
    """
    shown = ["task", "sensitive", "attribute", "method", "n_seeds", "n_fair", "n_broken", "kept_fair"]
    table = table[table["method"].isin(list(methods))]
    judged = table[table["mode"] == "monte_carlo"].reset_index(drop=True)
    if judged.empty:
        raise StudyError(
            f"ground truth: no certificates of {', '.join(methods)} to judge: ask for monte_carlo"
        )
    empty = judged["n_fair"] == 0
    n = judged["n_fair"] / judged["n_seeds"]
    level = 1 - 2 * (1 - confidence) / max(1, (~empty).sum())
    low, high = clopper_pearson(n - judged["n_broken"] / judged["n_seeds"], n, level)
    judged = judged[shown].assign(
        kept_fair_low=100 * low, kept_fair_high=100 * high, kept_others=judged["kept_others"]
    )
    short, enough = judged["kept_fair_high"] < min_kept, judged["kept_fair_low"] >= min_kept
    named = ["nothing certified", "supported", "not supported"]
    judged["outcome"] = np.select([empty, enough, short], named, "inconclusive")
    outcome = worst_of(judged["outcome"]) if not empty.all() else "inconclusive"
    text = (
        f"That certificates of {' and '.join(methods)} hold for true counterfactuals is {outcome}: of "
        f"{len(judged)} judged rows (an attribute of a pair, for one method) {tally(judged['outcome'], (*OUTCOMES, named[0]))}. An attribute is supported when the lower "
        f"{100 * confidence:g} % bound of the share of certified points that keep their prediction is at least "
        f"{min_kept:g} %, not supported when the upper bound falls short, else inconclusive (one-sided bounds "
        f"for these trained models, Bonferroni over those with certified points; the answers of several seeds about "
        f"one face count as one)."
    )
    for mode, words in (("monte_carlo", "certified"), ("exact_decision", "exactly verified")):
        part = table[table["mode"] == mode]
        if part["n_fair"].sum():
            text += f" Of {part['n_fair'].sum():,} {words} points, {part['n_broken'].sum():,} change theirs."
    return Verdict(outcome, text, judged)
