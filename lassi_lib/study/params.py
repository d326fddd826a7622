"""Strict parameters: one dataclass a section, and an error for everything that does not fit.

An unknown key, a changed type, a number that YAML 1.1 reads as text (``1e-3``) or an impossible
sample size each raise a `StudyError` that names the file and the key, before anything has started.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from lassi_lib.errors import StudyError, nearest
from lassi_lib.similarity.kinds import find_kind

ROOT = Path(__file__).resolve().parents[2]
PARAMS = ROOT / "params"
NOTEBOOKS = ROOT / "notebooks"


@dataclass(frozen=True)
class DataParams:
    """Which images. Sizes and `seed` belong to 'synthfaces' and 'shapes3d', `max_images` to the others (0: all).

    `source` and `biased` belong to 'shapes3d'. With `biased` encoder and classifier are trained on as many
    images in which object hue goes with orientation (see `data.shapes3d.split_indices`).
    `dial`, a pair 'Task/Attribute' of 'synthfaces', gets labels of correlation `dial_phi`.
    """

    name: str
    image_size: int
    bits: int = 5
    n_train: int = 0
    n_valid: int = 0
    n_test: int = 0
    seed: int = 0
    max_images: int = 0
    source: str = "rendered"
    biased: bool = False
    dial: str = ""
    dial_phi: float = 0.0

    def options(self) -> dict[str, Any]:
        """Return what `load_dataset` takes for this data set beyond name, split and size."""
        drawn = ("n_train", "n_valid", "n_test", "seed")
        faces = (*drawn, "dial", "dial_phi") if self.dial else drawn
        names = {"synthfaces": faces, "shapes3d": (*drawn, "source", "biased")}.get(
            self.name, ("max_images",)
        )
        return {k: getattr(self, k) for k in names}

    def made_by(self) -> dict[str, Any]:
        """Return what the images depend on, for the stage's key."""
        later = () if self.name == "shapes3d" else ("source", "biased")
        later += () if self.dial else ("dial", "dial_phi")
        return {k: v for k, v in asdict(self).items() if k not in later}


@dataclass(frozen=True)
class GlowParams:
    """The flow's architecture and training; with `checkpoint` (a path from the root) no training.

    `bits_per_dim_at_most` is what a trained model must reach on the test split. `n_images` is how many
    images its training sees (0: not known, someone else trained it).
    """

    n_steps: int
    n_blocks: int
    width: int
    n_images: int
    threads: int
    bits_per_dim_at_most: float
    checkpoint: str = ""
    affine: bool = False
    batch_size: int = 64
    learning_rate: float = 1.5e-3
    warmup_steps: int = 100
    clip_norm: float = 20.0
    flip: bool = True
    seed: int = 0


@dataclass(frozen=True)
class EncoderParams:
    """Encoder R and its training (method: ECCV 2022, section 5; papers' values as defaults)."""

    threads: int
    hidden: list[int] = field(default_factory=lambda: [2048, 1024])
    output: int = 512
    epochs: int = 5
    batch_size: int = 500
    learning_rate: float = 1.0e-3
    n_candidates: int = 10


@dataclass(frozen=True)
class ClassifierParams:
    """Linear classifier C on noisy representations."""

    threads: int
    epochs: int = 1
    batch_size: int = 128
    learning_rate: float = 1.0e-3


@dataclass(frozen=True)
class MethodParams:
    """Loss weights of one method and the noise its classifier is trained and smoothed with."""

    sigma_rs: float
    lambda_1: float = 1.0
    lambda_2: float = 0.0
    lambda_3: float = 0.0
    augment: bool = False
    epochs: int = 0  # 0: the encoder's
    batch_size: int = 0  # 0: the encoder's
    batch_norm: str = "separate"
    sampling: str = "ball"
    radius_scale: float = 1.0


@dataclass(frozen=True)
class BaseParams:
    """Base classifiers, without any fairness: ResNet-18 on images, an MLP on latents."""

    threads: int = 2
    hidden: list[int] = field(default_factory=lambda: [2048, 1024, 512])
    epochs: int = 5
    batch_size: int = 500
    learning_rate: float = 1.0e-3
    resnet_epochs: int = 0  # 0: as many as the MLP's


@dataclass(frozen=True)
class CertificationParams:
    """Sample sizes and error probabilities of Algorithm 1 (ECCV 2022).

    Of the test split every `test_every`-th point is certified, from the first on (the papers: CelebA
    64, FairFace 32, 3D Shapes 320).
    """

    epsilon: float = 1.0
    sigma_cs: float = 0.65
    n_center: int = 10_000
    n_radius: int = 10_000
    alpha_cs: float = 0.01
    delta: float = 0.05
    n_class: int = 2_000
    n_votes: int = 100_000
    alpha_rs: float = 0.001
    quantile: str = "higher"
    bound: str = "hoeffding"
    test_every: int = 1


