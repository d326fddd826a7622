"""What the notebooks on claims 2 and 3 need beside claim 1's tables: vectors, published cells, verdicts."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from lassi_lib.errors import StudyError
from lassi_lib.similarity.kinds import DISCOVERED_NAMES
from lassi_lib.study import vectors
from lassi_lib.study.published import merk_beside_eccv, published
from lassi_lib.study.statistics import PAIR, outcomes, parts_of, rated
from lassi_lib.study.study import Study
from lassi_lib.study.verdicts import Verdict, beyond_seeds, of_seeds, outcome_first, tally, worst_of

PUBLISHED_KINDS = ("mean_difference", "perpendicular", "ramaswamy", "discovered")


def kinds_of(groups: Iterable[dict]) -> list[str]:
    """Return the kinds of vectors that a notebook's groups name and that single attributes can have."""
    kinds = [kind for group in groups for kind in group.get("vector_types", [])]
    return [k for k in dict.fromkeys(kinds) if not k.startswith("discovered")]


def vector_kinds_table(
    study: Study, attributes: Iterable[str], kinds: Iterable[str], task: str
) -> pd.DataFrame:
    """Return one row per attribute and kind: length, share of the spread, cosines, the boundary's quality.

    `cos task` is the cosine with the normal of the task's linear boundary, `cos mean difference` that
    with the attribute's mean difference; `balanced accuracy` is the attribute's boundary on validation
    latents (in percent), where there is one.
    """
    from lassi_lib.similarity.diagnostics import cosines, latent_spread

    found, spread = vectors.boundaries(study), latent_spread(study.latents("test"))
    normal, rows = found[task].w[None], []
    for attribute in attributes:
        mean = study.vector(attribute, "mean_difference", task)[None]
        known = attribute in found.names
        quality = np.nan
        if known:
            y = study.labels("valid", attribute)
            quality = 100 * found[attribute].accuracy(study.latents("valid"), y)["balanced_accuracy"]
        for kind in kinds:
            a = study.vector(attribute, kind, task)[None]
            norm = float(a.double().norm())
            row = {"attribute": attribute, "kind": kind, "norm": norm, "norm / spread": norm / spread}
            row |= {"cos task": cosines(a, normal).item(), "cos mean difference": cosines(a, mean).item()}
            rows.append(row | {"balanced accuracy": quality})
    return pd.DataFrame(rows)


def discovery_table(study: Study, groups: Iterable[dict], task: str) -> pd.DataFrame:
    """Return how far the searches of discovered vectors got, a row per vector; none where no group asks.

    The columns are those of `similarity.discovered.discover`'s history; changes of the predicted
    probability, per step of 5 along the direction, in percentage points.
    """
    asked = [
        kind for group in groups for kind in group.get("vector_types", []) if kind.startswith("discovered")
    ]
    rows = []
    for kind in dict.fromkeys(asked):
        for row in vectors.search_history(study, kind, task):
            name = DISCOVERED_NAMES[row["k"]]
            found = {"vector": name, "kind": kind} | {
                key.replace("_", " "): row[key] for key in row if key != "k"
            }
            rows.append(found | {f"change {end}": 100 * found[f"change {end}"] for end in ("first", "last")})
    return pd.DataFrame(rows)


def named_by_kind(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with the kind of vector written behind the sensitive attributes, for figures."""
    kinds = table["vector_type"].str.replace("_", " ")
    return table.assign(sensitive=table["sensitive"] + " (" + kinds + ")")


def stacked(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Return tables of the same columns one below the other."""
    return pd.concat(list(tables), ignore_index=True)


def _papers_data_set(study: Study) -> str:
    """Return which of the papers' data sets this study's results stand beside."""
    return "FairFace" if study.pipeline.data.name == "fairface" else "CelebA"


def published_beside(study: Study, table: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return what was published on a study's data set and image size: cells (`merk_beside_eccv`), and their rows.

    `table` is 'Table 1' or 'Table 4' of Merk et al. On FairFace the two are two halves of one question
    (Race=Black and Race=Indian), so the second brings the first along.
    """
    dataset, size = _papers_data_set(study), 128 if study.pipeline.data.image_size == 128 else 64
    names, of_size = ["Table 1", "Supp. Table 12", "Supp. Table 14"], {"dataset": dataset, "image_size": size}
    cells = merk_beside_eccv("Table 1", names[1:], every=True, **of_size)
    if dataset == "FairFace":
        names = ["Table 1", "main paper, FairFace table (quoted in Merk Table 1)"]
    if table == "Table 4":
        added = merk_beside_eccv(table, **of_size)
        cells = stacked([added, cells]) if dataset == "FairFace" else added
        names = [table, *names] if dataset == "FairFace" else [table]
    rows = published(source=["merk2023", "eccv2022"], table=names, dataset=dataset)
    return cells, rows[rows["image_size"] == size]


def transfer_verdict(rows: pd.DataFrame, min_fairness: float, confidence: float = 0.95) -> Verdict:
    """Judge claim 3: certified fairness of at least `min_fairness` percent on tasks unknown in training.

    A pair is supported when the lower bound of its certified fairness is at least `min_fairness` and the
    lower bound of its accuracy is above the majority rate; not supported when the upper bound of either
    falls short; else inconclusive. Bounds are one-sided at `confidence`, divided over the pairs
    (Bonferroni), over seeds and points. `outcome_these_models` leaves seeds out.
    """
    if rows.empty:
        raise StudyError("claim 3: there are no certificate rows to judge: run some experiments first")
    parts = list(parts_of(rows, (*PAIR, "method")))
    level = 1 - 2 * (1 - confidence) / len(parts)
    table = []
    for key, part in parts:
        label = part["label"].to_numpy()
        majority = 100 * np.bincount(label).max() / len(label)
        row = key | {"n_seeds": part["seed"].nunique()}
        row |= {"n_points": part["index"].nunique(), "majority_rate": majority}
        for name, seeds in (("outcome", "random"), ("outcome_these_models", "fixed")):
            found = rated("certified_fairness", outcomes(part, "certified"), level, seeds)
            found |= rated("accuracy", outcomes(part, "correct"), level, seeds)
            row |= found if seeds == "random" else {}
            if found["certified_fairness_low"] >= min_fairness and found["accuracy_low"] > majority:
                row[name] = "supported"
            else:
                short = found["certified_fairness_high"] < min_fairness or found["accuracy_high"] <= majority
                row[name] = "not supported" if short else "inconclusive"
        table.append(row)
    table = pd.DataFrame(table)
    table["outcome"] = beyond_seeds(table["outcome"], table["n_seeds"])
    table = outcome_first(table, [*PAIR, "method"])
    outcome = worst_of(table["outcome"])
    few, counted = of_seeds(table["n_seeds"])
    text = (
        f"Claim 3 is {outcome}{few}: of {len(table)} pairs {tally(table['outcome'])}. A pair is supported when the lower "
        f"{100 * confidence:g} % bound of its certified fairness is at least {min_fairness:g} % and that of "
        "its accuracy above the majority rate; not supported when the upper bound of either falls short; "
        f"else inconclusive (one-sided bounds, Bonferroni over {len(table)} pairs, {counted})."
    )
    alone = tally(table["outcome_these_models"])
    return Verdict(
        outcome, f"{text} Test points alone counted, so for the models as trained: {alone}.", table
    )
