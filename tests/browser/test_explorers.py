"""The explorers in JupyterLab: a slider moves, a face is chosen, a cell is clicked, and the pictures change."""

import os
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.browser.conftest import ROOT, run_all, served

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
    expect(image).not_to_have_attribute("alt", old[0], timeout=120 * SECONDS)
    new = state(image)
    assert new[1] != old[1]
    return new


def state(image):
    return tuple(image.evaluate("(i) => [i.getAttribute('alt'), i.getAttribute('src')]"))  # of one moment


def shows(image, pattern):
    """Wait until a picture's alt text has a pattern."""
    expect(image).to_have_attribute("alt", re.compile(pattern), timeout=120 * SECONDS)


def drag(page, name, key, times):
    """Move the slider of a name by its keys."""
    handle = page.locator(".widget-hslider", has_text=name).locator(".noUi-handle")
    handle.focus()
    for _ in range(times):
        handle.press(key)


DROP = """(image, [name, hex]) => {
  const bytes = new Uint8Array(hex.match(/../g).map((x) => parseInt(x, 16)));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name, { type: "image/png" }));
  image.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
}"""


def click_at(image, x, y):
    box = image.bounding_box()
    image.click(position={"x": x * box["width"], "y": y * box["height"]})


def test_a_face_is_moved_along_its_vectors(run_cells, tmp_path):
    page = run_cells("00", "glow_explorer")
    image = picture(page, "glow", "test face 0")
    before = state(image)
    assert ", t = 0:" in before[0] and "moved by 0.0" in before[0]
    drag(page, "Young", "ArrowRight", 5)
    shows(image, r"test face 0, Young \+0\.5:")
    moved = changed(image, before)
    assert "moved by 0.0" not in moved[0]

    page.locator(".widget-select-multiple select").select_option(["mean_difference", "random"])
    shows(image, "mean difference: .*; random: ")
    both = changed(image, moved)
    click_at(picture(page, "faces", "Test faces"), 1.5 / 12, 0.2)  # the second face of the first row
    shows(image, r"test face 1, Young \+0\.5:")
    other = changed(image, both)

    number = page.locator(".widget-text", has_text="face number").locator("input")
    number.fill("5")
    number.press("Enter")
    shows(image, r"test face 5, Young \+0\.5:")
    fifth = changed(image, other)
    drag(page, "Pale Skin", "ArrowLeft", 3)
    shows(image, r"test face 5, Young \+0\.5, Pale Skin -0\.3:")
    second = changed(image, fifth)

    faces, choice = picture(page, "faces", "Test faces"), page.locator(".widget-dropdown", has_text="faces")
    before = state(faces)
    names = [" ".join(name.split()) for name in choice.locator("option").all_text_contents()]
    place = next(i for i, name in enumerate(names) if name.startswith("not Young ("))
    choice.locator("select").select_option(index=place)
    first = changed(faces, before)[0].split(": ")[1].split(", ")[0]
    click_at(picture(page, "faces", "Test faces"), 0.5 / 12, 0.2)
    shows(image, f"test face {first}, ")
    other = changed(image, second)

    before = state(faces)
    place = next(i for i, name in enumerate(names) if name.startswith("Pale Skin ("))
    choice.locator("select").select_option(index=place)
    pale = re.findall(r"\d+", changed(faces, before)[0])
    assert f"Pale Skin ({len(pale)})" in names and first not in pale  # so any of them is another face
    page.get_by_role("button", name="random face").click()
    other = changed(image, other)
    drawn, moved = re.match(r"test face (\d+), (.*?):", other[0]).groups()
    assert drawn in pale and moved == "Young +0.5, Pale Skin -0.3"
    expect(number).to_have_value(drawn)

    playing = page.locator(".widget-play")
    playing.get_by_role("button").first.click()
    for _ in range(3):  # frame after frame, by itself
        other = changed(image, other)
    playing.get_by_role("button").first.click()  # else its frames would go over what follows

    file = tmp_path / "mine.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 60, 3), dtype=np.uint8)).save(file)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="own image").click()
    chooser.value.set_files(file)
    shows(image, "own image")
    own = changed(image, other)
    content = file.read_bytes()
    file.write_text("no picture")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="own image").click()
    chooser.value.set_files(file)
    expect(page.locator(".jp-OutputArea", has_text="mine.png is no PNG").first).to_be_visible(
        timeout=120 * SECONDS
    )
    assert state(image) == own

    number.fill("2")
    number.press("Enter")
    shows(image, "test face 2, ")
    other = changed(image, own)
    image.evaluate(DROP, ["mine.png", content.hex()])
    shows(image, "own image")
    assert changed(image, other) == own


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

    drag(page, "epsilon", "ArrowLeft", 5)
    shows(image, "epsilon 0.75, ")
    smaller = changed(image, clicked)
    sigma = re.search(r"sigma_cs [\d.]+", smaller[0])[0]
    drag(page, "sigma_cs", "ArrowRight", 4)
    shows(image, f"epsilon 0.75, (?!{re.escape(sigma)}:)sigma_cs 0.78:")  # the last of four steps
    wider = changed(image, smaller)
    page.locator(".widget-dropdown", has_text="method").locator("select").select_option("LASSI")
    shows(image, "LASSI, test face")
    other = changed(image, wider)

    def radii(alt):
        return re.search(r"exact smoothing: [a-z ]+, ([\d.]+ / [\d.]+)", alt)[1]

    assert len({radii(alt) for alt, _ in (clicked, smaller, wider, other)}) == 4


