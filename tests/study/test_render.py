"""Pages: nothing is loaded from outside, nothing runs, every picture has a text, names are escaped."""

import base64
import re
from urllib.parse import unquote

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from lassi_lib.study.render import MAX_BYTES, IndexEntry, page, title_of, to_html, write_index
from lassi_lib.study.tables import present
from tests.study.reading import complaints_of_text

from .hostile_html import EVERY, named

V4 = nbformat.v4
PIXEL = base64.b64encode(b"\x89PNG pretend").decode()
SVG = '<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
HOSTILE = "<script>alert('x')</script>\"onload=\"y"


def shown(data, metadata=None):
    return V4.new_output("display_data", data=data, metadata=metadata or {})


def write(path, *cells, **lassi):
    nbformat.write(V4.new_notebook(cells=list(cells), metadata={"lassi": lassi}), path)
    return path


def page_of(folder, *cells, **lassi):
    path = write(folder / "01.ipynb", *cells, **lassi)
    assert to_html(path, folder / "01.html", note="commit abc") == []
    return BeautifulSoup((folder / "01.html").read_text(), "html.parser")


def loads_nothing(soup):
    """No tag but a plain link names anything that is neither embedded nor beside the page."""
    for tag in soup.find_all(True):
        for name in ("src", "srcset", "href", "data", "poster"):
            value = tag.get(name, "")
            assert tag.name == "a" or not re.match(r"\s*([a-z]+:)?//", value), tag
        assert not any(name.startswith("on") for name in tag.attrs), tag
    assert not soup.find_all(["script", "link", "iframe", "object"])
    assert "@import" not in str(soup) and "url(" not in str(soup)


def test_page_has_title_language_way_back_and_provenance(tmp_path):
    page = page_of(tmp_path, V4.new_markdown_cell("text\n\n## Is `d_cs` **small**?\n\n# Later"))
    assert page.title.text == "Is d_cs small?"
    assert page.html["lang"] == "en" and page.find("meta", attrs={"name": "viewport"})
    assert page.nav.a["href"] == "index.html" and "commit abc" in page.footer.text
    assert "prefers-color-scheme:dark" in page.style.text
    assert (tmp_path / "01.html").stat().st_size < 30_000  # not the 263 KB of nbconvert's own styles


def test_page_loads_and_runs_nothing(tmp_path):
    evil = (
        '<script src="https://x.example/a.js"></script><link href="//x.example/a.css" rel="stylesheet">'
        '<img src="https://x.example/a.png"><img src="pic.png" onerror="go()"><iframe src="http://x"></iframe>'
        '<p style="background:url(https://x.example/b.png)" onclick="go()">kept</p>'
        '<a href="javascript:go()">a</a>'
        "<style>@import 'https://x.example/c.css'</style>"
    )
    widget = {
        "application/vnd.jupyter.widget-view+json": {"model_id": "1"},
        "text/plain": "interactive(children=",
    }
    outputs = [
        shown({"text/html": evil}),
        shown({"application/javascript": "go()", "text/plain": "still here"}),
        shown({"image/svg+xml": SVG}),
        shown(widget | {"image/png": PIXEL}),
    ]
    link = V4.new_markdown_cell(
        f"# T\n\n[paper](https://arxiv.org/abs/1) ![](https://x.example/d.png)\n\n{evil}"
    )
    page = page_of(tmp_path, link, V4.new_code_cell("1", outputs=outputs))
    loads_nothing(page)
    assert page.find("a", href="https://arxiv.org/abs/1")
    assert [picture["src"][:5] for picture in page.find_all("img")] == ["pic.p", "pic.p", "data:", "data:"]
    assert "kept" in page.text and "still here" in page.text
    assert "javascript:" not in str(page) and "x.example" not in str(page)
    assert "interactive(children=" not in page.text


def test_every_picture_has_the_figures_own_text_or_its_headings(tmp_path):
    named = shown({"image/png": PIXEL, "text/plain": "f"}, {"alt": 'Bars "a" & b'})
    nested = shown({"image/png": PIXEL}, {"image/png": {"alt": "nested"}})
    page = page_of(
        tmp_path,
        V4.new_markdown_cell("# Top"),
        V4.new_code_cell("1", outputs=[named, nested, shown({"image/png": PIXEL})]),
        V4.new_markdown_cell("## Below\n\n![](figures/a.png)"),
        V4.new_code_cell("2", outputs=[shown({"text/html": '<img src="b.png">'})]),
        V4.new_code_cell("3", outputs=[shown({"image/svg+xml": SVG, "image/png": PIXEL})]),
    )
    alts = [picture["alt"] for picture in page.find_all("img")]
    assert alts == [
        'Bars "a" & b',
        "nested",
        "Figure: Top",
        "Figure: Below",
        "Figure: Below",
        "Figure: Below",
    ]
    embedded = page.find_all("img")[-1]["src"]
    assert unquote(embedded.removeprefix("data:image/svg+xml,")) == SVG
    assert "SVG" not in page.main.text and not page.find("svg")


