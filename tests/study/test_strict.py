"""Strict values: limits, casts, and YAML that can hold nothing but plain values."""

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest

from lassi_lib.errors import StudyError
from lassi_lib.study.strict import Between, build, cast, check_keys, read_yaml, shown


@pytest.mark.parametrize(
    ("limits", "inside", "outside"),
    [
        (Between(1, 8), [1, 8], [0, 9, math.nan]),
        (Between(0, 1, above=True), [1e-9, 1], [0, 1.1, -1, math.nan, math.inf]),
        (Between(-1, 1), [-1, 0, 1], [math.nan, -math.inf]),
    ],
)
def test_limits(limits, inside, outside):
    assert all(map(limits.holds, inside)) and not any(map(limits.holds, outside))


def test_limits_say_what_is_allowed():
    assert str(Between(1, 8)) == "be positive: 1 to 8"
    assert str(Between(0, 10_000_000)) == "be 0 to 10,000,000"
    assert str(Between(0, 10, above=True)) == "be positive: above 0, at most 10"


@pytest.mark.parametrize(
    ("value", "kind", "same"),
    [
        (3, float, 3.0),
        (True, bool, True),
        ([1, 2], list[int], [1, 2]),
        ({"a": 1}, dict[str, float], {"a": 1.0}),
        ("b", Literal["a", "b"], "b"),
        (3, Annotated[float, Between(0, 5)], 3.0),
        ([{"a": [1]}], list[Any], [{"a": [1]}]),
    ],
)
def test_casts(value, kind, same):
    found = cast(value, kind, "f", "k")
    assert found == same and type(found) is type(same)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (1.0, int), (True, int), (True, float), ("1", int), (None, str), (1, str), ({}, list), ([], dict),
        ([1, "x"], list[int]), ({1: 2}, dict[str, int]), ("c", Literal["a", "b"]), ([], Literal["a"]),
        (6, Annotated[int, Between(0, 5)]), (10**400, float),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_file_and_key(value, kind):
    with pytest.raises(StudyError, match="file: 'key"):
        cast(value, kind, "file", "key")


@dataclass(frozen=True)
class Section:
    """What a test builds."""

    n: Annotated[int, Between(1, 9)]
    names: list[str] = field(default_factory=list)


def test_a_section_is_built_from_a_mapping():
    assert build(Section, {"n": 3, "names": ["a"]}, "file") == Section(3, ["a"])
    for values, words in (
        ({}, "'n' is missing"),
        ({"n": 1, "nmes": []}, "did you mean 'names'"),
        ({"n": 0}, "1 to 9"),
    ):
        with pytest.raises(StudyError, match=words):
            build(Section, values, "file")
    check_keys({"a": 1}, ["a", "b"], ["a"], "file", "")


def test_yaml_is_read_as_plain_values(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("n: 1_000\nx: [1.5e-3, .5]\nm: {a: no, b: ~}\nö: ü\n", encoding="utf-8")
    assert read_yaml(path) == {"n": 1000, "x": [0.0015, 0.5], "m": {"a": False, "b": None}, "ö": "ü"}
    path.write_text("a: &b 1\nc: *b\n")
    with pytest.raises(StudyError, match=r"a\.yaml: alias '\*b'"):
        read_yaml(path)
    with pytest.raises(StudyError, match="is missing"):
        read_yaml(tmp_path / "none.yaml")
    assert shown(path) == str(path)
