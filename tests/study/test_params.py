"""Strict parameters: every profile loads, and every mistake is one line naming file and key."""

import pytest
import yaml

from lassi_lib.errors import StudyError
from lassi_lib.study import params
from lassi_lib.study.experiment import experiments_of, parse_pair


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


def set_at(content, path, value):
    *parents, last = path.split(".")
    for key in parents:
        content = content[key]
    content[last] = value


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("encoder.lerning_rate", 0.1, ["encoder.lerning_rate", "did you mean 'learning_rate'"]),
        ("encoder.learning_rate", "1e-3", ["encoder.learning_rate", "1.0e-3"]),
        ("certification.n_center", "1e4", ["certification.n_center", "1.0e+4"]),
        ("encoder.epochs", 2.5, ["encoder.epochs", "int"]),
        ("encoder.epochs", True, ["encoder.epochs", "int"]),
        ("encoder.epochs", 0, ["encoder.epochs", "positive"]),
        ("encoder.hidden", 512, ["encoder.hidden", "list"]),
        ("encoder.hidden", [512, "x"], ["encoder.hidden[1]"]),
        ("glow", 3, ["glow", "section"]),
        ("glow.flip", "yes please", ["glow.flip", "bool"]),
        ("data.image_size", 50, ["data.image_size", "2^glow.n_blocks"]),
        ("data.bits", 9, ["data.bits", "1..8"]),
        ("methods.LASSI.sigma_rs", 0, ["methods.LASSI.sigma_rs", "positive"]),
        ("methods.LASSI.sigma", 1.0, ["methods.LASSI.sigma", "sigma_rs"]),
        ("nonsense", 1, ["nonsense"]),
    ],
)
def test_a_value_that_does_not_fit_names_file_and_key(profile, path, value, words):
    content, write = profile
    set_at(content, path, value)
    with pytest.raises(StudyError) as error:
        write(content)
    text = str(error.value)
    assert "\n" not in text
    assert "pipeline.yaml" in text
    for word in words:
        assert word in text


def test_a_missing_key_is_named(profile):
    content, write = profile
    del content["methods"]["LASSI"]["sigma_rs"]
    with pytest.raises(StudyError, match=r"methods\.LASSI\.sigma_rs"):
        write(content)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a: 1\na: 2\n", "twice"),
        ("a: [1\n", "not valid YAML"),
        ("- 1\n- 2\n", "key: value"),
        ("a: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
        ("", "key: value"),
    ],
)
def test_files_that_are_no_plain_mapping_are_refused(profile, text, word):
    with pytest.raises(StudyError, match=word) as error:
        profile[1](text)
    assert "\n" not in str(error.value)


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
