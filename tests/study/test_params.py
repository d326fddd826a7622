"""Strict parameters: every profile loads, and every mistake is one line naming file and key."""

import pytest
import yaml

from lassi_lib.errors import StudyError
from lassi_lib.study import params
from lassi_lib.study.experiment import Experiment, experiments_by, experiments_of, parse_pair, with_seeds
from lassi_lib.study.notebooks import parameters_of


@pytest.fixture
def profile(tmp_path, monkeypatch):
    """A copy of params/smoke that a test may spoil; returns (pipeline dict, write function)."""
    content = yaml.safe_load((params.PARAMS / "smoke" / "pipeline.yaml").read_text())
    monkeypatch.setattr(params, "PARAMS", tmp_path)

    def write(text_or_dict):
        folder = tmp_path / "mine"
        folder.mkdir(exist_ok=True)
        text = text_or_dict if isinstance(text_or_dict, str) else yaml.safe_dump(text_or_dict)
        (folder / "pipeline.yaml").write_text(text)
        return params.load_pipeline("mine")

    return content, write


@pytest.mark.parametrize("name", params.profiles())
def test_every_shipped_profile_and_notebook_loads(name):
    pipeline = params.load_pipeline(name)
    notebooks = params.notebooks_of(name)
    assert notebooks
    for notebook in notebooks:
        values = params.load_notebook_params(name, notebook)
        assert values["profile"] == name
        experiments_of(pipeline, values)
        assert notebook in pipeline.minutes or not pipeline.minutes  # none: never run from end to end


def test_an_unknown_profile_suggests_the_nearest():
    with pytest.raises(StudyError, match="did you mean 'demo'"):
        params.load_pipeline("dmeo")


def test_yaml_numbers_are_kept_and_integers_may_stand_for_floats(profile):
    content, write = profile
    content["glow"]["clip_norm"] = 7
    pipeline = write(content)
    assert pipeline.glow.clip_norm == 7.0
    assert isinstance(pipeline.glow.clip_norm, float)


@pytest.mark.parametrize(
    "bad", ["Smiling", "Smiling/", "/Young", "Smiling/Young+", "Smiling/Smiling", "A/B+B", "a", 3]
)
def test_malformed_pairs_are_refused(bad):
    with pytest.raises(StudyError, match="pair"):
        parse_pair(bad)


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("methods", ["LASI"], "did you mean 'LASSI'"),
        ("seeds", [1.5], "whole number"),
        ("seeds", [1, 1], "repetitions"),
        ("seeds", [], "not empty"),
        ("seeds_of", {"LASSI": [1]}, "some of 'seeds'"),
        ("seeds_of", {"LASSI": []}, "some of 'seeds'"),
        ("seeds_of", {"Naive": [0]}, "one of 'methods'"),
        ("pairs", ["Smiling-Young"], "pair"),
    ],
)
def test_experiments_check_what_they_are_asked_for(key, value, word):
    pipeline = params.load_pipeline("smoke")
    asked = {"pairs": ["Smiling/Young"], "methods": ["LASSI"], "seeds": [0], key: value}
    with pytest.raises(StudyError, match=word):
        experiments_of(pipeline, asked)


def test_experiments_are_the_product_of_pairs_methods_and_seeds():
    pipeline = params.load_pipeline("smoke")
    asked = {
        "pairs": ["Smiling/Young", "Smiling/Pale_Skin+Young"],
        "methods": ["Naive", "LASSI"],
        "seeds": [1, 2],
    }
    found = experiments_of(pipeline, asked)
    assert len(found) == len(set(found)) == 8
    assert {e.sensitive for e in found} == {("Young",), ("Pale_Skin", "Young")}


def test_a_method_may_have_fewer_seeds_and_the_option_overrules_that():
    pipeline = params.load_pipeline("smoke")
    asked = {"pairs": ["Smiling/Young"], "methods": ["Naive", "LASSI"], "seeds": [1, 2]}
    found = experiments_of(pipeline, asked | {"seeds_of": {"Naive": [2]}})
    assert [(e.method, e.seed) for e in found] == [("Naive", 2), ("LASSI", 1), ("LASSI", 2)]
    given = with_seeds(asked | {"seeds_of": {"Naive": [2]}}, [7])
    assert [(e.method, e.seed) for e in experiments_of(pipeline, given)] == [("Naive", 7), ("LASSI", 7)]
    assert with_seeds({"top": 3}, [7]) == {"top": 3}
    grouped_ones = {"groups": [asked | {"seeds_of": {"Naive": [2]}}], "seeds": [1]}
    assert {e.seed for e in experiments_of(pipeline, with_seeds(asked | grouped_ones, [7]))} == {7}


def test_experiments_are_grouped_in_the_order_of_first_occurrence():
    found = [
        Experiment("d", task, ("a",), "mean_difference", "LASSI", seed) for task, seed in ("x1", "y1", "x2")
    ]
    groups = experiments_by(found, lambda e: e.task)
    assert [(task, [e.seed for e in group]) for task, group in groups.items()] == [
        ("x", ["1", "2"]),
        ("y", ["1"]),
    ]


def test_seeds_asked_for_replace_those_of_every_question():
    """05 and 09 have seeds of their own: for causes, for groups of pairs, for ordinary classifiers."""
    for name in ("05_outlier_analysis", "09_base_classifiers", "01_claim1_certified_fairness"):
        asked = with_seeds(params.load_notebook_params("demo", name), [7])
        assert "42" not in str(asked) and all(asked[k] == [7] for k in asked if k.endswith("seeds")), name
        if name != "09_base_classifiers":
            assert {e.seed for e in experiments_of(params.load_pipeline("demo"), asked)} == {7}


@pytest.mark.parametrize("name", params.notebooks_of("demo"))
def test_a_notebook_started_by_hand_asks_what_the_demo_asks(name):
    """Else it would train further models, and write other tables over those of `make study`."""
    cell = {k: p.default for k, p in parameters_of(params.NOTEBOOKS / f"{name}.ipynb").items()}
    assert cell == params.load_notebook_params("demo", name)
