"""What the figures of true counterfactuals show is what they were given."""

import numpy as np
import pandas as pd

from lassi_lib.display.ground_truth import kept_dots, true_strips


def test_every_share_is_a_mark_and_missing_ones_are_left_out():
    rows = []
    for mode in ("monte_carlo", "exact_decision"):
        for k, method in enumerate(("Naive", "LASSI")):
            fair = np.nan if (mode, method) == ("monte_carlo", "Naive") else 90.0 + k
            row = {"task": "Smiling", "sensitive": "Pale_Skin+Young", "attribute": "Young", "method": method}
            row |= {"mode": mode, "kept_fair": fair, "kept_fair_low": fair - 2, "kept_fair_high": fair + 1}
            rows.append(row | {"kept_others": 70.0, "kept_others_low": 60.0, "kept_others_high": 80.0})
    figure = kept_dots(pd.DataFrame(rows))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["monte carlo", "exact decision"]
    shown = [
        [line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) == 1] for axes in figure.axes
    ]
    assert shown == [[70.0, 91.0, 70.0], [90.0, 70.0, 91.0, 70.0]]
    assert figure.axes[0].get_xlim()[0] == 60
    labels = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert labels == ["Smiling / Pale Skin + Young (Young)"]


def test_drawn_images_stand_above_decoded_ones():
    rng = np.random.default_rng(0)
    drawn, decoded = ({"Young": rng.integers(0, 250, (3, 3, 16, 16), dtype=np.uint8)} for _ in range(2))
    figure = true_strips(drawn, decoded, [-1, 0, 1], np.array([-1.0, 0.0, 1.0]))
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert texts[:2] == ["Young, drawn", "z + t a, decoded"]
    assert {"-1", "t = -1", "t = +1"} <= set(texts)
    canvas = figure.axes[0].images[0].get_array()
    assert np.array_equal(canvas[:16, :16].transpose(2, 0, 1), drawn["Young"][0])
