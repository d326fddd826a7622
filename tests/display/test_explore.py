"""Frames and views arrive in their pictures: changes, pixels out of range, kinks, circles, words."""

import numpy as np
import pandas as pd
import pytest

from lassi_lib.display.explore import certificate_figure, certificate_text, frames_text, glow_figure
from lassi_lib.display.style import save_figure
from lassi_lib.study.explore import CertificateView, Frame

RNG = np.random.default_rng(0)


def test_glow_figure_shows_face_change_and_what_is_out_of_range():
    face = np.full((3, 48, 48), 0.1, np.float32)
    moved = face.copy()
    moved[:, :4], moved[:, 10:14], moved[1, 20, 20], moved[2, 30, 30] = 0.3, -0.1, 0.6, -0.7
    figure = glow_figure(face, [Frame("random", "t = +1, ", moved, 12.34, 0.5)])
    picture, pitch = figure.axes[0].images[0].get_array(), 48 + 2
    text = [t.get_text() for t in figure.axes[0].texts]
    tall = (len(picture) + 2) // 3
    faces, change, marks = (picture[i * tall : i * tall + 48] for i in range(3))
    assert faces[0, 0].tolist() == [153] * 3 and faces[0, pitch].tolist() == [204] * 3
    assert faces[20, pitch + 20].tolist()[1] == 255  # clipped for the eye
    lighter, darker, same = (change[y, pitch].astype(int) for y in (0, 10, 40))
    assert lighter[0] > lighter[2] + 40 and darker[2] > darker[1] + 40 and np.ptp(same) < 8
    assert marks[20, pitch + 20].tolist() == [230, 159, 0] and marks[30, pitch + 30].tolist() == [0, 114, 178]
    grey = marks[:, :48].reshape(-1, 3)
    assert (grey == grey[:, :1]).all()  # nothing of the face itself is out of range
    share = 100 * 2 / moved.size
    assert {"random", "t = +1, 12.3 away", f"{share:.1f} % outside", "difference", "the face"} <= set(text)
    with pytest.raises(ValueError, match="no frame"):
        glow_figure(face, [])


def view(refuted=True, d_cs=1.5, method="Naive"):
    nodes = np.array([-1.125, -0.8, -0.3, 0.4, 1.125])
    answers = pd.DataFrame(
        [
            ("monte_carlo", "ABSTAINED_CENTER", -1, np.nan, np.nan, np.nan),
            ("exact_smoothing", "NOT_CERTIFIED", 0, d_cs, 0.5, np.nan),
            ("exact_decision", *(("REFUTED", 0) if refuted else ("VERIFIED", 0)), np.nan, np.nan, -0.8 if refuted else np.nan),
            ("empirical", "PASSED", 0, np.nan, np.nan, np.nan),
        ],
        columns=["mode", "status", "prediction", "d_cs", "d_rs", "witness"],
    ).assign(note="")  # fmt: skip
    images = RNG.integers(0, 255, (9, 3, 48, 48), dtype=np.uint8)
    t = np.linspace(-1.5, 1.5, 30)
    return CertificateView(
        "Smiling / Pale_Skin", method, 7, 1, 1.0, 0.65, np.linspace(-1, 1, 9), images, nodes,
        np.array([-0.2, -0.3, 0.4, 0.2, 0.5]), np.column_stack([t, 0.2 * t, 0.4 * t]), d_cs, 0.5, answers,
        images[:2] if refuted else None, (0, 1),
    )  # fmt: skip


def test_certificate_figure_shows_faces_margin_circles_and_answers(tmp_path):
    one = view()
    figure = certificate_figure([one])
    faces, margin, plane = figure.axes[:3]
    for image, t, drawn in zip(one.images, one.t, faces.images, strict=True):
        assert np.array_equal(drawn.get_array().transpose(2, 0, 1), image)
        assert np.mean(drawn.get_extent()[:2]) == pytest.approx(t)
        box = drawn.get_window_extent()
        assert box.width == pytest.approx(box.height, rel=1e-3)  # a squeezed face misleads
    assert faces.get_xlim() == margin.get_xlim()  # every face stands over its t
    dotted, bold, _, strokes, witness = margin.lines
    at = strokes.get_xdata().reshape(-1, 3)  # from below the curve to above it, then a gap
    assert at[:, 0].tolist() == bold.get_xdata().tolist() and (np.diff(at[:, :2]) == 0).all()
    low, high, gap = strokes.get_ydata().reshape(-1, 3).T
    assert np.allclose((low + high) / 2, bold.get_ydata()) and (high > low).all() and np.isnan(gap).all()
    assert dotted.get_xydata().tolist() == np.column_stack([one.nodes, one.margin]).tolist()
    assert bold.get_xdata()[[0, -1]].tolist() == [-1, 1] and set(bold.get_xdata()[1:-1]) == {-0.8, -0.3, 0.4}
    assert witness.get_xydata().tolist() == [[-0.8, -0.3]]
    assert "3 kinks" in margin.texts[0].get_text()
    assert sorted(p.get_radius() for p in plane.patches if hasattr(p, "get_radius")) == [0.5, 1.5]
    assert plane.get_xlim()[1] > 1.5
    everywhere = [*figure.axes, *figure.axes[3].child_axes]
    words = " ".join(t.get_text() for axes in everywhere for t in (*axes.texts, axes.title))
    for said in ("abstained center", "not certified, 1.50 / 0.50", "refuted at t = -0.80", "t = -0.80: yes"):
        assert said in words
    assert "test face 7, label yes" in figure.texts[0].get_text()
    save_figure(figure, tmp_path, "a", alt=certificate_text(one))  # lines among pictures: vectors
    assert b"<image" in (tmp_path / "a.svg").read_bytes() and (tmp_path / "a.png").stat().st_size
    with pytest.raises(ValueError, match="no view"):
        certificate_figure([])


def test_without_a_refutation_there_is_no_pair_and_an_endless_radius_is_no_circle():
    several = certificate_figure([view(), view(False, np.inf, "LASSI")])
    *_, plane, answers = several.axes
    assert [len(axes.images) for axes in answers.child_axes] == [] and len(plane.lines) > 3
    assert [p.get_radius() for p in plane.patches if hasattr(p, "get_radius")] == [0.5]
    text = certificate_text(view(False))
    assert "exact decision: verified" in text and "differently" not in text
    assert certificate_text(view()).endswith("Two similar faces are treated differently: no and yes.")


def test_frames_are_told_with_what_no_image_can_hold():
    image = np.full((3, 10, 10), 0.25, dtype=np.float32)
    image[0, 0, :3] = 7.0
    frames = [Frame("Young", "t=+1: ", image, 3.21, 0.456), Frame("Bald", "", image[:, 1:], 0.0, 0.0)]
    assert frames_text(frames) == (
        "Young, t=+1: moved by 3.2 (0.46 spreads of the latents), 1.0 % of values out of range; "
        "Bald: moved by 0.0 (0.00 spreads of the latents), 0.0 % of values out of range"
    )
