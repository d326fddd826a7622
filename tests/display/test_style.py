"""Saving: equal data gives equal bytes, lines become SVG and PNG, pictures PNG alone."""

import ast
import io
from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import is_color_like, to_rgb
from PIL import Image

from lassi_lib.display import style
from lassi_lib.display.certificates import history_curve
from lassi_lib.display.faces import montage
from lassi_lib.display.style import (
    METHOD_COLOURS,
    OUT_OF_RANGE,
    StudyFigure,
    class_name,
    colours_of,
    grouped,
    margins,
    marker_of,
    pair_names,
    save_figure,
    use_style,
    words,
)

FACES = np.random.default_rng(0).integers(0, 256, (4, 3, 16, 16), dtype=np.uint8)


def curve():
    return history_curve([{"step": i, "loss": 1 / (i + 1)} for i in range(9)], "step", "loss")


@pytest.mark.parametrize(("make", "kinds"), [(curve, ["png", "svg"]), (lambda: montage(FACES, 2), ["png"])])
def test_saved_bytes_are_the_same_each_time(tmp_path, make, kinds):
    for name in "ab":
        assert save_figure(make(), tmp_path / "figures", name, alt="something") == f"figures/{name}.png"
    files = sorted((tmp_path / "figures").iterdir())
    assert [f.name for f in files] == [f"{name}.{kind}" for name in "ab" for kind in kinds]
    for kind in kinds:
        first, second = ((tmp_path / "figures" / f"{name}.{kind}").read_bytes() for name in "ab")
        assert first == second
        assert b"matplotlib.org" not in first and b"<dc:date>" not in first


def test_a_figure_shows_itself_with_its_alt_text(tmp_path):
    figure = curve()
    save_figure(figure, tmp_path / "figures", "a", alt="Loss over steps")
    data, metadata = figure._repr_mimebundle_(include=None, exclude=None)
    assert metadata == {"alt": "Loss over steps"}
    assert data["image/svg+xml"] == (tmp_path / "figures" / "a.svg").read_text()
    data, _ = montage(FACES, 2)._repr_mimebundle_()
    assert data["image/png"].startswith(b"\x89PNG") and "image/svg+xml" not in data


def large():
    figure = StudyFigure(figsize=(5.03, 3.27), dpi=90, layout="constrained")
    axes = figure.subplots()
    axes.scatter(*np.random.default_rng(0).random((2, 5000)), alpha=0.5)
    axes.set_title("many points")
    return figure


def test_a_large_drawing_is_shown_as_png():
    assert list(large()._repr_mimebundle_()[0]) == ["image/png", "text/plain"]


@pytest.mark.parametrize("make", [large, lambda: montage(FACES, 2, list("abcd"))])
def test_a_widget_s_picture_has_the_saved_one_s_pixels(make):
    (kind, quick), (_, saved) = make().encoded(quick=True), make().encoded()
    assert kind == "image/png" and quick != saved
    quick, saved = (Image.open(io.BytesIO(content)) for content in (quick, saved))
    assert quick.mode == saved.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(quick), np.asarray(saved))


def test_alt_text_is_demanded_and_pyplot_figures_are_closed(tmp_path):
    with pytest.raises(ValueError, match="alt text"):
        save_figure(curve(), tmp_path / "figures", "a", alt=" ")
    assert not (tmp_path / "figures").exists()
    matplotlib.use("agg")
    figure, axes = plt.subplots()
    axes.plot([1, 2])
    save_figure(figure, tmp_path / "figures", "b", alt="a line")
    assert not plt.get_fignums()


def test_method_colours_are_fixed_and_distinct():
    with matplotlib.rc_context():
        use_style()
        assert matplotlib.rcParams["figure.dpi"] == 100
    colours = colours_of(["new", "LASSI", "Naive", "other", "DataAug"])
    assert {m: colours[m] for m in METHOD_COLOURS} == METHOD_COLOURS
    assert len(set(colours.values())) == 5


