"""Rendered pages opened offline: nothing is fetched, every picture is seen and said, text can be read."""

import pytest

from tests.browser.conftest import ROOT, until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120, func_only=True)]  # without the smoke run itself

# the contrast of every visible text with what it stands on, by the formula of WCAG 2
CONTRAST = """
() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const faults = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement, words = texts.currentNode.data.trim();
    if (!words || !element.checkVisibility()) continue;
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(behind(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) faults.push(`${ratio.toFixed(2)}: ${words.slice(0, 40)}`);
  }
  return faults;
}
"""


def low_contrast(page):
    """Texts that cannot be read well, in folds too."""
    page.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
    return page.evaluate(CONTRAST)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_can_be_read_offline(smoke, page, scheme):
    output, _, _ = smoke
    page.emulate_media(color_scheme=scheme)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.context.set_offline(True)
    try:
        for path in sorted(output.glob("*.html")):
            page.goto(path.as_uri())
            pictures = page.locator("img")
            for k in range(pictures.count()):
                image = pictures.nth(k)
                decoded = "(i) => i.decode().then(() => i.naturalWidth)"
                assert image.evaluate(decoded) > 0 and len(image.get_attribute("alt")) > 10, path.name
            text = page.locator("body").inner_text()
            for dead in ("interactive(children=", "Explorer(children=", "Picture("):
                assert dead not in text, path.name
            assert low_contrast(page) == [], path.name
    finally:
        page.context.set_offline(False)
    assert not [url for url in asked if not url.startswith(("file:", "data:"))]
    assert page.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_committed_pages_can_be_read(page, scheme):
    page.emulate_media(color_scheme=scheme)
    folders = sorted(p.parent for p in (ROOT / "results").glob("*/index.html"))
    longest = [max(folder.glob("[01]*.html"), key=lambda p: p.stat().st_size) for folder in folders]
    assert len(folders) > 2
    for path in [ROOT / "results" / "index.html", *longest]:
        page.goto(path.as_uri())
        assert low_contrast(page) == [], path
    assert page.complaints == []


# what the tab key must reach, and an ear for what it does reach: its place in that list, top and kind
STOPS = """
() => {
  const all = [...document.querySelectorAll('a[href], summary, button, input, select, textarea, [tabindex="0"]')];
  const stops = all.filter((e) => e.checkVisibility());
  window.reached = [];
  addEventListener('focusin', ({ target: e }) =>
    reached.push([stops.indexOf(e), e.getBoundingClientRect().top + scrollY, e.tagName]));
  return stops.length;
}
"""


def test_keys_go_through_every_page_from_top_to_bottom(smoke, page):
    output, _, _ = smoke
    for path in [*sorted(output.glob("*.html")), ROOT / "results" / "index.html"]:
        page.goto(path.as_uri())
        count = page.evaluate(STOPS)
        assert 3 < count < 500, path
        for _ in range(count):
            page.keyboard.press("Tab")
        until(page, f"reached.length >= {count}")
        places, tops, kinds = zip(*page.evaluate("reached"), strict=True)
        assert list(places) == list(range(count)), path  # each once: no trap, and nothing left out
        assert list(tops) == sorted(tops), path
        if path.name != "index.html":  # the skip link, folds and wide tables
            assert kinds[0] == "A" and {"SUMMARY", "DIV"} <= set(kinds), path
