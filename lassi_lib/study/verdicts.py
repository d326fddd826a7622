"""Verdicts that follow from numbers by a rule fixed before the run; the rule writes its own words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lassi_lib.errors import StudyError
from lassi_lib.study.statistics import PAIR, PairedDifference, holm, paired_difference, summarise, with_ends

OUTCOMES = ("supported", "not supported", "inconclusive")


@dataclass(frozen=True)
class VerdictRule:
    """When "much fairer, hardly less accurate" counts as shown."""

    min_fairness_gain: float  # points that certified fairness must gain at least
    max_accuracy_loss: float  # points that accuracy may lose at most
    confidence: float = 0.95  # of each one-sided bound
    adjust: str = "holm"  # decisions for many pairs hold together (Holm 1979), or with 'none' each for itself

    def __post_init__(self) -> None:
        limits = {"min_fairness_gain": (0, 100), "max_accuracy_loss": (0, 100), "confidence": (0.5, 1)}
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value < high:
                raise StudyError(f"verdict rule: {name} = {value!r} is no number from {low} to below {high}")
        if self.adjust not in ("holm", "none"):
            raise StudyError(f"verdict rule: adjust '{self.adjust}' is unknown: use holm or none")

    def words(self, n_pairs: int, counted: str, fairness: str = "certified fairness") -> str:
        """Return the rule as sentences; `counted` says what its bounds count (`of_seeds`)."""
        several = self.adjust == "holm" and n_pairs > 1
        together = f", at Holm's levels over {n_pairs} pairs" if several else ""
        return (
            f"A pair is supported when the lower {100 * self.confidence:g} % bound of LASSI's gain in "
            f"{fairness} over Naive is at least {self.min_fairness_gain:g} points and the upper "
            f"bound of its loss in accuracy at most {self.max_accuracy_loss:g} points (one-sided "
            f"bounds{together}, {counted}; abstentions are errors); not supported "
            "when the opposite bounds show a smaller gain or a larger loss; else inconclusive. The claim is "
            "supported when every pair is, not supported when any pair is not, else inconclusive."
        )


@dataclass(frozen=True)
class Verdict:
    """One of `OUTCOMES`, the sentences that explain it, and the table it follows from."""

    outcome: str
    text: str
    table: pd.DataFrame

    @property
    def headline(self) -> str:
        """The first sentence of `text`: what the index and the batch run print."""
        return self.text.split(". ")[0].rstrip(".") + "."


def of_seeds(n_seeds: pd.Series | int) -> tuple[str, str]:
    """Return what a verdict over so many seeds (of each pair) adds to its outcome, and what its bounds count."""
    single = np.atleast_1d(n_seeds) == 1
    if single.all():
        return " (one seed says nothing of another training)", "over test points"
    few = f" ({single.sum()} of {len(single)} pairs have one seed, which says nothing of another training)"
    return few if single.any() else "", "over seeds and points"


def beyond_seeds(outcomes: pd.Series, n_seeds: pd.Series | int) -> pd.Series:
    """Return outcomes that count seeds: from one seed's models alone no other training can be judged."""
    return outcomes.where(np.broadcast_to(np.asarray(n_seeds) > 1, len(outcomes)), "inconclusive")


def outcome_first(table: pd.DataFrame, key: Iterable[str]) -> pd.DataFrame:
    """Return the table with its outcomes right after what a row is about: wide tables are cut on a screen."""
    first = [*key, "outcome", "outcome_these_models"]
    return table[[*first, *table.columns.difference(first, sort=False)]]


def decided(low: float, high: float, threshold: float) -> str:
    """Return the outcome of "at least `threshold`" for a quantity with these bounds."""
    return "supported" if low >= threshold else "not supported" if high < threshold else "inconclusive"


