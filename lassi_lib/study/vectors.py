"""Attribute vectors of every kind, and the models that some kinds are made from, as cached stages.

Each function takes the `Study` whose data, flow and cache it works on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lassi_lib.errors import StudyError
from lassi_lib.similarity.kinds import DISCOVERED_NAMES, find_kind, turned_freely
from lassi_lib.study.cache import Stage

if TYPE_CHECKING:
    import torch

    from lassi_lib.learning.base import BaseClassifier
    from lassi_lib.similarity.boundaries import Boundaries
    from lassi_lib.study.study import Study

BOUNDARY_SEED = 42  # the original code's, for boundaries and discovered vectors alike
_COUNTERFACTUALS = 512  # faces drawn twice for the direction of a true factor


def boundaries_stage(study: Study) -> Stage:
    """Return the stage of the linear boundaries of all attributes."""
    from lassi_lib.similarity.boundaries import BoundaryTraining

    params = {"seed": BOUNDARY_SEED} | asdict(BoundaryTraining())
    return Stage(
        "boundaries", 1, params, (study.latents_stage("train").key, study.latents_stage("valid").key)
    )


def boundaries(study: Study) -> Boundaries:
    """Return a linear boundary in latent space for every binary attribute that has both classes."""
    from safetensors.torch import load_file, save_file

    from lassi_lib.similarity.boundaries import Boundaries, fit_boundaries

    def compute(folder: Path) -> dict:
        names = [a for a in study.attribute_names() if study.n_classes(a) == 2]
        names = [a for a in names if all(0 < study.labels(s, a).mean() < 1 for s in ("train", "valid"))]
        y, y_valid = (np.stack([study.labels(s, a) for a in names], axis=1) for s in ("train", "valid"))
        found, history = fit_boundaries(
            study.latents("train"), y, study.latents("valid"), y_valid, names, seed=BOUNDARY_SEED
        )
        save_file({"w": found.w.contiguous(), "b": found.b}, folder / "boundaries.safetensors")
        return {"names": names, "history": history}

    stage = boundaries_stage(study)
    state = study.once(
        stage.key, lambda: load_file(study.cache.fetch(stage, compute) / "boundaries.safetensors")
    )
    return Boundaries(tuple(study.cache.record(stage)["facts"]["names"]), state["w"], state["b"])


def base_classifier_stage(study: Study, kind: str, task: str, seed: int) -> Stage:
    """Return the stage of a base classifier: ``resnet18`` on images or ``latent`` on z."""
    params = {"kind": kind, "task": task, "seed": seed} | _base_training(study, kind)
    return Stage("base", 1, params, (study.latents_stage("train").key, study.latents_stage("valid").key))


def _base_training(study: Study, kind: str) -> dict[str, Any]:
    """Return the profile's settings of one kind of base classifier."""
    settings = asdict(study.pipeline.base)
    resnet_epochs = settings.pop("resnet_epochs")
    return settings | ({"epochs": resnet_epochs} if resnet_epochs and kind == "resnet18" else {})


def base_classifier(study: Study, kind: str, task: str, seed: int) -> BaseClassifier:
    """Return a classifier of the task without any fairness, trained on images or latents."""
    from safetensors.torch import load_file, save_file

    from lassi_lib.learning.base import BaseClassifier, BaseTraining, train_base_classifier

    def compute(folder: Path) -> dict:
        def inputs(split: str) -> torch.Tensor:
            return study.dataset(split).images if kind == "resnet18" else study.latents(split)

        given = _base_training(study, kind)
        training = BaseTraining(**{**given, "hidden": tuple(given["hidden"])}, bits=study.pipeline.data.bits)
        classifier, history = train_base_classifier(
            kind,
            inputs("train"),
            study.labels("train", task),
            inputs("valid"),
            study.labels("valid", task),
            study.n_classes(task),
            training,
            seed=seed,
            device=str(study.device),
            label=f"{kind} {task} seed {seed}",
        )
        save_file(classifier.state(), folder / "base.safetensors")
        return {"history": history}

    folder = study.cache.fetch(base_classifier_stage(study, kind, task, seed), compute)
    return BaseClassifier.from_state(load_file(folder / "base.safetensors")).to(study.device).eval()


def vector_stage(study: Study, attribute: str, kind: str, task: str) -> Stage:
    """Return the stage of one attribute's vector; it depends on the task only where the kind does."""
    needs = find_kind(kind).needs
    params: dict[str, Any] = {"attribute": attribute, "kind": kind}
    if "predict" in needs:
        return Stage("vector", 1, params, (discovery_stage(study, kind, task).key,))
    parents = [study.latents_stage("train").key]
    if "boundary" in needs or "task_boundary" in needs:
        parents.append(boundaries_stage(study).key)
    if "task_boundary" in needs:
        params["task"] = task
    return Stage("vector", 1, params, tuple(parents))


def discovery_stage(study: Study, kind: str, task: str) -> Stage:
    """Return the stage of the one search that finds all discovered vectors of a task."""
    params = {
        "kind": kind,
        "task": task,
        "iterations": study.pipeline.discovery_iterations,
        "threads": study.pipeline.encoder.threads,
    }
    base = base_classifier_stage(study, study.pipeline.discovery_classifier, task, BOUNDARY_SEED)
    return Stage(
        "discovery", 1, params, (study.latents_stage("train").key, boundaries_stage(study).key, base.key)
    )


