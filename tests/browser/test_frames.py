"""The benchmark of frames presses the slider's keys and sees every picture."""

import pytest

from benchmarks.frames import ATTRIBUTE, in_browser

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120, func_only=True)]


def test_every_press_is_timed_until_its_picture_is_there(lab, page):
    page.add_init_script(
        "window.keys = []; addEventListener('keydown', (event) => keys.push(event.key), true)"
    )
    rows = in_browser(page, *lab, steps=2)
    assert [(r["frame"], r["presses"]) for r in rows] == [("new", 4), ("cached", 4)]
    assert all(1 < r["median ms"] <= r["95 % under"] for r in rows)
    there, back = ["ArrowRight"] * 2, ["ArrowLeft"] * 2
    assert page.evaluate("keys") == there + back + back + there
    assert ", t = 0: " in page.locator(".lassi-glow img").get_attribute("alt")
    readout = page.locator(".widget-hslider", has_text=ATTRIBUTE).locator(".widget-readout")
    assert readout.inner_text() == "+0.0"
