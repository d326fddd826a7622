"""Trained for longer, or kept at another epoch: does that bring certified fairness nearer to print?

The original code trains an encoder for a few epochs and keeps the one of lowest validation loss (the papers do
not describe the choice). On fewer faces than the papers' an epoch has fewer steps, and that loss may be lowest
when hardly any were taken. So each method is also kept at its last epoch, after as many epochs and after more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd

from lassi_lib.errors import StudyError
from lassi_lib.study.experiment import Experiment, Question, experiments_of
from lassi_lib.study.provenance import n_steps
from lassi_lib.study.published import published
from lassi_lib.study.sensitivity import variants, varied
from lassi_lib.study.statistics import PAIR, parts_of, summarise
from lassi_lib.study.study import Study
from lassi_lib.study.verdicts import Verdict, VerdictRule, beyond_seeds, change, of_seeds, tally, worst_of

ORIGINAL = "best epoch (original rule)"
_PRINTED = ("Supp. Table 12", "Supp. Table 16")  # with a task, and without
_RATES = ("certified_fairness", "accuracy")


def lengthened(study: Study, longer: Mapping[str, Iterable[int]]) -> Study:
    """Return the study with further methods: each of `longer` kept at its last epoch, as long and longer.

    `longer` maps a method to numbers of epochs: ``{"LASSI": [20, 50]}``.
    """
    for method, epochs in longer.items():
        study = varied(study, method, keep=["last"])
        study = varied(study, variants(study, method)[-1], epochs=epochs)
    return study


def length_experiments(study: Study, groups: Iterable[Mapping[str, Any]]) -> list[Experiment]:
    """Return what `groups` (see `experiments_of`) ask of a lengthened study: methods with their variants.

    Of a method without an adversarial loss, the control, it is the longest training alone.
    """

    def lengths(method: str) -> list[str]:
        if study.pipeline.methods[method].lambda_2 > 0:
            return [method, *variants(study, method)]
        return variants(study, method)[-1:] or [method]

    own = [{**group, "methods": [name for m in group["methods"] for name in lengths(m)]} for group in groups]
    return experiments_of(study.pipeline, {"groups": own})


def wanted(study: Study, given: dict[str, Any]) -> Iterator[tuple[Study, Experiment, Question]]:
    """Yield the certificates of notebook 12, for the plan of a run."""
    along = lengthened(study, given["longer"])
    yield from ((along, e, Question()) for e in length_experiments(along, given["groups"]))


def _length(study: Study, method: str) -> dict[str, Any]:
    """Return a variant's method, which epoch is kept, of how many, and how many steps these are."""
    of = study.pipeline.methods[method]
    epochs, batch_size = study.pipeline.recipe(of)
    images = study.latent_facts(study.training_split)["images"]
    kept = ORIGINAL if of.keep == "best" else "last epoch"
    return {
        "method": method.split(" ")[0],
        "kept": kept,
        "epochs": epochs,
        "steps": n_steps(epochs, batch_size, images),
    }


def training_history(study: Study, experiments: Iterable[Experiment]) -> pd.DataFrame:
    """Return one row per epoch of each training with an adversarial loss: its losses, and whether it was kept.

    Columns `PAIR`, seed, method, kept, epochs, steps, then those of `train_representation`'s history.
    """
    rows = []
    for e in experiments:
        if study.pipeline.methods[e.method].lambda_2 == 0:
            continue
        study.representation(e)
        about = {k: v for k, v in e.columns().items() if k in (*PAIR, "seed")} | _length(study, e.method)
        history = study.cache.record(study.encoder_stage(e))["facts"]["history"]
        rows += [about | row for row in history]
    return pd.DataFrame(rows)