def discovered(study: Study, kind: str, task: str) -> torch.Tensor:
    """Return all discovered vectors of a task, float32 [3, d], by the names of `DISCOVERED_NAMES`."""
    from safetensors.torch import load_file, save_file

    def compute(folder: Path) -> dict:
        found, facts = _discover(study, kind, task)
        save_file({"a": found.contiguous()}, folder / "discovery.safetensors")
        return facts

    return load_file(
        study.cache.fetch(discovery_stage(study, kind, task), compute) / "discovery.safetensors"
    )["a"]


def search_history(study: Study, kind: str, task: str) -> list[dict]:
    """Return how the search of a task's discovered vectors went, a row per vector (`similarity.discovered`)."""
    discovered(study, kind, task)
    return study.cache.record(discovery_stage(study, kind, task))["facts"]["history"]


def vector(study: Study, attribute: str, kind: str, task: str) -> torch.Tensor:
    """Return the vectors of one attribute: float32 [d], or [n, d] for kinds that give several.

    Raises
    ------
    StudyError
        If the attribute has more than two classes, the data set lacks what the kind needs, or a discovered
        vector is called otherwise than in `DISCOVERED_NAMES`.
    """
    from safetensors.torch import load_file, save_file

    from lassi_lib.similarity.vectors import attribute_vector

    needs = find_kind(kind).needs
    if "predict" in needs and attribute not in DISCOVERED_NAMES:
        names = ", ".join(DISCOVERED_NAMES)
        raise StudyError(f"vectors of kind '{kind}' are called {names}, not '{attribute}'")
    if not {"predict", "codes"} & set(needs) and study.n_classes(attribute) != 2:
        raise StudyError(
            f"attribute '{attribute}' has {study.n_classes(attribute)} classes: a vector of kind '{kind}' needs two"
        )

    def compute(folder: Path) -> None:
        if "predict" in needs:
            a = discovered(study, kind, task)[DISCOVERED_NAMES.index(attribute)]
        else:
            ready = _inputs(study, attribute, kind, task)
            a = attribute_vector(study.latents("train"), kind=kind, **{name: ready[name]() for name in needs})
        save_file({"a": a.contiguous()}, folder / "vector.safetensors")

    stage = vector_stage(study, attribute, kind, task)
    return study.once(
        stage.key, lambda: load_file(study.cache.fetch(stage, compute) / "vector.safetensors")["a"]
    )


def _inputs(study: Study, attribute: str, kind: str, task: str) -> dict[str, Callable[[], Any]]:
    """Return how to get each thing that a kind may need."""
    from lassi_lib.streams import torch_stream

    def others() -> np.ndarray:
        of = attribute.partition("=")[0]  # Race=Black is determined by the other values of Race
        names = [a for a in study.attribute_names() if a.partition("=")[0] != of and study.n_classes(a) == 2]
        return np.stack([study.labels("train", a) for a in names], axis=1)

    return {
        "y": lambda: study.labels("train", attribute),
        "codes": lambda: study.labels("train", attribute),
        "boundary": lambda: boundaries(study)[attribute],
        "task_boundary": lambda: boundaries(study)[task],
        "others": others,
        "generator": lambda: torch_stream(0, f"vector/{turned_freely(kind)}/{attribute}"),
        "z_base": lambda: counterfactual_latents(study, attribute, -1.0),
        "z_counterfactual": lambda: counterfactual_latents(study, attribute, 1.0),
    }


def factor_behind(attribute: str) -> Any:
    """Return the renderer's factor behind an attribute of rendered faces."""
    from lassi_lib.data.synthfaces import factor_of

    factor = factor_of(attribute)
    if factor is None:
        raise StudyError(f"attribute '{attribute}' has no factor that could be drawn: choose another one")
    return factor


def counterfactual_latents(
    study: Study, attribute: str, value: float, count: int = _COUNTERFACTUALS
) -> torch.Tensor:
    """Return the latents [count, d] of the first training faces, drawn again with an attribute's factor set.

    A value of +1 clearly shows the attribute, -1 clearly does not.
    """
    from lassi_lib.data.synthfaces import render_counterfactual

    data = study.dataset("train")
    faces = render_counterfactual(data, range(min(count, len(data))), factor_behind(attribute), value)
    return study.encode(faces)


def _discover(study: Study, kind: str, task: str) -> tuple[torch.Tensor, dict]:
    """Search the discovered vectors of a task with the profile's base classifier."""
    from lassi_lib.similarity.discovered import Discovery, discover

    p = study.pipeline
    classifier = base_classifier(study, p.discovery_classifier, task, BOUNDARY_SEED).requires_grad_(False)
    glow = study.glow()

    def predict(z: torch.Tensor) -> torch.Tensor:
        x = glow.decode_differentiable(z) if p.discovery_classifier == "resnet18" else z
        return classifier(x).softmax(dim=1)[:, 1]

    settings = Discovery(
        iterations=p.discovery_iterations, mended=kind == "discovered_mended", threads=p.encoder.threads
    )
    w_0 = boundaries(study)[task].w
    found, history = discover(
        study.latents("train"),
        w_0,
        predict,
        settings,
        seed=BOUNDARY_SEED,
        device=str(study.device),
        label=kind,
    )
    return found, {"history": history}
