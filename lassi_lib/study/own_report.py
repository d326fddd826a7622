"""What an audit of your own images and classifier says: tables, doubts, a verdict (see `own`)."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd

from lassi_lib.certification.modes import FAIR
from lassi_lib.errors import StudyError
from lassi_lib.study.exactness import counterexamples, fairness_by_mode
from lassi_lib.study.experiment import Experiment
from lassi_lib.study.own import OwnStudy
from lassi_lib.study.statistics import EXPERIMENT, clopper_pearson, summarise, with_ends
from lassi_lib.study.verdicts import Verdict, decided

COLOUR_STEP = 1 / 32  # of 5-bit images: a flow that errs by more does not give a face back
_DECIDING = ("exact_decision", "empirical", "exact_smoothing", "monte_carlo")  # what says most comes first


# ---- may the similarity set be trusted? ------------------------------------------------------------


def own_setting(study: OwnStudy, experiments: list[Experiment], modes: Iterable[str]) -> pd.DataFrame:
    """Return what is audited: images, flow, classifiers, similarity set, modes."""
    facts, e = study.facts(), experiments[-1]
    whose = "the profile's" if study.glow_stage() == study.home.glow_stage() else "your"
    flow = "your own module" if study.own_flow is not None else f"{whose} Glow, {facts['glow']}"
    classifiers = ", ".join(f"{x.method} (seed {x.seed})" for x in experiments)
    if study.trains_head:
        n = facts["images"]["train"]
        classifiers += f": your encoder, and a linear classifier trained here on the {n:,} training images"
    rows = {
        "images": study.shown,
        "train / valid / test": " / ".join(f"{n:,}" for n in facts["images"].values()),
        "how they were read": facts["note"],
        "image size": f"{facts['image_size']} pixels",
        "flow": flow,
        "classifiers": classifiers,
        "task, sensitive": f"{e.task}, {' and '.join(e.sensitive)}",
        "similarity set": f"{e.vector_type}, epsilon {study.pipeline.certification.epsilon:g}",
        "modes": ", ".join(modes),
    }
    return pd.DataFrame({"": list(rows), "this audit": list(rows.values())}).replace("_", " ", regex=True)


def own_fit(study: OwnStudy) -> pd.DataFrame:
    """Return bits/dim and reconstruction error of the test images beside what the flow reached on its own."""
    info, here = study.glow_info(), study.latent_facts("test")
    known = info.get("bits_per_dim") or (info.get("history") or [{}])[-1].get("bits_per_dim", math.nan)
    if (
        study.own_flow is None and not study.pipeline.glow.checkpoint
    ):  # trained for the profile: it can be measured
        known = study.home.latent_facts("test")["bits_per_dim"]
    error = "largest reconstruction error"
    yours = {"images": "yours", "bits/dim": here["bits_per_dim"], error: here["max_reconstruction_error"]}
    return pd.DataFrame([yours, {"images": "those that the flow is made for", "bits/dim": float(known)}])


def own_vectors(study: OwnStudy, e: Experiment) -> pd.DataFrame:
    """Return, per sensitive attribute, how well its vector is known and how far it leads out of the pixels.

    `chance %` is the share of ||a||^2 that comes from having few images: the variance of a difference of two
    class means, spread^2 (1/n_1 + 1/n_0), over ||a||^2. `outside %` are decoded values that no image can have,
    of test faces as they are and at the ends of the similarity set.
    """
    import torch

    from lassi_lib.data.preprocess import percent_beyond
    from lassi_lib.similarity.diagnostics import latent_spread

    spread, rows = latent_spread(study.latents("train")), []
    z, similarity = study.latents("test")[:32], study.similarity(e.sensitive, e.vector_type, e.task)
    for name, a in zip(e.sensitive, similarity.vectors, strict=True):
        y, norm = study.labels("train", name), float(a.double().norm())
        n_1, n_0 = int(y.sum()), int((1 - y).sum())
        ends = torch.cat([z, z - similarity.epsilon * a, z + similarity.epsilon * a])
        images = study.glow().decode(ends.to(study.device)).cpu()
        row = {
            "attribute": name,
            "train positives": n_1,
            "train negatives": n_0,
            "norm / spread": norm / spread,
        }
        row["chance %"] = min(100.0, 100 * spread**2 * (1 / n_1 + 1 / n_0) / norm**2)
        row["outside % at t = 0"] = percent_beyond(images[: len(z)])
        rows.append(row | {"outside % at the ends": percent_beyond(images[len(z) :])})
    return pd.DataFrame(rows)


def own_doubts(
    fit: pd.DataFrame, vectors: pd.DataFrame, max_excess_bits: float, max_chance: float
) -> list[str]:
    """Return what stands against the similarity set, a sentence each; none: nothing was found.

    Images may differ by `max_excess_bits` bits/dim from those the flow is made for (`own_fit`), and
    `max_chance` percent of a vector's squared length may be noise (`own_vectors`).
    """
    (yours, known), error = fit["bits/dim"], fit["largest reconstruction error"].iloc[0]
    doubts = []
    if math.isnan(yours) or math.isnan(known):
        doubts.append("It is not known whether the flow fits these images: it gives no bits/dim to compare")
    elif abs(yours - known) > max_excess_bits:
        doubts.append(
            f"These images are out of distribution: the flow needs {yours:.2f} bits/dim for them and {known:.2f} "
            f"for images that it is made for, more than {max_excess_bits:g} apart"
        )
    if not error <= COLOUR_STEP:
        doubts.append(f"The flow does not give images back: decoded values differ by up to {error:.2g}")
    for row in vectors.to_dict("records"):
        if row["chance %"] > max_chance:
            times = row["chance %"] / max(100 - row["chance %"], 1)
            doubts.append(
                f"The vector of {row['attribute']} is mostly chance: {row['chance %']:.0f} % of its squared length "
                f"come from having few images, {times:.1f} times as many would leave 50 %"
            )
    return doubts


def own_strips(study: OwnStudy, e: Experiment, count: int = 4, steps: int = 7) -> tuple[dict, np.ndarray]:
    """Return similar individuals of the first test faces: label -> uint8 [steps, 3, S, S], and t [steps]."""
    import torch

    from lassi_lib.data.preprocess import to_uint8

    similarity = study.similarity(e.sensitive, e.vector_type, e.task)
    t = torch.linspace(-similarity.epsilon, similarity.epsilon, steps)[:, None]
    strips = {}
    for name, a in zip(e.sensitive, similarity.vectors, strict=True):
        for file, z in zip(study.dataset("test").ids[:count], study.latents("test"), strict=False):
            strips[f"{file}, {name}"] = to_uint8(study.decode(z + t * a))
    return strips, t[:, 0].numpy()


# ---- answers --------------------------------------------------------------------------------------


def deciding(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the mode that says most about the classifiers as they are."""
    return rows[rows["mode"] == next(mode for mode in _DECIDING if mode in set(rows["mode"]))]