def test_code_is_folded_and_tables_are_accessible(tmp_path):
    table = "<table border=1><thead><tr><th></th><th>a</th></tr></thead><tr><th>x</th><td>1</td></tr></table>"
    page = page_of(
        tmp_path,
        V4.new_markdown_cell("# T\n\n## What we find"),
        V4.new_code_cell("n = 2", metadata={"tags": ["injected-parameters"]}),
        V4.new_code_cell("a\nb", outputs=[shown({"text/html": table})]),
        V4.new_code_cell("\n".join("abcdefghijklmn")),
    )
    folds = page.main.find_all("details")
    assert [f.summary.text for f in folds] == ["Parameters of this run", "Code, 2 lines", "Code, 14 lines"]
    assert [f.has_attr("open") for f in folds] == [False, True, False]
    assert all(f.find("pre") and not f.find("table") for f in folds)
    assert [(th["scope"], th.text) for th in page.find_all("th")] == [("col", "a"), ("row", "x")]
    assert page.table.parent["tabindex"] == "0" and page.table.parent["aria-label"] == "Table: What we find"
    assert page.table.caption.text == "What we find" and not page.table.has_attr("border")
    assert complaints_of_text(str(page)) == []


def test_tables_of_a_section_can_be_told_apart(tmp_path):
    rate = shown({"text/html": "<table><tr><th>x</th><td>1</td></tr></table>"})
    page = page_of(
        tmp_path,
        V4.new_markdown_cell("# T\n\n## What we find"),
        V4.new_code_cell('ll.save_table(t, folder / "tables", "02_two_words")\nt', outputs=[rate]),
        V4.new_code_cell("t", outputs=[rate]),
        V4.new_code_cell('ll.save_table(a, f, "02_a")\nll.save_table(b, f, "02_b")', outputs=[rate]),
        V4.new_markdown_cell("## Below"),
        V4.new_code_cell("t", outputs=[rate]),
    )
    names = ["What we find: two words", "What we find", "What we find (2)", "Below"]
    assert [t.caption.text for t in page.find_all("table")] == names
    assert [t.parent["aria-label"] for t in page.find_all("table")] == [f"Table: {n}" for n in names]


def test_what_a_page_found_stands_below_its_title(tmp_path):
    cells = [V4.new_markdown_cell("# T\n\nA question.\n\n## Figures\n\n## Verdict")]
    path = write(tmp_path / "01.ipynb", *cells)
    to_html(path, tmp_path / "01.html", verdict=("not supported", "1 < 2 <b>pairs</b>."))
    page = BeautifulSoup((tmp_path / "01.html").read_text(), "html.parser")
    box = page.h1.find_next_sibling()
    assert box.text == "This run: not supported. 1 < 2 <b>pairs</b>. How it was judged"
    assert box.b["class"] == ["bad"] and page.select_one(box.a["href"]).text == "Verdict"
    to_html(path, tmp_path / "01.html")
    assert "This run" not in (tmp_path / "01.html").read_text()


def test_the_blank_index_of_pandas_is_left_out(tmp_path):
    table = pd.DataFrame({"task": ["Smiling", "Hat"], "n": [1, 2]}, index=["", ""]).to_html()
    page = page_of(
        tmp_path, V4.new_markdown_cell("# T"), V4.new_code_cell("1", outputs=[shown({"text/html": table})])
    )
    rows = [[(c.name, c.text) for c in row.find_all(["th", "td"])] for row in page.table.find_all("tr")]
    assert rows == [
        [("th", "task"), ("th", "n")], [("th", "Smiling"), ("td", "1")], [("th", "Hat"), ("td", "2")],
    ]  # fmt: skip
    named = pd.DataFrame({"n": [1]}, index=["kept"]).to_html()
    page = page_of(
        tmp_path, V4.new_markdown_cell("# T"), V4.new_code_cell("1", outputs=[shown({"text/html": named})])
    )
    assert page.table.find("th", scope="row").text == "kept"


