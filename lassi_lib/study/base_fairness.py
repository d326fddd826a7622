"""Classifiers without any fairness, and how often a decision changes at similar points.

ECCV 2022, supplement, Tables 5 to 7, 13 and 15. A grid or a pair of end points can refute fairness and
never show it: every share of constant decisions is an upper bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from lassi_lib.certification.modes import ABSTAINED
from lassi_lib.study import vectors
from lassi_lib.study.annotations import Annotations
from lassi_lib.study.cache import Stage
from lassi_lib.study.experiment import Experiment, Question, experiments_of, parse_pair
from lassi_lib.study.published import published
from lassi_lib.study.statistics import EXPERIMENT, outcomes, parts_of, rated, summarise
from lassi_lib.study.study import Study
from lassi_lib.study.verdicts import Verdict, beyond_seeds, decided, of_seeds, tally, worst_of

NETWORKS = {"ResNet18": "resnet18", "zG_classifier": "latent"}  # as the supplement calls them
_FRESH = 1_000_000_007  # numbers of points, so that end points draw noise of their own


def base_rows(
    study: Study, pairs: Iterable[str], methods: Iterable[str], seeds: Iterable[int], splits: Iterable[str]
) -> pd.DataFrame:
    """Return the decisions of base classifiers: a row per pair, method, seed, split and point.

    A pair 'Smiling/Young' is examined on the grid of Table 7: status PASSED if the decision is the same at
    all of its points, REFUTED otherwise. Of a task alone, 'Smiling', the decisions are noted (UNDECIDED).
    ResNet18 reads the images that the flow makes of the latents, zG_classifier the latents.

    Parameters
    ----------
    study : Study
        The study; vectors are of its pipeline's kind.
    pairs : iterable of str
        Pairs, or tasks alone.
    methods : iterable of str
        Names in `NETWORKS`: 'ResNet18', 'zG_classifier'.
    seeds : iterable of int
        Seeds of the classifiers' trainings.
    splits : iterable of str
        Splits of the data: 'valid', 'test'.
    """
    parts = []
    for e, split in product(_base_experiments(study, pairs, methods, seeds), splits):
        rows = decisions(study, e, split)
        parts.append(rows.assign(**e.columns(), split=split, label=study.labels(split, e.task)))
    return pd.concat(parts, ignore_index=True)


def _base_experiments(
    study: Study, pairs: Iterable[str], methods: Iterable[str], seeds: Iterable[int]
) -> Iterator[Experiment]:
    for pair, method, seed in product(pairs, methods, seeds):
        task, sensitive = parse_pair(pair) if "/" in pair else (pair, ())
        yield Experiment(study.pipeline.data.name, task, sensitive, study.pipeline.vector_type, method, seed)


def steps(study: Study, given: dict[str, Any]) -> Iterator[tuple[Study, Stage, str, tuple]]:
    """Yield what notebook 09 asks beside certificates, for the plan: study, stage, verb, arguments."""
    for method, tasks, pairs in (
        ("ResNet18", given["resnet_tasks"], given["resnet_pairs"]),
        ("zG_classifier", given["tasks"], given["base_pairs"]),
    ):
        for asked, splits in ((tasks, ("valid", "test")), (pairs, given["base_splits"])):
            for e in _base_experiments(study, asked, [method], given["base_seeds"]):
                base = (NETWORKS[method], e.task, e.seed)
                yield study, vectors.base_classifier_stage(study, *base), "base", base
                for named in ((a, e.vector_type, e.task) for a in e.sensitive):
                    yield study, vectors.vector_stage(study, *named), "vector", named
                for split in splits:
                    yield study, _decisions_stage(study, e, split), "decisions", (e, split)
    for e in experiments_of(study.pipeline, given):
        yield study, _endpoints_stage(study, e), "endpoints", (e,)


def decisions(study: Study, e: Experiment, split: str) -> pd.DataFrame:
    """Return one base classifier's decisions on a split (see `base_rows`), from the stage cache."""
    return study.cache.rows(_decisions_stage(study, e, split), lambda: _examine(study, e, split))


