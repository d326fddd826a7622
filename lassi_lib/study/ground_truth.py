"""Do certificates hold for true counterfactuals? Only images that are drawn can be asked.

A certificate speaks of latents z + t A, and whether these are the same person, only paler, is the flow's
claim. Faces of `synthfaces` and pictures of `shapes3d` can be drawn again with the factor behind the
sensitive attribute changed and nothing else. Their decisions are the truth that a certificate stands for
(ECCV 2022, supplement, Table 19), and the distance of their latents from the similarity set says why it
does, or does not, reach them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lassi_lib.certification.modes import FAIR
from lassi_lib.errors import StudyError
from lassi_lib.study.cache import Stage
from lassi_lib.study.experiment import Experiment, Question
from lassi_lib.study.published import published
from lassi_lib.study.statistics import EXPERIMENT, clopper_pearson, rate_interval, summarise
from lassi_lib.study.study import Study
from lassi_lib.study.verdicts import OUTCOMES, Verdict

if TYPE_CHECKING:
    import torch

    from lassi_lib.similarity.sets import SimilaritySet

POINT = [*EXPERIMENT, "seed", "mode", "attribute", "index"]
SAMPLES, DELTA = 2_000, 0.1  # of center smoothing at a counterfactual, see `true_answers`


# ---- drawing ---------------------------------------------------------------------------------------


def true_images(
    study: Study, attribute: str, values: Sequence[float], indices: Sequence[int]
) -> torch.Tensor:
    """Return test images drawn again with one factor changed, uint8 [n, v, 3, S, S].

    Parameters
    ----------
    study : Study
        On rendered images.
    attribute : str
        A sensitive attribute, or a factor of 3D Shapes.
    values : sequence of float
        v values of the factor. Faces: +1 clearly shows the attribute, -1 clearly does not. 3D Shapes: codes
        0, 1, ...
    indices : sequence of int
        n positions in the test split.

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
        images = read_shapes(
            chosen, source=p.source, data_root=study.data_root, image_size=p.image_size, label=attribute
        )
        return images.unflatten(0, chosen.shape)
    if p.name != "synthfaces":
        raise StudyError(f"'{p.name}' holds photographs: true counterfactuals need a data set that is drawn")
    from lassi_lib.data.synthfaces import factor_of, render_counterfactual

    factor = factor_of(attribute)
    if factor is None:
        raise StudyError(f"attribute '{attribute}' has no factor that could be drawn: choose another one")
    return torch.stack([render_counterfactual(data, indices, factor, float(v)) for v in values], dim=1)


def true_latents(study: Study, attribute: str, values: Sequence[float]) -> torch.Tensor:
    """Return the latents of the certified test images' counterfactuals (`true_images`), float32 [n, v, d]."""

    def make() -> torch.Tensor:
        import torch

        from lassi_lib.data.preprocess import quantise

        images = true_images(study, attribute, values, _positions(study))
        blocks = quantise(images.flatten(0, 1), study.pipeline.data.bits).split(256)
        z = torch.cat([study.glow().encode(x.to(study.device)).cpu() for x in blocks])
        return z.unflatten(0, images.shape[:2])

    return study._once(("true latents", attribute, tuple(values)), make)


def _positions(study: Study) -> np.ndarray:
    """Return which test images are certified."""
    n = study.latent_facts("test")["images"]
    return np.arange(0, n, study.pipeline.certification.test_every)


# ---- decisions at true counterfactuals ---------------------------------------------------------------


def true_answers(study: Study, experiments: Iterable[Experiment], values: Sequence[float]) -> pd.DataFrame:
    """Return what the models say of each certified image's counterfactuals, attribute by attribute.

    Returns
    -------
    pandas.DataFrame
        One row per experiment, attribute, point and value: `decision` is argmax C(R(z')), `prediction` that
        of the smoothed models (-1 where they abstain). No radius is asked for here, so fewer samples do
        (`SAMPLES`), with a larger Delta (`DELTA`) that makes abstention as rare as in the certificates.
    """
    parts = []
    for e in experiments:
        for attribute in e.sensitive:
            params = {"attribute": attribute, "values": list(values), "samples": SAMPLES, "delta": DELTA}
            stage = Stage("truth", 1, params, (study._certificates_stage(e).key,))
            part = _table(study, stage, lambda e=e, a=attribute: _answers(study, e, a, values))
            parts.append(part.assign(**e.columns(), attribute=attribute))
    return pd.concat(parts, ignore_index=True)


