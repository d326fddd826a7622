"""Why are some pairs hard to certify? The published explanations against the numbers of all pairs.

LASSI certifies Attractive with Bald and with Chubby for few faces. Merk et al. (2023) offer two reasons:
attribute and task go together in the labels, and the flow's variations along the attribute are
corrupted. Here d_cs / d_rs, which must be below 1, is set against what each reason would show up in:

- label correlation (published): |phi| of attribute and task among the training labels;
- poor vector (published): few faces with the attribute, whose mean is noise;
- long vector: ||a|| beside the spread of latents. The similarity set reaches so far, good vector or bad;
- vector drags the task along: |cos| of a with the normal of the task's linear boundary. Along such a
  vector the task itself changes, whatever made it so.

A pair is one observation. Its seeds share labels and vector, so they are averaged first.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

import numpy as np
import pandas as pd

from lassi_lib.errors import StudyError
from lassi_lib.study import vectors
from lassi_lib.study.associations import associations, celeba_associations
from lassi_lib.study.published import published
from lassi_lib.study.rankings import POWER, RankCorrelation, correlate, rank_correlation
from lassi_lib.study.statistics import EXPERIMENT, outcomes, parts_of
from lassi_lib.study.study import Study
from lassi_lib.study.tables import span
from lassi_lib.study.verdicts import Verdict, worst_of

# predictor -> (explanation it belongs to, sign of the effect that the explanation expects)
PREDICTORS = {
    "abs_phi": ("label correlation", 1),
    "log_positives": ("poor vector", -1),
    "norm_to_spread": ("long vector", 1),
    "abs_cos": ("vector drags the task along", 1),
}
PUBLISHED_EXPLANATIONS = ("label correlation", "poor vector")
FITTED = [
    "slope", "slope_low", "slope_high", "slope_boot_low", "slope_boot_high", "vif", "r2_alone", "r2_lost",
    "model_r2", "model_left_out_r2",
]  # fmt: skip


def own_associations(
    study: Study, attributes: Iterable[str], tasks: Iterable[str], confidence: float = 0.95
) -> pd.DataFrame:
    """Return `associations` among the labels that this profile's encoders are trained on."""
    attributes, tasks = list(attributes), list(tasks)
    split = study.training_split
    labels = {name: study.labels(split, name) for name in dict.fromkeys([*attributes, *tasks])}
    return associations(pd.DataFrame(labels), attributes, tasks, confidence)


def published_outliers(confidence: float = 0.95) -> pd.DataFrame:
    """Return the printed certified fairness of LASSI beside how attribute and task go together in CelebA.

    One row per pair with a single attribute in Merk et al.'s Tables 1 and 4, least fair first:
    printed_fairness, phi with interval, and `ratio`, P(task | attribute) / P(task), turned over where below 1.
    """
    cells = published(source="merk2023", table=["Table 1", "Table 4"], dataset="CelebA", method="LASSI")
    cells = cells[
        (cells["metric"] == "certified_fairness") & ~cells["sensitive"].str.contains("+", regex=False)
    ]
    names = (cells[c].unique() for c in ("sensitive", "task"))
    found = celeba_associations(*names, confidence=confidence).rename(columns={"attribute": "sensitive"})
    found["ratio"] = np.fmax(found["ratio"], 1 / found["ratio"])
    table = cells.rename(columns={"value": "printed_fairness"}).merge(found, on=["sensitive", "task"])
    shown = ["task", "sensitive", "printed_fairness", "phi", "phi_low", "phi_high", "ratio"]
    return table.sort_values("printed_fairness", ignore_index=True)[shown]


def published_outliers_text(table: pd.DataFrame, confidence: float = 0.95) -> str:
    """Say whether the labels set the two least fair pairs of `published_outliers` apart from the others."""
    said = []
    for name, x in (("|phi|", table["phi"].abs()), ("the ratio", table["ratio"])):
        found = correlate(x, table["printed_fairness"], table["sensitive"], table["task"])
        low, high = found.interval(confidence)
        others = table[(x >= x[:2].min()) & (table.index >= 2)]
        words = [
            f"{r.task}/{r.sensitive} ({x[r.Index]:.2f}, {r.printed_fairness:g} %)"
            for r in others.itertuples()
        ]
        said.append(
            f"Over {len(table)} printed pairs {name} and certified fairness have a rank correlation of {found.rho:.2f} "
            f"[{low:.2f}, {high:.2f}]. The least fair two have {x[0]:.2f} and {x[1]:.2f}; as much have, and are "
            f"certified all the same: {', '.join(words) or 'no others'}."
        )
    return "\n".join(textwrap.fill(line, 100) for line in said)