def _decisions_stage(study: Study, e: Experiment, split: str) -> Stage:
    parents = (
        vectors.base_classifier_stage(study, NETWORKS[e.method], e.task, e.seed).key,
        study.latents_stage(split).key,
        *(v.key for v in study.vector_stages(e)),
    )
    return Stage("base_rows", 1, {"split": split, "epsilon": study.pipeline.certification.epsilon}, parents)


def _examine(study: Study, e: Experiment, split: str) -> pd.DataFrame:
    from lassi_lib.learning.empirical import constant_on_grid

    C, z = vectors.base_classifier(study, NETWORKS[e.method], e.task, e.seed), study.latents(split)

    def predict(z):
        return C.predict(study.glow().decode(z.to(study.device)) if C.kind == "resnet18" else z)

    if e.sensitive:
        similarity = study.similarity(e.sensitive, e.vector_type, e.task)
        prediction, constant = constant_on_grid(predict, similarity, z, label=e.label)
        status = np.where(constant, "PASSED", "REFUTED")
    else:
        prediction, status = np.concatenate([predict(part) for part in z.split(512)]), "UNDECIDED"
    return pd.DataFrame({"index": np.arange(len(z)), "prediction": prediction, "status": status})


def endpoint_rows(study: Study, experiments: Iterable[Experiment]) -> pd.DataFrame:
    """Return three answers for the same points, a row per point and `answer`.

    ``certified``: the certificate. ``end points, smoothed``: the whole smoothed pipeline run again at
    z +- epsilon a_k, with fresh noise; fair if nothing abstains and every prediction is the one at z (Table 13).
    ``end points, plain``: the same of the unsmoothed argmax C(R(.)) (mode ``empirical``), another model with
    the same weights. `mismatch` marks certified points whose smoothed prediction changes.
    """
    parts = []
    for e in experiments:
        certified, plain = study.certificates(e), study.certificates(e, Question("empirical"))
        there = endpoint_predictions(study, e).to_numpy()
        same = (there == certified["prediction"].to_numpy()[:, None]).all(1)
        fair = np.where(same, "PASSED", "REFUTED")
        smoothed = certified.assign(
            status=certified["status"].where(certified["status"].isin(ABSTAINED), fair),
            mismatch=(certified["status"] == "CERTIFIED") & ~same,
        )
        plain = plain.assign(status=np.where(plain["fair_endpoints"], "PASSED", "REFUTED"))
        answers = {"certified": certified, "end points, smoothed": smoothed, "end points, plain": plain}
        parts += [rows.assign(answer=name) for name, rows in answers.items()]
    return pd.concat(parts, ignore_index=True)


def mismatch_text(rows: pd.DataFrame, allowed: float) -> str:
    """Say how many certified points change their smoothed class at an end point (`endpoint_rows`).

    `allowed` is the share that the certificate's failure probabilities allow. Beside it stands the count of
    the supplement, Appendix D.
    """
    certified = rows[(rows["answer"] == "certified") & (rows["status"] == "CERTIFIED")]
    changed = rows[rows["mismatch"].eq(True)]  # NaN in the other answers' rows
    runs = [*EXPERIMENT, "seed"]
    theirs = published(table="Supp. App. D text").set_index("metric")["value"].astype(int)
    total = theirs["combinations_total"]
    with_one = theirs["combinations_with_one_certified_but_mismatching_endpoint_sample"]
    return (
        f"Certified points with another class or an abstention at an end point: {len(changed)} of {len(certified):,} "
        f"(the certificate allows a share of {allowed:g}), in {changed.groupby(runs).ngroups} of "
        f"{rows.groupby(runs).ngroups} runs. In print {with_one} of {total} runs have one such point each."
    )


def endpoint_predictions(study: Study, e: Experiment) -> pd.DataFrame:
    """Return the smoothed predictions at z +- epsilon a_k, a column per end point, from the stage cache.

    -1 where the smoothed model abstains, at the point itself or there, and where an earlier end point's
    prediction is another already: the point's answer is known.
    """
    return study.cache.rows(_endpoints_stage(study, e), lambda: _at_endpoints(study, e), "predictions")


