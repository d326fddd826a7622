"""Docstrings of all public names, by numpydoc's validator."""

import dataclasses
import importlib
import inspect
import pkgutil

import pytest
from numpydoc.docscrape import get_doc_object
from numpydoc.validate import Validator, validate

import lassi_lib

# GL, SS and PR, but for: PR01 where there is no Parameters section and fewer than `MANY` parameters (short
# docstrings name them in the text); PR08, since descriptions begin with a dtype or a shape; and the sections
# and examples (ES, SA, EX, RT, YD) that a one-line "Return ..." does without.
EXCUSED = {"PR08"}
MANY = 5  # parameters that need a section
MODULES = [m.name for m in pkgutil.walk_packages(lassi_lib.__path__, "lassi_lib.")]


def public(module) -> list[str]:
    """The dotted names of a module's own public functions, classes and methods."""
    found = []
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", "") != module.__name__:
            continue
        own = inspect.unwrap(value) if callable(value) else value
        if inspect.isfunction(own) or inspect.isclass(own):
            found.append(f"{module.__name__}.{name}")
        if inspect.isclass(own):
            members = {k: getattr(v, "fget", getattr(v, "func", v)) for k, v in vars(own).items()}
            members = {k: v for k, v in members.items() if not k.startswith("_")}
            written = (k for k, v in members.items() if getattr(v, "__module__", "") == module.__name__)
            found += [f"{module.__name__}.{name}.{k}" for k in written]
    return found


def faults(name: str) -> list[str]:
    """What the validator finds at a name, as 'PR03 message' lines."""
    wrong = [(code, text) for code, text in validate(name)["errors"] if code[:2] in ("GL", "SS", "PR")]
    doc = Validator(get_doc_object(Validator._load_obj(name)))
    needed = doc.doc_parameters or many_parameters(doc)
    wrong = [(c, t) for c, t in wrong if c not in EXCUSED and (needed or c != "PR01")]
    return [f"{name}: {code} {text}" for code, text in wrong]


def many_parameters(doc: Validator) -> bool:
    """Whether a function, or a class's own constructor, takes `MANY` parameters; *args and **kwargs do not count.

    Nor do the fields of a dataclass: they stand under Attributes, or speak for themselves.
    """
    if inspect.isclass(doc.obj) and (dataclasses.is_dataclass(doc.obj) or "__init__" not in vars(doc.obj)):
        return False
    return sum(not name.startswith("*") for name in doc.signature_parameters) >= MANY


# numpydoc looks at every attribute of a class, deprecated ones of ipywidgets too
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("room", sorted({".".join(name.split(".")[:2]) for name in MODULES}))
def test_docstrings_of_public_names(room):
    names = [name for name in MODULES if name == room or name.startswith(f"{room}.")]
    modules = [importlib.import_module(name) for name in names]
    found = [f"{m.__name__}: no docstring" for m in modules if not (m.__doc__ or "").strip()]
    for module in modules:
        for name in public(module):
            found += faults(name)
    assert not found, "\n".join(found)


def badly_documented(first, second):
    """returns nothing

    Parameters
    ----------
    second : int
        The second one.
    """


def wrongly_named(first, second):
    """Return nothing.

    Parameters
    ----------
    first: int
        The first one.
    third : int
        Not the second one.
    """


def of_many(first, second, third, fourth, *rest, fifth=5):
    """Return nothing, of `first`, `second`, `third`, `fourth` and `fifth`."""


def of_some(first, second, third, fourth, *rest, **more):
    """Return nothing."""


def test_faults_are_found():
    def codes(function):
        return {line.split(": ")[1][:4] for line in faults(f"{__name__}.{function.__name__}")}

    assert {"SS02", "SS03", "PR01"} <= codes(badly_documented)
    assert {"PR01", "PR02", "PR10"} <= codes(wrongly_named)
    assert codes(of_many) == {"PR01"} and not codes(of_some)
    assert not faults("lassi_lib.study.statistics.holm")
    assert "lassi_lib.flow.glow.Glow.encode" in public(importlib.import_module("lassi_lib.flow.glow"))
