"""An audit of your own: a folder of face images, a flow, and a classifier, perhaps both of your making.

`OwnStudy` is the study of a folder: latents, vectors, encoders and certificates are the stages of any other
study. The functions below turn its answers into tables, sentences and a verdict.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lassi_lib.certification.modes import MODES
from lassi_lib.errors import StudyError, nearest
from lassi_lib.study.cache import Stage, StageCache
from lassi_lib.study.exactness import counterexamples, fairness_by_mode
from lassi_lib.study.experiment import Experiment, parse_pair
from lassi_lib.study.params import ROOT, DataParams, GlowParams, MethodParams
from lassi_lib.study.statistics import EXPERIMENT, clopper_pearson, summarise
from lassi_lib.study.study import Study
from lassi_lib.study.verdicts import Verdict

if TYPE_CHECKING:
    import torch

YOURS = "yours"  # the method's name of a classifier that the user brings
NEEDED = 30  # training images of each value, for an attribute vector as for a classifier
COLOUR_STEP = 1 / 32  # of 5-bit images: a flow that errs by more does not give a face back
_RENDERED_SEED = 11  # faces that no shipped flow was trained on


class OwnStudy(Study):
    """The study of a folder of images.

    Parameters
    ----------
    profile : str
        Gives the settings of training and certification, and the flow where no other is named.
    images : path
        The folder with its `labels.csv`; empty: one is rendered and kept in the cache.
    checkpoint : path
        A Glow of your own (see `flow.checkpoint`).
    models : path
        A Python file of your own modules, see docs/your_own.md.
    flow, classifier : object
        The same modules, given.
    n_rendered, max_images : int
        Images to render where there is no folder; how many of a folder's images to use (0: all).
    sigma_rs : float
        Noise of randomized smoothing for your own classifier, in standard deviations of its representation.
    data_root : str
        Folder of the profile's own data set.
    **how
        `device`, `cache` and `workers` as for `Study`.
    """

    def __init__(
        self,
        profile: str = "demo",
        images: str | Path = "",
        *,
        checkpoint: str | Path = "",
        models: str | Path = "",
        flow: Any = None,
        classifier: Any = None,
        n_rendered: int = 1500,
        max_images: int = 0,
        sigma_rs: float = 1.0,
        data_root: str = "",
        **how: Any,
    ) -> None:
        from lassi_lib.study.own_models import OwnFlow, adapt, load_models

        if models:
            flow, classifier = load_models(models)
        self.home = Study(profile, data_root=data_root, **how)
        if checkpoint and flow is not None:
            raise StudyError("both a checkpoint and a flow() of your own are given: leave one out")
        p = self.home.pipeline
        self._flow, size, glow = None, p.data.image_size, p.glow
        if flow is not None:
            self._flow = OwnFlow(flow).to(self.home.device)
            size = self._flow.image_size
        elif checkpoint:
            size, glow = _params_of(checkpoint, glow)
        data = DataParams("folder", size, p.data.bits, max_images=max_images)
        certification = replace(p.certification, test_every=1)
        pipeline = replace(p, data=data, glow=glow, certification=certification, exceptions={})
        self.shown = Path(images).name if images else f"rendered by this study, {n_rendered:,} images"
        folder = Path(images).expanduser() if images else rendered_folder(self.home.cache, size, n_rendered)
        super().__init__(pipeline, data_root=folder, **how)
        self.own = None
        if classifier is not None:
            self.own = adapt(classifier, self.latents("test")[:16].to(self.device))
            r = self.own.encoder(self.latents("train")[:512].to(self.device)).double()
            noise = MethodParams(sigma_rs=sigma_rs * float(r.var(0).mean().sqrt()))
            self.pipeline = replace(pipeline, methods=pipeline.methods | {YOURS: noise})

    def _glow_stage(self) -> Stage:
        if self._flow is not None:
            return self._once("glow stage", lambda: Stage("own_flow", 1, {"answers": self._flow.key()}))
        return super()._glow_stage() if self.pipeline.glow.checkpoint else self.home._glow_stage()

    def _load_glow(self) -> tuple[Any, dict]:
        if self._flow is not None:
            return self._flow, {"bits_per_dim": getattr(self._flow.module, "bits_per_dim", math.nan)}
        return super()._load_glow() if self.pipeline.glow.checkpoint else self.home._load_glow()

    def _encoder_stage(self, e: Experiment) -> Stage:
        if e.method != YOURS:
            return super()._encoder_stage(e)
        return Stage("own_classifier", 1, {"answers": self.own.key}, (self._latents_stage("test").key,))

    def representation(self, e: Experiment) -> Any:
        """Return the encoder R of an experiment: yours, or one trained on the folder."""
        return self.own.encoder if e.method == YOURS else super().representation(e)

    def classifier(self, e: Experiment) -> torch.nn.Linear:
        """Return the linear head C of an experiment: yours, or one trained on the folder."""
        return self.own.head if e.method == YOURS else super().classifier(e)

    def experiments(self, pair: str, methods: Iterable[str], seed: int) -> list[Experiment]:
        """Return what is audited: your classifier, or one per method; the last one gets the verdict.

        Raises
        ------
        StudyError
            If the pair names no columns, a method is unknown, or there are too few images of a value.
        """
        task, sensitive = parse_pair(pair)
        methods = [YOURS] if self.own else list(methods)
        for method in methods:
            if method not in self.pipeline.methods:
                raise StudyError(f"method '{method}' is unknown{nearest(method, self.pipeline.methods)}")
        for attribute in sensitive:
            self._enough(attribute, "train", NEEDED, "an attribute vector")
        self._enough(task, "test", 2, "judging a classifier")
        if not self.own:
            self._enough(task, "train", NEEDED, "training a classifier")
            self._enough(task, "valid", 2, "training a classifier")
        kind = self.pipeline.vector_type
        return [Experiment("folder", task, sensitive, kind, method, seed) for method in methods]

    def _enough(self, attribute: str, split: str, needed: int, purpose: str) -> None:
        y = self.labels(split, attribute)
        for value, name in ((1, "positive"), (0, "negative")):
            count = int((y == value).sum())
            if count < needed:
                raise StudyError(
                    f"attribute '{attribute}': {count} of {len(y)} {split} images are {name}, {purpose} needs "
                    f"{needed}: add at least {needed - count} such images to that split, or choose another"
                )

    def offered(self, modes: Iterable[str], experiments: list[Experiment]) -> tuple[list[str], str]:
        """Return the modes that can judge these experiments, and a sentence on those that cannot."""
        from lassi_lib.certification import black_box

        n, kept, said = len(experiments[0].sensitive), [], []
        why = self.own.why_not if self.own else ""
        for mode in modes:
            if mode not in MODES:
                raise StudyError(f"certification mode '{mode}' is unknown{nearest(mode, MODES)}")
            if n > MODES[mode]:
                said.append(f"{mode} is offered for at most {MODES[mode]} attributes, not {n}")
            elif why and mode not in black_box.MODES:
                said.append(f"{mode} needs a piecewise linear classifier, and of yours {why}")
            else:
                kept.append(mode)
        if not kept:
            raise StudyError(f"no mode is left ({'; '.join(said)}): add {' or '.join(black_box.MODES)}")
        return kept, f"Not asked: {'; '.join(said)}.".replace("_", " ") if said else "Every mode is asked."


def _params_of(checkpoint: str | Path, glow: GlowParams) -> tuple[int, GlowParams]:
    """Return the image size and the parameters of a Glow checkpoint, wherever it came from."""
    from lassi_lib.flow.checkpoint import load_glow

    path = Path(checkpoint).expanduser()
    path = (path if path.exists() else ROOT / path).resolve()
    c = load_glow(path)[0].config
    same = {"n_steps": c.n_steps, "n_blocks": c.n_blocks, "width": c.width, "affine": c.affine}
    return c.image_size, replace(glow, checkpoint=str(path), n_images=0, **same)


def rendered_folder(cache: StageCache, image_size: int, count: int) -> Path:
    """Render faces into image files with a `labels.csv`, as a user would bring them; return the folder."""
    from lassi_lib.data.synthfaces import VERSION, load_synthfaces

    def compute(folder: Path) -> None:
        from PIL import Image

        data = load_synthfaces("test", image_size=image_size, n_test=count, seed=_RENDERED_SEED)
        files = [f"face_{i:05d}.png" for i in range(count)]
        for file, image in zip(files, data.images, strict=True):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / file)
        table = pd.DataFrame(data.labels, columns=list(data.attribute_names))
        table.insert(0, "file", files)
        table.to_csv(folder / "labels.csv", index=False)

    made_by = {"count": count, "image_size": image_size, "seed": _RENDERED_SEED, "renderer": VERSION}
    return cache.fetch(Stage("rendered_folder", 1, made_by), compute)


# ---- may the similarity set be trusted? ------------------------------------------------------------


def own_setting(study: OwnStudy, experiments: list[Experiment], modes: Iterable[str]) -> pd.DataFrame:
    """Return what is audited: images, flow, classifiers, similarity set, modes."""
    facts, e = study.facts(), experiments[-1]
    flow = "your own" if study._flow is not None else f"Glow, {facts['glow']}"
    rows = {
        "images": study.shown,
        "train / valid / test": " / ".join(f"{n:,}" for n in facts["images"].values()),
        "how they were read": facts["note"],
        "image size": f"{facts['image_size']} pixels",
        "flow": flow,
        "classifiers": ", ".join(f"{x.method} (seed {x.seed})" for x in experiments),
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
        study._flow is None and not study.pipeline.glow.checkpoint
    ):  # trained for the profile: it can be measured
        known = study.home.latent_facts("test")["bits_per_dim"]
    error = "largest reconstruction error"
    yours = {"images": "yours", "bits/dim": here["bits_per_dim"], error: here["max_reconstruction_error"]}
    return pd.DataFrame([yours, {"images": "those that the flow is made for", "bits/dim": float(known)}])


def own_vectors(study: OwnStudy, e: Experiment) -> pd.DataFrame:
    """Return, per sensitive attribute, how well its vector is known and how far it leads out of the pixels.

    `chance %` is the share of ||a||^2 that comes from having few images: the variance of a difference of two
    class means, spread^2 (1/n_1 + 1/n_0), over ||a||^2. `outside %` are decoded values outside [-0.5, 0.5],
    of test faces as they are and at the ends of the similarity set.
    """
    import torch

    from lassi_lib.similarity.diagnostics import latent_spread

    spread, rows = latent_spread(study.latents("train")), []
    z, similarity = study.latents("test")[:32], study.similarity(e.sensitive, e.vector_type, e.task)
    for name, a in zip(e.sensitive, similarity.vectors, strict=True):
        y, norm = study.labels("train", name), float(a.double().norm())
        n_1, n_0 = int(y.sum()), int((1 - y).sum())
        ends = torch.cat([z, z - similarity.epsilon * a, z + similarity.epsilon * a])
        outside = (study.glow().decode(ends.to(study.device)).abs() > 0.5).float().flatten(1).mean(1).cpu()
        row = {
            "attribute": name,
            "train positives": n_1,
            "train negatives": n_0,
            "norm / spread": norm / spread,
        }
        row["chance %"] = min(100.0, 100 * spread**2 * (1 / n_1 + 1 / n_0) / norm**2)
        row["outside % at t = 0"] = 100 * float(outside[: len(z)].mean())
        rows.append(row | {"outside % at the ends": 100 * float(outside[len(z) :].mean())})
    return pd.DataFrame(rows)


def own_doubts(
    fit: pd.DataFrame, vectors: pd.DataFrame, max_excess_bits: float, max_chance: float
) -> list[str]:
    """Return what stands against the similarity set, a sentence each; none: nothing was found.

    Parameters
    ----------
    fit, vectors : pandas.DataFrame
        Of `own_fit` and `own_vectors`.
    max_excess_bits : float
        Bits/dim by which your images may differ from those the flow is made for.
    max_chance : float
        Percent of a vector's squared length that may be noise.
    """
    (yours, known), error = fit["bits/dim"], fit["largest reconstruction error"].iloc[0]
    doubts = []
    if math.isnan(yours) or math.isnan(known):
        doubts.append("It is not known whether the flow fits these images: it gives no bits/dim to compare")
    elif abs(yours - known) > max_excess_bits:
        doubts.append(
            f"These images are out of distribution: the flow needs {yours:.2f} bits/dim for them and {known:.2f} "
            f"for images that it is made for (more than {max_excess_bits:g} apart)"
        )
    if not error <= COLOUR_STEP:
        doubts.append(f"The flow does not give images back: decoded values differ by up to {error:.2g}")
    for row in vectors.to_dict("records"):
        if row["chance %"] > max_chance:
            times = row["chance %"] / max(100 - row["chance %"], 1)
            doubts.append(
                f"The vector of {row['attribute']} is mostly chance: {row['chance %']:.0f} % of its squared length "
                f"are noise (at most {max_chance:g}), {times:.0f} times as many images would halve it to 50 %"
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
            strips[f"{file}, {name}"] = to_uint8(study.glow().decode((z + t * a).to(study.device)).cpu())
    return strips, t[:, 0].numpy()


# ---- answers --------------------------------------------------------------------------------------


def deciding(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the mode that says most about the classifier as it is."""
    order = ("exact_decision", "empirical", "exact_smoothing", "monte_carlo")
    return rows[rows["mode"] == next(mode for mode in order if mode in set(rows["mode"]))]


