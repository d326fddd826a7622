"""`Study`: the pipeline of one profile, every stage of it cached.

Left to right: images -> Glow latents -> attribute vectors -> encoder -> classifier -> certificates.
Each method below is one arrow; its `Stage` lists what the result depends on.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from copy import copy
from dataclasses import asdict, fields, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lassi_lib.certification.modes import MODES
from lassi_lib.errors import StudyError
from lassi_lib.progress import progress
from lassi_lib.similarity.kinds import find_kind
from lassi_lib.study import vectors
from lassi_lib.study.cache import Stage, StageCache, checksum
from lassi_lib.study.experiment import Experiment, Question
from lassi_lib.study.params import ROOT, DataParams, MethodParams, Pipeline, load_pipeline

if TYPE_CHECKING:
    import torch

    from lassi_lib.certification.spec import CertificationSpec
    from lassi_lib.data.dataset import FaceDataset
    from lassi_lib.flow.glow import Glow
    from lassi_lib.learning.representation import Representation
    from lassi_lib.similarity.sets import SimilaritySet

PUBLISHED = Question()  # LASSI's own certificate
# fields of MethodParams that are younger than kept encoders
_LATER = ("lambda_3", "epochs", "batch_size", "batch_norm", "sampling", "radius_scale", "keep")


class Study:
    """One profile's data, models and certificates.

    Parameters
    ----------
    profile : str or Pipeline
        A profile's name (a folder of params/), or a pipeline built by hand.
    data_root : path, optional
        Folder of the data set's official files (default: $LASSI_DATA_ROOT); not needed for
        rendered faces.
    device : {'auto', 'cpu', 'cuda'}
        Where the flow and the encoders run.
    cache : path, optional
        Where stages are kept; default $LASSI_CACHE or .cache/ beside the notebooks.
    workers : int, optional
        Processes over test points; never changes a result.
    """

    def __init__(
        self,
        profile: str | Pipeline = "demo",
        *,
        data_root: str | Path | None = None,
        device: str = "auto",
        cache: str | Path | None = None,
        workers: int | None = None,
    ) -> None:
        from lassi_lib.numerics import pick_device

        self.pipeline = profile if isinstance(profile, Pipeline) else load_pipeline(profile)
        self.data_root = data_root or os.environ.get("LASSI_DATA_ROOT", "")
        self.device = pick_device(device)
        self.cache = StageCache(cache)
        self.workers = workers or os.cpu_count() or 1
        self._memo: dict[Any, Any] = {}
        _certification_spec(self.pipeline, 1.0).validate()

    def of(self, pipeline: Pipeline) -> Study:
        """Return a study of another pipeline with this one's data folder, device, cache and workers."""
        other = copy(self)
        other.pipeline = pipeline
        if (pipeline.data, pipeline.glow) != (self.pipeline.data, self.pipeline.glow):
            other._memo = {}  # what is remembered without a stage's key is data and flow
        return other

    # ---- data and flow -------------------------------------------------------------------------

    @property
    def training_split(self) -> str:
        """What encoder and classifier are trained on: 'biased' where the profile asks for it.

        The flow and the attribute vectors are made from 'train', in which no attribute is tied to another.
        """
        return "biased" if self.pipeline.data.biased else "train"

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that are encoded, each once."""
        return tuple(dict.fromkeys(("train", self.training_split, "valid", "test")))

    def dataset(self, split: str) -> FaceDataset:
        """Return the images and labels of one split ('biased' is the biased training split)."""
        from lassi_lib.data.dataset import load_dataset

        data = self.pipeline.data
        options = data.options()
        if data.biased:
            options["biased"] = split == "biased"
        name = "train" if options.get("biased") else split
        return self.once(
            ("dataset", split),
            lambda: load_dataset(
                data.name, name, image_size=data.image_size, data_root=self.data_root, **options
            ),
        )

    def data_stage(self) -> Stage:
        """Return what stands for the images: their parameters and files."""
        data = self.pipeline.data
        return self.once(
            "data", lambda: Stage("data", 1, data.made_by() | {"files": _fingerprint(data, self.data_root)})
        )

    def glow_stage(self) -> Stage:
        """Return the stage of the flow: a training, or a checkpoint's checksum."""
        p = self.pipeline.glow
        if p.checkpoint:
            return self.once(
                "glow stage", lambda: Stage("glow", 1, {"checkpoint": checksum(_checkpoint(p.checkpoint))})
            )
        made_by = {k: v for k, v in asdict(p).items() if k not in ("checkpoint", "bits_per_dim_at_most")}
        return Stage("glow", 1, made_by, (self.data_stage().key,))

    def glow(self) -> Glow:
        """Return the trained flow: the shipped checkpoint, or one trained here and kept."""
        return self.once("glow", self._load_glow)[0]

    def glow_info(self) -> dict[str, Any]:
        """Return what the flow's checkpoint says of its training: ``history`` and operative parameters."""
        return self.once("glow", self._load_glow)[1]

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Return the latents [N, d] of uint8 images [N, 3, S, S], on the CPU."""
        from lassi_lib.data.preprocess import quantise

        return self.glow().encode(quantise(images, self.pipeline.data.bits).to(self.device)).cpu()

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Return the images D(z) of latents [N, d], float32 [N, 3, S, S], not clipped, on the CPU."""
        return self.glow().decode(z.to(self.device)).cpu()

    def _load_glow(self) -> tuple[Glow, dict[str, Any]]:
        from lassi_lib.flow.checkpoint import load_glow, save_glow
        from lassi_lib.flow.glow import GlowConfig
        from lassi_lib.flow.train import GlowTraining, discard_if_damaged, train_glow

        p = self.pipeline.glow
        config = GlowConfig(self.pipeline.data.image_size, p.n_steps, p.n_blocks, p.width, p.affine)
        if p.checkpoint:
            glow, info = load_glow(_checkpoint(p.checkpoint), config)
            return glow.to(self.device), info
        stage = self.glow_stage()
        partial = self.cache.root / "glow" / f"{stage.key}.partial.safetensors"

        def compute(folder: Path) -> dict:
            names = (
                "n_images",
                "batch_size",
                "learning_rate",
                "warmup_steps",
                "clip_norm",
                "flip",
                "threads",
            )
            discard_if_damaged(partial)
            training = GlowTraining(**{k: getattr(p, k) for k in names}, bits=self.pipeline.data.bits)
            glow, history = train_glow(
                self.dataset("train").images,
                config,
                training,
                seed=p.seed,
                device=str(self.device),
                checkpoint_path=partial,
            )
            save_glow(folder / "glow.safetensors", glow, {"history": history})
            return {"device": device_name(self.device), "history": history}

        folder = self.cache.fetch(stage, compute)
        if partial.exists():  # the state to resume from is of no more use
            partial.unlink()
        glow, info = load_glow(folder / "glow.safetensors", config)
        return glow.to(self.device), info

    def latents_stage(self, split: str) -> Stage:
        """Return the stage of a split's latents."""
        return Stage("latents", 1, {"split": split}, (self.data_stage().key, self.glow_stage().key))

    def latents(self, split: str) -> torch.Tensor:
        """Return z = E(x) of one split, float32 [N, d], and keep the labels beside them."""
        return self._latents(split)["z"]

    def labels(self, split: str, attribute: str) -> np.ndarray:
        """Return one attribute's labels of a split, int64 [N], from the kept latents' table."""
        column = self._column(attribute)
        return self._latents(split)["labels"][:, column].numpy().astype(np.int64)

    def n_classes(self, attribute: str) -> int:
        """Return the number of classes of an attribute."""
        column, known = self._column(attribute), self.latent_facts("test").get("n_classes")
        return known[column] if known else 2

    def attribute_names(self) -> list[str]:
        """Return the names of the data set's attributes."""
        self._latents("test")
        return self.cache.record(self.latents_stage("test"))["facts"]["attributes"]

    def _column(self, attribute: str) -> int:
        """Return an attribute's place in the labels' table; of an unknown one the data set names the nearest."""
        names = self.attribute_names()
        return names.index(attribute) if attribute in names else self.dataset("test").column(attribute)

    def _latents(self, split: str) -> dict[str, torch.Tensor]:
        from safetensors.torch import load_file, save_file

        def compute(folder: Path) -> dict:
            import torch

            from lassi_lib.data.preprocess import quantise
            from lassi_lib.flow.glow import bits_per_dim
            from lassi_lib.numerics import threads
            from lassi_lib.streams import torch_stream

            data, glow, bits = self.dataset(split), self.glow(), self.pipeline.data.bits
            with threads(self.pipeline.glow.threads):
                z = torch.empty(len(data), glow.latent_dim)  # of all faces: 32 GB at 128 pixels
                blocks = progress(data.images.split(256), label=f"encode {split}", unit="batch")
                for rows, block in zip(z.split(256), blocks, strict=True):
                    rows.copy_(glow.encode(quantise(block, bits).to(self.device)))
                few = slice(0, 256)
                x, again = quantise(data.images[few], bits), glow.decode(z[few].to(self.device)).cpu()
                generator = torch_stream(self.pipeline.glow.seed, f"dequantise/{split}")
                facts = {
                    "attributes": list(data.attribute_names),
                    "n_classes": list(data.n_classes),
                    "note": data.note,
                    "images": len(data),
                    "bits_per_dim": bits_per_dim(glow, data.images[:2000], bits=bits, generator=generator),
                    "max_reconstruction_error": float((again - x).abs().max()),
                    "device": device_name(self.device),
                }
            save_file({"z": z, "labels": torch.from_numpy(data.labels)}, folder / "latents.safetensors")
            return facts

        stage = self.latents_stage(split)
        return self.once(
            stage.key, lambda: load_file(self.cache.fetch(stage, compute) / "latents.safetensors")
        )

    # ---- similarity ----------------------------------------------------------------------------

    def vector(self, attribute: str, kind: str = "", task: str = "") -> torch.Tensor:
        """Return the attribute vector a, float32 [d] (or [n, d]); default kind: the pipeline's."""
        return vectors.vector(self, attribute, kind or self.pipeline.vector_type, task)

    def similarity(self, sensitive: Iterable[str], kind: str = "", task: str = "") -> SimilaritySet:
        """Return the similarity set spanned by the vectors of the sensitive attributes.

        Its radius is the pipeline's epsilon, times 10 for the kinds whose vectors have length 1.
        """
        import torch

        from lassi_lib.similarity.sets import SimilaritySet

        names, kind = tuple(sensitive), kind or self.pipeline.vector_type
        spanned = torch.cat([torch.atleast_2d(self.vector(a, kind, task)) for a in names])
        return SimilaritySet(spanned, self.pipeline.certification.epsilon * find_kind(kind).epsilon, names)

    def vector_stages(self, e: Experiment) -> list[Stage]:
        """Return the stages of an experiment's attribute vectors."""
        return [vectors.vector_stage(self, a, e.vector_type, e.task) for a in e.sensitive]

    # ---- one experiment ------------------------------------------------------------------------

    def encoder_stage(self, e: Experiment) -> Stage:
        """Return the stage of an experiment's encoder; several experiments may share it."""
        method = self.settings(e)
        task = e.task if method.lambda_1 else ""  # without its loss the task plays no part: one serves all
        params = {"task": task, "seed": e.seed, "lambda_1": method.lambda_1, "lambda_2": method.lambda_2}
        params |= {"augment": method.augment} | asdict(self.pipeline.encoder)
        for field in fields(method):  # settings that came later count only where they are used
            if field.name in _LATER and getattr(method, field.name) != field.default:
                params[field.name] = getattr(method, field.name)
        if method.sampling == "gaussian":
            params["sigma_cs"] = self.spec(e.method, e.vector_type).sigma_cs
        parents = [self.latents_stage(self.training_split).key, self.latents_stage("valid").key]
        if method.lambda_2 > 0 or method.augment:
            # the naive encoder never sees the similarity set: one serves all sensitive attributes
            params["epsilon"] = self.spec(e.method, e.vector_type).epsilon
            parents += [stage.key for stage in self.vector_stages(e)]
        return Stage("encoder", 1, params, tuple(parents))

    def representation(self, e: Experiment) -> Representation:
        """Return the trained encoder R of an experiment, in evaluation mode."""
        from safetensors.torch import load_file, save_file

        from lassi_lib.learning.representation import Representation

        def compute(folder: Path) -> dict:
            from lassi_lib.learning.objectives import Objective
            from lassi_lib.learning.train import EncoderTraining, train_representation

            p, m = self.pipeline.encoder, self.settings(e)
            epochs, batch_size = self.pipeline.recipe(m)
            given = asdict(p) | {"hidden": tuple(p.hidden), "epochs": epochs, "batch_size": batch_size}
            given["keep"] = m.keep
            sigma_cs = self.spec(e.method, e.vector_type).sigma_cs if m.sampling == "gaussian" else None
            weights = {k: getattr(m, k) for k in ("lambda_1", "lambda_2", "lambda_3", "augment")}
            laws = {k: getattr(m, k) for k in ("batch_norm", "sampling", "radius_scale")}
            splits = (self.training_split, "valid")
            y = {s: self.labels(s, e.task) if m.lambda_1 else None for s in splits}
            representation, history = train_representation(
                self.latents(self.training_split),
                y[self.training_split],
                self.latents("valid"),
                y["valid"],
                self.similarity(e.sensitive, e.vector_type, e.task),
                Objective(e.method, **weights, **laws, sigma_cs=sigma_cs),
                EncoderTraining(**given),
                seed=e.seed,
                device=str(self.device),
                label=f"encoder {e.label}",
            )
            save_file(representation.state(), folder / "encoder.safetensors")
            return {"history": history, "device": device_name(self.device)}

        folder = self.cache.fetch(self.encoder_stage(e), compute)
        return Representation.from_state(load_file(folder / "encoder.safetensors")).to(self.device)

    def classifier_stage(self, e: Experiment) -> Stage:
        """Return the stage of an experiment's linear classifier."""
        sigma_rs = self.settings(e).sigma_rs
        params = asdict(self.pipeline.classifier) | {"task": e.task, "seed": e.seed, "sigma_rs": sigma_rs}
        return Stage("classifier", 1, params, (self.encoder_stage(e).key,))

    def classifier(self, e: Experiment) -> torch.nn.Linear:
        """Return the linear classifier C trained on noisy representations of an experiment."""
        import torch
        from safetensors.torch import load_file, save_file

        def compute(folder: Path) -> None:
            from lassi_lib.learning.classifier import ClassifierTraining, train_classifier

            p = self.pipeline.classifier
            classifier = train_classifier(
                self.representation(e),
                self.latents(self.training_split),
                self.labels(self.training_split, e.task),
                self.n_classes(e.task),
                self.settings(e).sigma_rs,
                ClassifierTraining(**asdict(p)),
                seed=e.seed,
                device=str(self.device),
            )
            state = {k: v.detach().cpu().contiguous() for k, v in classifier.state_dict().items()}
            save_file(state, folder / "classifier.safetensors")

        folder = self.cache.fetch(self.classifier_stage(e), compute)
        state = load_file(folder / "classifier.safetensors")
        classifier = torch.nn.Linear(state["weight"].shape[1], len(state["bias"]))
        classifier.load_state_dict(state)
        return classifier.to(self.device).eval()

    def settings(self, e: Experiment) -> MethodParams:
        """Return what an experiment's method is: the profile's, with its exceptions for the pair."""
        return self.pipeline.settings(e.method, e.task, e.sensitive)

    def spec(
        self, method: str, kind: str = "", task: str = "", sensitive: Iterable[str] = ()
    ) -> CertificationSpec:
        """Return the certificate's settings for a method and a kind of vectors.

        A method's sigma_rs may depend on the pair.
        """
        spec = _certification_spec(self.pipeline, self.pipeline.settings(method, task, sensitive).sigma_rs)
        scale = find_kind(kind or self.pipeline.vector_type).epsilon  # unit vectors: 10
        return replace(spec, epsilon=scale * spec.epsilon, sigma_cs=scale * spec.sigma_cs)

    def set_and_spec(self, e: Experiment, question: Question) -> tuple[SimilaritySet, CertificationSpec]:
        """Return the similarity set and the settings that a question is about."""
        spec = self.spec(e.method, e.vector_type, e.task, e.sensitive)
        similarity = self.similarity(e.sensitive, e.vector_type, e.task)
        if question.epsilon is not None:
            scale = question.epsilon / self.pipeline.certification.epsilon
            spec = replace(spec, epsilon=scale * spec.epsilon, sigma_cs=scale * spec.sigma_cs)
            similarity = replace(similarity, epsilon=spec.epsilon)
        if question.sigma_cs is not None:
            scale = spec.epsilon / self.pipeline.certification.epsilon
            spec = replace(spec, sigma_cs=scale * question.sigma_cs)
        if question.control:
            import torch

            from lassi_lib.similarity.vectors import random_like
            from lassi_lib.streams import torch_stream

            streams = [torch_stream(e.seed, f"control/{i}") for i in range(similarity.n)]
            turned = [random_like(a, g) for a, g in zip(similarity.vectors, streams, strict=True)]
            similarity = replace(similarity, vectors=torch.stack(turned))
        return similarity, spec

    def centers_stage(self, e: Experiment, question: Question = PUBLISHED) -> Stage | None:
        """Return the stage of center smoothing where tasks share it: sampled, of an encoder that knows none."""
        if question.mode != "monte_carlo" or self.settings(e).lambda_1:
            return None
        params = self._certificate_params(e, question)
        for name in ("sigma_rs", "n_class", "n_votes", "alpha_rs"):  # are about the classifier
            del params[name]
        spanned = [stage.key for stage in self.vector_stages(e)]
        return Stage(
            "centers", 1, params, (self.encoder_stage(e).key, self.latents_stage("test").key, *spanned)
        )

    def centers(self, e: Experiment, question: Question = PUBLISHED) -> dict[str, np.ndarray]:
        """Return R smoothed at every test point, for all tasks of an encoder (see `certify.smooth_centers`)."""
        from safetensors.numpy import load_file, save_file

        def compute(folder: Path) -> None:
            from lassi_lib.certification.certify import smooth_centers

            similarity, spec = self.set_and_spec(e, question)
            every, z = self.pipeline.certification.test_every, self.latents("test")
            smoothed = smooth_centers(
                self.representation(e),
                similarity,
                z[::every].contiguous(),
                spec,
                seed=e.seed,
                indices=np.arange(0, len(z), every),
                workers=self.workers,
                device=self.device,
                label=f"smooth {'+'.join(e.sensitive)} {e.method} seed {e.seed}",
            )
            save_file(smoothed, folder / "centers.safetensors")

        return load_file(self.cache.fetch(self.centers_stage(e, question), compute) / "centers.safetensors")

    def _certificate_params(self, e: Experiment, question: Question) -> dict[str, Any]:
        params = asdict(self.pipeline.certification) | {"seed": e.seed}
        params |= {"sigma_rs": self.settings(e).sigma_rs}
        for name, value in (("bound", "hoeffding"), ("test_every", 1)):
            if params[name] == value:
                del params[name]  # younger than kept certificates: they stay valid
        if question.mode != "monte_carlo":
            params["mode"] = question.mode
        if question.epsilon not in (None, self.pipeline.certification.epsilon):
            params["asked_epsilon"] = question.epsilon
        if question.control:
            params["control"] = True
        if question.sigma_cs not in (None, self.pipeline.certification.sigma_cs):
            params["asked_sigma_cs"] = question.sigma_cs
        return params

    def certificates_stage(self, e: Experiment, question: Question = PUBLISHED) -> Stage:
        """Return the stage of a question's answers about an experiment; where centers are shared, of the votes."""
        params, classifier = self._certificate_params(e, question), self.classifier_stage(e).key
        if centers := self.centers_stage(e, question):
            return Stage("votes", 1, params, (classifier, centers.key))
        spanned = [stage.key for stage in self.vector_stages(e)]
        return Stage("certificates", 1, params, (classifier, self.latents_stage("test").key, *spanned))

    def certificates(self, e: Experiment, question: Question = PUBLISHED) -> pd.DataFrame:
        """Return one row per test point: prediction, status, d_cs, d_rs (see `certify`)."""

        def make() -> pd.DataFrame:
            from lassi_lib.certification.certify import certify, certify_smoothed

            every, labels = self.pipeline.certification.test_every, self.labels("test", e.task)
            similarity, spec = self.set_and_spec(e, question)
            if self.centers_stage(e, question):
                return certify_smoothed(
                    self.centers(e, question), self.classifier(e), labels[::every], spec, seed=e.seed
                )
            return certify(
                self.representation(e),
                self.classifier(e),
                similarity,
                self.latents("test")[::every].contiguous(),
                labels[::every],
                spec,
                seed=e.seed,
                indices=np.arange(0, len(labels), every),
                mode=question.mode,
                workers=self.workers,
                device=self.device,
                label=f"certify {e.label}" if question == PUBLISHED else f"{question.mode} {e.label}",
            )

        rows = self.cache.rows(self.certificates_stage(e, question), make)
        for position, (name, value) in enumerate(e.columns().items()):
            rows.insert(position, name, value)
        return rows

    def run(self, experiments: Iterable[Experiment], question: Question = PUBLISHED) -> pd.DataFrame:
        """Ask a question of experiments (or read the answers from the cache); return all rows.

        The rows have a column `mode`. Experiments with more sensitive attributes than the mode is
        offered for have none.
        """
        experiments = [e for e in experiments if len(e.sensitive) <= MODES[question.mode]]
        for attribute in dict.fromkeys(a for e in experiments for a in e.attributes):
            self._column(attribute)  # an unknown one is an error before anything is computed
        if not experiments:
            return pd.DataFrame()
        bar = progress(experiments, label="experiments", unit="experiment")
        rows = pd.concat([self.certificates(e, question) for e in bar], ignore_index=True)
        rows.insert(len(experiments[0].columns()), "mode", question.mode)
        return rows

    # ---- facts ---------------------------------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        """Return what was really used: images per split, flow, bits/dim, device."""
        names = {"train": self.training_split, "valid": "valid", "test": "test"}
        splits = {s: self.latent_facts(name) for s, name in names.items()}
        p = self.pipeline.glow
        notes = ([splits["train"]["note"]] if self.pipeline.data.biased else []) + [splits["test"]["note"]]
        return {
            "dataset": self.pipeline.data.name,
            "image_size": self.pipeline.data.image_size,
            "images": {s: f["images"] for s, f in splits.items()},
            "note": "; ".join(notes),
            "glow": f"K = {p.n_steps}, L = {p.n_blocks}, width {p.width}",
            "glow_images_seen": p.n_images,
            "bits_per_dim": splits["test"]["bits_per_dim"],
            "max_reconstruction_error": splits["test"]["max_reconstruction_error"],
            "device": splits["test"]["device"],
        }

    def seconds(self, experiments: Iterable[Experiment]) -> dict[str, float]:
        """Return the recorded computing time of each stage's distinct results, in seconds."""
        from lassi_lib.study.plan import steps_of

        total: dict[str, float] = {}
        for step in steps_of(self, [(e, PUBLISHED) for e in experiments]):
            if self.cache.has(step.stage):
                name = step.stage.name
                total[name] = total.get(name, 0.0) + self.cache.record(step.stage)["seconds"]
        return total

    def latent_facts(self, split: str) -> dict[str, Any]:
        """Return what was recorded when a split was encoded: images, note, bits/dim, error, device."""
        self._latents(split)
        return self.cache.record(self.latents_stage(split))["facts"]

    def once(self, key: Any, make: Any) -> Any:
        """Return what `make` returns, made once in the life of this study."""
        if key not in self._memo:
            self._memo[key] = make()
        return self._memo[key]


