"""What notebooks may ask: every parameter has a type with limits, and every name that it holds must exist."""

from types import SimpleNamespace

import IPython
import nbformat
import pytest
from nbclient import NotebookClient

from lassi_lib.errors import StudyError
from lassi_lib.study import params
from lassi_lib.study.asked import TYPES, check_by_hand, check_names, check_types
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


OWN = {"profile": "demo", "device": "auto", "interactive": True, "output": "anywhere"}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("seeds", 42, r"'seeds' must be a list, not 42: write \[42\]"),
        ("seeds", "42", r"'seeds' must be a list, not '42': write \[42\]"),
        ("confidence", 95, "'confidence' must be 0.5 to"),
        ("confidence", "0.95", "'confidence' must be a number, not '0.95': write 0.95, without quotes"),
        ("lambda_2", 0.05, "'lambda_2' must be a list"),
        ("lambda_2", ["a"], r"'lambda_2\[0\]' must be a number"),
        ("epsilons", [-1], r"'epsilons\[0\]' must be positive"),
        ("faces_per_pair", 0, "'faces_per_pair' must be positive: 1 to"),
    ],
)
def test_parameters_changed_by_hand_are_checked_like_those_of_files(monkeypatch, name, value, words):
    space = OWN | {name: value, "__annotations__": dict.fromkeys([*OWN, name])}
    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(user_ns=space))
    with pytest.raises(StudyError, match=f"parameters cell: {words}"):
        check_by_hand()
    del space["interactive"]  # somebody's own notebook: its names mean what they like
    check_by_hand()


def test_a_broken_parameter_is_one_line_in_a_kernel(tmp_path):
    cells = nbformat.read(params.NOTEBOOKS / "10_audit.ipynb", 4).cells
    given, first = (
        next(c for c in cells if c.cell_type == "code" and s in c.source) for s in ("profile:", "ll.")
    )
    lines = first.source.splitlines()
    first.source = "\n".join(lines[: 1 + next(i for i, x in enumerate(lines) if "results_folder" in x)])
    given.source += f"\noutput = {str(tmp_path)!r}\nconfidence = 95"
    notebook = nbformat.v4.new_notebook(cells=[given, first])
    NotebookClient(notebook, kernel_name="python3", allow_errors=True).execute()
    (error,) = (out for out in first.outputs if out.output_type == "error")
    assert error.traceback == ["StudyError: parameters cell: 'confidence' must be 0.5 to 0.999999, not 95.0"]
