"""Checks that need nothing but the printed numbers: can they be, and do they agree with each other?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lassi_lib.study.findings import SHARES, finding_rows, judged, prepared_facts

# What makes two printed numbers the same quantity.
QUANTITY = [
    "source", "dataset", "image_size", "task", "sensitive", "vector_type", "method", "metric", "sigma_cs",
    "sigma_rs", "lambda2", "split", "n_eval", "n_seeds",
]  # fmt: skip


def attainable_means(facts: pd.DataFrame) -> pd.DataFrame:
    """Check that each share is a mean over m seeds of counts among n images (GRIM, Brown & Heathers 2017).

    Counts add up to k of N = m n, so only the shares 100 k / N can be, here rounded as printed. Where
    that is (nearly) every number of so many digits, the check has no power and says so. A number that
    only the mean of m shares rounded *before* averaging, or a share rounded twice, can be is `unexplained`,
    else `impossible`.
    (With two seeds and one decimal that is every number, so this way out can never be ruled out; but
    if values had been averaged so, no more numbers would pass the check than by chance.)
    """

    def judge(r: Any) -> tuple[str, str, float]:
        m = 1 if pd.isna(r.n_seeds) else int(r.n_seeds)
        n, total = int(r.n_eval), m * int(r.n_eval)
        k = int(np.floor(r.value / 100 * total))
        near = [j for j in (k, k + 1) if j <= total]
        gap = min(abs(100 * j / total - r.value) for j in near)
        words = " or ".join(f"{j}/{total} = {100 * j / total:.{r.decimals + 2}f}" for j in near)
        if gap <= r.half + 1e-9:
            any_would = attainable_share(n, m, r.decimals) > 0.99
            return *(("any", "no power") if any_would else (words, "consistent")), gap - r.half
        if m > 1 and _mean_of_rounded(r.value, n, m, r.decimals):
            return f"{words}, unless values were rounded before averaging", "unexplained", gap - r.half
        twice = [round(round(100 * j / total, r.decimals + 1) + 1e-9, r.decimals) for j in near]
        if any(abs(found - r.value) < 1e-9 for found in twice):
            return f"{words}, unless rounded twice", "unexplained", gap - r.half
        return words, "impossible", gap - r.half

    rows = facts[facts["metric"].isin(SHARES) & facts["n_eval"].notna()]
    return judged("attainable mean", rows, judge)


def attainable_share(n: int, m: int, decimals: int) -> float:
    """Return the share of all numbers 0..100 with so many decimals that a mean over m x n can be."""
    shares = np.round(100 * np.arange(m * n + 1) / (m * n), decimals)
    return len(np.unique(shares)) / (100 * 10**decimals + 1)


def attainable_summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return, per source and sample, how many numbers are attainable, and how many would be by chance.

    Columns source, n_images, n_seeds, numbers, attainable, percent_attainable, percent_by_chance. Only
    samples with power are listed. `rows` is what `attainable_means` returned, or the whole audit.
    """
    table = rows[(rows["check"] == "attainable mean") & (rows["verdict"] != "no power")]
    tested = table.merge(prepared_facts()[["fact", "n_eval", "n_seeds", "decimals"]], on="fact")
    rows = []
    keys = ["source", "n_eval", "n_seeds", "decimals"]
    for (source, n, m, decimals), group in tested.groupby(keys, dropna=False, sort=False):
        m = 1 if pd.isna(m) else int(m)
        ok = int((group["verdict"] == "consistent").sum())
        chance = 100 * attainable_share(int(n), m, int(decimals))
        rows.append((source, int(n), m, len(group), ok, 100 * ok / len(group), chance))
    names = ["source", "n_images", "n_seeds", "numbers", "attainable"]
    return pd.DataFrame(rows, columns=[*names, "percent_attainable", "percent_by_chance"])


def _mean_of_rounded(value: float, n: int, m: int, decimals: int) -> bool:
    """Whether `value` is the mean of m shares of n, each rounded before and the mean rounded after."""
    unit = 10**decimals
    one = np.unique(np.round(100 * np.arange(n + 1) / n * unit)).astype(int)
    sums = np.array([0])
    for _ in range(m):
        sums = np.unique(sums[:, None] + one)
    return bool((np.abs(sums / m - value * unit) <= 0.5 + 1e-9).any())


