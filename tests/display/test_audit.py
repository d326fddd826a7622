"""The audit's pictures show what its tables say: data is read back from the artists."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from lassi_lib.display.audit import (
    association_dumbbells,
    association_heatmap,
    majority_figure,
    prediction_figure,
)
from lassi_lib.display.style import METHOD_COLOURS


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_prediction_figure_sorts_and_marks_what_is_outside():
    table = pd.DataFrame(
        {
            "row": ["a_b", "c", "d"],
            "metric": "accuracy",
            "in_seed_sd": [3.0, -0.5, 0.2],
            "outside": [True, False, False],
        }
    )
    figure = prediction_figure(table, 2.3, 1.1)
    (axes,) = figure.axes
    assert [t.get_text() for t in axes.get_yticklabels()] == ["c: accuracy", "d: accuracy", "a b: accuracy"]
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines["inside"].get_xdata()) == [-0.5, 0.2] and list(lines["inside"].get_ydata()) == [0, 1]
    assert list(lines["outside the prediction interval"].get_xdata()) == [3.0]
    assert sorted(line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--") == [-1.1, 1.1]
    assert axes.patches[0].get_x() == -2.3 and axes.patches[0].get_width() == pytest.approx(4.6)
    assert len(legend(figure)) == 4


def test_majority_figure_has_a_panel_per_table_and_marks_rows_below():
    margins = pd.DataFrame(
        {
            "table": ["Table 1", "Table 1", "Table 5"],
            "row": ["Smiling / Young, Naive", "Smiling / Young, LASSI", "Oval_Face / Young, LASSI_transfer"],
            "method": ["Naive", "LASSI", "LASSI_transfer"],
            "accuracy": [85.0, 86.0, 67.0],
            "accuracy_low": [81.0, 82.0, 62.0],
            "accuracy_high": [89.0, 90.0, 72.0],
            "majority_rate": [52.0, 52.0, 68.0],
            "verdict": ["consistent", "consistent", "not above the majority rate"],
        }
    )
    figure = majority_figure(margins)
    one, five = figure.axes
    assert [a.get_title(loc="left") for a in (one, five)] == ["Table 1", "Table 5"]
    naive, lassi = one.containers
    assert naive.lines[0].get_xdata() == pytest.approx([33.0])
    assert lassi.lines[0].get_xdata() == pytest.approx([34.0])
    assert to_hex(naive.lines[0].get_color()).upper() == METHOD_COLOURS["Naive"]
    span = five.containers[0].lines[2][0].get_segments()[0][:, 0]
    assert span == pytest.approx([-6.0, 4.0])
    colours = [to_hex(t.get_color()) for a in (one, five) for t in a.get_yticklabels()]
    assert colours[0] == colours[1] != colours[2]
    assert legend(figure) == ["Naive", "LASSI", "LASSI_transfer"]


@pytest.fixture
def beside():
    return pd.DataFrame(
        {
            "attribute": ["Bald", "Bald", "Big_Lips", "Big_Lips"],
            "task": ["Smiling", "Wearing_Hat", "Smiling", "Wearing_Hat"],
            "rate_with": [51.0, 0.5, 49.0, 4.0],
            "base_rate": [48.0, 5.0, 48.0, 5.0],
            "printed_percent": [51.0, 1.0, 49.0, 8.0],
            "percent_disagrees": [False, True, False, True],
            "phi": [0.01, -0.2, 0.1, np.nan],
            "phi_low": [-0.01, -0.3, 0.05, np.nan],
            "phi_high": [0.03, -0.1, 0.15, np.nan],
        }
    )


def test_dumbbells_join_what_disagrees(beside):
    (axes,) = (figure := association_dumbbells(beside)).axes
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines["P(task | attribute), recomputed"].get_xdata()) == [51.0, 49.0, 0.5, 4.0]
    assert list(lines["printed, disagrees"].get_xdata()) == [1.0, 8.0]
    ends = [segment[:, 0].tolist() for segment in axes.collections[0].get_segments()]
    assert ends == [[0.5, 1.0], [4.0, 8.0]]
    assert axes.get_yticklabels()[0].get_text() == "Smiling given Bald" and len(legend(figure)) == 4


def test_heatmap_shows_phi_and_stars_intervals_without_zero(beside):
    axes = association_heatmap(beside).axes[0]
    assert [t.get_text() for t in axes.texts] == ["+0.01", "-0.20*", "+0.10*", ""]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["Smiling", "Wearing Hat"]
    low, high = axes.collections[0].get_clim()
    assert (low, high) == (-0.2, 0.2)  # symmetric, so that white is none