def _endpoints_stage(study: Study, e: Experiment) -> Stage:
    return Stage("endpoints", 1, {}, (study.certificates_stage(e).key,))


def _at_endpoints(study: Study, e: Experiment) -> pd.DataFrame:
    rows = study.certificates(e)
    left = rows[~rows["status"].isin(ABSTAINED)]  # a point is asked until its prediction changes
    predictions = pd.DataFrame(index=rows.index)
    for k, _ in enumerate(study.set_and_spec(e, Question())[0].endpoints(), 1):
        # kept one by one: with three attributes, one takes a quarter of an hour
        part = Stage("end_point", 1, {"k": k}, (_endpoints_stage(study, e).key,))
        there = study.cache.rows(part, partial(_at_endpoint, study, e, k, left), part=True)["prediction"]
        predictions[f"end point {k}"] = pd.Series(there.to_numpy(), left.index).reindex(
            rows.index, fill_value=-1
        )
        left = left[there.to_numpy() == left["prediction"]]
    return predictions


def _at_endpoint(study: Study, e: Experiment, k: int, asked: pd.DataFrame) -> pd.DataFrame:
    """Return the smoothed predictions at the k-th end point (from 1) of the points `asked`."""
    from lassi_lib.certification.certify import certify
    from lassi_lib.certification.spec import required_n_radius

    similarity, spec = study.set_and_spec(e, Question())
    spec = replace(spec, n_radius=required_n_radius(spec))  # predictions know no radius: as few as it takes
    if asked.empty:
        return asked[["prediction"]]
    number = asked["index"].to_numpy(copy=True)  # writable, as PyTorch wants it
    z = similarity.points(study.latents("test")[number], similarity.endpoints()[k - 1][None])
    return certify(
        study.representation(e), study.classifier(e), similarity, z, asked["label"], spec, seed=e.seed,
        indices=number + k * _FRESH, workers=study.workers, device=study.device, label=f"end point {k} {e.label}",
    )[["prediction"]]  # fmt: skip


def fairness_table(rows: pd.DataFrame, table: str, by: Iterable[str], confidence: float) -> pd.DataFrame:
    """Return shares of constant decisions per experiment and `by`, and those of a published `table` beside."""
    by = list(by)
    ours = summarise(rows, (*EXPERIMENT, *by), confidence)
    names = {f"certified_fairness{end}": f"constant{end}" for end in ("", "_low", "_high")}
    shown = [*EXPERIMENT[1:], *by, "n_seeds", "n_points", *names, "constant_would_do"]
    ours = ours[shown].rename(columns=names)
    keys = ["task", "sensitive", "vector_type", "method", *(c for c in by if c == "split")]
    theirs = published(table=table)[[*keys, "value"]].rename(columns={"value": "eccv"})
    ours = ours.merge(theirs, on=keys, how="left").drop(columns="vector_type")
    if "answer" in ours:  # Table 13 is about one of the answers
        ours["eccv"] = ours["eccv"].where(ours["answer"] == "end points, smoothed")
        ours["mismatches"] = ours.merge(
            rows.groupby(["task", "sensitive", "method", "answer"])["mismatch"].sum().reset_index(), how="left"
        )["mismatch"].fillna(0).astype(int)  # fmt: skip
    return ours