def pair_table(study: Study, rows: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Return one row per pair, method and seed: radii, and what might explain them.

    Columns `EXPERIMENT`, seed; d_cs, d_rs, ratio: medians over test points, an abstention counting as
    never certified (d_cs infinite, d_rs 0), so that ratio < 1 says that most points are certified;
    certified_fairness (percent); phi, phi_low, phi_high; norm_to_spread; cos_task; positives.
    """
    from lassi_lib.similarity.diagnostics import cosines, latent_spread

    known: dict[tuple, dict] = {}
    table: list[dict] = []
    spread, found = latent_spread(study.latents("test")), vectors.boundaries(study)
    for row, part in parts_of(rows, (*EXPERIMENT, "seed")):
        task, attribute, kind = row["task"], row["sensitive"], row["vector_type"]
        if "+" in attribute:
            raise StudyError(f"pair_table(): '{attribute}' has no single vector: ask one_attribute() first")
        d_cs, d_rs = part["d_cs"].fillna(np.inf), part["d_rs"].fillna(0.0)
        row |= {"d_cs": d_cs.median(), "d_rs": d_rs.median(), "ratio": (d_cs / d_rs).median()}
        row["certified_fairness"] = 100 * outcomes(part, "certified").mean()
        if (task, attribute, kind) not in known:
            a = study.vector(attribute, kind, task)
            label = own_associations(study, [attribute], [task], confidence).iloc[0]
            cos = cosines(a[None], found[task].w[None]).item() if task in found.names else np.nan
            facts = {name: label[name] for name in ("phi", "phi_low", "phi_high")}
            facts |= {"norm_to_spread": float(a.double().norm()) / spread, "cos_task": cos}
            known[task, attribute, kind] = facts | {"positives": int(label["both"] + label["attribute_only"])}
        table.append(row | known[task, attribute, kind])
    return pd.DataFrame(table)


def pair_means(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per pair and method: logarithms of `pair_table` averaged over seeds, predictors.

    `log_ratio`, `log_d_cs` and `log_d_rs` are natural logarithms, infinite where most points of a seed
    abstained; `ratio` is the geometric mean.
    """
    with np.errstate(divide="ignore"):
        logs = {f"log_{c}": np.log(table[c]) for c in ("ratio", "d_cs", "d_rs")}
    table = table.assign(
        **logs, abs_phi=table["phi"].abs(), abs_cos=table["cos_task"].abs(), log_positives=np.log(table["positives"])
    )  # fmt: skip
    shared = ["phi", "cos_task", "positives", *PREDICTORS]
    groups = table.groupby(list(EXPERIMENT), sort=False)
    out = groups[[*logs, "certified_fairness"]].mean().join(groups[shared].first())
    out.insert(0, "n_seeds", groups["seed"].nunique())
    return out.assign(ratio=np.exp(out["log_ratio"])).reset_index()


def matrix_text(means: pd.DataFrame, method: str) -> str:
    """Say which pairs have a median d_cs / d_rs above 1, and how strongly their labels go together (`pair_means`)."""
    means = means[means["method"] == method]
    hard = means["ratio"] > 1
    if not hard.any():
        return f"{method}: no pair's median d_cs / d_rs lies above 1."
    rows = means[hard].sort_values("ratio", ascending=False).itertuples()
    named = ", ".join(f"{r.task} / {r.sensitive} ({r.ratio:.3g})" for r in rows)
    size = means["phi"].abs()
    text = f"{method}: above 1, where most faces cannot be certified, lie {named}, with |phi| of {span(size[hard], 2)}"
    return text + (f"; elsewhere ({(~hard).sum()}) it is {span(size[~hard], 2)}." if (~hard).any() else ".")


def hardest_text(table: pd.DataFrame, confidence: float = 0.95) -> str:
    """Say whether the pairs that LASSI certifies least here are those of the publication.

    `table` is a summary with published columns (`with_published`); pairs without a published value do not
    count. Ranks are compared since flow, faces and test sizes differ.
    """
    own = table[(table["method"] == "LASSI") & table["merk_certified_fairness"].notna()]
    ours, theirs = own["certified_fairness"], own["merk_certified_fairness"]
    found = correlate(ours, theirs, own["sensitive"], own["task"])
    if np.isnan(found.rho):
        return f"{len(own)} pairs with a published value: too few, or too much alike, to say which are hard."
    low, high = found.interval(confidence)
    names = own["task"] + "/" + own["sensitive"]
    hardest = [", ".join(f"{names[i]} {v[i]:.1f} %" for i in v.nsmallest(2).index) for v in (theirs, ours)]
    return (
        f"LASSI's certified fairness of {len(own)} pairs, published and ours: rank correlation {found.rho:.2f} "
        f"[{low:.2f}, {high:.2f}]. Hardest as published: {hardest[0]}; here: {hardest[1]}."
    )


def left_out_r2(X: np.ndarray, y: np.ndarray) -> float:
    """Return 1 - sum of squared errors / that of the mean, each pair predicted from all others.

    X [n, k] without constant, y [n]. The prediction errors of least squares are e_i / (1 - h_i).
    """
    n, X = len(y), np.column_stack([np.ones(len(y)), X])
    hat = X @ np.linalg.pinv(X)
    h = np.diag(hat)
    if np.isclose(h, 1).any():
        return np.nan  # a pair that alone fixes a coefficient cannot be predicted
    error, of_mean = (y - hat @ y) / (1 - h), (y - y.mean()) * n / (n - 1)
    return float(1 - (error**2).sum() / (of_mean**2).sum())


def regress(
    means: pd.DataFrame, outcome: str = "log_ratio", confidence: float = 0.95, draws: int = 2000
) -> pd.DataFrame:
    """Regress an outcome of `pair_means` on the standardised predictors, for every method.

    The outcome is 'log_ratio', 'log_d_cs' or 'log_d_rs'; pairs whose outcome or predictor is not finite are
    left out. Intervals are not adjusted for the number of predictors; `draws` are the bootstrap's, over pairs.
    Those of rank correlations allow for shared attributes and tasks (`rankings`), those of slopes do not.

    One row per method and predictor: outcome, explanation, n_pairs, left_out, n_values (distinct
    values of the predictor: few where it belongs to the attribute alone), spearman with interval, and the
    spearman_variance of its Fisher z with spearman_freedom, from which other levels follow;
    spearman_in_tasks (of differences from each task's mean), slope (change of the logarithm per
    standard deviation, all predictors in one least-squares model) with HC3 interval, slope_boot_low
    and _high, vif, r2_alone and r2_lost (leave-one-pair-out R2 of this predictor alone, and what the
    model loses without the predictors of its explanation), model_r2, model_left_out_r2. NaN where there are
    too few pairs.
    """
    parts = means.groupby("method", sort=False)
    fits = [_regress_one(p, outcome, confidence, draws).assign(method=m) for m, p in parts]
    return pd.concat(fits, ignore_index=True)


def _regress_one(means: pd.DataFrame, outcome: str, confidence: float, draws: int) -> pd.DataFrame:
    names, tail = list(PREDICTORS), (1 - confidence) / 2
    used = means.loc[np.isfinite(means[[outcome, *names]].to_numpy(float)).all(1)]
    tasks = used[used.groupby("task")["task"].transform("size") > 1].groupby("task")[[outcome, *names]]
    inside = (used[[outcome, *names]] - tasks.transform("mean")).dropna().round(12)
    y, x, n, k = used[outcome].to_numpy(float), used[names].to_numpy(float), len(used), len(names)
    explanations = np.array([PREDICTORS[name][0] for name in names])
    table = pd.DataFrame({"outcome": outcome, "method": "", "explanation": explanations, "predictor": names})
    table["n_pairs"], table["left_out"] = n, len(means) - n
    table["n_values"] = used[names].nunique().to_numpy()
    found = [correlate(used[name], y, used["sensitive"], used["task"]) for name in names]
    table["spearman"] = [c.rho for c in found]
    table["spearman_low"], table["spearman_high"] = np.transpose([c.interval(confidence) for c in found])
    table["spearman_variance"] = [c.variance for c in found]
    table["spearman_freedom"] = [c.freedom for c in found]
    table["spearman_in_tasks"] = [rank_correlation(inside[name], inside[outcome]) for name in names]
    table[FITTED] = np.nan
    if n < k + 3 or (x.std(0) == 0).any():
        return table
    from statsmodels.api import OLS

    z = (x - x.mean(0)) / x.std(0, ddof=1)
    X, rng, slopes = np.column_stack([np.ones(n), z]), np.random.default_rng(0), []
    fit = OLS(y, X).fit(cov_type="HC3", use_t=True)
    table["slope"], (table["slope_low"], table["slope_high"]) = fit.params[1:], fit.conf_int(2 * tail)[1:].T
    for i in rng.integers(n, size=(draws, n)):
        if len(set(i)) > k + 1:
            slopes.append(np.linalg.lstsq(X[i], y[i], rcond=None)[0][1:])
    table["slope_boot_low"], table["slope_boot_high"] = np.quantile(slopes, [tail, 1 - tail], axis=0)
    table["vif"], whole = np.diag(np.linalg.pinv(np.corrcoef(z.T))), left_out_r2(z, y)
    table["r2_alone"] = [left_out_r2(z[:, [j]], y) for j in range(k)]
    table["r2_lost"] = [whole - left_out_r2(z[:, explanations != e], y) for e in explanations]
    table["model_r2"], table["model_left_out_r2"] = fit.rsquared, whole
    return table


def outlier_table(means: pd.DataFrame, pairs: Iterable[str]) -> pd.DataFrame:
    """Return where given pairs ('Task/Attribute') stand among all, per method; those not run are left out.

    rank (1: largest ratio) of n_pairs, and robust_z = (log ratio - median) / (1.4826 median absolute
    deviation), which outliers do not spoil.
    """
    y = means["log_ratio"].groupby(means["method"])
    middle = y.transform("median")
    spread = 1.4826 * (means["log_ratio"] - middle).abs().groupby(means["method"]).transform("median")
    table = means.assign(rank=y.rank(ascending=False, method="min").astype(int), n_pairs=y.transform("size"))
    table["robust_z"] = ((means["log_ratio"] - middle) / spread).where(np.isfinite(middle) & (spread > 0))
    shown = ["task", "sensitive", "method", "ratio", "certified_fairness", "rank", "n_pairs", "robust_z"]
    return table.loc[(means["task"] + "/" + means["sensitive"]).isin(list(pairs)), shown].reset_index(
        drop=True
    )


def explanations_verdict(
    fits: pd.DataFrame, method: str, min_correlation: float, min_r2: float, confidence: float = 0.95
) -> Verdict:
    """Judge each explanation by the ratios of all pairs (`regress`), for one method.

    Supported: the rank correlation of one of its predictors with the ratio has the expected sign and an
    interval without 0, and the model loses at least `min_r2` of its leave-one-pair-out R2 without the
    explanation's predictors. Not supported: the intervals of all its predictors stay below
    `min_correlation` in the expected direction. Else inconclusive.

    Parameters
    ----------
    fits : pandas.DataFrame
        From `regress`; its rows of the outcome 'log_ratio' are read.
    method : str
        Whose rows are judged.
    min_correlation : float
        Smallest rank correlation that would matter.
    min_r2 : float
        Smallest loss of R2 that matters.
    confidence : float
        Of the two-sided intervals; what it leaves is divided over all predictors (Bonferroni).
    """
    part = fits[(fits["method"] == method) & (fits["outcome"] == "log_ratio")]
    if part.empty:
        raise StudyError(f"explanations: there is no regression of method '{method}': name one that was run")
    level, n, table = 1 - (1 - confidence) / len(part), int(part["n_pairs"].iloc[0]), []
    for explanation, own in part.groupby("explanation", sort=False):
        sign = np.array([PREDICTORS[p][1] for p in own["predictor"]])
        towards = [
            sorted(s * end for end in c.interval(level)) for s, c in zip(sign, _found(own), strict=True)
        ]
        low, high = np.array(towards).T
        lost, outcome = own["r2_lost"].iloc[0], "inconclusive"
        if (low > 0).any() and lost >= min_r2:
            outcome = "supported"
        elif (high < min_correlation).all():
            outcome = "not supported"
        best = int(np.nan_to_num(low, nan=-1).argmax())
        row = {"explanation": explanation, "predictor": own["predictor"].iloc[best]}
        row["spearman"] = own["spearman"].iloc[best]
        row["spearman_low"], row["spearman_high"] = sorted((sign[best] * low[best], sign[best] * high[best]))
        table.append(row | {"r2_lost": lost, "outcome": outcome})
    said = "; ".join(f"{row['explanation']} is {row['outcome']}" for row in table)
    r2 = part["model_left_out_r2"].iloc[0]
    text = (
        f"By regression over {n} pairs of {method}: {said}. An explanation is supported when a predictor's "
        "rank correlation with d_cs / d_rs has the expected sign, its interval leaves out 0, and without the "
        f"explanation the model loses at least {min_r2:g} of R2 on left-out pairs; not supported when all its "
        f"intervals stay below {min_correlation:g}; else inconclusive ({100 * confidence:g} %, Bonferroni over "
        f"{len(part)} predictors; intervals allow for what pairs of one attribute or one task share). Power: with "
        f"intervals as wide as the narrowest here, {100 * POWER:g} % of repetitions would find a rank correlation "
        f"of {min(c.detectable(level) for c in _found(part)):.2f}, fewer a weaker one. "
    )
    text += (
        f"All predictors together: R2 {r2:.2f} on left-out pairs."
        if np.isfinite(r2)
        else "Too few pairs for a model."
    )
    return Verdict(worst_of(row["outcome"] for row in table), text, pd.DataFrame(table))


def _found(fits: pd.DataFrame) -> list[RankCorrelation]:
    columns = ("spearman", "spearman_variance", "spearman_freedom", "n_pairs")
    return [RankCorrelation(*values) for values in fits[[*columns]].to_numpy(float)]


def combined_verdict(regression: Verdict, experiment: Verdict) -> Verdict:
    """Judge each explanation by both kinds of evidence: `explanations_verdict` and `causes_verdict`.

    What one of them finds (supported or not supported) holds unless the other finds the opposite; else
    inconclusive. The outcome is that of the published explanations: not supported if either is, supported if both are.
    """
    tried = experiment.table.groupby("explanation", sort=False)["outcome"].agg(worst_of)
    table = regression.table[["explanation"]].copy()
    table["published"] = table["explanation"].isin(PUBLISHED_EXPLANATIONS)
    table["by regression"] = regression.table["outcome"]
    table["by experiment"] = table["explanation"].map(tried).fillna("not asked")
    evidence = table[["by regression", "by experiment"]].to_numpy()
    sure = [set(pair) & {"supported", "not supported"} for pair in evidence]
    table["outcome"] = [found.pop() if len(found) == 1 else "inconclusive" for found in sure]
    said = [f"{r.explanation} is {r.outcome}" for r in table[table["published"]].itertuples()]
    ours = [f"{r.explanation} is {r.outcome}" for r in table[~table["published"]].itertuples()]
    text = (
        f"Why some pairs can hardly be certified, by the published explanations: {'; '.join(said)}. By ours: "
        f"{'; '.join(ours)}. What regression or experiment finds holds unless the other finds the opposite; the outcome is not "
        "supported if either published explanation is not, supported if both are, else inconclusive."
    )
    alone = table[(table["outcome"] == table["by experiment"]) & (table["by regression"] == "inconclusive")]
    if len(alone := alone[alone["outcome"] != "inconclusive"]):
        text += f" By the experiment on rendered faces alone: {'; '.join(alone['explanation'])}."
    return Verdict(worst_of(table.loc[table["published"], "outcome"]), text, table)
