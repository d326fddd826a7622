"""What encoders still know: how many directions R fills, and what a linear probe reads from it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from scipy import special

from lassi_lib.errors import StudyError
from lassi_lib.learning.diagnostics import auc, both_classes, effective_rank, linear_probe, placements
from lassi_lib.learning.representation import embed
from lassi_lib.study.experiment import Experiment
from lassi_lib.study.statistics import clopper_pearson, jackknife_margin, with_ends
from lassi_lib.study.study import Study

_FIT = 8000  # training faces that ranks and probes are taken from at most, and test faces at most
_GROUPS = 20  # of faces, left out in turn for the intervals of ranks


def knowledge_table(
    study: Study, experiments: Iterable[Experiment], probes: Iterable[str], confidence: float = 0.95
) -> pd.DataFrame:
    """Return what each distinct encoder still knows: effective rank of R, AUC of linear probes (percent).

    Encoders that several tasks share stand once; values are means over seeds. Ranks are those of up to 8,000
    training faces (`faces`; few faces show fewer directions), their intervals over seeds and as many other
    faces: `jackknife_margin` on the logarithmic scale. AUCs are those of test faces, see `auc_interval`. An
    attribute that no test face has, or all have, has no AUC.
    """
    probes, encoders = list(probes), {}
    for e in experiments:
        encoders.setdefault(study.encoder_stage(e).key, e)
    y = {s: np.stack([study.labels(s, a) for a in probes], axis=1)[:_FIT] for s in ("train", "test")}
    found: dict[tuple, dict[int, tuple]] = {}
    for e in encoders.values():
        task = e.task if study.settings(e).lambda_1 else "none"
        R = study.representation(e)
        r = {s: embed(R, study.latents(s)[:_FIT]) for s in ("train", "test")}
        seeds = found.setdefault((task, "+".join(e.sensitive), e.method, e.vector_type), {})
        if e.seed in seeds:
            raise StudyError(f"knowledge_table(): {e} has two encoders for one row: ask for each by itself")
        seeds[e.seed] = _ranks(r["train"]), linear_probe(r["train"], y["train"], r["test"])
    rows = []
    for key, seeds in found.items():
        row = dict(zip(("trained for", "sensitive", "method", "vector_type"), key, strict=True))
        ranks, scores = (np.stack(x) for x in zip(*seeds.values(), strict=True))  # [m, 1 + G], [m, N, probes]
        mean = ranks[:, 0].mean()
        wide = np.exp(jackknife_margin(ranks, confidence) / mean) if mean else 1.0
        row |= {"faces": len(y["train"])} | with_ends("effective rank", mean, mean / wide, mean * wide)
        for k, name in enumerate(probes):
            known = auc_interval(scores[:, :, k], y["test"][:, k], confidence)
            row |= with_ends(f"AUC {name}", *(100 * x for x in known))
        rows.append(row)
    table = pd.DataFrame(rows)
    return table if table["vector_type"].nunique() > 1 else table.drop(columns="vector_type")


def _ranks(r: torch.Tensor) -> list[float]:
    """Return the effective rank of representations [N, k], and what it is without each group of them."""
    count = min(_GROUPS, len(r))
    group = torch.arange(len(r)) % count
    return [effective_rank(r), *(effective_rank(r[group != g]) for g in range(count))]


def auc_interval(scores: np.ndarray, y: np.ndarray, confidence: float = 0.95) -> tuple[float, float, float]:
    """Return (mean AUC, low, high) of m seeds' scores [m, N] for labels [N]: over seeds and points.

    Points: DeLong et al. (1988), from placements averaged over seeds, to which two imagined points are added
    first, a positive in the middle of the negatives and the reverse (in the manner of Agresti & Coull 1998):
    without them few positives, well separated, would have next to no variance. Student's t has as many
    degrees of freedom as the smaller class has points, and for seeds m - 1 (left out for one). The margin of
    error gives an effective number of points, for which the interval is Clopper & Pearson's; without any
    margin (all scores are one number) it is the size of the smaller class. In simulations of continuous
    scores it covers 96 to 99 % at nominal 95 %; with several seeds it is on the long side, since what they
    say differently of a point counts twice. NaN if there is one class only, or no score.
    """
    if not both_classes(y) or np.isnan(scores).any():
        return np.nan, np.nan, np.nan
    tail, m, few = (1 - confidence) / 2, len(scores), int(min(np.sum(y), len(y) - np.sum(y)))
    values = np.array([auc(score, y) for score in scores])
    middles = [[np.median(score[y == k]) for k in (0, 1)] for score in scores]
    parts = [placements(score, np.append(y, [1, 0])) for score in np.hstack([scores, middles])]
    positive, negative = (np.mean(side, axis=0) for side in zip(*parts, strict=True))
    center, mean = positive.mean(), values.mean()
    squared = special.stdtrit(few, tail) ** 2 * sum(
        side.var(ddof=1) / len(side) for side in (positive, negative)
    )
    if m > 1:
        squared += special.stdtrit(m - 1, tail) ** 2 * values.var(ddof=1) / m
    effective = special.ndtri(tail) ** 2 * center * (1 - center) / squared if squared > 0 else few
    low, high = clopper_pearson(center * effective, effective, confidence)
    return float(mean), float(min(low, mean)), float(max(high, mean))
