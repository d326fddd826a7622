"""The pages of docs/: links lead somewhere, named modules and functions exist, numbers are measured."""

import importlib
import json
import re
from pathlib import Path

import matplotlib
import pytest

from docs.figures import method
from lassi_lib.study.params import load_pipeline

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks" / "README.md"])
LINK = re.compile(r"(?<!\\)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ +(.+?)\s*$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def fault_of(page: Path, target: str) -> str:
    """What is wrong with a link of a page, or ''."""
    if re.match(r"[a-z]+:", target):
        return "" if target.startswith(("https://", "mailto:")) else "not https"
    name, _, anchor = target.partition("#")
    path = (page.parent / name).resolve() if name else page
    if not path.exists():
        return "no such file"
    if not path.is_relative_to(ROOT):
        return "outside of the repository"
    return "no such heading" if anchor and anchor not in anchors(path) else ""


def fault_of_name(text: str, target: str) -> str:
    """What is wrong with a link whose text is a name of the library in backticks, or ''."""
    name = re.fullmatch(r"`([a-z_0-9]+(?:\.\w+)+)`", text)
    if not name or name[1].endswith((".py", ".ipynb", ".yaml")):
        return ""
    parts = f"lassi_lib.{name[1]}".split(".")
    for cut in range(len(parts), 1, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            if not hasattr(found, part):
                return f"has no {part}"
            found = getattr(found, part)
        file = "/".join(parts[:cut]) + ".py"
        return "" if target.endswith(file) else f"stands in {file}"
    return "no such module"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_resolve_and_named_code_exists(page):
    links = LINK.findall(prose(page))
    faults = [f"{target}: {fault}" for _, target in links if (fault := fault_of(page, target))]
    faults += [f"{text}: {fault}" for text, target in links if (fault := fault_of_name(text, target))]
    assert not faults


def test_faults_of_links_are_found():
    page = ROOT / "docs" / "method.md"
    assert fault_of(page, "nowhere.md") == "no such file"
    assert fault_of(page, "exactness.md#no-such-part") == "no such heading"
    assert fault_of(page, "exactness.md#four-modes") == ""
    assert fault_of(page, "http://example.org") == "not https"
    assert fault_of_name("`study.statistics.holm`", "../lassi_lib/study/statistics.py") == ""
    assert fault_of_name("`study.statistics.hulm`", "../lassi_lib/study/statistics.py") == "has no hulm"
    assert "stands in" in fault_of_name("`study.statistics.holm`", "../lassi_lib/study/tables.py")
    assert fault_of_name("`study.nowhere`", "x.py") == "has no nowhere"


def test_all_stages_and_rooms_stand_in_the_architecture():
    page = (ROOT / "docs" / "architecture.md").read_text()
    library = ROOT / "lassi_lib"
    names = {n for p in library.rglob("*.py") for n in re.findall(r'\bStage\(\s*"(\w+)"', p.read_text())}
    assert len(names) > 10
    assert not [name for name in sorted(names) if f"`{name}`" not in page]
    assert not [p.parent.name for p in library.glob("*/__init__.py") if f"`{p.parent.name}/`" not in page]


@pytest.mark.parametrize("profile", ["smoke", "demo", "celeba20k", "shapes3d"])
def test_the_readmes_minutes_are_those_of_the_profiles(profile):
    (row,) = re.findall(rf"^\| `{profile}` \| .*", (ROOT / "README.md").read_text(), re.M)
    minutes = sum(load_pipeline(profile).minutes.values())
    assert (f"{minutes:.0f} minutes" if minutes < 120 else f"{minutes / 60:.0f} hours") in row


def test_the_method_fits_two_printed_pages():
    # A4 in 10 point with margins of 1.8 cm, its one figure as wide as the text
    page = (ROOT / "docs" / "method.md").read_text()
    assert len(page.split()) < 1100
    assert page.count("![") == 1


def measured() -> dict:
    return json.loads((ROOT / "docs" / "figures" / "method.json").read_text())


def test_the_figure_is_drawn_from_the_measured_numbers():
    with matplotlib.rc_context(matplotlib.rcParamsDefault):
        drawn = method.svg(method.draw(measured()))
    assert drawn == (ROOT / "docs" / "figures" / "method.svg").read_bytes()


def test_the_caption_says_what_was_measured():
    page, found = (ROOT / "docs" / "method.md").read_text(), measured()
    for name in ("Naive", "LASSI"):
        for radius in ("d_cs", "d_rs"):
            assert f"{found[name][radius]:.2f}" in page
    assert found["Naive"]["status"] == "NOT_CERTIFIED" and found["Naive"]["d_cs"] > found["Naive"]["d_rs"]
    assert found["LASSI"]["status"] == "CERTIFIED" and found["LASSI"]["d_cs"] < found["LASSI"]["d_rs"]


def test_the_line_of_similar_faces_stays_on_one_side_of_naives_boundary():
    own = measured()["Naive"]
    inside = [r for t, r in zip(own["t"], own["curve"], strict=True) if abs(t) <= 1]
    scores = [own["normal"][0] * x + own["normal"][1] * y + own["offset"] for x, y in inside]
    assert len(scores) > 10 and min(scores) * max(scores) > 0


@pytest.mark.slow
def test_the_figures_numbers_can_be_measured_again(tmp_path):
    again, found = method.measure(tmp_path), measured()
    assert again["face"] == found["face"]
    for name in ("Naive", "LASSI"):
        assert again[name]["status"] == found[name]["status"]
        for radius in ("d_cs", "d_rs"):
            assert again[name][radius] == pytest.approx(found[name][radius], rel=0.1)
