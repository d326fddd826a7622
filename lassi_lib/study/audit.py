"""The audit: every check over every published number, one ranked list, and a verdict by a stated rule.

The checks are in `audit_arithmetic` (printed numbers alone), `audit_comparison` (reproduction against
original) and `audit_labels` (official label files); `findings` says what their tables hold.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lassi_lib.errors import StudyError
from lassi_lib.study import audit_arithmetic as arithmetic
from lassi_lib.study import audit_comparison as comparison
from lassi_lib.study import audit_labels as from_labels
from lassi_lib.study.annotations import Annotations
from lassi_lib.study.findings import VERDICTS, prepared_facts
from lassi_lib.study.published import PAPERS
from lassi_lib.study.verdicts import Verdict

SURE = ("certain", "chance", "question")


def audit(
    found: Mapping[str, Annotations] | None = None, *, tolerance: float = 5.0, confidence: float = 0.95
) -> pd.DataFrame:
    """Run every check and return all rows (columns as in `findings`, and `sure`).

    `found` are annotations (`find_annotations`): checks that need what is not there say so. `tolerance` is
    the reproduction's "within 5 %".
    """
    if not 0 < tolerance < 100 or not 0.5 < confidence < 1:
        raise StudyError(
            f"audit: tolerance {tolerance} must lie in 0..100 and confidence {confidence} in 0.5..1"
        )
    facts, found = prepared_facts(), found or {}
    tables = [
        arithmetic.attainable_means(facts),
        arithmetic.attainable_deviations(facts),
        arithmetic.printed_twice(facts),
        arithmetic.complementary_rates(facts),
        arithmetic.counted_combinations(facts),
        arithmetic.certified_within_empirical(facts),
        arithmetic.larger_sets_are_harder(facts),
        arithmetic.same_model(facts),
        arithmetic.repeated_rows(facts),
        comparison.within_tolerance(facts, tolerance),
        comparison.prediction_intervals(facts, confidence),
        comparison.seed_subset_bound(facts),
        comparison.binomial_intervals(facts, confidence),
        from_labels.sample_sizes(facts, found),
        from_labels.printed_rates(facts, found),
        from_labels.above_majority(facts, found, confidence),
        from_labels.table_8(facts, found),
    ]
    rows = pd.concat([t for t in tables if len(t)], ignore_index=True)
    return rows.assign(sure=rows["verdict"].map(VERDICTS))


def checks_made(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row per check: numbers, consistent, at fault, no power, not checked."""
    counts = rows.groupby("check", sort=False)["verdict"].value_counts().unstack(fill_value=0)
    quiet = ("consistent", "no power", "not checked")
    out = pd.DataFrame({"check": counts.index, "numbers": counts.sum(axis=1).to_numpy()})
    faulty = counts.drop(columns=[c for c in quiet if c in counts]).sum(axis=1)
    out["consistent"] = counts.get("consistent", faulty * 0).to_numpy()
    out["at fault"] = faulty.to_numpy()
    for name in quiet[1:]:
        out[name] = counts.get(name, faulty * 0).to_numpy()
    return out.astype({c: int for c in out if c != "check"})