# Machado, Oliveira & Fernandes (2009), severity 1: what is left of linear RGB
VISION = {
    "deutan": [(0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)],
    "protan": [(0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)],
    "tritan": [(1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)],
}  # fmt: skip
TO_XYZ = np.array(
    [(0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041)]
)


def least_distance(colours, vision):
    """The smallest distance in CIE Lab (2.3 is just noticeable) of two colours as a kind of vision sees them."""
    srgb = np.array([to_rgb(c) for c in colours])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    white = TO_XYZ.sum(1)
    xyz = (linear @ np.transpose(VISION.get(vision, np.eye(3)))).clip(0, 1) @ TO_XYZ.T / white
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    lab = np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)
    return min(np.linalg.norm(a - b) for a, b in combinations(lab, 2))


@pytest.mark.parametrize("vision", ["usual", *VISION])
def test_colours_are_told_apart_by_every_kind_of_vision(vision):
    names = [*METHOD_COLOURS, "a", "b", "c", "d"]  # the rest of the palette is for methods unknown here
    assert least_distance(colours_of(names).values(), vision) > 15
    assert least_distance(OUT_OF_RANGE, vision) > 50


def test_colours_that_are_not_told_apart_are_found():
    assert least_distance(["tab:red", "tab:green"], "deutan") < 10
    assert least_distance(["tab:blue", "tab:purple"], "protan") < 10
    assert least_distance(["white", "yellow"], "usual") > 90


def written_colours(source):
    """All texts in a module's code that matplotlib takes for a colour; letters alone are markers or names."""
    texts = [n.value for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Constant)]
    return [t for t in texts if isinstance(t, str) and len(t) > 2 and t != "none" and is_color_like(t)]


def test_colours_are_written_in_one_place():
    here = Path(style.__file__)
    written = {p.name: written_colours(p.read_text()) for p in here.parent.glob("*.py")}
    assert "#0072B2" in written.pop(here.name) and len(written) > 5
    assert not any(written.values()), written


def test_every_way_to_write_a_colour_is_found():
    source = 'f(color="#D55E00", mfc="#ABC", ec="0.6", ls="none")\nx = {"c": "grey", "m": "o"}'
    assert set(written_colours(source)) == {"#D55E00", "#ABC", "0.6", "grey"}


def test_rows_fall_into_parts_in_the_order_in_which_they_occur():
    table = pd.DataFrame({"task": list("ABA"), "sensitive": ["x_y", "z", "x_y"], "value": [1.0, 2.0, 3.0]})
    assert pair_names(table) == ["A / x_y", "B / z", "A / x_y"]
    assert {k: list(v["value"]) for k, v in grouped(table).items()} == {"A / x_y": [1, 3], "B / z": [2]}
    assert {k: list(v.index) for k, v in grouped(table, ["u", "t", "t"]).items()} == {"u": [0], "t": [1, 2]}


def test_margins_reach_to_the_ends_and_never_backwards():
    rows = pd.DataFrame({"x": [5.0, 1.0], "x_low": [4.0, 1.5], "x_high": [7.0, 2.0]})
    np.testing.assert_array_equal(margins(rows, "x"), [[1, 0], [2, 1]])


def test_names_are_words_and_unknown_methods_and_classes_have_a_look_too():
    assert words("Pale_Skin+Young") == "Pale Skin + Young"
    assert [class_name(k) for k in (-1, 0, 1, 2)] == ["none", "no", "yes", "2"]
    assert marker_of("LASSI") != marker_of("mine") == "D"


def test_a_legend_stands_above_the_panels():
    figure = StudyFigure(layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], label="a line")
    legend = figure.legend_above(*axes.get_legend_handles_labels())
    figure.draw_without_rendering()
    assert [t.get_text() for t in legend.get_texts()] == ["a line"]
    assert legend.get_window_extent().y0 > axes.get_window_extent().y1
