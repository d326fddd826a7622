"""What notebooks may ask: every parameter has a type with limits, and every name that it holds must exist."""

import pytest

from lassi_lib.errors import StudyError
from lassi_lib.study import params
from lassi_lib.study.asked import TYPES, check_names, check_types
from lassi_lib.study.notebooks import parameters_of

# What is checked elsewhere: against the folder's name, by the notebook's own module, or a plain yes or no.
FREE = {"profile", "rendered", "interactive", "checkpoint", "models", "pair"}


def columns(*known):
    def column(name):
        if name not in known:
            raise StudyError(f"attribute '{name}' is not there")

    return column


def test_every_parameter_of_every_notebook_has_a_type_and_no_type_is_left_over():
    asked = {name for path in params.NOTEBOOKS.glob("*.ipynb") for name in parameters_of(path)}
    assert asked - FREE == set(TYPES) - {"vector_types"}  # which stands in groups alone
    assert not FREE & set(TYPES)


def test_defaults_of_the_notebooks_pass_their_own_types():
    for path in sorted(params.NOTEBOOKS.glob("*.ipynb")):
        check_types({name: p.default for name, p in parameters_of(path).items()}, path.name)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"seeds": [1, -1]}, r"f\.yaml: 'seeds\[1\]' must be 0 to"),
        ({"confidence": 1.0}, "'confidence' must be 0.5"),
        ({"outlier_phis": [True]}, "must be 'CelebA' or -1 to 1"),
        ({"output": "x"}, "'output' must be empty"),
        ({"groups": [{"pairs": ["a/b"]}, {"seeds": [1]}]}, r"'groups\[1\]\.pairs' is missing"),
        ({"groups": [{"pairs": ["a/b"], "seeds": ["1"]}]}, r"'groups\[0\]\.seeds\[0\]'"),
    ],
)
def test_types(given, words):
    with pytest.raises(StudyError, match=words):
        check_types(given, "f.yaml")


def test_integers_stand_for_numbers_and_the_word_celeba_for_a_correlation():
    check_types({"phis": ["CelebA", 0, -1, 0.35], "epsilons": [1], "values": [0, 14]}, "f.yaml")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"base_pairs": ["Smiling/Old"]}, "'base_pairs': attribute 'Old'"),
        ({"base_pairs": ["Smiling"]}, "'base_pairs': pair 'Smiling' must read"),
        ({"tasks": ["Old"]}, "'tasks': attribute 'Old'"),
        ({"task": "Old"}, "'task': attribute 'Old'"),
        ({"judged": ["LASI"]}, "'judged': method 'LASI' is unknown; did you mean 'LASSI'"),
        ({"swap_kinds": ["randm"]}, "'swap_kinds': .*did you mean 'random'"),
        ({"groups": [{"pairs": ["Smiling/Old"]}]}, "'pairs': attribute 'Old'"),
        ({"modes": ["exact"]}, "mode 'exact' is unknown"),
    ],
)
def test_names(given, words):
    with pytest.raises(StudyError, match=words):
        check_names(given, params.load_pipeline("smoke"), columns("Smiling", "Young"))


def test_discovered_directions_are_no_attributes_of_the_data():
    check_names(
        {"pairs": ["Smiling/biased_attr_0"]}, params.load_pipeline("smoke"), columns("Smiling", "Young")
    )
