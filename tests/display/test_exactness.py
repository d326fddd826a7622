"""What the figures of modes show is what their tables say."""

import numpy as np
import pandas as pd
import pytest

from lassi_lib.display.exactness import (
    MODE_STYLE,
    counterexample_figure,
    mode_dots,
    radius_lines,
    slack_curves,
)

MODES = ("monte_carlo", "exact_smoothing", "exact_decision", "empirical")


def by_mode():
    rows = []
    for sensitive in ("Young", "Pale_Skin+Young"):
        for method, start in (("Naive", 10.0), ("LASSI", 70.0)):
            for k, mode in enumerate(MODES):
                fair = start + 5 * k
                rows.append(("Smiling", sensitive, method, mode, fair, fair - 3, fair + 4))
    return pd.DataFrame(
        rows, columns=["task", "sensitive", "method", "mode", "fair", "fair_low", "fair_high"]
    )


def test_every_answer_is_a_marker_at_its_share():
    table = by_mode()
    axes = mode_dots(table).axes[0]
    marks = [line for line in axes.lines if line.get_marker() != "None" and len(line.get_xdata())]
    drawn = [(line.get_marker(), line.get_xdata()[0]) for line in marks]
    for _, row in table.iterrows():
        assert (MODE_STYLE[row["mode"]][0], row["fair"]) in drawn
    labels = [t.get_text() for t in axes.get_yticklabels()]
    assert labels == ["Smiling / Young   Naive", "LASSI", "Smiling / Pale Skin + Young   Naive", "LASSI"]


def test_slack_curves_rise_to_100_percent():
    rng = np.random.default_rng(0)
    parts = [
        pd.DataFrame({"task": "Smiling", "sensitive": "Young", "method": m, "mode": mode, "slack": rng.normal(size=99)})
        for m in ("Naive", "LASSI")
        for mode in ("monte_carlo", "exact_smoothing")
    ]  # fmt: skip
    lines = [line for line in slack_curves(pd.concat(parts)).axes[0].lines if len(line.get_xdata())]
    assert len(lines) == 4
    for line in lines:
        y = line.get_ydata()
        assert (np.diff(y) > 0).all()
        assert y[-1] == 100


def test_radius_lines_show_every_radius():
    table = pd.DataFrame(
        {"task": "Smiling", "sensitive": "Young", "method": "LASSI", "epsilon": [2.0, 0.5, 1.0]}
        | {"fair": [60.0, 90.0, 80.0], "fair_low": [50.0, 85.0, 70.0], "fair_high": [70.0, 95.0, 90.0]}
    )
    line = radius_lines(table, at=1.0).axes[0].lines[0]
    assert line.get_xdata().tolist() == [0.5, 1.0, 2.0]
    assert line.get_ydata().tolist() == [90, 80, 60]


def test_counterexamples_stand_under_their_faces():
    faces = np.zeros((2, 3, 16, 16), np.uint8)
    table = pd.DataFrame({"t": [(0.5,), (-1.0,)], "prediction": [1, 0], "witness_class": [0, 1]})
    figure = counterexample_figure([("Smiling / Young", faces, faces + 255, table)])
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert texts == ["Smiling / Young", "similar", "yes", "no", "no  t = +0.50", "yes  t = -1.00"]
    with pytest.raises(ValueError, match="no counterexample"):
        counterexample_figure([("none", faces[:0], faces[:0], table[:0])])
