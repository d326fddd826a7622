"""Strips show every frame, mark and refutation; the scatter shows every pair and names the asked ones."""

import base64
import io
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lassi_lib.display.outliers import outlier_matrix, outlier_scatter, strip_figure
from lassi_lib.display.style import save_figure
from lassi_lib.study.outliers import PREDICTORS, regress
from lassi_lib.study.strips import Strip

RNG = np.random.default_rng(0)


def strip(t=0.25, index=7):
    answers = pd.DataFrame(
        [
            {"method": "Naive", "status": "ABSTAINED_CENTER", "d_cs": np.nan, "d_rs": np.nan}
            | {"decision": "REFUTED", "t": t, "classes": [0, 0, 0, 1, 1]},
            {"method": "LASSI", "status": "CERTIFIED", "d_cs": 1.25, "d_rs": 2.5}
            | {"decision": "VERIFIED", "t": np.nan, "classes": [0] * 5},
        ]
    )
    images = RNG.integers(0, 255, (5, 3, 48, 48), dtype=np.uint8)
    return Strip("Attractive / Bald", index, 1, np.linspace(-1, 1, 5), images, 0.5, answers)


def test_a_strip_shows_its_frames_and_what_holds_along_them():
    one, two = strip(), strip(index=9)
    figure = strip_figure([one, two])
    frames, marks = figure.axes[0], figure.axes[1]
    picture = frames.images[0].get_array()
    for j, image in enumerate(one.images):
        assert np.array_equal(picture[:, 50 * j : 50 * j + 48].transpose(2, 0, 1), image)
    drawn = {
        (line.get_marker(), float(x), round(float(y))) for line in marks.lines for x, y in line.get_xydata()
    }
    assert {("x", 3.0, 0), ("x", 4.0, 0), ("o", 2.0, 0), ("v", 2.5, 0)} <= drawn
    assert {p for p in drawn if p[2] == 1} == {("o", float(j), 1) for j in range(5)}
    text = " ".join(t.get_text() for axes in figure.axes for t in axes.texts)
    assert "test face 7, label yes" in text and "test face 9" in text and "t = -1.00" in text
    assert "Naive: abstained center; exactly refuted at t = +0.25" in text
    assert "LASSI: d_cs 1.25, d_rs 2.50: certified; exactly verified" in text
    with pytest.raises(ValueError, match="no strip"):
        strip_figure([])


def test_strips_are_saved_as_vectors_with_the_frames_as_they_are(tmp_path):
    one = strip()
    save_figure(strip_figure([one]), tmp_path, "a", alt="a strip")
    drawing = (tmp_path / "a.svg").read_text()
    (stored,) = re.findall(r'href="data:image/png;base64,([^"]+)"', drawing)
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(stored))).convert("RGB"))
    for j, image in enumerate(one.images):  # as many pixels as were made, though shown twice as wide
        assert np.array_equal(pixels[:, 50 * j : 50 * j + 48].transpose(2, 0, 1), image)
    shown = np.asarray(Image.open(tmp_path / "a.png"))
    assert np.array_equal(shown[22:118:2, 6:102:2].transpose(2, 0, 1), one.images[0])


def test_few_strips_are_shown_as_vectors_and_many_as_pixels():
    assert strip_figure([strip()]).encoded()[0] == "image/svg+xml"
    assert strip_figure([strip(index=i) for i in range(20)]).encoded()[0] == "image/png"


def test_every_pair_is_in_every_panel_and_the_asked_ones_are_named():
    n = 12
    means = pd.DataFrame(RNG.random((2 * n, len(PREDICTORS))) + 0.1, columns=list(PREDICTORS))
    means = means.assign(method=["Naive"] * n + ["LASSI"] * n, task="Attractive", log_ratio=RNG.random(2 * n))
    means = means.assign(sensitive=[f"A_{i}" for i in range(n)] * 2, ratio=np.exp(means["log_ratio"]))
    means.loc[0, ["log_ratio", "ratio"]] = np.inf
    fits = regress(means, draws=10)
    figure = outlier_scatter(means, fits, ["Attractive/A_3"])
    assert len(figure.axes) == 4
    for axes, name in zip(figure.axes, PREDICTORS, strict=True):
        lassi = next(line for line in axes.lines if line.get_label() == "LASSI")
        x = means.loc[n:, name]
        assert lassi.get_xdata() == pytest.approx(np.exp(x) if name == "log_positives" else x)
        assert len(next(line for line in axes.lines if line.get_label() == "Naive").get_xdata()) == n - 1
        assert [t.get_text() for t in axes.texts] == ["Attractive / A 3"]
        rho = fits[(fits["method"] == "LASSI") & (fits["predictor"] == name)]["spearman"].item()
        assert f"LASSI {rho:.2f}" in axes.get_title(loc="left")
    few = outlier_scatter(means[:2], regress(means[:2], draws=10), [])
    assert "too few pairs" in few.axes[0].get_title(loc="left")


def test_the_matrix_shows_every_pair_of_a_method_and_frames_the_chosen_one():
    cells = [("Smiling", "Bald", 0.5), ("Smiling", "Young", np.inf), ("Attractive", "Bald", 250.0)]
    means = pd.DataFrame(cells, columns=["task", "sensitive", "ratio"])
    means = means.assign(certified_fairness=[90.0, 0.0, 12.0], phi=[0.1, -0.2, 0.3], cos_task=0.05)
    means = pd.concat([means.assign(method=m) for m in ("Naive", "LASSI")])
    figure = outlier_matrix(means, "LASSI", ("Attractive", "Bald"))
    panels = [axes for axes in figure.axes if axes.collections]
    assert [[t.get_text() for t in axes.texts] for axes in panels] == [
        ["0.5", "250", "inf", ""],
        ["90", "12", "0", ""],
        ["+0.10", "+0.30", "-0.20", ""],
        ["+0.05", "+0.05", "+0.05", ""],
    ]
    ratio = panels[0].collections[0]
    assert ratio.norm(0.0) == 0.5 and ratio.norm(np.log(250.0)) > 0.9  # a ratio of 1 has no colour
    low, high = panels[2].collections[0].get_clim()
    assert (low, high) == (-0.3, 0.3)  # equal numbers have equal colours
    assert ratio.get_array()[0, 0] < 0 < ratio.get_array()[0, 1] < ratio.get_array()[1, 0]
    assert all(axes.patches[0].get_xy() == (0.5, -0.5) for axes in panels)
    assert not outlier_matrix(means, "LASSI").axes[0].patches
