"""The explorers in JupyterLab: a slider moves, a face is chosen, a cell is clicked, and the pictures change."""

import re

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

# the limit is the test's own: the first one to ask for the smoke profile waits for its run
pytestmark = [pytest.mark.browser, pytest.mark.timeout(120, func_only=True)]
SECONDS = 1_000
START = 90 * SECONDS  # a kernel that imports torch, on a busy machine


def picture(page, name, words):
    """The picture of one widget, once its alt text begins with `words` and it is decoded."""
    found = page.locator(f".lassi-{name} img")
    expect(found).to_have_attribute("alt", re.compile(re.escape(words)), timeout=START)
    page.wait_for_function(
        "(image) => image.complete && image.naturalWidth > 100", arg=found.element_handle()
    )
    return found


def changed(image, old):
    """Wait until a picture's alt text is another one; its bytes must be others, too. Return both."""
    expect(image).not_to_have_attribute("alt", old[0], timeout=30 * SECONDS)
    new = image.get_attribute("alt"), image.get_attribute("src")
    assert new[1] != old[1]
    return new


def state(image):
    return image.get_attribute("alt"), image.get_attribute("src")


def click_at(image, x, y):
    box = image.bounding_box()
    image.click(position={"x": x * box["width"], "y": y * box["height"]})


def test_a_face_is_moved_along_its_vectors(run_cells, tmp_path):
    page = run_cells("00", "glow_explorer")
    image = picture(page, "glow", "test face 0")
    before = state(image)
    assert ", t = 0:" in before[0] and "moved by 0.0" in before[0]
    handle = page.locator(".widget-hslider", has_text="Young").locator(".noUi-handle")
    handle.focus()
    for _ in range(5):
        handle.press("ArrowRight")
    expect(image).to_have_attribute("alt", re.compile(r"test face 0, Young \+0\.5:"), timeout=30 * SECONDS)
    moved = changed(image, before)
    assert "moved by 0.0" not in moved[0]

    page.locator(".widget-select-multiple select").select_option(["mean_difference", "random"])
    expect(image).to_have_attribute("alt", re.compile("mean difference: .*; random: "), timeout=30 * SECONDS)
    both = changed(image, moved)
    click_at(picture(page, "faces", "Test faces"), 1.5 / 12, 0.2)  # the second face of the first row
    expect(image).to_have_attribute("alt", re.compile(r"test face 1, Young \+0\.5:"), timeout=30 * SECONDS)
    other = changed(image, both)

    file = tmp_path / "mine.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 60, 3), dtype=np.uint8)).save(file)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="own image").click()
    chooser.value.set_files(file)
    expect(image).to_have_attribute("alt", re.compile("own image"), timeout=30 * SECONDS)
    own = changed(image, other)
    file.write_text("no picture")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="own image").click()
    chooser.value.set_files(file)
    expect(page.locator(".jp-OutputArea", has_text="mine.png is no PNG").first).to_be_visible(
        timeout=30 * SECONDS
    )
    assert state(image) == own


def test_a_refuted_face_shows_the_two_that_are_treated_differently(run_cells):
    page = run_cells("01", "certificate_explorer")
    image = picture(page, "certificate", "Smiling / Pale Skin, Naive, test face")
    before = state(image)
    assert "exact decision: refuted at t" in before[0]  # it begins with a refuted face
    click_at(picture(page, "faces", "Test faces"), 2.5 / 12, 0.2)
    clicked = changed(image, before)
    found = re.search(
        r"refuted at t = .*Two similar faces are treated differently: (yes|no) and (yes|no)", clicked[0]
    )
    assert found and found[1] != found[2]
    expect(page.locator(".widget-html", has_text=clicked[0])).to_be_visible()

    handle = page.locator(".widget-hslider", has_text="epsilon").locator(".noUi-handle")
    handle.focus()
    for _ in range(5):
        handle.press("ArrowLeft")
    expect(image).to_have_attribute("alt", re.compile("epsilon 0.75"), timeout=30 * SECONDS)
    smaller = changed(image, clicked)
    page.locator(".widget-dropdown", has_text="method").locator("select").select_option("LASSI")
    expect(image).to_have_attribute("alt", re.compile("LASSI, test face"), timeout=30 * SECONDS)
    other = changed(image, smaller)

    def radii(alt):
        return re.search(r"exact smoothing: [a-z ]+, ([\d.]+ / [\d.]+)", alt)[1]

    assert len({radii(alt) for alt, _ in (clicked, smaller, other)}) == 3


def test_a_cell_of_the_matrix_opens_its_pair(run_cells):
    page = run_cells("05", "pair_table", "outlier_explorer")
    matrix = picture(page, "matrix", "Heat maps of all pairs")
    strips = picture(page, "strips", "Faces of Smiling / Pale_Skin")
    before, faces = state(matrix), state(strips)
    click_at(matrix, 0.19, 0.15)  # first column, second row of the first map: Smiling / Bald
    expect(matrix).to_have_attribute("alt", re.compile("framed: Smiling / Bald"), timeout=30 * SECONDS)
    changed(matrix, before)
    strips = picture(page, "strips", "Faces of Smiling / Bald")
    assert strips.get_attribute("src") != faces[1]
    said = page.locator(".widget-html", has_text="Smiling / Bald, LASSI: certified")
    expect(said).to_contain_text("cosine of the vector")


@pytest.mark.slow
@pytest.mark.timeout(400, func_only=True)
@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("00", ["glow"]),
        ("01", ["certificate"]),
        ("04", ["certificate"]),
        ("05", ["glow", "certificate", "matrix", "strips"]),
        ("07", ["certificate"]),
    ],
)
def test_a_whole_notebook_runs_by_hand_with_its_explorers(run_cells, name, shown):
    page = run_cells(name)
    page.wait_for_function(
        "() => [...document.querySelectorAll('.jp-InputPrompt')].every((p) => !p.innerText.includes('*'))"
        " && document.querySelectorAll('.lassi-faces, .lassi-matrix').length > 0",
        timeout=300 * SECONDS,
    )
    for widget in shown:
        page.wait_for_function(
            "(name) => document.querySelector(`.lassi-${name} img`)?.naturalWidth > 100", arg=widget
        )
    assert page.locator('.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.stderr"]').count() == 0