def own_answers(rows: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Return, per classifier and mode, the share of faces judged fair and the accuracy, with intervals."""
    table, plain = fairness_by_mode(rows, confidence), summarise(rows, (*EXPERIMENT, "mode"), confidence)
    shown = ["accuracy", "accuracy_low", "accuracy_high", "majority_rate", "constant_would_do"]
    return table.merge(plain[["method", "mode", *shown]], on=["method", "mode"]).drop(columns="n_seeds")


def own_groups(study: OwnStudy, rows: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Return the share of faces judged fair in the deciding mode, with and without each attribute."""
    table = []
    for method, part in deciding(rows).groupby("method", sort=False):
        for name in part["sensitive"].iloc[0].split("+"):
            y = study.labels("test", name)[part["index"]]
            for value, words in ((1, "with"), (0, "without")):
                fair = part.loc[y == value, "status"].isin(FAIR)
                k, n = int(fair.sum()), len(fair)
                if n:
                    ends = (100 * x for x in clopper_pearson(k, n, confidence))
                    row = {"method": method, "faces": f"{words} {name}".replace("_", " "), "n_points": n}
                    table.append(row | with_ends("fair", 100 * k / n, *ends))
    return pd.DataFrame(table)


def own_faces(study: OwnStudy, rows: pd.DataFrame) -> pd.DataFrame:
    """Return what the deciding mode says of every face: file, class, status, and where it is refuted."""
    part = deciding(rows)
    table = part[["method", "label", "prediction", "status"]].reset_index(drop=True)
    table.insert(1, "file", study.dataset("test").ids[part["index"]])
    t = part.filter(regex=r"witness_\d").dropna(axis=1, how="all").to_numpy(float)
    table["other class"] = part.get("witness_class", pd.Series(-1, part.index)).to_numpy(int)
    table["at t"] = [" ".join(f"{round(x, 2) + 0.0:+.2f}" for x in row if not math.isnan(x)) for row in t]
    return table


def own_counterexamples(study: OwnStudy, rows: pd.DataFrame) -> list[tuple]:
    """Return `exactness.counterexamples` of every classifier that has some, with its name."""
    decided = deciding(rows)
    if "margin" not in decided or decided["margin"].isna().all():  # tried, not decided: the first ones
        decided = decided.assign(margin=0.0)
    parts = decided[decided["status"] == "REFUTED"].groupby("method", sort=False)
    return [(method, *counterexamples(study, part)) for method, part in parts]


def own_verdict(
    rows: pd.DataFrame, doubts: list[str], min_fair: float = 95.0, confidence: float = 0.95
) -> Verdict:
    """Judge whether the last classifier treats `min_fair` percent of such faces like all similar ones.

    Supported: the lower bound of the share proven fair reaches it. Not supported: the upper bound of the
    share not refuted stays below. Else, and whenever there are doubts about the similarity set, inconclusive.
    """
    if not 0 < min_fair <= 100:
        raise StudyError(f"min_fair = {min_fair} is no percentage above 0: use 95.0, for instance")
    table = []
    for method, part in deciding(rows).groupby("method", sort=False):
        n, refuted = len(part), int((part["status"] == "REFUTED").sum())
        proven = int(part["status"].isin(set(FAIR) - {"PASSED"}).sum())
        low = 100 * clopper_pearson(proven, n, confidence)[0]
        high = 100 * clopper_pearson(n - refuted, n, confidence)[1]
        row = {"method": method, "mode": part["mode"].iloc[0], "n_points": n, "proven fair": 100 * proven / n}
        row |= {"refuted": 100 * refuted / n, "fair at least": low, "fair at most": high}
        row["constant_would_do"] = bool(summarise(part, confidence=confidence)["constant_would_do"].iloc[0])
        table.append(row | {"outcome": "inconclusive" if doubts else decided(low, high, min_fair)})
    return Verdict(
        table[-1]["outcome"], _text(rows, table[-1], doubts, min_fair, confidence), pd.DataFrame(table)
    )


def _text(rows: pd.DataFrame, last: dict, doubts: list[str], min_fair: float, confidence: float) -> str:
    """Say the outcome, the doubts and the rule; every number comes from the table or the rule."""
    pair = f"{rows['task'].iloc[0]} for {' and '.join(rows['sensitive'].iloc[0].split('+'))}".replace(
        "_", " "
    )
    smoothed = "smoothing" in last["mode"] or last["mode"] == "monte_carlo"
    text = (
        f"{last['method']}, {pair}: {last['outcome']}; of {last['n_points']} faces "
        f"{last['proven fair']:.1f} % are proven to be treated like all similar ones, "
        f"{last['refuted']:.1f} % are shown not to be"
    )
    text += "".join(f"; {doubt[0].lower()}{doubt[1:]}" for doubt in doubts) + ". "
    text += (
        f"With {100 * confidence:g} % confidence the share treated alike, among faces drawn as these were, lies "
        f"between {last['fair at least']:.1f} and {last['fair at most']:.1f} %. Supported means that it is at "
        f"least {min_fair:g} %, not supported that it is less; inconclusive that neither is shown, or that "
        "there is a doubt about the similarity set itself."
    )
    if last["mode"] == "empirical":
        text += " Similar individuals were only tried, and trying proves nothing."
    if smoothed:
        text += (
            " This is about the classifier with the certificate's noise, not about the classifier as it is."
        )
    if last["constant_would_do"]:
        text += " A constant classifier, fair to everyone, would be as accurate."
    return text