def ranked(rows: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Return the findings, most weighty first: one row per check, source and verdict.

    The order is by how sure (`SURE`: without chance, possibly by chance, a question), then by the largest
    discrepancy in points. Columns rank, sure, finding (a sentence), about, check, source, table, verdict,
    numbers (judged by the check there), at_fault, not_above (of them, in no row above that is as sure and
    about the same), largest (points), p_holm (smallest).
    """
    columns = ["sure", "finding", "about", "check", "source", "table", "verdict", "numbers", "at_fault"]
    out = []
    judged = rows[~rows["verdict"].isin(["no power", "not checked"])]
    totals = judged.groupby(["check", "source"]).size()
    faulty = rows[rows["sure"] != ""]
    also = faulty.groupby("fact")["check"].agg(lambda c: sorted(set(c)))
    for (check, source, verdict), group in faulty.groupby(["check", "source", "verdict"], sort=False):
        worst = group.sort_values("size", ascending=False, kind="stable").iloc[0]
        total, table = int(totals[check, source]), ", ".join(dict.fromkeys(group["table"]))
        said = _sentence(rows[rows["check"] == check], group, worst, total, also, confidence)
        row = (worst["sure"], said, worst["about"], check, source, table, verdict, total, len(group))
        facts = set(group["fact"].where(group["fact"] >= 0, -1 - group.index))  # -1: no number of the file
        out.append((*row, facts, float(worst["size"]), group["p_holm"].min()))
    table = pd.DataFrame(out, columns=[*columns, "not_above", "largest", "p_holm"])
    order = table["sure"].map({name: i for i, name in enumerate(SURE)})
    table = table.assign(order=order).sort_values(
        ["order", "largest"], ascending=[True, False], kind="stable", ignore_index=True
    )
    table.insert(0, "rank", range(1, len(table) + 1))
    seen: dict[tuple, set] = {}
    for i, r in enumerate(table.itertuples()):
        above = seen.setdefault((r.sure, r.about), set())
        table.at[i, "not_above"] = len(r.not_above - above)
        above |= r.not_above
    return table.drop(columns="order").astype({"not_above": int})


def _sentence(
    check: pd.DataFrame,
    group: pd.DataFrame,
    worst: pd.Series,
    total: int,
    also: pd.Series,
    confidence: float,
) -> str:
    """Say what a group of rows at fault amounts to, with its worst number."""
    lead = "" if len(group) == 1 else "worst: "
    of_all = f" of {total}" if total > len(group) else " numbers"
    text = f"{len(group)}{of_all} {worst['verdict']}"
    tested = int(check["p_value"].notna().sum())
    if tested:
        held = int((check["p_holm"] < 1 - confidence).sum())
        text += f" ({(1 - confidence) * tested:.1f} expected by chance; {held} at Holm's level)"
    text += f"; {lead}{worst['row']}, {worst['metric']}: printed {worst['printed']}, "
    text += f"expected {worst['expected']}"
    others = [c for c in also.get(worst["fact"], []) if c != worst["check"]] if worst["fact"] >= 0 else []
    if others:
        text += f" (at fault also by: {', '.join(others)})"
    doubts = int((group["doubt"] != "").sum())
    return text + (f"; {doubts} of them not legible beyond doubt" if doubts else "")


def unchecked(rows: pd.DataFrame) -> pd.DataFrame:
    """Return what no check could fail: one row per source, table and metric, with the reason.

    A number is checked if one check about numbers at least had power and what it needed (comparisons of
    two papers do not count). Columns source, table, metric, numbers, unchecked, why.
    """
    facts, rows = prepared_facts(), rows[rows["about"] == "number"]
    quiet = {"no power", "not checked"}
    done = set(rows.loc[~rows["verdict"].isin(quiet), "fact"])
    reasons = rows[rows["verdict"] == "not checked"].groupby("fact")["expected"].first()
    blunt = set(rows.loc[rows["verdict"] == "no power", "fact"])
    out = []
    for (source, table, metric), group in facts.groupby(["source", "table", "metric"], sort=False):
        open_ = group[~group["fact"].isin(done)]
        if open_.empty:
            continue
        why = {reasons.get(f, "every number would pass" if f in blunt else "") for f in open_["fact"]}
        words = "; ".join(sorted(why - {""})) or "needs training, or is not defined closely enough"
        out.append((source, table, metric, len(group), len(open_), words))
    return pd.DataFrame(out, columns=["source", "table", "metric", "numbers", "unchecked", "why"])


def audit_verdict(rows: pd.DataFrame, confidence: float = 0.95) -> Verdict:
    """Judge "the published numbers are right, as far as they can be checked without training".

    Only checks about numbers decide: not supported if any number is at fault without chance, else
    inconclusive if any is unexplained, else supported. What comparisons find, and accuracies that a
    constant classifier reaches, is said beside it: it concerns what is made of the numbers.
    """
    total, numbers = len(prepared_facts()), rows[(rows["about"] == "number") & (rows["fact"] >= 0)]
    checked = numbers[~numbers["verdict"].isin(["no power", "not checked"])]["fact"].nunique()
    at_fault = {s: numbers[numbers["sure"] == s] for s in SURE}
    wrong, odd = (at_fault[s]["fact"].nunique() for s in ("certain", "question"))
    outcome = "not supported" if wrong else "inconclusive" if odd else "supported"
    text = (
        f"Of {checked:,} published numbers that can be checked without training ({total:,} in all), {wrong} are "
        f"impossible or contradicted and {odd} more are unexplained. "
    )
    if wrong:
        groups = at_fault["certain"].groupby(["source", "table"], sort=False)["fact"].nunique()
        groups = groups.sort_values(ascending=False, kind="stable")
        where = ", ".join(f"{n} in {PAPERS.get(s, s)}, {t}" for (s, t), n in groups.items())
        text += f"Impossible or contradicted: {where}. "
    text += _beside(rows)
    rule = (
        "Rule: not supported if any number that can be checked is impossible, or contradicted by official "
        "labels or by another printed number; else inconclusive if any is unexplained; else supported."
    )
    return Verdict(outcome, text + rule, ranked(rows, confidence))


def majority_text(margins: pd.DataFrame) -> str:
    """Say how many accuracies do not exceed the majority rate of the same images (`accuracy_margins`)."""
    low = margins["accuracy"] <= margins["majority_rate"]
    where = ", ".join(
        f"{part.sum()} of {len(part)} in {name}" for name, part in low.groupby(margins["table"], sort=False)
    )
    return f"At or below the rate of the largest class: {low.sum()} of {len(low)} accuracies ({where})."


def _beside(rows: pd.DataFrame) -> str:
    """Say what comparisons and majority rates add."""
    text = []
    for check, group in rows[rows["check"].str.startswith("within")].groupby("check", sort=False):
        n = int((group["verdict"] == "contradicted").sum())
        text.append(f"Of {len(group)} reproduced numbers {n} are not {check}. ")
    for check, words in (
        ("prediction interval", "outside the interval that the published deviation predicts"),
        ("repeated seeds", "farther off than a repetition of the same seeds could be"),
    ):
        group = rows[rows["check"] == check]
        n = int((group["sure"] != "").sum())
        text.append(f"Of {len(group)} with a published deviation {n} are {words}. " if len(group) else "")
    group = rows[rows["check"] == "above the majority rate"]
    judged = group[group["verdict"] != "not checked"]
    words = ("not above the majority rate", "not shown above the majority rate")
    below, unsure = (int((judged["verdict"] == word).sum()) for word in words)
    text.append(f"Of {len(judged)} accuracies {below} are not above the majority rate of the same images")
    text.append(
        f", {unsure} more are not shown to be (one-sided bounds, each for itself). " if unsure else ". "
    )
    return "".join(text)


def readable_findings(rows: pd.DataFrame, top: int = 0) -> pd.DataFrame:
    """Return a ranked list, or rows of checks, as a reader wants them: few columns, sizes as text.

    `top` keeps so many rows (0: all).
    """
    table = rows.head(top) if top else rows
    size = "largest" if "largest" in table else "size"
    points = [f"{x:.1g}" if 0 < x < 0.095 else f"{x:.1f}" for x in table[size]]
    where = table["source"] + " " + table["table"]
    if size == "largest":
        table = table.assign(finding=where + ", " + table["check"] + ": " + table["finding"])
        table = table[["rank", "sure", "finding"]].assign(**{"largest, points": points})
    else:
        number = where + ": " + table["row"] + ", " + table["metric"]
        if table["check"].nunique() > 1:
            number = table["check"] + ": " + number
        names = ["printed", "expected", "verdict", "p_value", "p_holm"]
        if table["verdict"].nunique() == 1:  # one for all says nothing
            names.remove("verdict")
        table = table.assign(number=number)[["number", *names]].assign(**{"size, points": points})
    return table.dropna(axis=1, how="all")


def relative_position(rows: pd.DataFrame) -> pd.DataFrame:
    """Return reproduced means in prediction standard deviations from the original, for a figure.

    Columns fact, row, metric, table, t, in_seed_sd, outside.
    """
    pairs = comparison.pairs_with_deviation(prepared_facts())
    t, in_sd = comparison.standardised(pairs)
    verdicts = rows[rows["check"] == "prediction interval"].set_index("fact")["verdict"]
    out = pairs[["fact", "row", "metric", "table"]].assign(t=t, in_seed_sd=in_sd)
    return out.assign(outside=(out["fact"].map(verdicts) == "outside the interval").to_numpy(bool))


def accuracy_margins(
    rows: pd.DataFrame, found: Mapping[str, Annotations], confidence: float = 0.95
) -> pd.DataFrame:
    """Return the reproduction's accuracies beside the majority rate of the same images, for a figure.

    Columns table, row, method, accuracy, accuracy_low, accuracy_high (each end a one-sided bound over
    one run's faces, as the check asks), majority_rate, verdict; rows without a known majority rate are left out.
    """
    from lassi_lib.study.statistics import clopper_pearson

    facts = prepared_facts()
    checks = rows[(rows["check"] == "above the majority rate") & (rows["source"] == "merk2023")]
    checks = checks[checks["verdict"] != "not checked"]
    mine = facts.set_index("fact").loc[checks["fact"]]
    rates = [from_labels.majority_rate_of(facts, found, r)[0] for r in mine.itertuples()]
    n = mine["n_eval"].to_numpy(float)
    low, high = clopper_pearson(np.round(mine["value"] / 100 * n), n, 2 * confidence - 1)
    out = mine[["table", "task", "row", "method", "value"]].rename(columns={"value": "accuracy"})
    out = out.assign(accuracy_low=100 * np.atleast_1d(low), accuracy_high=100 * np.atleast_1d(high))
    return out.assign(majority_rate=rates, verdict=checks["verdict"].to_numpy()).reset_index(drop=True)