def lowest_epochs(history: pd.DataFrame) -> pd.DataFrame:
    """Return where validation losses are lowest in each longest training: a row per pair, method and seed.

    `lowest total` is the epoch that the original rule would keep of all these (`its step` the number of
    steps until then), `lowest cls` that of the lowest classification loss (with a task), `lowest adv` of the
    adversarial one; `adv there` and `adv last` are the adversarial losses at the first of them and in the end.
    """
    rows = []
    last = history[history["kept"] != ORIGINAL]
    for key, part in parts_of(last, (*PAIR, "method", "seed")):
        part = part[part["epochs"] == part["epochs"].max()].set_index("epoch")
        lowest = {name: int(part[f"valid_{name}"].idxmin()) for name in ("loss", "adv")}
        per_epoch = part["steps"].iloc[0] // part["epochs"].iloc[0]
        row = key | {"epochs": int(part["epochs"].iloc[0]), "lowest total": lowest["loss"]}
        row |= {"its step": int(lowest["loss"] * per_epoch)}
        if "valid_cls" in part and part["valid_cls"].notna().any():
            row["lowest cls"] = int(part["valid_cls"].idxmin())
        row |= {"lowest adv": lowest["adv"]}
        row |= {"adv there": part["valid_adv"][lowest["loss"]], "adv last": part["valid_adv"].iloc[-1]}
        rows.append(row)
    table = pd.DataFrame(rows)
    if "lowest cls" in table:
        table["lowest cls"] = table["lowest cls"].astype("Int64")
    return table


