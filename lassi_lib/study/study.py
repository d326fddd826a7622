"""`Study`: the pipeline of one profile, every stage of it cached.

Left to right: images -> Glow latents -> attribute vectors -> encoder -> classifier -> certificates.
Each method below is one arrow; its `Stage` lists what the result depends on.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lassi_lib.certification.modes import MODES
from lassi_lib.errors import StudyError
from lassi_lib.progress import progress
from lassi_lib.study.cache import Stage, StageCache, checksum
from lassi_lib.study.experiment import Experiment, Question
from lassi_lib.study.params import ROOT, Pipeline, load_pipeline

if TYPE_CHECKING:
    import torch

    from lassi_lib.certification.spec import CertificationSpec
    from lassi_lib.data.dataset import FaceDataset
    from lassi_lib.flow.glow import Glow
    from lassi_lib.learning.representation import Representation
    from lassi_lib.similarity.sets import SimilaritySet

PUBLISHED = Question()  # LASSI's own certificate


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
        Threads over test points; never changes a result.
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

        self.pipeline = load_pipeline(profile) if isinstance(profile, str) else profile
        self.data_root = data_root or os.environ.get("LASSI_DATA_ROOT", "")
        self.device = pick_device(device)
        self.cache = StageCache(cache)
        self.workers = workers or os.cpu_count() or 1
        self._memo: dict[Any, Any] = {}
        _certification_spec(self.pipeline, 1.0).validate()

    # ---- data and flow -------------------------------------------------------------------------

    def dataset(self, split: str) -> FaceDataset:
        """Return the images and labels of one split."""
        from lassi_lib.data.dataset import load_dataset

        data = self.pipeline.data
        return self._once(
            ("dataset", split),
            lambda: load_dataset(
                data.name, split, image_size=data.image_size, data_root=self.data_root, **data.options()
            ),
        )

    def _data_stage(self) -> Stage:
        data = self.pipeline.data
        return self._once(
            "data",
            lambda: Stage("data", 1, asdict(data) | {"files": _fingerprint(data.name, self.data_root)}),
        )

    def _glow_stage(self) -> Stage:
        p = self.pipeline.glow
        if p.checkpoint:
            return self._once(
                "glow stage", lambda: Stage("glow", 1, {"checkpoint": checksum(_checkpoint(p.checkpoint))})
            )
        made_by = {k: v for k, v in asdict(p).items() if k not in ("checkpoint", "bits_per_dim_at_most")}
        return Stage("glow", 1, made_by, (self._data_stage().key,))

    def glow(self) -> Glow:
        """Return the trained flow: the shipped checkpoint, or one trained here and kept."""
        return self._once("glow", self._load_glow)[0]

    def glow_info(self) -> dict[str, Any]:
        """Return what the flow's checkpoint says of its training: ``history`` and operative parameters."""
        return self._once("glow", self._load_glow)[1]

    def _load_glow(self) -> tuple[Glow, dict[str, Any]]:
        from lassi_lib.flow.checkpoint import load_glow, save_glow
        from lassi_lib.flow.glow import GlowConfig
        from lassi_lib.flow.train import GlowTraining, train_glow

        p = self.pipeline.glow
        config = GlowConfig(self.pipeline.data.image_size, p.n_steps, p.n_blocks, p.width, p.affine)
        if p.checkpoint:
            glow, info = load_glow(_checkpoint(p.checkpoint), config)
            return glow.to(self.device), info
        stage = self._glow_stage()
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
            return {"device": _device_name(self.device), "history": history}

        folder = self.cache.fetch(stage, compute)
        partial.unlink(missing_ok=True)  # the state to resume from is of no more use
        glow, info = load_glow(folder / "glow.safetensors", config)
        return glow.to(self.device), info

    def _latents_stage(self, split: str) -> Stage:
        return Stage("latents", 1, {"split": split}, (self._data_stage().key, self._glow_stage().key))

    def latents(self, split: str) -> torch.Tensor:
        """Return z = E(x) of one split, float32 [N, d], and keep the labels beside them."""
        return self._latents(split)["z"]

    def labels(self, split: str, attribute: str) -> np.ndarray:
        """Return one attribute's labels of a split, int64 [N], from the kept latents' table."""
        names = self.attribute_names()
        if attribute not in names:
            self.dataset(split).column(attribute)  # raises with the nearest name
        return self._latents(split)["labels"][:, names.index(attribute)].numpy().astype(np.int64)

    def attribute_names(self) -> list[str]:
        """Return the names of the data set's binary attributes."""
        self._latents("test")
        return self.cache.record(self._latents_stage("test"))["facts"]["attributes"]

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
                x = quantise(data.images, bits)
                blocks = progress(x.split(256), label=f"encode {split}", unit="batch")
                z = torch.cat([glow.encode(b.to(self.device)).cpu() for b in blocks])
                few = slice(0, 256)
                again = glow.decode(z[few].to(self.device)).cpu()
                generator = torch_stream(self.pipeline.glow.seed, f"dequantise/{split}")
                facts = {
                    "attributes": list(data.attribute_names),
                    "note": data.note,
                    "images": len(data),
                    "bits_per_dim": bits_per_dim(glow, data.images[:2000], bits=bits, generator=generator),
                    "max_reconstruction_error": float((again - x[few]).abs().max()),
                    "device": _device_name(self.device),
                }
            save_file({"z": z, "labels": torch.from_numpy(data.labels)}, folder / "latents.safetensors")
            return facts

        stage = self._latents_stage(split)
        return self._once(
            stage.key, lambda: load_file(self.cache.fetch(stage, compute) / "latents.safetensors")
        )

    # ---- similarity ----------------------------------------------------------------------------

    def _vector_stage(self, attribute: str) -> Stage:
        params = {"attribute": attribute, "kind": self.pipeline.vector_type}
        return Stage("vector", 1, params, (self._latents_stage("train").key,))

    def vector(self, attribute: str) -> torch.Tensor:
        """Return the attribute vector a of one sensitive attribute, float32 [d]."""
        from safetensors.torch import load_file, save_file

        def compute(folder: Path) -> None:
            from lassi_lib.similarity.vectors import attribute_vector

            y = self.labels("train", attribute)
            a = attribute_vector(self.latents("train"), y, self.pipeline.vector_type)
            save_file({"a": a}, folder / "vector.safetensors")

        stage = self._vector_stage(attribute)
        return self._once(
            stage.key, lambda: load_file(self.cache.fetch(stage, compute) / "vector.safetensors")["a"]
        )

    def similarity(self, sensitive: Iterable[str]) -> SimilaritySet:
        """Return the similarity set spanned by the vectors of the sensitive attributes."""
        import torch

        from lassi_lib.similarity.sets import SimilaritySet

        names = tuple(sensitive)
        vectors = torch.stack([self.vector(a) for a in names])
        return SimilaritySet(vectors, self.pipeline.certification.epsilon, names)

    # ---- one experiment ------------------------------------------------------------------------

    def _encoder_stage(self, e: Experiment) -> Stage:
        method = self.pipeline.methods[e.method]
        params = {"task": e.task, "seed": e.seed, "lambda_1": method.lambda_1, "lambda_2": method.lambda_2}
        params |= {"augment": method.augment} | asdict(self.pipeline.encoder)
        parents = [self._latents_stage("train").key, self._latents_stage("valid").key]
        if method.lambda_2 > 0 or method.augment:
            # the naive encoder never sees the similarity set: one serves all sensitive attributes
            params["epsilon"] = self.pipeline.certification.epsilon
            parents += [self._vector_stage(a).key for a in e.sensitive]
        return Stage("encoder", 1, params, tuple(parents))

    def representation(self, e: Experiment) -> Representation:
        """Return the trained encoder R of an experiment, in evaluation mode."""
        from safetensors.torch import load_file, save_file

        from lassi_lib.learning.representation import Representation

        p = self.pipeline.encoder

        def compute(folder: Path) -> dict:
            from lassi_lib.learning.objectives import Objective
            from lassi_lib.learning.train import EncoderTraining, train_representation

            method = self.pipeline.methods[e.method]
            training = EncoderTraining(**{**asdict(p), "hidden": tuple(p.hidden)})
            representation, history = train_representation(
                self.latents("train"),
                self.labels("train", e.task),
                self.latents("valid"),
                self.labels("valid", e.task),
                self.similarity(e.sensitive),
                Objective(e.method, method.lambda_1, method.lambda_2, augment=method.augment),
                training,
                seed=e.seed,
                device=str(self.device),
                label=f"encoder {e.label}",
            )
            save_file(representation.state(), folder / "encoder.safetensors")
            return {"history": history, "device": _device_name(self.device)}

        folder = self.cache.fetch(self._encoder_stage(e), compute)
        return Representation.from_state(load_file(folder / "encoder.safetensors")).to(self.device)

    def _classifier_stage(self, e: Experiment) -> Stage:
        sigma_rs = self.pipeline.methods[e.method].sigma_rs
        params = asdict(self.pipeline.classifier) | {"task": e.task, "seed": e.seed, "sigma_rs": sigma_rs}
        return Stage("classifier", 1, params, (self._encoder_stage(e).key,))

    def classifier(self, e: Experiment) -> torch.nn.Linear:
        """Return the linear classifier C trained on noisy representations of an experiment."""
        import torch
        from safetensors.torch import load_file, save_file

        def compute(folder: Path) -> None:
            from lassi_lib.learning.classifier import ClassifierTraining, train_classifier

            p = self.pipeline.classifier
            classifier = train_classifier(
                self.representation(e),
                self.latents("train"),
                self.labels("train", e.task),
                2,
                self.pipeline.methods[e.method].sigma_rs,
                ClassifierTraining(**asdict(p)),
                seed=e.seed,
                device=str(self.device),
            )
            state = {k: v.detach().cpu().contiguous() for k, v in classifier.state_dict().items()}
            save_file(state, folder / "classifier.safetensors")

        folder = self.cache.fetch(self._classifier_stage(e), compute)
        state = load_file(folder / "classifier.safetensors")
        classifier = torch.nn.Linear(self.pipeline.encoder.output, len(state["bias"]))
        classifier.load_state_dict(state)
        return classifier.to(self.device).eval()

    def spec(self, method: str) -> CertificationSpec:
        """Return the certificate's settings for a method (its sigma_rs)."""
        return _certification_spec(self.pipeline, self.pipeline.methods[method].sigma_rs)

    def _asked(self, e: Experiment, question: Question) -> tuple[SimilaritySet, CertificationSpec]:
        """Return the similarity set and the settings that a question is about."""
        spec, similarity = self.spec(e.method), self.similarity(e.sensitive)
        if question.epsilon is not None:
            scale = question.epsilon / spec.epsilon
            spec = replace(spec, epsilon=question.epsilon, sigma_cs=scale * spec.sigma_cs)
            similarity = replace(similarity, epsilon=question.epsilon)
        if question.control:
            import torch

            vectors = [
                _random_like(a, name, e.seed) for a, name in zip(similarity.vectors, e.sensitive, strict=True)
            ]
            similarity = replace(similarity, vectors=torch.stack(vectors))
        return similarity, spec

    def _certificates_stage(self, e: Experiment, question: Question = PUBLISHED) -> Stage:
        params = asdict(self.pipeline.certification) | {"seed": e.seed}
        params |= {"sigma_rs": self.pipeline.methods[e.method].sigma_rs}
        if params["bound"] == "hoeffding":
            del params["bound"]  # younger than kept certificates: they stay valid
        if question.mode != "monte_carlo":
            params["mode"] = question.mode
        if question.epsilon is not None:
            params["asked_epsilon"] = question.epsilon
        if question.control:
            params["control"] = True
        vectors = [self._vector_stage(a).key for a in e.sensitive]
        parents = (self._classifier_stage(e).key, self._latents_stage("test").key, *vectors)
        return Stage("certificates", 1, params, parents)

    def certificates(self, e: Experiment, question: Question = PUBLISHED) -> pd.DataFrame:
        """Return one row per test point: prediction, status, d_cs, d_rs (see `certify`)."""

        def compute(folder: Path) -> None:
            from lassi_lib.certification.certify import certify

            labels = self.labels("test", e.task)
            similarity, spec = self._asked(e, question)
            rows = certify(
                self.representation(e),
                self.classifier(e),
                similarity,
                self.latents("test"),
                labels,
                spec,
                seed=e.seed,
                indices=np.arange(len(labels)),
                mode=question.mode,
                workers=self.workers,
                device=self.device,
                label=f"certify {e.label}" if question == PUBLISHED else f"{question.mode} {e.label}",
            )
            rows.to_csv(folder / "rows.csv", index=False)

        rows = pd.read_csv(self.cache.fetch(self._certificates_stage(e, question), compute) / "rows.csv")
        for position, (name, value) in enumerate(e.columns().items()):
            rows.insert(position, name, value)
        return rows

    def run(self, experiments: Iterable[Experiment], question: Question = PUBLISHED) -> pd.DataFrame:
        """Ask a question of experiments (or read the answers from the cache); return all rows.

        The rows have a column `mode`. Experiments with more sensitive attributes than the mode is
        offered for have none.
        """
        experiments = [e for e in experiments if len(e.sensitive) <= MODES[question.mode]]
        names = self.attribute_names()
        for e in experiments:
            for attribute in (e.task, *e.sensitive):
                if attribute not in names:
                    self.dataset("test").column(attribute)  # raises with the nearest name
        if not experiments:
            return pd.DataFrame()
        bar = progress(experiments, label="experiments", unit="experiment")
        rows = pd.concat([self.certificates(e, question) for e in bar], ignore_index=True)
        rows.insert(len(experiments[0].columns()), "mode", question.mode)
        return rows

    # ---- facts ---------------------------------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        """Return what was really used: images per split, flow, bits/dim, device, minutes."""
        splits = {s: self.latent_facts(s) for s in ("train", "valid", "test")}
        p = self.pipeline.glow
        return {
            "dataset": self.pipeline.data.name,
            "image_size": self.pipeline.data.image_size,
            "images": {s: f["images"] for s, f in splits.items()},
            "note": splits["test"]["note"],
            "glow": f"K = {p.n_steps}, L = {p.n_blocks}, width {p.width}",
            "glow_images_seen": p.n_images,
            "bits_per_dim": splits["test"]["bits_per_dim"],
            "max_reconstruction_error": splits["test"]["max_reconstruction_error"],
            "device": splits["test"]["device"],
        }

    def seconds(self, experiments: Iterable[Experiment]) -> dict[str, float]:
        """Return the recorded computing time of each stage's distinct results, in seconds."""
        stages = {s.key: s for e in experiments for s in self._stages(e)}
        total: dict[str, float] = {}
        for stage in stages.values():
            if stage.name != "data" and self.cache.has(stage):
                total[stage.name] = total.get(stage.name, 0.0) + self.cache.record(stage)["seconds"]
        return total

    def _stages(self, e: Experiment) -> list[Stage]:
        splits = [self._latents_stage(s) for s in ("train", "valid", "test")]
        vectors = [self._vector_stage(a) for a in e.sensitive]
        own = [self._encoder_stage(e), self._classifier_stage(e), self._certificates_stage(e)]
        return [self._glow_stage(), *splits, *vectors, *own]

    def latent_facts(self, split: str) -> dict[str, Any]:
        """Return what was recorded when a split was encoded: images, note, bits/dim, error, device."""
        self._latents(split)
        return self.cache.record(self._latents_stage(split))["facts"]

    def _once(self, key: Any, make: Any) -> Any:
        if key not in self._memo:
            self._memo[key] = make()
        return self._memo[key]


