"""What encoders still know: how many directions R fills, and what a linear probe reads from it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch

from lassi_lib.errors import StudyError
from lassi_lib.learning.diagnostics import auc_interval, effective_rank, linear_probe
from lassi_lib.learning.representation import embed
from lassi_lib.study.experiment import Experiment
from lassi_lib.study.statistics import jackknife_margin, with_ends
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
