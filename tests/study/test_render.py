"""Pages: nothing is loaded from outside, nothing runs, every picture has a text, names are escaped."""

import base64
import re

import nbformat
from bs4 import BeautifulSoup

from lassi_lib.study.render import MAX_BYTES, IndexEntry, title_of, to_html, write_index

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
    assert base64.b64decode(embedded.removeprefix("data:image/svg+xml;base64,")).decode() == SVG
    assert "SVG" not in page.main.text and not page.find("svg")


def test_code_is_folded_and_tables_are_accessible(tmp_path):
    table = "<table><thead><tr><th>a</th></tr></thead><tr><th>x</th><td>1</td></tr></table>"
    page = page_of(
        tmp_path,
        V4.new_code_cell("n = 2", metadata={"tags": ["injected-parameters"]}),
        V4.new_code_cell("a\nb", outputs=[shown({"text/html": table})]),
        V4.new_code_cell("\n".join("abcdefghijklmn")),
    )
    folds = page.find_all("details")
    assert [f.summary.text for f in folds] == ["Parameters of this run", "Code, 2 lines", "Code, 14 lines"]
    assert [f.has_attr("open") for f in folds] == [False, True, False]
    assert all(f.find("pre") and not f.find("table") for f in folds)
    assert [th["scope"] for th in page.find_all("th")] == ["col", "row"]
    assert page.table.parent["tabindex"] == "0" and page.table.parent["role"] == "region"


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
    first, second = page.find_all("li")
    assert [a["href"] for a in first.find_all("a")] == [
        "01_x.html", "01_x.ipynb", "tables/a.csv", "tables/a.md", "tables/a.tex", "certificates/r.csv.gz",
    ]  # fmt: skip
    assert first.h2.text == "Is it fair?" and "ok, 1.3 minutes" in first.text
    assert "supported 97 % are certified." in first.text
    assert (first.img["src"], first.img["alt"]) == ("figures/f.png", "Bars")
    # what a failed run left behind is not offered as a result
    assert [a["href"] for a in second.find_all("a")] == ["02_y.failed.html", "02_y.failed.ipynb"]
    assert second.select_one("b.bad").text == "failed" and "ValueError: 1" in second.text and not second.img
    assert page.p.text == "Rendered faces." and page.dl.text == "devicea <laptop>"


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
