"""Hostile texts in every place of a page, in a real browser: nothing runs and nobody is asked."""

import re

import pytest

from lassi_lib.study.render import to_html
from tests.study.hostile_html import RUNNING, named
from tests.study.test_render import PLACES, hostile_notebook

pytestmark = pytest.mark.browser


@pytest.fixture
def visit(page):
    """Open a file, click everything; returns what ran and which addresses outside were asked for."""

    def go(path):
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        page.evaluate(
            "for (const x of document.querySelectorAll('a,button,input,text,details'))"
            " if (!/\\.(html|ipynb)$/.test(x.href)) x.dispatchEvent(new MouseEvent('click', {bubbles: true}))"
        )
        page.wait_for_timeout(300)
        return page.evaluate("window.ran"), [a for a in asked if not a.startswith(("file:", "data:"))]

    return go


def test_nothing_runs_and_nothing_is_loaded(tmp_path, visit):
    html = tmp_path / "01.html"
    to_html(hostile_notebook(tmp_path / "01.ipynb", *PLACES), html, note=RUNNING[0])
    assert visit(html) == (None, [])
    text, n = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html.read_text())
    assert n == 1
    html.write_text(text)  # what is left of the texts must be harmless by itself
    assert visit(html) == (None, [])


def test_the_texts_do_run_where_nothing_stops_them(tmp_path, visit):
    ran = 0
    for i, text in enumerate(RUNNING[:10]):
        html = tmp_path / "naive.html"
        html.write_text(f"<!DOCTYPE html><body>{named(i, text)}</body>")
        ran += visit(html)[0] is not None
    assert ran >= 5