@pytest.mark.parametrize(("name", "needed"), [("04", []), ("05", ["chosen = "]), ("07", [])])
def test_certificates_are_explored_wherever_there_are_some(run_cells, name, needed):
    page = run_cells(name, *needed, "certificate_explorer")
    image = picture(page, "certificate", "Smiling / ")
    before = state(image)
    drag(page, "epsilon", "ArrowLeft", 5)
    shows(image, r"epsilon 0\.\d+, ")
    smaller = changed(image, before)
    faces = re.findall(r"\d+", picture(page, "faces", "Test faces").get_attribute("alt"))
    other = next(i for i, face in enumerate(faces) if f"test face {face}," not in smaller[0])
    click_at(picture(page, "faces", "Test faces"), (other + 0.5) / 12, 0.2)
    shows(image, f"test face {faces[other]},")
    changed(image, smaller)


def test_a_cell_of_the_matrix_opens_its_pair(run_cells):
    page = run_cells("05", "pair_table", "outlier_explorer")
    matrix = picture(page, "matrix", "Heat maps of all pairs")
    strips = picture(page, "strips", "Faces of Smiling / Pale_Skin")
    before, faces = state(matrix), state(strips)
    click_at(matrix, 0.19, 0.15)  # first column, second row of the first map: Smiling / Bald
    shows(matrix, "framed: Smiling / Bald")
    changed(matrix, before)
    strips = picture(page, "strips", "Faces of Smiling / Bald")
    assert strips.get_attribute("src") != faces[1]
    said = page.locator(".widget-html", has_text="Smiling / Bald, LASSI: certified")
    expect(said).to_contain_text("cosine of the vector")


FINISHED = "() => [...document.querySelectorAll('.jp-InputPrompt')].every((p) => !p.innerText.includes('*'))"
STDERR = '.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.stderr"]'


@pytest.mark.timeout(400, func_only=True)
def test_the_readmes_command_opens_notebooks_that_run(page, tmp_path):
    """As it is written there, in the repository's own folder; 10 needs no models."""
    assert "`jupyter lab notebooks`" in (ROOT / "README.md").read_text()
    source = ROOT / "notebooks" / "10_audit.ipynb"
    before = source.read_bytes()
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "LASSI_CACHE")}
    with served(tmp_path, environment | {"LASSI_CACHE": str(tmp_path / "cache")}, "notebooks") as address:
        run_all(page, address, source.name)
        said = page.locator(".jp-OutputArea", has_text="numbers that can be checked without training")
        expect(said.first).to_be_visible(timeout=300 * SECONDS)
        page.wait_for_function(FINISHED, timeout=60 * SECONDS)
        assert page.locator(STDERR).count() == 0
    assert (tmp_path / "out" / "tables" / "10_ranked.csv").is_file() and source.read_bytes() == before


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
        f"{FINISHED} && document.querySelectorAll('.lassi-faces, .lassi-matrix').length > 0",
        timeout=300 * SECONDS,
    )
    for widget in shown:
        page.wait_for_function(
            "(name) => document.querySelector(`.lassi-${name} img`)?.naturalWidth > 100", arg=widget
        )
    if "glow" in shown:
        image = page.locator(".lassi-glow img")
        before = state(image)
        drag(page, "Pale Skin", "ArrowRight", 5)
        shows(image, r"Pale Skin \+0\.5")
        changed(image, before)
    assert page.locator(STDERR).count() == 0


PARAMETERS = """(line) => {
  const { content } = window.jupyterapp.shell.currentWidget;
  const { sharedModel } = content.widgets.find((cell) => cell.model.type === "code").model;
  sharedModel.setSource(sharedModel.getSource() + line);
  window.jupyterapp.commands.execute("notebook:run-all-cells");
}"""


@pytest.mark.timeout(400, func_only=True)
def test_an_audit_shows_what_it_saves_and_other_models_get_other_answers(run_cells, lab):
    page, saved = run_cells("11"), lab[1].parent / "out" / "tables"
    table = page.locator("table", has_text="constant would do").first
    shown = []
    for methods in (["Naive", "LASSI"], ["Naive"]):
        if shown:
            page.evaluate(PARAMETERS, f"methods = {methods}\n")
        said = page.locator(".jp-OutputArea", has_text=f"{methods[-1]}, Smiling for Blond Hair: ")
        expect(said.last).to_be_visible(timeout=300 * SECONDS)
        page.wait_for_function(FINISHED, timeout=60 * SECONDS)
        rows = [row.split("\t") for row in table.locator("tbody tr").all_inner_texts()]
        answers = pd.read_csv(saved / "11_answers.csv")
        assert answers["method"].unique().tolist() == methods and len(rows) == 3 * len(methods)
        for cells, row in zip(rows, answers.itertuples(), strict=True):
            share = f"{row.fair:.1f} [{row.fair_low:.1f}, {row.fair_high:.1f}]"
            assert {row.method, row.mode, share} <= set(cells)
        pictures = page.locator(".jp-OutputArea img")
        widths = pictures.evaluate_all(
            "(all) => Promise.all(all.map((i) => i.decode().then(() => i.naturalWidth)))"
        )
        assert min(widths) > 100
        shown.append(pictures.evaluate_all("(all) => all.map((i) => i.src)"))
    assert page.locator(STDERR).count() == 0
    # the faces and what is similar to them stay; the shares and the counterexamples are Naive's alone
    assert [a == b for a, b in zip(*shown, strict=True)] == [True, True, False, False]
