"""The glossary: in order, one line each, and nothing missing that the method's page or tables say."""

import re
from pathlib import Path

from lassi_lib.certification.modes import MODES
from lassi_lib.study.verdicts import OUTCOMES

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "glossary.md").read_text()


def entries(heading: str) -> dict[str, str]:
    """The rows of one table of the page: name -> text."""
    part = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| (.+) \|$", part, re.M)[1:]
    assert len({name for name, _ in rows}) == len(rows)
    return dict(rows)


def order(name: str) -> str:
    """What an entry is sorted by."""
    return re.sub(r"[^a-z0-9 ]", "", re.sub(r"[,(].*", "", name.lower()).replace("_", " "))


def test_entries_are_in_order():
    for heading in ("Symbols", "Terms"):
        keys = [order(name) for name in entries(heading)]
        assert len(keys) > 20 and keys == sorted(keys)


def test_symbols_of_the_method_are_explained():
    # names with a short index, single letters and spelled-out Greek ones: all that is written in formulas
    symbols = r"(?<![\w.'/-])(?:[A-Za-z]+_[A-Za-z0-9]{1,3}|[A-Za-z]|Delta|Phi|epsilon|phi)(?![\w'])"
    page = re.sub(
        r"`[^`]*`|\]\([^)]*\)", "", (ROOT / "docs" / "method.md").read_text()
    )  # without code and links
    used, explained = (set(re.findall(symbols, text)) for text in (page, " ".join(entries("Symbols"))))
    assert {"R_p", "z_adv", "p", "m", "I", "r", "i", "Phi", "t_n"} <= used
    assert not used - explained


def test_modes_outcomes_and_methods_are_explained():
    text = " ".join(name for pair in entries("Terms").items() for name in pair).lower()
    for name in (*MODES, *OUTCOMES, "Naive", "DataAug", "LASSI", "transfer"):
        assert name.replace("_", " ").lower() in text.replace("_", " "), name
