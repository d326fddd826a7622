"""Lines over one setting: everything in the table is on the figure, at its place."""

import numpy as np
import pandas as pd
import pytest

from lassi_lib.display.sensitivity import setting_lines


def table():
    rows = [(m, c, s) for m in ("Naive", "LASSI") for c in ("exact", "voted") for s in ("10", "0.1", "1")]
    found = pd.DataFrame(rows, columns=["method", "certificate", "sigma_rs"])
    found = found.assign(task="Smiling", sensitive="Pale_Skin", certified_fairness=50.0, accuracy=80.0)
    found["certified_fairness_low"], found["certified_fairness_high"] = 45.0, 55.0
    found["eccv_certified_fairness"] = np.where(found["method"] == "LASSI", 60.0, np.nan)
    found["ceiling"] = np.where(found["certificate"] == "voted", 4 * found["sigma_rs"].astype(float), np.nan)
    return found.assign(d_cs_mean=np.where(found["method"] == "LASSI", 4.0, 1000.0))


def test_every_line_band_and_published_point_is_there_in_the_order_of_the_setting():
    fairness, accuracy = setting_lines(table(), "sigma_rs", ceilings=True).axes
    assert [t.get_text() for t in accuracy.get_xticklabels()] == ["0.1", "1", "10"]
    lines = [line for line in fairness.lines if line.get_marker() == "o"]
    assert len(lines) == 4
    assert lines[0].get_xdata() == pytest.approx([0, 1, 2])
    assert len(fairness.collections) == 4  # bands
    assert len(accuracy.collections) == 0
    diamonds = [line for line in fairness.lines if line.get_marker() == "D"]
    assert len(diamonds) == 2
    assert diamonds[0].get_ydata() == pytest.approx([60, 60, 60])


def test_the_ceiling_is_marked_where_it_equals_d_cs():
    fairness, _ = setting_lines(table(), "sigma_rs", ceilings=True).axes
    strokes = [float(line.get_xdata()[0]) for line in fairness.lines if line.get_marker() == "None"]
    assert np.nan_to_num(strokes, nan=-1) == pytest.approx([-1, 1])  # Naive's lies beyond the grid
    plain = setting_lines(table(), "sigma_rs").axes[0]
    assert all(line.get_marker() != "None" for line in plain.lines)


def test_each_pair_has_a_column():
    both = pd.concat([table(), table().assign(sensitive="Young")])
    figure = setting_lines(both, "sigma_rs", {"d_cs_mean": "mean d_cs"})
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Smiling / Pale Skin", "Smiling / Young"]
    assert figure.axes[0].get_ylabel() == "mean d_cs"