def _fingerprint(data: DataParams, data_root: str | Path | None) -> str:
    """Return what identifies a data set's content beyond its parameters."""
    if data.name == "synthfaces":
        from lassi_lib.data.synthfaces import VERSION

        return f"rendered, version {VERSION}"
    module = import_module(f"lassi_lib.data.{data.name}")
    if data.name == "shapes3d":
        return module.fingerprint(data.source, data_root)
    return module.fingerprint(data_root)


def _checkpoint(name: str) -> Path:
    from lassi_lib.flow.checkpoint import choose

    path = Path(name) if Path(name).is_absolute() else ROOT / name
    path = choose(path) if path.is_dir() else path
    if not path.is_file():
        raise StudyError(
            f"Glow checkpoint {name} is missing: restore it, or set glow.checkpoint to '' to train one"
        )
    return path


def _certification_spec(pipeline: Pipeline, sigma_rs: float) -> Any:
    from lassi_lib.certification.spec import CertificationSpec

    given = {k: v for k, v in asdict(pipeline.certification).items() if k != "test_every"}
    return CertificationSpec(sigma_rs=sigma_rs, **given)


def device_name(device: torch.device) -> str:
    """Return what a device is called: a GPU's name, or the processor's kind with its threads.

    The vector instructions are named because float sums depend on them, and with them every training.
    """
    import platform

    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    instructions = torch.backends.cpu.get_cpu_capability()
    return f"{platform.machine()} CPU with {instructions}, {os.cpu_count()} threads"