def attainable_deviations(facts: pd.DataFrame) -> pd.DataFrame:
    """Check that a standard deviation can belong to its mean: m shares in 0..100 spread only so far.

    The sample variance is convex in the shares, hence largest at a corner: as many at 100 as the mean
    allows, one in between, the rest at 0.
    """
    rows = facts[facts["std"].notna() & facts["metric"].isin(SHARES) & (facts["n_seeds"] > 1)]
    largest = []
    for r in rows.itertuples():
        means = np.clip([r.value - r.half, r.value, r.value + r.half], 0, 100)
        largest.append(max(_largest_deviation(x, int(r.n_seeds)) for x in means))
    gap = rows["std"].to_numpy() - rows["half"].to_numpy() - np.array(largest)
    verdict = np.where(gap > 1e-9, "impossible", "no power")  # the bound is wide: passing says little
    words = [f"sd {s:.1f} of at most {x:.1f}" for s, x in zip(rows["std"], largest, strict=True)]
    return finding_rows("attainable standard deviation", rows, words, verdict, gap)


def _largest_deviation(mean: float, m: int) -> float:
    full, rest = divmod(m * mean, 100)
    values = ([100.0] * int(full) + [rest] + [0.0] * m)[:m]
    return float(np.std(values, ddof=1))


def printed_twice(facts: pd.DataFrame) -> pd.DataFrame:
    """Check every quantity that stands in two tables: quotations against the table quoted, and repeats."""
    rows, said = [], []
    for _, group in facts.groupby(QUANTITY, dropna=False, sort=False):
        quoted = group["table"].str.contains("quoted")
        originals = group[~quoted]
        if quoted.any() and originals.empty:
            rows += list(group.index)
            said += [("the quoted table does not print it", "not checked", 0.0)] * len(group)
        compared = group[quoted] if quoted.any() else group.iloc[1:]
        if originals.empty:
            continue
        for r in compared.itertuples():
            other = originals.iloc[0]
            off = abs(r.value - other["value"])
            spread = pd.notna(r.std) and pd.notna(other["std"]) and r.std != other["std"]
            rows.append(r.Index)
            verdict = "contradicted" if off > 1e-9 or spread else "consistent"
            said.append((f"{other['printed']} ({other['table']})", verdict, off))
    return finding_rows("printed twice", facts.loc[rows], *([each[i] for each in said] for i in range(3)))


def complementary_rates(facts: pd.DataFrame) -> pd.DataFrame:
    """Check that positive and negative rate of an attribute add up to 100 %."""
    keys = ["source", "table", "dataset", "sensitive"]
    positive, negative = (facts[facts["metric"] == name] for name in ("pos_rate", "neg_rate"))
    both = positive.merge(negative[[*keys, "value", "half"]], on=keys, suffixes=("", "_other"))
    off = (both["value"] + both["value_other"] - 100).abs() - both["half"] - both["half_other"]
    words = [f"100 - {x:g} = {100 - x:g}" for x in both["value_other"]]
    verdict = np.where(off > 1e-9, "contradicted", "consistent")
    return finding_rows("rates add up", both, words, verdict, off)


def certified_within_empirical(facts: pd.DataFrame) -> pd.DataFrame:
    """Check that no more is certified than tests find unharmed: certified implies equal at end points.

    Certified fairness against the empirical one of the same runs, and against 100 - emp_unfair where
    counterfactuals were rendered. (A certificate may fail with its alpha, about a per cent of points;
    a number above the bound would therefore be `unexplained`.)
    """
    keys = [k for k in QUANTITY if k not in ("metric", "lambda2")]
    certified = facts[(facts["metric"] == "certified_fairness") & ~facts["table"].str.contains("quoted")]
    tables = []
    for metric in ("empirical_fairness", "emp_unfair"):
        bound = facts[facts["metric"] == metric][[*keys, "table", "value", "half"]]
        both = certified.merge(bound, on=keys, suffixes=("", "_bound"))
        limit = both["value_bound"] if metric == "empirical_fairness" else 100 - both["value_bound"]
        off = both["value"] - limit - both["half"] - both["half_bound"]
        words = [f"at most {x:.1f} ({t})" for x, t in zip(limit, both["table_bound"], strict=True)]
        verdict = np.where(off > 1e-9, "unexplained", "consistent")
        tables.append(finding_rows("certified within empirical", both, words, verdict, off))
    return pd.concat(tables, ignore_index=True)