def test_keyboard_and_screen_reader_find_their_way(tmp_path):
    page = page_of(tmp_path, V4.new_markdown_cell("# T\n\n## One\n\n## Two & three"))
    first = page.body.find("a")
    assert first["href"] == "#main" and page.main["id"] == "main"
    contents = page.nav.find_all("a")[1:]
    assert [a.text for a in contents] == ["One", "Two & three"]
    assert [page.select_one(a["href"]).text for a in contents] == ["One", "Two & three"]
    assert ":focus-visible{outline" in page.style.text


def test_files_that_a_cell_saves_are_offered_below_it(tmp_path):
    for name in ("tables/01_a.csv", "tables/01_a.tex", "figures/01_b.svg", "certificates/01_c.csv.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    code = [
        'll.save_table(t.drop(columns="x"), folder / "tables", "01_a")\nll.save_rows(r, folder, "01_c")',
        'll.save_figure(\n    f,\n    folder / "figures",\n    "01_b",\n)',
        'll.save_table(t, folder / "tables", "01_none")\nprint("01_a")',
    ]
    page = page_of(tmp_path, V4.new_markdown_cell("# T"), *map(V4.new_code_cell, code))
    offered = [[a["href"] for a in p.find_all("a")] for p in page.select("p.files")]
    assert offered == [
        ["tables/01_a.csv", "tables/01_a.tex", "certificates/01_c.csv.gz"], ["figures/01_b.svg"],
    ]  # fmt: skip


def luminance(colour):
    values = [
        int(c, 16) / 255
        for c in re.findall("..", colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:]))
    ]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_colours_can_be_told_from_their_ground_in_light_and_dark():
    """WCAG AA: 4.5 to 1 for text, of the page and of highlighted code."""
    css = BeautifulSoup(page("t", ""), "html.parser").style.text
    parts = re.split(r"@media \(prefers-color-scheme:dark\)", css)
    light, dark = (dict(re.findall(r"--(\w+):(#\w+)", part)) for part in parts[1:])
    assert {"bg", "fg", "soft", "link", "good", "bad", "warn"} <= light.keys() & dark.keys()
    code = [
        re.findall(r"\.highlight \.(?!w |err )\w+ \{[^}]*?(?<![-\w])color: (#\w+)", part)
        for part in parts[:2]
    ]
    for scheme, highlighted in ((light, code[0]), (dark, code[1])):
        assert highlighted
        texts = [(scheme[n], scheme["bg"]) for n in ("fg", "soft", "link", "good", "bad", "warn")]
        for colour, ground in [
            *texts,
            *((c, scheme["box"]) for c in [*highlighted, scheme["fg"], scheme["soft"]]),
        ]:
            low, high = sorted((luminance(colour), luminance(ground)))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (colour, ground)


def test_failed_notebook_says_so_once_and_escapes_its_error(tmp_path):
    banner = V4.new_markdown_cell("**This notebook failed**", metadata={"tags": ["failure"]})
    page = page_of(tmp_path, banner, V4.new_markdown_cell("# T"), error=f"ValueError: {HOSTILE}")
    loads_nothing(page)
    assert page.find(role="alert").text == f"This notebook failed. ValueError: {HOSTILE}"
    assert page.main.text.count("This notebook failed") == 1


def test_a_page_over_its_limit_is_written_with_a_warning(tmp_path):
    big = base64.b64encode(bytes(MAX_BYTES)).decode()
    path = write(tmp_path / "01.ipynb", V4.new_code_cell("1", outputs=[shown({"image/png": big})]))
    (warning,) = to_html(path, tmp_path / "01.html")
    assert "01.html has 2.7 MB" in warning and (tmp_path / "01.html").stat().st_size > MAX_BYTES


def index_of(folder, *entries):
    info = {"profile": "demo", "first_line": "Rendered faces.", "device": "a <laptop>"}
    return BeautifulSoup(write_index(folder, entries, info).read_text(), "html.parser")


def test_page_of_a_success_replaces_that_of_a_failure_and_the_reverse(tmp_path):
    path = write(tmp_path / "01.ipynb", V4.new_markdown_cell("# T"))
    for name, other in [
        ("01.html", "01.failed.html"),
        ("01.failed.html", "01.html"),
        ("01.html", "01.failed.html"),
    ]:
        to_html(path, tmp_path / name)
        assert (tmp_path / name).exists() and not (tmp_path / other).exists()


