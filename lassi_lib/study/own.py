"""An audit of your own: a folder of face images, a flow, and a classifier or encoder, perhaps of your making.

`OwnStudy` is the study of a folder: latents, vectors, encoders and certificates are the stages of any other
study. `own_report` turns its answers into tables, sentences and a verdict.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from lassi_lib.certification.modes import MODES
from lassi_lib.errors import StudyError, nearest
from lassi_lib.study.cache import Stage, StageCache
from lassi_lib.study.experiment import Experiment, parse_pair
from lassi_lib.study.params import ROOT, DataParams, GlowParams, MethodParams
from lassi_lib.study.study import Study

if TYPE_CHECKING:
    import torch

YOURS = "yours"  # the method's name of a classifier that the user brings
NEEDED = 30  # training images of each value, for an attribute vector as for a classifier
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
    flow, classifier, encoder : object
        The same modules, given. On an encoder alone the study's linear classifier is trained.
    n_rendered, max_images : int
        Images to render where there is no folder; how many of a folder's images to use (0: all).
    sigma_rs : float
        Noise of randomized smoothing for your own classifier or encoder, in standard deviations of its
        representation.
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
        encoder: Any = None,
        n_rendered: int = 1500,
        max_images: int = 0,
        sigma_rs: float = 1.0,
        data_root: str = "",
        **how: Any,
    ) -> None:
        from lassi_lib.study.own_models import OwnFlow, adapt, load_models, standardised

        if models:
            flow, classifier, encoder = map(load_models(models).get, ("flow", "classifier", "encoder"))
        if classifier is not None and encoder is not None:
            raise StudyError("both a classifier and an encoder are given: leave one out")
        self.home = Study(profile, data_root=data_root, **how)
        if checkpoint and flow is not None:
            raise StudyError("both a checkpoint and a flow() of your own are given: leave one out")
        p = self.home.pipeline
        self.own_flow, size, glow = None, p.data.image_size, p.glow
        if flow is not None:
            self.own_flow = OwnFlow(flow).to(self.home.device)
            size = self.own_flow.image_size
        elif checkpoint:
            size, glow = _params_of(checkpoint, glow)
        data = DataParams("folder", size, p.data.bits, max_images=max_images)
        certification = replace(p.certification, test_every=1)
        pipeline = replace(p, data=data, glow=glow, certification=certification, exceptions={})
        self.shown = Path(images).name if images else f"rendered by this study, {n_rendered:,} images"
        folder = Path(images).expanduser() if images else rendered_folder(self.home.cache, size, n_rendered)
        super().__init__(pipeline, data_root=folder, **how)
        self.own = None
        if classifier is not None or encoder is not None:
            few, faces = (self.latents(s)[:n].to(self.device) for s, n in (("test", 16), ("train", 512)))
            if encoder is None:
                self.own = adapt(classifier, few)
            else:
                self.own = standardised(adapt(encoder, few, "encoder"), faces)
            r = self.own.encoder(faces).detach().double()
            noise = MethodParams(sigma_rs=sigma_rs * float(r.var(0).mean().sqrt()))
            self.pipeline = replace(pipeline, methods=pipeline.methods | {YOURS: noise})

    def glow_stage(self) -> Stage:
        """Return the stage of the flow: yours, a checkpoint's, or the profile's."""
        if self.own_flow is not None:
            return self.once("glow stage", lambda: Stage("own_flow", 1, {"answers": self.own_flow.key()}))
        return super().glow_stage() if self.pipeline.glow.checkpoint else self.home.glow_stage()

    def _load_glow(self) -> tuple[Any, dict]:
        if self.own_flow is not None:
            return self.own_flow, {"bits_per_dim": getattr(self.own_flow.module, "bits_per_dim", math.nan)}
        return super()._load_glow() if self.pipeline.glow.checkpoint else self.home._load_glow()

    def encoder_stage(self, e: Experiment) -> Stage:
        """Return the stage of an encoder: yours stands for its answers, others are trained."""
        if e.method != YOURS:
            return super().encoder_stage(e)
        return Stage("own_classifier", 1, {"answers": self.own.key}, (self.latents_stage("test").key,))

    def representation(self, e: Experiment) -> Any:
        """Return the encoder R of an experiment: yours, or one trained on the folder."""
        return self.own.encoder if e.method == YOURS else super().representation(e)

    def classifier(self, e: Experiment) -> torch.nn.Linear:
        """Return the linear head C of an experiment: yours, or one trained on the folder."""
        return self.own.head if e.method == YOURS and not self.trains_head else super().classifier(e)

    @property
    def trains_head(self) -> bool:
        """Whether yours is an encoder alone, so that its linear classifier is trained on the folder."""
        return self.own is not None and self.own.head is None

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
        if not self.own or self.trains_head:
            self._enough(task, "train", NEEDED, "training a classifier")
        if not self.own:
            self._enough(task, "valid", 2, "training a classifier")
        kind = self.pipeline.vector_type
        return [Experiment("folder", task, sensitive, kind, method, seed) for method in methods]

    def _enough(self, attribute: str, split: str, needed: int, purpose: str) -> None:
        y = self.labels(split, attribute)
        for value, name in ((1, "positive"), (0, "negative")):
            count = int((y == value).sum())
            if count < needed:
                images = sum(self.facts()["images"].values())
                more = -(-(needed - count) * images // len(y))  # so many, for as many to fall into the split
                raise StudyError(
                    f"attribute '{attribute}': {count} of {len(y)} {split} images are {name}, {purpose} needs "
                    f"{needed}: add about {more} such images to the folder, or choose another attribute"
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
