"""Vectors of every kind as stages: what their keys depend on, and that the smoke study can make them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lassi_lib.errors import StudyError
from lassi_lib.similarity.kinds import DISCOVERED_NAMES
from lassi_lib.study import vectors
from lassi_lib.study.experiment import Experiment
from lassi_lib.study.params import BaseParams, load_pipeline
from lassi_lib.study.study import Study
from lassi_lib.study.vectors import boundaries, counterfactual_latents, vector_stage


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The smoke pipeline with fewer faces, a small base classifier and a short search."""
    pipeline = load_pipeline("smoke")
    data = replace(pipeline.data, n_train=200, n_valid=60, n_test=10)
    base = BaseParams(threads=1, hidden=[16], epochs=1, batch_size=50)
    small = replace(pipeline, data=data, base=base, discovery_classifier="latent", discovery_iterations=3)
    return Study(small, device="cpu", cache=tmp_path_factory.mktemp("cache"), workers=1)


@pytest.mark.parametrize(
    "kind",
    ["mean_difference", "perpendicular", "ramaswamy", "ramaswamy_signed", "random", "degraded_45", "partialled"],
)  # fmt: skip
def test_every_kind_gives_a_vector_of_its_length(study, kind):
    a, plain = study.vector("Young", kind, "Smiling"), study.vector("Young")
    assert a.shape == plain.shape == (study.latents("test").shape[1],)
    assert torch.isfinite(a).all()
    if kind in ("random", "degraded_45"):
        assert float(a.norm()) == pytest.approx(float(plain.norm()), rel=1e-5)
        cosine = float(a @ plain / a.norm() / plain.norm())
        assert cosine == pytest.approx(0.5**0.5 if kind == "degraded_45" else 0, abs=0.05)
    if kind == "perpendicular":
        assert float(a.norm()) == pytest.approx(1, rel=1e-5)
        assert torch.allclose(a, boundaries(study)["Young"].normal.float(), atol=1e-6)


def test_other_values_of_one_variable_are_not_held_equal(study, monkeypatch):
    """Race=Black is what no other race is: held equal, they would determine it."""
    asked = []
    names = ["Age-2", "Age-9", "Race=Black", "Race=Indian", "Race=White"]
    monkeypatch.setattr(study, "attribute_names", lambda: names)
    monkeypatch.setattr(study, "n_classes", lambda name: 9 if name == "Age-9" else 2)
    monkeypatch.setattr(study, "labels", lambda split, name: asked.append(name) or np.zeros(2))
    for name, others in (("Race=Black", ["Age-2"]), ("Age-2", names[2:])):
        asked.clear()
        assert vectors._inputs(study, name, "partialled", "")["others"]().shape == (2, len(others))
        assert asked == others


def test_discovered_vectors_are_unit_vectors_of_one_search(study):
    a = torch.stack([study.vector(name, "discovered", "Smiling") for name in DISCOVERED_NAMES])
    assert torch.allclose(a.norm(dim=1), torch.ones(3), atol=1e-5)
    with pytest.raises(StudyError, match="biased_attr_0"):
        study.vector("Young", "discovered", "Smiling")


def test_sets_of_one_two_and_three_discovered_vectors_are_told_apart(study):
    sets = [DISCOVERED_NAMES[:1], DISCOVERED_NAMES[1:2], DISCOVERED_NAMES[:2], DISCOVERED_NAMES]
    asked = [Experiment("synthfaces", "Smiling", s, "discovered", "LASSI", 0) for s in sets]
    for stage in (study.encoder_stage, study.classifier_stage, study.certificates_stage):
        assert len({stage(e).key for e in asked}) == len(sets)
    # Naive encoders know no set, their certificates do
    asked = [replace(e, method="Naive") for e in asked]
    assert len({study.encoder_stage(e).key for e in asked}) == 1
    assert len({study.certificates_stage(e).key for e in asked}) == len(sets)


def test_the_true_factor_is_what_the_renderer_moves(study):
    a = study.vector("Pale_Skin", "true_factor")
    before, after = (counterfactual_latents(study, "Pale_Skin", v, count=200) for v in (-1.0, 1.0))
    assert torch.allclose(a, (after - before).mean(0), atol=1e-4)
    with pytest.raises(StudyError, match="no factor"):
        counterfactual_latents(study, "Attractive", 1.0)


def test_keys_depend_on_what_the_kind_needs(study):
    def key(kind, task):
        return vector_stage(study, "Young", kind, task).key

    for kind in ("mean_difference", "perpendicular", "random"):
        assert key(kind, "Smiling") == key(kind, "Wearing_Earrings")
    for kind in ("ramaswamy", "discovered"):
        assert key(kind, "Smiling") != key(kind, "Wearing_Earrings")
    assert len({key(k, "Smiling") for k in ("mean_difference", "perpendicular", "ramaswamy", "random")}) == 4


def test_unit_vectors_have_ten_times_the_radius(study):
    e = Experiment("synthfaces", "Smiling", ("Young",), "perpendicular", "LASSI", 0)
    assert study.similarity(e.sensitive, e.vector_type, e.task).epsilon == pytest.approx(10)
    spec = study.spec("LASSI", "perpendicular")
    assert (spec.epsilon, spec.sigma_cs) == (pytest.approx(10), pytest.approx(6.5))
    mean = replace(e, vector_type="mean_difference")
    assert study.encoder_stage(e).key != study.encoder_stage(mean).key
