"""What encoders still know: how many directions R fills, and what a linear probe reads from it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch

from lassi_lib.learning.diagnostics import auc_interval, effective_rank, linear_probe
from lassi_lib.learning.representation import embed
from lassi_lib.study.experiment import Experiment
from lassi_lib.study.statistics import jackknife_margin, with_ends
from lassi_lib.study.study import Study

_FIT = 8000  # training faces that a probe is fitted on, and test faces at most
_GROUPS = 20  # of test faces, left out in turn for the intervals


def knowledge_table(
    study: Study, experiments: Iterable[Experiment], probes: Iterable[str], confidence: float = 0.95
) -> pd.DataFrame:
    """Return what each distinct encoder still knows: effective rank of R, AUC of linear probes (percent).

    Encoders that several tasks share stand once; values are means over seeds. Intervals are over seeds and
    test faces, probes as fitted: `auc_interval`, and for ranks `jackknife_margin` on the logarithmic scale. An
    attribute that no test face has, or all have, has no AUC.
    """
    probes, encoders = list(probes), {}
    for e in experiments:
        encoders.setdefault(study.encoder_stage(e).key, e)
    y = {s: np.stack([study.labels(s, a) for a in probes], axis=1)[:_FIT] for s in ("train", "test")}
    found: dict[tuple, list[tuple]] = {}
    for e in encoders.values():
        task = e.task if study.settings(e).lambda_1 else "none"
        R = study.representation(e)
        r = {s: embed(R, study.latents(s)[:_FIT]) for s in ("train", "test")}
        seed = _ranks(r["test"]), linear_probe(r["train"], y["train"], r["test"])
        found.setdefault((task, "+".join(e.sensitive), e.method), []).append(seed)
    rows = []
    for key, seeds in found.items():
        row = dict(zip(("trained for", "sensitive", "method"), key, strict=True))
        ranks, scores = (np.stack(x) for x in zip(*seeds, strict=True))  # [m, 1 + groups], [m, N, probes]
        mean = ranks[:, 0].mean()
        wide = np.exp(jackknife_margin(ranks, confidence) / mean) if mean else 1.0
        row |= with_ends("effective rank", mean, mean / wide, mean * wide)
        for k, name in enumerate(probes):
            known = auc_interval(scores[:, :, k], y["test"][:, k], confidence)
            row |= with_ends(f"AUC {name}", *(100 * x for x in known))
        rows.append(row)
    return pd.DataFrame(rows)


def _ranks(r: torch.Tensor) -> list[float]:
    """Return the effective rank of representations [N, k], and what it is without each group of them."""
    group = torch.arange(len(r)) % _GROUPS
    return [effective_rank(r), *(effective_rank(r[group != g]) for g in range(_GROUPS))]