def larger_sets_are_harder(facts: pd.DataFrame) -> pd.DataFrame:
    """Check, for one and the same Naive model, that more sensitive attributes certify no more faces.

    The similarity set of Pale_Skin and Young holds those of either alone, and naive training knows
    none of them, so the same models are judged. Sampling may blur this by a fraction of a point.
    """
    rows = facts[(facts["metric"] == "certified_fairness") & (facts["method"] == "Naive")]
    rows = rows[rows["sensitive"].notna() & ~rows["table"].str.contains("quoted")]
    keys = [k for k in QUANTITY if k != "sensitive"]
    kept, words, off = [], [], []
    for _, group in rows.groupby([*keys, "table"], dropna=False, sort=False):
        names = group["sensitive"].str.split("+").map(set)
        for index, larger in names.items():
            smaller = [i for i, other in names.items() if other < larger]
            if smaller:
                least = group.loc[smaller, "value"].idxmin()
                mine, bound = group.loc[index], group.loc[least]
                kept.append(index)
                words.append(f"at most {bound['printed']} ({bound['sensitive']} alone)")
                off.append(mine["value"] - bound["value"] - 2 * mine["half"])
    verdict = ["unexplained" if x > 1e-9 else "consistent" for x in off]
    return finding_rows("larger sets are harder", rows.loc[kept], words, verdict, off)


def same_model(facts: pd.DataFrame) -> pd.DataFrame:
    """Check that accuracies of one and the same Naive model agree, whatever attribute is certified.

    The naive encoder and its classifier know no sensitive attribute (the authors' code trains them once
    a task and seed), so only abstentions and smoothing can separate their accuracies. A number more
    than a point below its model's best is `unexplained`: abstentions are not published.
    """
    rows = facts[(facts["metric"] == "accuracy") & (facts["method"] == "Naive") & (facts["split"] == "test")]
    rows = rows[~rows["table"].str.contains("quoted")]
    keys = ["source", "dataset", "image_size", "task", "sigma_rs", "n_eval", "n_seeds"]
    groups = rows.groupby(keys, dropna=False)["value"]
    rows, best = rows[groups.transform("size") > 1], groups.transform("max")
    best = best.loc[rows.index]
    off = best - rows["value"] - 1.0
    verdict = np.where(off > 1e-9, "unexplained", "consistent")
    words = [f"{b:.1f}, as with another attribute" for b in best]
    return finding_rows("same model", rows, words, verdict, best - rows["value"])


def repeated_rows(facts: pd.DataFrame) -> pd.DataFrame:
    """Find rows of a table whose numbers all equal another row's, though the attributes differ.

    At least four printed numbers (means and deviations) must agree, of which less than half are 0
    or 100. That a row repeats none says nothing for its numbers (`no power`).
    """
    rows = facts[facts["metric"].isin(SHARES) & facts["sensitive"].notna()]
    rows = rows[~rows["table"].str.contains("quoted")]
    cell = ["metric", "split", "sigma_cs", "sigma_rs", "lambda2"]
    keys = ["source", "table", "dataset", "image_size", "task", "vector_type", "method"]
    kept, words, verdict = [], [], []
    for _, group in rows.groupby(keys, dropna=False, sort=False):
        seen: dict[tuple, str] = {}
        for name, mine in group.groupby("sensitive", sort=False):
            mine = mine.sort_values(cell)
            text = tuple(map(str, zip(*(mine[c] for c in (*cell, "value", "std")), strict=True)))
            numbers = [*mine["value"], *mine["std"].dropna()]
            telling = sum(x not in (0.0, 100.0) for x in numbers)
            twin = seen.get(text) if len(numbers) >= 4 and 2 * telling > len(numbers) else None
            kept += list(mine.index)
            found = "unexplained" if twin else "no power"
            words += [f"not all of {twin}'s numbers" if twin else "no other row's numbers"] * len(mine)
            verdict += [found] * len(mine)
            seen.setdefault(text, str(name))
    return finding_rows("repeated row", rows.loc[kept], words, verdict, [0.0] * len(kept))


def counted_combinations(facts: pd.DataFrame) -> pd.DataFrame:
    """Check the number of end-point combinations in the text: rows of Supp. Table 13 times seeds."""
    rows = facts[facts["metric"] == "combinations_total"]
    table = facts[(facts["source"] == "eccv2022") & (facts["table"] == "Supp. Table 13")]
    cells = table.drop_duplicates(["task", "sensitive", "vector_type", "method"])
    total = float(cells["n_seeds"].sum())
    off = (rows["value"] - total).abs()
    words = [f"{len(cells)} rows of Supp. Table 13, {total:g} runs"] * len(rows)
    verdict = np.where(off > 0, "contradicted", "consistent")
    return finding_rows("counted combinations", rows, words, verdict, off)