def length_table(study: Study, rows: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Return rates per pair, method and length, with intervals and the published rates beside.

    Columns task, sensitive, method, kept, epochs, steps, n_seeds, n_points, certified_fairness, accuracy and
    d_cs_mean with ends, balanced_accuracy, majority_rate, d_rs_mean, and ``eccv_...``: the supplement's values
    (five seeds, CelebA at 64 pixels), where there are any, in the row of the original training.
    """
    summary = summarise(rows, confidence=confidence)
    about = pd.DataFrame([_length(study, m) for m in summary["method"]])
    table = pd.concat([summary[["task", "sensitive"]], about], axis=1)
    ends = [f"{value}{end}" for value in (*_RATES, "d_cs_mean") for end in ("", "_low", "_high")]
    table[["n_seeds", "n_points", *ends]] = summary[["n_seeds", "n_points", *ends]]
    others = ["balanced_accuracy", "majority_rate", "d_rs_mean"]
    table[others] = summary[others]
    for value in _RATES:
        cells = printed_rates(value).rename(f"eccv_{value}")
        table = table.join(cells, on=["task", "sensitive", "method"])
        table[cells.name] = table[cells.name].where(table["kept"] == ORIGINAL)
    return table


def printed_rates(metric: str) -> pd.Series:
    """Return the supplement's rates of CelebA at 64 pixels, indexed by task, sensitive and method."""
    facts = published(source="eccv2022", table=_PRINTED, dataset="CelebA", metric=metric)
    facts = facts[(facts["image_size"] == 64) & (facts["vector_type"] == "mean_difference")]
    return facts.set_index(["task", "sensitive", "method"])["value"]


def length_gains(study: Study, rows: pd.DataFrame, rule: VerdictRule) -> pd.DataFrame:
    """Return what each length changes against the original training, paired over seeds and points.

    A row per pair, method with an adversarial loss, and variant has the `fairness_gain` and the `accuracy_loss`
    in points, with bounds one-sided at the rule's confidence, divided over the pairs (Bonferroni; a pair's
    variants are not counted, since one of them is judged). `outcome` says whether the gain is at least
    `min_fairness_gain` and the loss at most `max_accuracy_loss`, over the seeds that both have;
    `outcome_these_models` leaves seeds out.
    """
    methods = list(dict.fromkeys(rows["method"]))
    of = study.pipeline.methods
    bases = [m for m in methods if of[m].keep == "best" and of[m].lambda_2 > 0]
    pairs = [
        (key, part, base)
        for key, part in parts_of(rows, PAIR)
        for base in bases
        if base in set(part["method"])
    ]
    tail, table = (1 - rule.confidence) / len(pairs), []
    for key, part, base in pairs:
        for name in (m for m in variants(study, base) if m in set(part["method"])):
            seeds = part.loc[part["method"] == name, "seed"].unique()
            both = part[part["method"].isin([base, name]) & part["seed"].isin(seeds)]
            row = {"task": key["task"], "sensitive": key["sensitive"]} | _length(study, name)
            row |= {"n_seeds": len(seeds)}
            for counted, suffix in (("fixed", "_these_models"), ("random", "")):
                values, *halves = change(both, name, base, rule, tail, counted)
                row |= values | {f"outcome{suffix}": worst_of(halves)}
            table.append(row)
    table = pd.DataFrame(table)
    table["outcome"] = beyond_seeds(table["outcome"], table["n_seeds"])
    return table


def equally_long(study: Study, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of each method's longest training, under the method's own name, for `claim_1_verdict`.

    Pairs are those of which the rows have both Naive and LASSI, as long as each other.

    Raises
    ------
    StudyError
        If there is no such pair.
    """
    longest = {
        m: max(variants(study, m), key=lambda v: _length(study, v)["epochs"])
        for m in ("Naive", "LASSI")
        if m in study.pipeline.methods and variants(study, m)
    }
    lengths = {_length(study, v)["epochs"] for v in longest.values()}
    names = {v: m for m, v in longest.items()}
    of = rows[rows["method"].isin(names)]
    of = of.assign(method=of["method"].map(names))
    of = of[of.groupby(list(PAIR))["method"].transform("nunique") == 2]
    if of.empty or len(lengths) > 1:
        raise StudyError(
            "training length: no pair has both Naive and LASSI, trained equally long: name both in 'groups', and "
            "in 'longer' with the same largest number of epochs"
        )
    return of.reset_index(drop=True)


def length_verdict(gains: pd.DataFrame, rule: VerdictRule) -> Verdict:
    """Judge "trained longest and kept at the last epoch, far more faces are certified" from `length_gains`."""
    if gains.empty:
        raise StudyError("length_verdict(): there is no longer training to judge: ask for one in 'longer'")
    longest = gains.groupby(["task", "sensitive", "method"])["epochs"].transform("max")
    table = gains[gains["epochs"] == longest].reset_index(drop=True)
    outcome = worst_of(table["outcome"])
    few, counted = of_seeds(table["n_seeds"])
    text = (
        f"That the longest training, kept at its last epoch, certifies far more faces at about the same accuracy is "
        f"{outcome}{few}: of {len(table)} pairs {tally(table['outcome'])}. A pair is supported when the lower "
        f"{100 * rule.confidence:g} % bound of the gain in certified fairness over the original training is at "
        f"least {rule.min_fairness_gain:g} points and the upper bound of the loss in accuracy at most "
        f"{rule.max_accuracy_loss:g} points; not supported when the opposite bounds show it, else inconclusive "
        f"(one-sided bounds, Bonferroni over {len(table)} pairs, {counted}). Test points alone counted, so for the "
        f"models as trained: {tally(table['outcome_these_models'])}."
    )
    return Verdict(outcome, text, table)


def gap_text(table: pd.DataFrame) -> str:
    """Say how much of the distance to the published rate each pair's longest training covers."""
    lines = []
    for key, part in parts_of(table, ("task", "sensitive", "method")):
        if not (part["kept"] == ORIGINAL).any():  # the control
            continue
        base = part[part["kept"] == ORIGINAL].iloc[0]
        longest = part[part["kept"] != ORIGINAL].sort_values("epochs").iloc[-1]
        theirs, ours = base["eccv_certified_fairness"], base["certified_fairness"]
        if pd.isna(theirs) or theirs <= ours:
            continue
        covered = 100 * (longest["certified_fairness"] - ours) / (theirs - ours)
        lines.append(
            f"{key['method']}, {key['task']} with {key['sensitive']}: printed {theirs:.1f} %, original rule {ours:.1f} %, "
            f"last of {longest['epochs']} epochs {longest['certified_fairness']:.1f} %, which is {covered:.0f} % of the way."
        )
    return "\n".join(lines) or "No pair here has a published rate above ours."