def test_index_lists_status_verdict_picture_and_existing_tables(tmp_path):
    for name in ("tables/a.csv", "tables/a.tex", "tables/a.md", "certificates/r.csv.gz", "figures/f.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    files = ("tables/a.csv", "tables/none.csv", "certificates/r.csv.gz", "figures/f.png")
    good = IndexEntry(
        "01_x", "Is it fair?", True, 1.26,
        outcome="supported", text="97 % are certified.", picture="figures/f.png", alt="Bars", artefacts=files,
    )  # fmt: skip
    bad = IndexEntry(
        "02_y", "Broken", False, 0.5, error="ValueError: 1", picture="figures/f.png", artefacts=files
    )
    page = index_of(tmp_path, good, bad)
    loads_nothing(page)
    first, second = page.select(".entries > li")
    assert [a["href"] for a in first.div.find_all("a")] == [
        "01_x.html", "01_x.ipynb", "tables/a.csv", "tables/a.md", "tables/a.tex", "certificates/r.csv.gz",
    ]  # fmt: skip
    assert first.h2.text == "Is it fair?" and "ok, 1.3 minutes" in first.text
    assert "supported 97 % are certified." in first.text
    assert (first.img["src"], first.img["alt"]) == ("figures/f.png", "Bars")
    assert first.img.parent["href"] == "figures/f.png"  # large
    # what a failed run left behind is not offered as a result
    assert [a["href"] for a in second.find_all("a")] == ["02_y.failed.html", "02_y.failed.ipynb"]
    assert second.select_one("b.bad").text == "failed" and "ValueError: 1" in second.text and not second.img
    assert second["class"] == ["failed"]
    assert page.p.text == "Rendered faces." and page.dl.text == "devicea <laptop>"
    glance = [[c.text for c in row.find_all(["th", "td"])] for row in page.table.find_all("tr")][1:]
    assert glance == [["Is it fair?", "ok", "supported", "1.3"], ["Broken", "failed", "", "0.5"]]
    assert [page.select_one(a["href"]) for a in page.table.find_all("a")] == [first, second]


def test_index_says_what_is_stale_what_changed_and_what_made_it(tmp_path):
    cell = {
        "table": "01_verdict",
        "row": "Smiling / <b>",
        "column": "accuracy",
        "before": "81.2",
        "now": "80.9",
    }
    before = {"status": "ok", "outcome": "supported", "verdict": "All.", "commit": "abc", "started": "2026-01-02T03:04",
              "cells": 3, "listed": [cell]}  # fmt: skip
    entry = IndexEntry("01_x", "T", True, 1.0, stale="its <code> changed", made="Made then", before=before)
    page = index_of(tmp_path, entry)
    (shown,) = page.select(".entries > li")
    assert "stale: its <code> changed" in shown.text and "Made then" in shown.text
    assert "ok, stale" in page.table.text
    fold = next(d for d in shown.find_all("details") if "Differs" in d.summary.text)
    assert "3 cells" in fold.summary.text and "Commit abc (2026-01-02): supported All." in fold.text
    assert [c.text for c in fold.tbody.find_all(["th", "td"])] == list(cell.values())
    assert "and 2 further cells" in fold.text
    page = index_of(tmp_path, IndexEntry("01_x", "T", True, 1.0))
    assert "stale" not in page.main.text and "Differs" not in page.main.text


def test_index_escapes_hostile_names(tmp_path):
    name = 'a"b<i>#?&'
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / f"{name}.png").write_text("x")
    write(tmp_path / "01.ipynb", V4.new_markdown_cell(f"# {HOSTILE}"))
    title = title_of(tmp_path / "01.ipynb")
    texts = dict.fromkeys(("error", "outcome", "text", "alt"), HOSTILE)
    page = index_of(tmp_path, IndexEntry(name, title, True, 1.0, picture=f"figures/{name}.png", **texts))
    loads_nothing(page)
    assert title == page.h2.text == page.img["alt"] == HOSTILE
    assert page.h2.a["href"] == "a%22b%3Ci%3E%23%3F%26.html"
    assert not page.find_all(["i", "laptop"])


# ---- hostile texts ------------------------------------------------------------------------------------