def change(
    rows: pd.DataFrame, after: str, before: str, rule: VerdictRule, tail: float, seeds: str
) -> tuple[dict[str, float], str, str]:
    """Return what one method changes against another on a pair: its values, and an outcome for each half.

    The values are `fairness_gain` and `accuracy_loss` in points, with bounds; the outcomes say whether the gain
    is at least `min_fairness_gain`, and the loss at most `max_accuracy_loss`.

    Parameters
    ----------
    rows : pandas.DataFrame
        Certificate rows of one pair: both methods, on the same seeds and points.
    after, before : str
        The two methods.
    rule : VerdictRule
        The limits of gain and loss.
    tail : float
        Probability with which each one-sided bound may be wrong.
    seeds : {'random', 'fixed'}
        As in `paired_difference`: 'fixed' judges these models alone.
    """
    gain = paired_difference(rows, after, before, "certified", seeds=seeds)
    loss = paired_difference(rows, before, after, "correct", seeds=seeds)
    low, high = loss.bounds(tail)
    values = with_ends("fairness_gain", gain.difference, *gain.bounds(tail))
    values |= with_ends("accuracy_loss", loss.difference, low, high)
    gains = decided(*gain.bounds(tail), rule.min_fairness_gain)
    return values, gains, decided(-high, -low, -rule.max_accuracy_loss)


def tally(outcomes: pd.Series, named: Iterable[str] = OUTCOMES) -> str:
    """Return how often each outcome occurs: '3 supported, 0 not supported, 1 inconclusive'."""
    return ", ".join(f"{(outcomes == name).sum()} {name}" for name in named)


def worst_of(outcomes: Iterable[str]) -> str:
    """Return what several outcomes come to: 'supported' only if all are, 'not supported' if any is not."""
    found = set(outcomes)
    return next((o for o in ("not supported", "inconclusive") if o in found), "supported")


def _judge(
    gains: list[PairedDifference], losses: list[PairedDifference], rule: VerdictRule, testable: np.ndarray
) -> pd.DataFrame:
    """Apply the rule to every pair; its bounds are shown at the level at which it was decided.

    What holds together over pairs is "supported"; bounds, taken at levels that the data chose, hold each for
    itself. "Not supported" needs one of two bounds, so it is wrong with up to twice the rule's probability.
    A pair that is not `testable` stays in the family and counts as p = 1.

    A pair's p-value is the larger of its two, since both halves must hold (intersection-union test).
    Holm tests the smallest at alpha / K, the next at alpha / (K - 1), and stops at the first failure;
    pairs from there on get that last level, so that outcome and bounds always agree.
    """
    alpha = 1 - rule.confidence
    p = [
        max(gain.p_above(rule.min_fairness_gain), 1 - loss.p_above(rule.max_accuracy_loss))
        for gain, loss in zip(gains, losses, strict=True)
    ]
    p = np.where(testable, p, 1.0)
    adjusted, level = p, np.full(len(p), alpha)
    if rule.adjust == "holm":
        adjusted = holm(p)
        level[np.argsort(p, kind="stable")] = alpha / np.arange(len(p), 0, -1)
        stopped = adjusted > alpha
        level[stopped] = level[stopped].min(initial=alpha)
    table = []
    for gain, loss, p_value, p_adjusted, tail in zip(gains, losses, p, adjusted, level, strict=True):
        row = {"bound_confidence": 100 * (1 - tail), "p_value": p_value, "p_adjusted": p_adjusted}
        for name, part in (("fairness_gain", gain), ("accuracy_loss", loss)):
            row |= with_ends(name, part.difference, *part.bounds(tail))
        too_little = row["fairness_gain_high"] < rule.min_fairness_gain
        too_dear = row["accuracy_loss_low"] > rule.max_accuracy_loss
        failed = "not supported" if too_little or too_dear else "inconclusive"
        table.append(row | {"outcome": "supported" if p_adjusted <= alpha else failed})
    return pd.DataFrame(table)


