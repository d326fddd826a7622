"""The committed results in a browser: on a phone and on a desk, by keyboard, from the overview to a table."""

import pytest

from tests.browser.conftest import until

pytestmark = pytest.mark.browser
READ = ["index.html", "demo/index.html", "demo/01_claim1_certified_fairness.html", "demo/05_outlier_analysis.html",
        "demo/10_audit.html"]  # fmt: skip
FITS = "document.documentElement.scrollWidth <= innerWidth"
OPEN = "document.querySelectorAll('details').forEach(fold => fold.open = true)"


@pytest.mark.parametrize("name", READ)
def test_no_page_scrolls_sideways(page, rendered, name):
    page.context.set_offline(True)
    for width in (390, 1200):
        page.set_viewport_size({"width": width, "height": 800})
        page.goto((rendered / name).as_uri())
        assert page.evaluate(FITS), width
        page.evaluate(OPEN)
        assert page.evaluate(FITS), f"{width}, with all folds open"
        assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    page.context.set_offline(False)
    assert page.complaints == []


def test_the_keyboard_skips_to_the_content_and_scrolls_a_wide_table(page, rendered):
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto((rendered / READ[2]).as_uri())
    page.keyboard.press("Tab")
    focused = "document.activeElement.getBoundingClientRect()"
    # a busy machine moves the focus, and draws it, a little later than the key
    until(page, "document.activeElement.className == 'skip'")
    until(page, f"{focused}.left >= 0 && {focused}.width > 50")  # it is seen only then
    until(page, "parseFloat(getComputedStyle(document.activeElement).outlineWidth) >= 2")
    page.keyboard.press("Enter")
    until(page, "document.activeElement.id == 'main'")
    wide = "[...document.querySelectorAll('.table')].find(box => box.scrollWidth > box.clientWidth)"
    page.evaluate(f"{wide}.focus()")
    page.keyboard.press("ArrowRight")
    until(page, f"{wide}.scrollLeft > 0")


def test_a_notebook_is_found_from_the_overview(page, rendered):
    page.goto((rendered / "index.html").as_uri())
    page.get_by_role("link", name="demo", exact=True).first.click()
    page.get_by_role("table", name="Notebooks of this profile").get_by_role("link").nth(1).click()
    page.wait_for_url("**#n01_claim1_certified_fairness")
    entry = page.locator("#n01_claim1_certified_fairness")
    entry.get_by_text("Tables and rows").click()
    assert entry.get_by_role("link", name="tex").count() > 3
    entry.get_by_role("heading").get_by_role("link").click()
    assert page.get_by_role("heading", level=1).inner_text().startswith("Claim 1")
    page.get_by_role("navigation").get_by_role("link", name="All notebooks").click()
    page.wait_for_url("**/demo/index.html")