PLACES = {
    "markdown": lambda text: V4.new_markdown_cell(f"x\n\n{text}"),
    "heading": lambda text: V4.new_markdown_cell(f"## {text}".replace("\n", " ")),
    "code": lambda text: V4.new_code_cell(text),
    "html": lambda text: V4.new_code_cell("1", outputs=[shown({"text/html": text})]),
    "markdown output": lambda text: V4.new_code_cell("1", outputs=[shown({"text/markdown": text})]),
    "latex": lambda text: V4.new_code_cell("1", outputs=[shown({"text/latex": text})]),
    "stream": lambda text: V4.new_code_cell("1", outputs=[V4.new_output("stream", text=text)]),
    "error": lambda text: V4.new_code_cell(
        "1", outputs=[V4.new_output("error", ename=text, evalue=text, traceback=[f"\x1b[31m{text}"])]
    ),
    "picture": lambda text: V4.new_code_cell("1", outputs=[shown({"image/png": text}, {"alt": text})]),
    "drawing": lambda text: V4.new_code_cell("1", outputs=[shown({"image/svg+xml": text})]),
    "script": lambda text: V4.new_code_cell(
        "1", outputs=[shown({"application/javascript": text, "text/plain": text})]
    ),
}


def hostile_notebook(path, *places):
    cells = [PLACES[place](named(i, text)) for place in places for i, text in enumerate(EVERY)]
    return write(path, V4.new_markdown_cell(f"# {EVERY[1]}"), *cells, error=named(0, EVERY[0]))


def only_text_is_left(html):
    """No tag, attribute, address or comment of a page is one of those that hostile texts need."""
    text = html.read_text()
    page = BeautifulSoup(text, "html.parser")
    known = (
        "a b caption code details div dl dt dd em figure footer h1 h2 h3 img li main nav ol p pre span strong"
    )
    known += " summary table thead tbody tr th td ul br"
    assert {tag.name for tag in page.body.find_all(True)} <= set(known.split())
    body = text.partition("<body>")[2]
    assert "<!" not in body and "<?" not in body  # no comment that a browser may end earlier than we do
    for tag in page.body.find_all(True):
        attributes = "alt aria-label class data-label href id open role scope src style tabindex title"
        assert set(tag.attrs) <= set(attributes.split()), tag
        assert "(" not in tag.get("style", ""), tag
        for address in (tag.get("href", "x"), tag.get("src", "x")):
            plain = re.sub(r"[\x00-\x20]", "", address).lower()
            assert re.match(r"#|data:image/|[\w%.-]*$|figures/", plain), tag
    return page


@pytest.mark.parametrize("place", PLACES)
def test_no_hostile_text_leaves_more_than_text(tmp_path, place):
    path = hostile_notebook(tmp_path / "01.ipynb", place)
    to_html(path, tmp_path / "01.html", note=EVERY[0])
    only_text_is_left(tmp_path / "01.html")


def test_pages_tell_browsers_to_run_and_load_nothing(tmp_path):
    page_of(tmp_path, V4.new_markdown_cell("# T"))
    for html in (tmp_path / "01.html", write_index(tmp_path, [], {"profile": "x", "first_line": "y"})):
        page = BeautifulSoup(html.read_text(), "html.parser")
        policy = page.find("meta", attrs={"http-equiv": "Content-Security-Policy"})
        said, order = policy["content"], page.head.find_all(True)
        assert "default-src 'none'" in said and "script" not in said and "http" not in said
        assert order.index(policy) < order.index(page.style)  # it rules over what comes after it


def test_attribute_names_and_verdicts_are_escaped_wherever_they_are_shown(tmp_path):
    names = pd.DataFrame({"sensitive": EVERY, **{text: ["x"] * len(EVERY) for text in EVERY}})
    cell = V4.new_code_cell("1", outputs=[shown({"text/html": present(names).to_html()})])
    page_of(tmp_path, V4.new_markdown_cell("# T"), cell)
    page = only_text_is_left(tmp_path / "01.html")
    assert EVERY[0] in page.table.text and EVERY[1] in page.table.text
    kinds = ("error", "outcome", "text", "alt", "stale", "made", "picture")
    entries = [
        IndexEntry(f"{i}_x", t, i % 2 == 0, 1.0, **dict.fromkeys(kinds, t)) for i, t in enumerate(EVERY)
    ]
    write_index(tmp_path, entries, dict.fromkeys(("profile", "first_line", "device", EVERY[0]), EVERY[0]))
    page = only_text_is_left(tmp_path / "index.html")
    assert all(text in page.text for text in EVERY[:3])