def accuracy_table(
    rows: pd.DataFrame, labels: dict[str, Annotations], confidence: float = 0.95
) -> pd.DataFrame:
    """Return accuracies of base classifiers beside Supp. Tables 6 and 15, per task, split and method.

    The majority rate is ours, as printed, recomputed for the same points from CelebA's label file where it
    is at hand (the whole validation split, every 64th test image), and over all of CelebA, as shipped.
    """
    keys = ["task", "split", "method"]
    ours = summarise(rows, keys, confidence)
    shown = ("n_seeds", "n_points", "accuracy", "accuracy_low", "accuracy_high", "majority_rate")
    theirs = published(table=["Supp. Table 6", "Supp. Table 15"]).drop_duplicates([*keys, "metric"])
    theirs = theirs.rename(columns={"value": "eccv_accuracy"})
    majority = theirs[theirs["metric"] == "majority_class"].rename(columns={"eccv_accuracy": "eccv_majority"})
    table = ours[[*keys, *shown]].merge(
        theirs.loc[theirs["metric"] == "accuracy", [*keys, "eccv_accuracy"]], how="left"
    )
    table = table.merge(majority[["task", "split", "eccv_majority"]], how="left")
    celeba, law = labels.get("CelebA"), _shipped_rates()
    table["majority in label file"] = np.nan
    for i, (task, split) in enumerate(zip(table["task"], table["split"], strict=True)):
        if celeba and task in celeba.labels:
            of = celeba.subset("test", 312) if split == "test" else celeba.of_split(split)
            if of is not None:
                table.loc[i, "majority in label file"] = 100 * max(of[task].mean(), 1 - of[task].mean())
        table.loc[i, "majority in all of CelebA"] = 100 * max(
            law.get(task, np.nan), 1 - law.get(task, np.nan)
        )
    return table


def _shipped_rates() -> dict[str, float]:
    from lassi_lib.data.label_law import celeba_label_law

    return dict(zip(celeba_label_law().names, celeba_label_law().rates, strict=True))


def attribute_table(study: Study, attributes: Iterable[str], labels: dict[str, Annotations]) -> pd.DataFrame:
    """Return how common attributes are in training and how long their vectors, beside Supp. Table 5 (percent).

    `label file`: CelebA's training split, where its file is at hand; `all of CelebA`: the shipped rates.
    """
    facts, law, rows = published(table="Supp. Table 5"), _shipped_rates(), []
    train = labels["CelebA"].of_split("train") if "CelebA" in labels else pd.DataFrame()
    for a in attributes:
        printed = facts[facts["sensitive"] == a].set_index("metric")["value"]
        row = {"attribute": a, "positives, ECCV 2022": printed.get("pos_rate", np.nan)}
        row["label file"] = 100 * train[a].mean() if a in train else np.nan
        row |= {"all of CelebA": 100 * law.get(a, np.nan), "here": 100 * study.labels("train", a).mean()}
        row["length, ECCV 2022"] = printed.get("vector_norm", np.nan)
        rows.append(row | {"length here": float(study.vector(a).double().norm())})
    return pd.DataFrame(rows)


def change_verdict(rows: pd.DataFrame, min_changed: float, confidence: float = 0.95) -> Verdict:
    """Judge "an ordinary classifier changes its decision for at least `min_changed` percent of faces".

    A pair and method is supported when the lower bound of that share is at least `min_changed`, not
    supported when the upper bound is smaller, else inconclusive; bounds one-sided at `confidence`, divided
    over the rows (Bonferroni), over seeds and points. `outcome_these_models` leaves seeds out.
    """
    parts = list(parts_of(rows, ("task", "sensitive", "method")))
    level, table = 1 - 2 * (1 - confidence) / len(parts), []
    for row, part in parts:
        y = 1 - outcomes(part, "certified")
        for name, seeds in (("outcome_these_models", "fixed"), ("outcome", "random")):
            row |= rated("changed", y, level, seeds)
            row[name] = decided(row["changed_low"], row["changed_high"], min_changed)
        table.append(row)
    table, order = pd.DataFrame(table), ("supported", "inconclusive", "not supported")
    table["outcome"] = beyond_seeds(table["outcome"], rows["seed"].nunique())
    outcome = worst_of(table["outcome"])
    few, counted = of_seeds(rows["seed"].nunique())
    text = (
        f"That an ordinary classifier changes its decision for at least {min_changed:g} % of faces is {outcome}{few}: of "
        f"{len(table)} pairs and classifiers {tally(table['outcome'], order)}. Supported when the lower {100 * confidence:g} % bound of the "
        f"share that changes somewhere on the grid is at least {min_changed:g} %, not supported when the upper bound is "
        f"smaller, else inconclusive (one-sided bounds, Bonferroni, {counted}). Test points alone "
        f"counted, {(table['outcome_these_models'] == 'supported').sum()} of {len(table)} are supported."
    )
    return Verdict(outcome, text, table)
