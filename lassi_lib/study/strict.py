"""Strict values: YAML mappings read with safe tags, and casts that refuse what does not fit in one line.

A type says what a value may be: ``Annotated[int, Between(1, 8)]``, ``Literal["a", "b"]``, a dataclass for a
section. Errors name the file (`where`) and the key.
"""

from __future__ import annotations

import typing
from collections.abc import Collection
from contextlib import suppress
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from lassi_lib.errors import StudyError, nearest

ROOT = Path(__file__).resolve().parents[2]
_MAX_BYTES = 1_000_000  # of one params file
_NAMES = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    list: "a list",
    dict: "a mapping of 'key: value' lines",
}


class Between(NamedTuple):
    """Limits of a number: from `low` (above it, with `above`) to `high`, beyond which no run would end."""

    low: float
    high: float
    above: bool = False

    def holds(self, value: float) -> bool:
        """Whether a value lies within; NaN never does."""
        return self.low <= value <= self.high and not (self.above and value == self.low)

    def __str__(self) -> str:
        if self.above:
            return f"be positive: above {self.low:g}, at most {_plain(self.high)}"
        return f"be {'positive: ' * (self.low == 1)}{self.low:g} to {_plain(self.high)}"


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping with safe tags only; a repeated key is an error, and so is an alias.

    Aliases (``*name``) are refused because a few lines of them can stand for billions of values.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise StudyError(f"{shown(path)}: alias '*{self.peek_event().anchor}': write the value out")
            return super().compose_node(parent, index)

    def mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict:
        keys = [loader.construct_object(k, deep=True) for k, _ in node.value]
        for key in keys:
            if not isinstance(key, str):
                raise StudyError(f"{shown(path)}: key {_brief(key)} must be a word, not {type(key).__name__}")
            if keys.count(key) > 1:
                raise StudyError(f"{shown(path)}: key '{key}' stands twice: remove one")
        return {k: loader.construct_object(v, deep=True) for k, (_, v) in zip(keys, node.value, strict=True)}

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise StudyError(f"{shown(path)} is larger than {_MAX_BYTES:,} bytes: no params file is")
        content = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except FileNotFoundError:
        raise StudyError(f"{shown(path)} is missing: copy it from another profile") from None
    except OSError as error:
        raise StudyError(f"{shown(path)} cannot be read ({error.strerror}): restore it") from None
    except StudyError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date of month 13 is a ValueError
        line = " ".join(str(error).replace('"<unicode string>", ', "").split())
        raise StudyError(f"{shown(path)} is not valid YAML: {line}") from None
    if not isinstance(content, dict):
        raise StudyError(f"{shown(path)} must hold 'key: value' lines, found {type(content).__name__}")
    return content


def build(kind: type, values: dict[str, Any], where: str, prefix: str = "") -> Any:
    """Build a dataclass from a mapping, strictly; errors name `where` (the file) and the key."""
    hints = typing.get_type_hints(kind, include_extras=True)
    required = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
    check_keys(values, hints, required, where, prefix)
    return kind(**{k: cast(v, hints[k], where, prefix + k) for k, v in values.items()})


def check_keys(values: dict, known: Collection[str], required: list[str], where: str, prefix: str) -> None:
    """Refuse a mapping with an unknown key, or without a required one.

    Parameters
    ----------
    values : dict
        The mapping.
    known : collection of str
        Keys that it may have.
    required : list of str
        Keys that it must have.
    where : str
        The file, as errors name it.
    prefix : str
        What errors put before a key: the section it stands in, with a dot, or ''.
    """
    for key in values:
        if key not in known:
            raise StudyError(f"{where}: unknown key '{prefix}{key}'{nearest(str(key), known)}")
    for key in required:
        if key not in values:
            raise StudyError(f"{where}: key '{prefix}{key}' is missing: add it")


def cast(value: Any, kind: Any, where: str, key: str) -> Any:
    """Return `value` if it is of type `kind` and within its limits (an int may stand for a float), else raise."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    at = f"{where}: '{key}'"
    if origin is Annotated:
        value = cast(value, args[0], where, key)
        if not args[1].holds(value):
            raise StudyError(f"{at} must {args[1]}, not {_brief(value)}")
        return value
    if origin is Literal:
        if value not in args:
            raise StudyError(f"{at} cannot be {_brief(value)}: write one of {', '.join(args)}")
        return value
    if is_dataclass(kind):
        if not isinstance(value, dict):
            raise StudyError(f"{at} must be a section of 'key: value' lines, not {_brief(value)}")
        return build(kind, value, where, f"{key}.")
    if origin in (list, dict):
        if not isinstance(value, origin):
            raise _misfit(at, origin, value)
        if origin is list:
            return [cast(v, args[0], where, f"{key}[{i}]") for i, v in enumerate(value)]
        names = [cast(k, args[0], where, f"{key}.{k}") for k in value]
        return {k: cast(value[k], args[1], where, f"{key}.{k}") for k in names}
    if kind is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**1000:
        return float(value)
    if kind is Any or (isinstance(value, kind) and not (kind is int and isinstance(value, bool))):
        return value
    raise _misfit(at, kind, value)


def _misfit(at: str, kind: type, value: Any) -> StudyError:
    """Say which type a value should have, and how it is written if that can be guessed."""
    hint = ""
    if kind is list and isinstance(value, int | float | str):
        number = isinstance(value, str) and value.isdecimal()  # in quotes
        hint = f": write [{value if number else _brief(value)}]"
    if kind in (int, float) and isinstance(value, str):
        with suppress(ValueError):
            float(value)  # a number to anybody but YAML
            hint = ": YAML 1.1 reads this as text, write 1.0e-3, 1.0e+4 or 10_000"
            plain = value.removeprefix("-").replace(".", "", 1).isdecimal()
            hint = f": write {value}, without quotes" if plain else hint
    return StudyError(f"{at} must be {_NAMES.get(kind, kind.__name__)}, not {_brief(value)}{hint}")


def _plain(limit: float) -> str:
    return f"{limit:,.0f}" if limit >= 1e4 else f"{limit:g}"


def _brief(value: Any) -> str:
    """Return a value as it stands in a message: never long."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of more than 4300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:57]}..."


def shown(path: Path, start: Path = ROOT) -> str:
    """Return a path as the user knows it: relative to `start` (the study's root) where it lies there."""
    return str(path.relative_to(start)) if path.is_relative_to(start) else str(path)