def claim_1_verdict(
    rows: pd.DataFrame, rule: VerdictRule, *, subject: str = "Claim 1", fairness: str = "certified fairness"
) -> Verdict:
    """Judge claim 1: LASSI certifies far more faces as treated alike than Naive, at hardly any accuracy.

    `fairness` is what the text calls the share of faces that the rows' status calls fair.

    The table has a row per pair (`PAIR`): both methods' rates, gain and loss with bounds and p-values,
    whether a constant classifier would do as well as LASSI, the outcome, and
    `outcome_these_models`: the outcome with seeds not counted. Where that one alone is 'supported',
    the models as trained fulfil the rule on average (one of them may not), and more seeds are needed to
    say so of the method.
    """
    if rows.empty:
        raise StudyError("claim 1: there are no certificate rows to judge: run some experiments first")
    pairs = dict(list(rows.groupby(list(PAIR), sort=False)))
    several = np.array([r["seed"].nunique() > 1 for r in pairs.values()])
    judged = {}
    for seeds, testable in (("random", several), ("fixed", np.full(len(pairs), True))):
        gains = [paired_difference(r, "LASSI", "Naive", "certified", seeds=seeds) for r in pairs.values()]
        losses = [paired_difference(r, "Naive", "LASSI", "correct", seeds=seeds) for r in pairs.values()]
        judged[seeds] = _judge(gains, losses, rule, testable)
    # from one seed's models alone no other training can be judged: no p-value, and bounds over test points
    counted, these = judged["random"], judged["fixed"]
    alone = these.assign(p_value=np.nan, p_adjusted=np.nan, outcome="inconclusive")
    counted.loc[~several] = alone.loc[~several]
    these = these["outcome"].rename("outcome_these_models")
    ours, base = (
        summarise(rows[rows["method"] == name], confidence=rule.confidence) for name in ("LASSI", "Naive")
    )
    shown = ["n_seeds", "n_points", "majority_rate", "constant_would_do", "certified_fairness", "accuracy"]
    table = pd.DataFrame(list(pairs), columns=list(PAIR))  # in the order of the rows, as `counted` is
    table = outcome_first(pd.concat([table, counted, these], axis=1), PAIR)
    table = table.merge(ours[[*PAIR, *shown]], on=list(PAIR))
    table = table.merge(base[[*PAIR, *shown[-2:]]], on=list(PAIR), suffixes=("", "_baseline"))
    outcome = worst_of(table["outcome"])
    return Verdict(outcome, _text(outcome, table, rule, subject, fairness), table)


def _text(outcome: str, table: pd.DataFrame, rule: VerdictRule, subject: str, fairness: str) -> str:
    """Say the outcome, the rule and what limits it; every number comes from the rule or the table."""
    n, m = len(table), int(table["n_seeds"].min())
    few, counted = of_seeds(table["n_seeds"])
    if m == 1 < table["n_seeds"].max():
        counted += "; a pair with one seed counts as p = 1"
    text = f"{subject} is {outcome}{few}: of {n} pairs {tally(table['outcome'])}. {rule.words(n, counted, fairness)}"
    alone = (table["outcome_these_models"] == "supported").sum()
    if m == 1 or alone > (table["outcome"] == "supported").sum():
        few = f": {m} seeds say too little of another training" if m > 1 else ""
        text += f" Test points alone counted, so for the models as trained, {alone} of {n} pairs are supported{few}."
    full = without_room(table, rule.min_fairness_gain)
    if len(full):
        text += (
            f" In {len(full)} of {n} pairs ({_named(full)}) Naive has more than {100 - rule.min_fairness_gain:g} %: "
            "no room for such a gain, so the rule cannot be fulfilled there, whatever LASSI does."
        )
    marked = table[table["constant_would_do"]]
    if len(marked):
        text += (
            f" In {len(marked)} of {n} pairs ({_named(marked)}) the interval of LASSI's accuracy does not exceed "
            "the majority rate: by plain accuracy a constant classifier (one answer to every input, so always "
            "certified) might do as well."
        )
    return text


def without_room(table: pd.DataFrame, min_fairness_gain: float) -> pd.DataFrame:
    """Return the judged pairs in which Naive's rate leaves no room for a gain of so many points."""
    return table[table["certified_fairness_baseline"] > 100 - min_fairness_gain]


def _named(table: pd.DataFrame) -> str:
    kinds = ("" if k == "mean_difference" else f" ({k})" for k in table["vector_type"])
    pairs = zip(table["task"], table["sensitive"], kinds, strict=True)
    return "; ".join(f"{task}, {sensitive}{kind}" for task, sensitive, kind in pairs)