@dataclass(frozen=True)
class Pipeline:
    """Everything of one profile that is not a notebook's own parameter (params/P/pipeline.yaml).

    `description` says what it is, `first_line` what its results are evidence for. `exceptions` are what
    a method does differently for one task ('Age-3') or pair ('Smiling/Pale_Skin+Young').
    """

    description: str
    first_line: str
    minutes: dict[str, float]
    data: DataParams
    glow: GlowParams
    encoder: EncoderParams
    classifier: ClassifierParams
    methods: dict[str, MethodParams]
    certification: CertificationParams
    vector_type: str = "mean_difference"
    base: BaseParams = field(default_factory=BaseParams)
    discovery_classifier: str = "resnet18"
    discovery_iterations: int = 2000
    exceptions: dict[str, dict[str, dict]] = field(default_factory=dict)

    def settings(self, method: str, task: str = "", sensitive: Iterable[str] = ()) -> MethodParams:
        """Return a method's settings for a task and its sensitive attributes; a pair's come last."""
        found, names = self.methods[method], set(sensitive)
        for key in sorted(self.exceptions, key=lambda k: "/" in k):
            of_task, _, of_names = key.partition("/")
            if of_task == task and (not of_names or set(of_names.split("+")) == names):
                found = replace(found, **self.exceptions[key].get(method, {}))
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return plain nested dictionaries, as written to run.json."""
        return asdict(self)


def profiles() -> list[str]:
    """Return the names of the profiles: the folders of params/ with a pipeline.yaml."""
    return sorted(p.parent.name for p in PARAMS.glob("*/pipeline.yaml"))


def load_pipeline(profile: str) -> Pipeline:
    """Read and check params/<profile>/pipeline.yaml.

    Raises
    ------
    StudyError
        If the profile is unknown or a value does not fit; file and key are named.
    """
    if profile not in profiles():
        raise StudyError(f"profile '{profile}' is unknown{nearest(profile, profiles())} (see --list)")
    path = PARAMS / profile / "pipeline.yaml"
    pipeline = build(Pipeline, read_yaml(path), _shown(path))
    pipeline = replace(pipeline, exceptions=_exceptions(pipeline, _shown(path)))
    _check_values(pipeline, _shown(path))
    return pipeline


def notebooks_of(profile: str) -> list[str]:
    """Return the notebooks that a profile runs, in order: its params files NN_question.yaml."""
    names = sorted(p.stem for p in (PARAMS / profile).glob("[0-9]*.yaml"))
    for name in names:
        if not (NOTEBOOKS / f"{name}.ipynb").is_file():
            raise StudyError(
                f"params/{profile}/{name}.yaml has no notebook notebooks/{name}.ipynb: rename or remove it"
            )
    return names


def load_notebook_params(profile: str, name: str) -> dict[str, Any]:
    """Read params/<profile>/<name>.yaml and check it against the notebook's own parameters cell.

    Raises
    ------
    StudyError
        If a key is unknown or missing, or a type differs from the cell's annotation.
    """
    from lassi_lib.study.notebooks import parameters_of

    path = PARAMS / profile / f"{name}.yaml"
    given = read_yaml(path)
    cell = parameters_of(NOTEBOOKS / f"{name}.ipynb")
    _check_keys(given, cell, list(cell), _shown(path), "")
    types = {"str": str, "int": int, "float": float, "bool": bool, "list": list, "dict": dict}
    return {k: _cast(v, types[cell[k][0]], _shown(path), k) for k, v in given.items()}


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping with safe tags only; a repeated key is an error."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    def mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict:
        keys = [loader.construct_object(k, deep=True) for k, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise StudyError(f"{_shown(path)}: key '{key}' stands twice: remove one")
        return {k: loader.construct_object(v, deep=True) for k, (_, v) in zip(keys, node.value, strict=True)}

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    try:
        content = yaml.load(path.read_text(), Loader)
    except FileNotFoundError:
        raise StudyError(f"{_shown(path)} is missing: copy it from another profile") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = " ".join(str(error).split())
        raise StudyError(f"{_shown(path)} is not valid YAML: {line}") from None
    if not isinstance(content, dict):
        raise StudyError(f"{_shown(path)} must hold 'key: value' lines, found {type(content).__name__}")
    return content


def build(kind: type, values: dict[str, Any], where: str, prefix: str = "") -> Any:
    """Build a dataclass from a mapping, strictly; errors name `where` (the file) and the key."""
    hints = typing.get_type_hints(kind)
    required = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
    _check_keys(values, hints, required, where, prefix)
    return kind(**{k: _cast(v, hints[k], where, prefix + k) for k, v in values.items()})


def _check_keys(
    values: dict, known: typing.Iterable[str], required: list[str], where: str, prefix: str
) -> None:
    for key in values:
        if key not in known:
            raise StudyError(f"{where}: unknown key '{prefix}{key}'{nearest(str(key), known)}")
    for key in required:
        if key not in values:
            raise StudyError(f"{where}: key '{prefix}{key}' is missing: add it")


def _cast(value: Any, kind: Any, where: str, key: str) -> Any:
    """Return `value` if it is of type `kind` (an int may stand for a float), else raise."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if is_dataclass(kind):
        if not isinstance(value, dict):
            raise StudyError(f"{where}: '{key}' must be a section of 'key: value' lines, not {value!r}")
        return build(kind, value, where, f"{key}.")
    if origin in (list, dict):
        if not isinstance(value, origin):
            raise StudyError(f"{where}: '{key}' must be a {origin.__name__}, not {value!r}")
        if origin is list:
            return [_cast(v, args[0], where, f"{key}[{i}]") for i, v in enumerate(value)]
        return {k: _cast(v, args[1], where, f"{key}.{k}") for k, v in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    hint = ""
    if kind in (int, float) and isinstance(value, str):
        hint = ": YAML 1.1 reads this as text, write 1.0e-3, 1.0e+4 or 10_000"
    raise StudyError(f"{where}: '{key}' must be of type {kind.__name__}, not {value!r}{hint}")


def _exceptions(p: Pipeline, where: str) -> dict[str, dict[str, dict]]:
    """Return the exceptions with every value checked and cast as in the method that it changes."""
    hints, checked = typing.get_type_hints(MethodParams), {}
    for key, methods in p.exceptions.items():
        task, slash, names = key.partition("/")
        if not task or (slash and not all(names.split("+"))):
            raise StudyError(f"{where}: 'exceptions.{key}' must read Task or Task/Attribute+Attribute")
        checked[key] = {}
        for name, given in methods.items():
            at = f"exceptions.{key}.{name}"
            if name not in p.methods:
                raise StudyError(f"{where}: '{at}': no such method{nearest(name, p.methods)}")
            _check_keys(given, hints, [], where, f"{at}.")
            checked[key][name] = {k: _cast(v, hints[k], where, f"{at}.{k}") for k, v in given.items()}
    return checked


def _check_values(p: Pipeline, where: str) -> None:
    """Refuse values that cannot work; sample sizes are checked by the certification's own rules."""
    positive = {
        "data.image_size": p.data.image_size,
        "glow.n_steps": p.glow.n_steps,
        "glow.n_blocks": p.glow.n_blocks,
        "glow.width": p.glow.width,
        "glow.threads": p.glow.threads,
        "glow.batch_size": p.glow.batch_size,
        "glow.learning_rate": p.glow.learning_rate,
        "encoder.threads": p.encoder.threads,
        "encoder.output": p.encoder.output,
        "encoder.epochs": p.encoder.epochs,
        "encoder.batch_size": p.encoder.batch_size,
        "encoder.learning_rate": p.encoder.learning_rate,
        "encoder.n_candidates": p.encoder.n_candidates,
        "classifier.threads": p.classifier.threads,
        "classifier.epochs": p.classifier.epochs,
        "classifier.batch_size": p.classifier.batch_size,
        "classifier.learning_rate": p.classifier.learning_rate,
    }
    if not p.glow.checkpoint:
        positive["glow.n_images"] = p.glow.n_images
    positive["certification.test_every"] = p.certification.test_every
    methods = {f"methods.{name}": m for name, m in p.methods.items()}
    for key, changed in p.exceptions.items():
        methods |= {f"exceptions.{key}.{name}": replace(p.methods[name], **v) for name, v in changed.items()}
    positive |= {f"{name}.sigma_rs": m.sigma_rs for name, m in methods.items()}
    for key, value in positive.items():
        if not value > 0:
            raise StudyError(f"{where}: '{key}' must be positive, not {value}")
    if p.data.image_size % 2**p.glow.n_blocks:
        raise StudyError(
            f"{where}: 'data.image_size' {p.data.image_size} is not divisible by 2^glow.n_blocks = "
            f"{2**p.glow.n_blocks}: change one of them"
        )
    find_kind(p.vector_type)
    for name, m in methods.items():
        if not (m.lambda_1 or m.lambda_2 or m.lambda_3):
            raise StudyError(f"{where}: '{name}' has no loss: set one of lambda_1, lambda_2, lambda_3")
    if p.data.biased and p.data.name != "shapes3d":
        raise StudyError(f"{where}: 'data.biased' belongs to 'shapes3d', not to '{p.data.name}'")
    if p.data.dial and p.data.name != "synthfaces":
        raise StudyError(f"{where}: 'data.dial' belongs to 'synthfaces', not to '{p.data.name}'")
    if not 1 <= p.data.bits <= 8:
        raise StudyError(f"{where}: 'data.bits' must lie in 1..8, not {p.data.bits}")


def _shown(path: Path) -> str:
    """Return a path as the user knows it: relative to the study's root where it lies there."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
