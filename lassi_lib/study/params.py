"""Strict parameters: one dataclass a section, and an error for everything that does not fit.

An unknown key, a changed type, a number that YAML 1.1 reads as text (``1e-3``), or one outside the limits
that stand in its type each raise a `StudyError` that names the file and the key, before anything has started.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal

from lassi_lib.errors import StudyError, about, nearest
from lassi_lib.similarity.kinds import find_kind
from lassi_lib.study.strict import ROOT, Between, build, cast, check_keys, read_yaml, shown

PARAMS = ROOT / "params"
NOTEBOOKS = ROOT / "notebooks"

Seed = Annotated[int, Between(0, 2**32 - 1)]
Images = Annotated[int, Between(0, 10_000_000)]  # 0: all
Width = Annotated[int, Between(1, 65_536)]
Threads = Annotated[int, Between(1, 1024)]
Samples = Annotated[int, Between(1, 10_000_000)]
Epochs = Annotated[int, Between(1, 10_000)]
Batch = Annotated[int, Between(1, 1_000_000)]
Rate = Annotated[float, Between(0, 10, above=True)]
Positive = Annotated[float, Between(0, 1e6, above=True)]
NotNegative = Annotated[float, Between(0, 1e6)]
Probability = Annotated[float, Between(0, 1, above=True)]
Correlation = Annotated[float, Between(-1, 1)]


@dataclass(frozen=True)
class DataParams:
    """Which images. Sizes and `seed` belong to 'synthfaces' and 'shapes3d', `max_images` to the others (0: all).

    `source` and `biased` belong to 'shapes3d'. With `biased` encoder and classifier are trained on as many
    images in which object hue goes with orientation (see `data.shapes3d.split_indices`).
    `dial`, a pair 'Task/Attribute' of 'synthfaces', gets labels of correlation `dial_phi`.
    """

    name: Literal["synthfaces", "celeba", "fairface", "shapes3d", "folder"]
    image_size: Annotated[int, Between(1, 1024)]
    bits: Annotated[int, Between(1, 8)] = 5
    n_train: Images = 0
    n_valid: Images = 0
    n_test: Images = 0
    seed: Seed = 0
    max_images: Images = 0
    source: Literal["rendered", "official"] = "rendered"
    biased: bool = False
    dial: str = ""
    dial_phi: Correlation = 0.0

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

    n_steps: Annotated[int, Between(1, 256)]
    n_blocks: Annotated[int, Between(1, 8)]
    width: Annotated[int, Between(1, 4096)]
    n_images: Annotated[int, Between(0, 10**10)]
    threads: Threads
    bits_per_dim_at_most: Positive
    checkpoint: str = ""
    affine: bool = False
    batch_size: Batch = 64
    learning_rate: Rate = 1.5e-3
    warmup_steps: Annotated[int, Between(0, 10**9)] = 100
    clip_norm: Positive = 20.0
    flip: bool = True
    seed: Seed = 0


@dataclass(frozen=True)
class EncoderParams:
    """Encoder R and its training (method: ECCV 2022, section 5; papers' values as defaults)."""

    threads: Threads
    hidden: list[Width] = field(default_factory=lambda: [2048, 1024])
    output: Width = 512
    epochs: Epochs = 5
    batch_size: Batch = 500
    learning_rate: Rate = 1.0e-3
    n_candidates: Annotated[int, Between(1, 100_000)] = 10


@dataclass(frozen=True)
class ClassifierParams:
    """Linear classifier C on noisy representations."""

    threads: Threads
    epochs: Epochs = 1
    batch_size: Batch = 128
    learning_rate: Rate = 1.0e-3


@dataclass(frozen=True)
class MethodParams:
    """Loss weights of one method and the noise its classifier is trained and smoothed with."""

    sigma_rs: Positive
    lambda_1: NotNegative = 1.0
    lambda_2: NotNegative = 0.0
    lambda_3: NotNegative = 0.0
    augment: bool = False
    epochs: Annotated[int, Between(0, 10_000)] = 0  # 0: the encoder's
    batch_size: Annotated[int, Between(0, 1_000_000)] = 0  # 0: the encoder's
    batch_norm: Literal["separate", "joint", "frozen"] = "separate"
    sampling: Literal["ball", "gaussian", "box"] = "ball"
    radius_scale: Positive = 1.0
    keep: Literal["best", "last"] = "best"  # which epoch


@dataclass(frozen=True)
class BaseParams:
    """Base classifiers, without any fairness: ResNet-18 on images, an MLP on latents."""

    threads: Threads = 2
    hidden: list[Width] = field(default_factory=lambda: [2048, 1024, 512])
    epochs: Epochs = 5
    batch_size: Batch = 500
    learning_rate: Rate = 1.0e-3
    resnet_epochs: Annotated[int, Between(0, 10_000)] = 0  # 0: as many as the MLP's


@dataclass(frozen=True)
class CertificationParams:
    """Sample sizes and error probabilities of Algorithm 1 (ECCV 2022).

    Of the test split every `test_every`-th point is certified, from the first on (the papers: CelebA
    64, FairFace 32, 3D Shapes 320).
    """

    epsilon: Positive = 1.0
    sigma_cs: Positive = 0.65
    n_center: Samples = 10_000
    n_radius: Samples = 10_000
    alpha_cs: Probability = 0.01
    delta: Probability = 0.05
    n_class: Samples = 2_000
    n_votes: Annotated[int, Between(1, 10**10)] = 100_000
    alpha_rs: Probability = 0.001
    quantile: Literal["higher", "linear"] = "higher"
    bound: Literal["hoeffding", "binomial"] = "hoeffding"
    test_every: Annotated[int, Between(1, 1_000_000)] = 1


@dataclass(frozen=True)
class Pipeline:
    """Everything of one profile that is not a notebook's own parameter (params/P/pipeline.yaml).

    `description` says what it is, `first_line` what its results are evidence for. `exceptions` are what
    a method does differently for one task ('Age-3') or pair ('Smiling/Pale_Skin+Young').
    """

    description: str
    first_line: str
    minutes: dict[str, NotNegative]
    data: DataParams
    glow: GlowParams
    encoder: EncoderParams
    classifier: ClassifierParams
    methods: dict[str, MethodParams]
    certification: CertificationParams
    vector_type: str = "mean_difference"
    base: BaseParams = field(default_factory=BaseParams)
    discovery_classifier: Literal["resnet18", "latent"] = "resnet18"
    discovery_iterations: Samples = 2000
    exceptions: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    def recipe(self, method: MethodParams) -> tuple[int, int]:
        """Return the epochs and the batch size of a method's training: its own, else the encoder's."""
        return method.epochs or self.encoder.epochs, method.batch_size or self.encoder.batch_size

    def settings(self, method: str, task: str = "", sensitive: Iterable[str] = ()) -> MethodParams:
        """Return a method's settings for a task and its sensitive attributes; a pair's come last."""
        found, names = self.methods[method], set(sensitive)
        for key in sorted(self.exceptions, key=lambda k: "/" in k):
            of_task, _, of_names = key.partition("/")
            if of_task == task and (not of_names or set(of_names.split("+")) == names):
                found = replace(found, **self.exceptions[key].get(method, {}))
        return found


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
    if str(profile) not in profiles():
        raise StudyError(f"profile '{profile}' is unknown{nearest(profile, profiles())} (see --list)")
    path = PARAMS / profile / "pipeline.yaml"
    pipeline = build(Pipeline, read_yaml(path), shown(path))
    pipeline = replace(pipeline, exceptions=_exceptions(pipeline, shown(path)))
    _check_values(pipeline, shown(path))
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
    """Read params/<profile>/<name>.yaml and check it against the notebook's own parameters cell and `asked.TYPES`.

    Raises
    ------
    StudyError
        If a key is unknown or missing, a type differs from the cell's annotation, or a value is impossible.
    """
    from lassi_lib.study.asked import check_types
    from lassi_lib.study.notebooks import PLAIN_TYPES, parameters_of

    path = PARAMS / profile / f"{name}.yaml"
    given = read_yaml(path)
    cell = parameters_of(NOTEBOOKS / f"{name}.ipynb")
    check_keys(given, cell, list(cell), shown(path), "")
    given = {k: cast(v, PLAIN_TYPES[cell[k].type], shown(path), k) for k, v in given.items()}
    check_types(given, shown(path))
    if given.get("profile", profile) != profile:
        raise StudyError(
            f"{shown(path)}: 'profile' must be '{profile}', like its folder, not '{given['profile']}'"
        )
    return given


def _exceptions(p: Pipeline, where: str) -> dict[str, dict[str, dict]]:
    """Return the exceptions with every value checked and cast as in the method that it changes."""
    hints, checked = typing.get_type_hints(MethodParams, include_extras=True), {}
    for key, methods in p.exceptions.items():
        task, slash, names = key.partition("/")
        if not task or (slash and not all(names.split("+"))):
            raise StudyError(f"{where}: 'exceptions.{key}' must read Task or Task/Attribute+Attribute")
        checked[key] = {}
        for name, given in methods.items():
            at = f"exceptions.{key}.{name}"
            if name not in p.methods:
                raise StudyError(f"{where}: '{at}': no such method{nearest(name, p.methods)}")
            check_keys(given, hints, [], where, f"{at}.")
            checked[key][name] = {k: cast(v, hints[k], where, f"{at}.{k}") for k, v in given.items()}
    return checked


def _check_values(p: Pipeline, where: str) -> None:
    """Refuse values that cannot work; sample sizes are checked by the certification's own rules."""
    if not p.glow.checkpoint and not p.glow.n_images:
        raise StudyError(
            f"{where}: 'glow.n_images' must be positive where no 'glow.checkpoint' is named, not 0"
        )
    methods = {f"methods.{name}": m for name, m in p.methods.items()}
    for key, changed in p.exceptions.items():
        methods |= {f"exceptions.{key}.{name}": replace(p.methods[name], **v) for name, v in changed.items()}
    if p.data.image_size % 2**p.glow.n_blocks:
        raise StudyError(
            f"{where}: 'data.image_size' {p.data.image_size} is not divisible by 2^glow.n_blocks = "
            f"{2**p.glow.n_blocks}: change one of them"
        )
    with about(f"{where}: 'vector_type'"):
        find_kind(p.vector_type)
    for name, m in methods.items():
        if not (m.lambda_1 or m.lambda_2 or m.lambda_3):
            raise StudyError(f"{where}: '{name}' has no loss: set one of lambda_1, lambda_2, lambda_3")
    if p.data.biased and p.data.name != "shapes3d":
        raise StudyError(f"{where}: 'data.biased' belongs to 'shapes3d', not to '{p.data.name}'")
    if p.data.dial and p.data.name != "synthfaces":
        raise StudyError(f"{where}: 'data.dial' belongs to 'synthfaces', not to '{p.data.name}'")
    if p.data.dial:
        from lassi_lib.data.synthfaces import law_of

        with about(f"{where}: 'data.dial'"):
            law_of(p.data.dial, p.data.dial_phi)