def own_answers(rows: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Return, per classifier and mode, the share of faces judged fair and the accuracy, with intervals."""
    table, plain = fairness_by_mode(rows, confidence), summarise(rows, (*EXPERIMENT, "mode"), confidence)
    shown = ["accuracy", "accuracy_low", "accuracy_high", "majority_rate", "constant_would_do"]
    return table.merge(plain[["method", "mode", *shown]], on=["method", "mode"]).drop(columns="n_seeds")


def own_groups(study: OwnStudy, rows: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Return the share of faces treated alike, in the deciding mode, with and without each attribute."""
    table = []
    for method, part in deciding(rows).groupby("method", sort=False):
        fair = ~part["status"].isin(["REFUTED", "UNDECIDED", "NOT_CERTIFIED"])
        fair &= part["prediction"] >= 0
        for name in part["sensitive"].iloc[0].split("+"):
            y = study.labels("test", name)[part["index"]]
            for value, words in ((1, f"with {name}"), (0, f"without {name}")):
                k, n = int(fair[y == value].sum()), int((y == value).sum())
                low, high = clopper_pearson(k, n, confidence)
                row = {"method": method, "faces": words.replace("_", " "), "n_points": n}
                row |= {
                    "fair": 100 * k / n if n else math.nan,
                    "fair_low": 100 * low,
                    "fair_high": 100 * high,
                }
                table.append(row)
    return pd.DataFrame(table)


def own_unfair(study: OwnStudy, rows: pd.DataFrame) -> pd.DataFrame:
    """Return every face that is refuted in the deciding mode: its file, its class and the other's, where."""
    names = study.dataset("test").ids
    part = deciding(rows)
    part = part[part["status"] == "REFUTED"]
    t = part.filter(like="witness_").drop(columns="witness_class").dropna(axis=1, how="all")
    where = [" ".join(f"{x:+.2f}" for x in row) for row in t.to_numpy(float)]
    shown = part[["method", "label", "prediction"]].assign(
        other_class=part["witness_class"].astype(int), at_t=where
    )
    shown.insert(1, "file", names[part["index"]])
    return shown.reset_index(drop=True)


def own_counterexamples(study: OwnStudy, rows: pd.DataFrame, count: int = 6) -> list[tuple]:
    """Return `exactness.counterexamples` of every classifier that has some, with its name."""
    decided = deciding(rows)
    if "margin" not in decided or decided["margin"].isna().all():  # tried, not decided: the first ones
        decided = decided.assign(margin=0.0)
    parts = decided[decided["status"] == "REFUTED"].groupby("method", sort=False)
    return [(method, *counterexamples(study, part, count)) for method, part in parts]


def own_verdict(
    rows: pd.DataFrame, doubts: list[str], min_fair: float = 95.0, confidence: float = 0.95
) -> Verdict:
    """Judge whether the last classifier treats at least `min_fair` percent of faces alike.

    Supported: the lower bound of the faces proven fair reaches it. Not supported: the upper bound of the
    faces not refuted stays below. Else, and whenever there are doubts about the similarity set, inconclusive.
    """
    if not 0 < min_fair <= 100:
        raise StudyError(f"min_fair = {min_fair} is no percentage above 0: use 95.0, for instance")
    table = []
    for method, part in deciding(rows).groupby("method", sort=False):
        n, k = len(part), int(part["status"].isin(["VERIFIED", "CERTIFIED"]).sum())
        refuted = int((part["status"] == "REFUTED").sum())
        low = 100 * clopper_pearson(k, n, confidence)[0]
        high = 100 * clopper_pearson(n - refuted, n, confidence)[1]
        outcome = "supported" if low >= min_fair else "not supported" if high < min_fair else "inconclusive"
        row = {"method": method, "mode": part["mode"].iloc[0], "n_points": n, "proven_fair": 100 * k / n}
        row |= {"refuted": 100 * refuted / n, "fair_at_least": low, "fair_at_most": high}
        row["constant_would_do"] = bool(summarise(part)["constant_would_do"].iloc[0])
        table.append(row | {"outcome": "inconclusive" if doubts else outcome})
    table, last = pd.DataFrame(table), table[-1]
    pair = f"{rows['task'].iloc[0]}, {' and '.join(rows['sensitive'].iloc[0].split('+'))}".replace("_", " ")
    text = (
        f"{last['method']}, {pair}: {last['outcome']}; {last['proven_fair']:.1f} % of {last['n_points']} faces "
        f"are proven to be treated like everyone similar, {last['refuted']:.1f} % are treated differently"
    )
    text += f" ({doubts[0]})" if doubts else ""
    bounds = f"{last['fair_at_least']:.1f} and {last['fair_at_most']:.1f} %"
    text += (
        f". With {100 * confidence:g} % confidence the share of such faces that are treated alike lies between {bounds}; "
        f"supported means at least {min_fair:g} %, not supported less, inconclusive that neither is shown or that "
        "the similarity set is in doubt."
    )
    if last["mode"] != "exact_decision":
        text += f" Mode {last['mode'].replace('_', ' ')} proves nothing about the classifier as it is."
    text += "".join(f" {doubt}." for doubt in doubts[1:])
    if last["constant_would_do"]:
        text += " A constant classifier, always fair, would be as accurate."
    return Verdict(last["outcome"], text, table)