def _answers(study: Study, e: Experiment, attribute: str, values: Sequence[float]) -> pd.DataFrame:
    import torch

    from lassi_lib.certification.certify import certify
    from lassi_lib.certification.spec import required_n_radius

    positions, z = _positions(study), true_latents(study, attribute, values)
    table = pd.DataFrame({"index": positions.repeat(len(values)), "value": np.tile(values, len(positions))})
    representation, classifier = study.representation(e), study.classifier(e)
    with torch.no_grad():
        logits = [classifier(representation(part.to(study.device))) for part in z.flatten(0, 1).split(1024)]
    table["decision"] = torch.cat(logits).argmax(1).cpu().numpy()
    similarity, spec = study._asked(e, Question())
    spec = replace(spec, n_center=min(SAMPLES, spec.n_center), delta=DELTA)
    smoothed = certify(
        representation,
        classifier,
        similarity,
        z.flatten(0, 1),
        np.zeros(len(table)),
        replace(spec, n_radius=required_n_radius(spec)),
        seed=e.seed,
        indices=(1 + np.arange(len(table))) * study.latent_facts("test")["images"],  # streams of their own
        workers=study.workers,
        device=study.device,
        label=f"truth of {attribute}, {e.label}",
    )
    return table.assign(prediction=smoothed["prediction"].to_numpy())


