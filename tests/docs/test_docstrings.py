"""Docstrings of all public names, by numpydoc's validator."""

import importlib
import inspect
import pkgutil

import pytest
from numpydoc.docscrape import get_doc_object
from numpydoc.validate import Validator, validate

import lassi_lib

# GL, SS and PR, but for: PR01 where there is no Parameters section (short docstrings name their
# parameters in the text); PR08, since descriptions begin with a dtype or a shape; and the sections and
# examples (ES, SA, EX, RT, YD) that a one-line "Return ..." does without.
EXCUSED = {"PR08"}
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
    listed = get_doc_object(Validator._load_obj(name))["Parameters"]
    wrong = [(c, t) for c, t in wrong if c not in EXCUSED and (listed or c != "PR01")]
    return [f"{name}: {code} {text}" for code, text in wrong]


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


def test_faults_are_found():
    codes = {line.split(": ")[1][:4] for line in faults(f"{__name__}.badly_documented")}
    assert {"SS02", "SS03", "PR01"} <= codes
    assert not faults("lassi_lib.study.statistics.holm")
    assert "lassi_lib.flow.glow.Glow.encode" in public(importlib.import_module("lassi_lib.flow.glow"))