def _fingerprint(name: str, data_root: str | Path | None) -> str:
    """Return what identifies a data set's content beyond its parameters."""
    if name == "celeba":
        from lassi_lib.data.celeba import fingerprint

        return fingerprint(data_root)
    from lassi_lib.data.synthfaces import VERSION

    return f"rendered, version {VERSION}"


def _checkpoint(name: str) -> Path:
    path = Path(name) if Path(name).is_absolute() else ROOT / name
    if not path.is_file():
        raise StudyError(
            f"Glow checkpoint {name} is missing: restore it, or set glow.checkpoint to '' to train one"
        )
    return path


def _random_like(vector: torch.Tensor, name: str, seed: int) -> torch.Tensor:
    """Return a random direction of a vector's length: the control for what the attribute itself does."""
    import torch

    from lassi_lib.streams import torch_stream

    direction = torch.randn(vector.shape, generator=torch_stream(seed, f"control/{name}"))
    return direction * (vector.norm() / direction.norm())


def _certification_spec(pipeline: Pipeline, sigma_rs: float) -> Any:
    from lassi_lib.certification.certify import CertificationSpec

    return CertificationSpec(sigma_rs=sigma_rs, **asdict(pipeline.certification))


def _device_name(device: torch.device) -> str:
    import platform

    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {os.cpu_count()} threads"