def _table(study: Study, stage: Stage, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """Return a cached table."""
    folder = study.cache.fetch(stage, lambda folder: make().to_csv(folder / "rows.csv", index=False))
    return pd.read_csv(folder / "rows.csv")


def kept(rows: pd.DataFrame, answers: pd.DataFrame) -> pd.DataFrame:
    """Return, per certificate and attribute, whether the true counterfactuals keep its decision.

    Parameters
    ----------
    rows : pandas.DataFrame
        Certificates of `Study.run` in one or several modes. Modes about the models as they are
        (exact_decision, empirical) are held against decisions, the others against smoothed predictions.
    answers : pandas.DataFrame
        Of `true_answers`, for the same experiments.

    Returns
    -------
    pandas.DataFrame
        Columns `POINT`, the certificate's status, `fair`, `kept` (all counterfactuals get the point's own
        prediction) and `differ` (they do not all get the same one, as in Table 19; abstention is a class).
    """
    own = [*EXPERIMENT, "seed", "mode", "index", "status", "prediction"]
    both = rows[own].merge(answers, on=[*EXPERIMENT, "seed", "index"], suffixes=("", "_true"))
    plain = both["mode"].isin(("exact_decision", "empirical"))
    both["truth"] = both["decision"].where(plain, both["prediction_true"])
    both["kept"] = both["truth"] == both["prediction"]
    grouped = both.groupby(POINT, sort=False)
    table = grouped.agg(status=("status", "first"), kept=("kept", "all"), classes=("truth", "nunique"))
    table = table.reset_index().assign(differ=lambda t: t["classes"] > 1).drop(columns="classes")
    return table.assign(fair=table["status"].isin(FAIR))


def truth_table(points: pd.DataFrame, rows: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Return one row per experiment, mode and attribute: rates, EmpUnfair, and whether certificates hold.

    `emp_unfair` is the share of points whose true counterfactuals get different predictions (Table 19).
    `kept_fair` is the share of points found fair that keep their decision on all true counterfactuals,
    `kept_others` that of all other points; `n_fair` and `n_broken` count points found fair and, among
    them, those that do not keep it (over all seeds). All intervals at `confidence`. Those of `kept` are Clopper
    and Pearson's for these trained models: the seeds judge the same points, and so several count as one.
    """
    summary = summarise(rows.reindex(columns=dict.fromkeys([*rows.columns, "d_cs", "d_rs"])),
                        (*EXPERIMENT, "mode"), confidence)  # fmt: skip
    table = []
    for key, part in points.groupby([*EXPERIMENT, "mode", "attribute"], sort=False):
        row = dict(zip((*EXPERIMENT, "mode", "attribute"), key, strict=True))
        differ = part.sort_values(["seed", "index"])["differ"].to_numpy().reshape(part["seed"].nunique(), -1)
        low, high = rate_interval(differ, confidence)
        row |= _percent("emp_unfair", differ.mean(), low, high)
        for name, group in (("fair", part[part["fair"]]), ("others", part[~part["fair"]])):
            k, n, m = int(group["kept"].sum()), len(group), len(differ)
            low, high = clopper_pearson(k / m, n / m, confidence) if n else (np.nan, np.nan)
            row |= {f"n_{name}": n} | _percent(f"kept_{name}", k / n if n else np.nan, low, high)
        table.append(row | {"n_broken": row["n_fair"] - int(part[part["fair"]]["kept"].sum())})
    shown = [c for c in summary if c.startswith(("accuracy", "certified_fairness")) and not c.endswith("_sd")]
    keys = [*EXPERIMENT, "mode"]
    return summary[[*keys, "n_seeds", "n_points", *shown]].merge(pd.DataFrame(table), on=keys)


def _percent(name: str, value: float, low: float, high: float) -> dict[str, float]:
    return {name: 100 * value, f"{name}_low": 100 * low, f"{name}_high": 100 * high}


def readable_truth(table: pd.DataFrame) -> pd.DataFrame:
    """Return what a reader needs of the `truth_table`."""
    shown = ["task", "sensitive", "attribute", "method", "mode", "n_seeds", "n_points", "n_fair", "n_broken"]
    rates = ("kept_fair", "kept_others", "emp_unfair")
    return table[[*shown, *(f"{rate}{end}" for rate in rates for end in ("", "_low", "_high"))]]


def beside_table_19(table: pd.DataFrame) -> pd.DataFrame:
    """Return Table 19 of the ECCV supplement, and our `truth_table` beside it where it has the same pair."""
    keys = ["task", "sensitive", "method", "metric"]
    theirs = published(source="eccv2022", table="Supp. Table 19")[[*keys, "value"]]
    pair = (table["task"] == theirs["task"][0]) & (table["sensitive"] == theirs["sensitive"][0])
    ours = table[pair & (table["mode"] == "monte_carlo")]
    names = {"": "ours", "_low": "low", "_high": "high"}
    parts = [
        ours.assign(metric=metric, **{new: ours[metric + end] for end, new in names.items()})[
            [*keys, *names.values()]
        ]
        for metric in theirs["metric"].unique()
    ]
    both = theirs.rename(columns={"value": "published"}).merge(
        pd.concat(parts), on=keys, how="outer", sort=False
    )
    return both.assign(metric=both["metric"].str.replace("_", " "))


# ---- why: where true counterfactuals lie --------------------------------------------------------------


def distance_to_set(displacement: np.ndarray, similarity: SimilaritySet) -> pd.DataFrame:
    """Return how far displacements z' - z lie from the similarity set {t A : ||t|| <= epsilon}.

    With the principal axes of A (lengths s_k, directions v_k; `principal_axes`) the set is an ellipsoid
    of half axes epsilon s_k. The nearest point to c_k = <z' - z, v_k> within it is
    c_k s_k^2 / (s_k^2 + mu), mu >= 0 being 0 where that lies inside, else what puts it on the boundary.

    Parameters
    ----------
    displacement : numpy.ndarray
        [m, d].
    similarity : SimilaritySet
        Any number of vectors.

    Returns
    -------
    pandas.DataFrame
        [m] rows: `length` of the displacement, its `distance` from the set, its distance from the set's
        span (`outside`: from a set with any epsilon), and `needed`, the epsilon whose set reaches its
        projection onto the span.
    """
    from lassi_lib.similarity.vectors import principal_axes

    axes = principal_axes(similarity.vectors).double().numpy()
    s = np.linalg.norm(axes, axis=1)
    delta = np.asarray(displacement, dtype=np.float64)
    c, epsilon = delta @ (axes / s[:, None]).T, similarity.epsilon
    length = np.linalg.norm(delta, axis=1)
    outside = np.linalg.norm(delta - c @ (axes / s[:, None]), axis=1)
    needed = np.linalg.norm(c / s, axis=1)

    def coefficients(mu: np.ndarray) -> np.ndarray:
        return c * s / (s**2 + mu[:, None])

    low, high = np.zeros(len(c)), np.linalg.norm(c * s, axis=1) / epsilon  # ||t(mu)|| <= ||s c|| / mu
    for _ in range(80):
        mu = (low + high) / 2
        far = np.linalg.norm(coefficients(mu), axis=1) > epsilon
        low, high = np.where(far, mu, low), np.where(far, high, mu)
    nearest = np.where((needed <= epsilon)[:, None], c, coefficients(high) * s)
    distance = np.hypot(outside, np.linalg.norm(c - nearest, axis=1))
    return pd.DataFrame({"length": length, "distance": distance, "outside": outside, "needed": needed})


def true_distances(study: Study, experiments: Iterable[Experiment], values: Sequence[float]) -> pd.DataFrame:
    """Return how near the similarity sets come to true counterfactuals, per set and attribute.

    Lengths are root mean squares over points and values, in latent units. `left %` is what remains of the
    displacement z' - z after the best step within the set, `left by any epsilon %` after the best step in its span;
    `needed epsilon` is the median over points and values of the epsilon that this step takes.
    """
    rows = []
    distinct = {(e.sensitive, e.vector_type, e.task): e for e in experiments}
    seen = {}
    for e in distinct.values():
        spanned = tuple(stage.key for stage in study._vector_stages(e))
        seen.setdefault(spanned, e)
    for spanned, e in seen.items():
        similarity = study.similarity(e.sensitive, e.vector_type, e.task)
        for attribute in e.sensitive:
            params = {"attribute": attribute, "values": list(values), "epsilon": similarity.epsilon}
            params["test_every"] = study.pipeline.certification.test_every
            stage = Stage("distance", 1, params, (study._latents_stage("test").key, *spanned))
            found = _table(study, stage, lambda s=similarity, a=attribute: _distances(study, s, a, values))
            length, distance, outside = ((found[c] ** 2).mean() ** 0.5 for c in found.columns[:3])
            row = {"sensitive": "+".join(e.sensitive), "attribute": attribute, "displacement": length}
            row |= {"left %": 100 * distance / length, "left by any epsilon %": 100 * outside / length}
            rows.append(row | {"needed epsilon": found["needed"].median(), "epsilon": similarity.epsilon})
    return pd.DataFrame(rows)


def _distances(
    study: Study, similarity: SimilaritySet, attribute: str, values: Sequence[float]
) -> pd.DataFrame:
    z = study.latents("test")[_positions(study)]
    moved = true_latents(study, attribute, values) - z[:, None]
    return distance_to_set(moved.flatten(0, 1).numpy(), similarity)


# ---- verdict ------------------------------------------------------------------------------------------


def ground_truth_verdict(
    table: pd.DataFrame, min_kept: float, method: str = "LASSI", confidence: float = 0.95
) -> Verdict:
    """Judge whether the published certificate holds for true counterfactuals, by the `truth_table`.

    An attribute of a pair is supported when the lower bound of `kept_fair` is at least `min_kept` percent,
    not supported when the upper bound falls short, else (or if nothing was certified) inconclusive.
    Bounds are one-sided at `confidence`, divided over the rows (Bonferroni), for these trained models.

    Raises
    ------
    StudyError
        If the table has no certificates of the method.
    """
    shown = [
        "task",
        "sensitive",
        "attribute",
        "method",
        "n_seeds",
        "n_fair",
        "n_broken",
        "kept_fair",
        "kept_others",
    ]
    judged = table[(table["mode"] == "monte_carlo") & (table["method"] == method)][shown].reset_index(
        drop=True
    )
    if judged.empty:
        raise StudyError(f"ground truth: no certificates of method '{method}' to judge: ask for monte_carlo")
    n = judged["n_fair"] / judged["n_seeds"]
    level = 1 - 2 * (1 - confidence) / len(judged)
    low, high = clopper_pearson(n - judged["n_broken"] / judged["n_seeds"], n, level)
    judged["kept_fair_low"], judged["kept_fair_high"] = 100 * low, 100 * high
    judged["outcome"] = np.select(
        [judged["kept_fair_low"] >= min_kept, judged["kept_fair_high"] < min_kept], ["supported", "not supported"],
        "inconclusive",
    )  # fmt: skip
    found = set(judged["outcome"])
    outcome = next(o for o in ("not supported", "inconclusive", "supported") if o in found)
    tally = ", ".join(f"{(judged['outcome'] == o).sum()} {o}" for o in OUTCOMES)
    total, broken = int(judged["n_fair"].sum()), int(judged["n_broken"].sum())
    text = (
        f"That certificates hold for true counterfactuals is {outcome}: of {len(judged)} attributes of pairs "
        f"{tally}. Of {total:,} certified points {broken:,} change their prediction on a true counterfactual. "
        f"An attribute is supported when the lower {100 * confidence:g} % bound of the share of certified points that keep "
        f"theirs is at least {min_kept:g} %, not supported when the upper bound falls short, else inconclusive "
        f"(one-sided Clopper-Pearson bounds for these trained models, Bonferroni over {len(judged)})."
    )
    return Verdict(outcome, text, judged)
