"""What the pictures show is what the tables say: data is read back from the artists."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from lassi_lib.display.certificates import (
    accuracy_bars,
    constant_bars,
    fairness_bars,
    history_curve,
    norm_bars,
    radius_scatter,
)
from lassi_lib.display.style import METHOD_COLOURS

METHODS = ["Naive", "DataAug", "LASSI"]
PAIRS = [("Smiling", "Pale_Skin"), ("Smiling", "Pale_Skin+Young"), ("Wearing_Earrings", "Young")]


@pytest.fixture
def summary():
    rng = np.random.default_rng(1)
    rows = []
    for (task, sensitive), method in [(p, m) for p in PAIRS for m in METHODS]:
        row = {"task": task, "sensitive": sensitive, "method": method, "majority_rate": 52.0}
        for value in ("certified_fairness", "accuracy"):
            middle = float(rng.uniform(10, 90))
            row |= {value: middle, f"{value}_low": middle - 3, f"{value}_high": middle + 5}
            row[f"published_{value}"] = np.nan if task == "Wearing_Earrings" else middle + 1
        rows.append(row)
    return pd.DataFrame(rows)


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize(
    ("draw", "value"), [(fairness_bars, "certified_fairness"), (accuracy_bars, "accuracy")]
)
def test_bars_carry_the_rates_intervals_and_published_values(summary, draw, value):
    figure = draw(summary)
    (axes,) = figure.axes
    assert [t.get_text() for t in axes.get_yticklabels()] == [
        "Smiling / Pale Skin", "Smiling / Pale Skin + Young", "Wearing Earrings / Young",
    ]  # fmt: skip
    bars = [c for c in axes.containers if hasattr(c, "patches")]
    spans = [c.lines[2][0].get_segments() for c in axes.containers if not hasattr(c, "patches")]
    hollow = [line for line in axes.lines if line.get_marker() == "D"]
    for j, method in enumerate(METHODS):
        rows = summary[summary["method"] == method]
        assert [b.get_width() for b in bars[j]] == pytest.approx(list(rows[value]))
        assert to_hex(bars[j][0].get_facecolor()).upper() == METHOD_COLOURS[method]
        ends = np.array([[s[0][0], s[1][0]] for s in spans[j]])
        assert np.allclose(ends, rows[[f"{value}_low", f"{value}_high"]])
        assert np.allclose(hollow[j].get_xdata(), rows[f"published_{value}"], equal_nan=True)
        assert hollow[j].get_markerfacecolor() == "white"
    majority = [
        line for line in axes.lines if line.get_marker() == "|" and line.get_label() == "majority rate"
    ]
    assert len(majority) == (value == "accuracy")
    assert legend(figure) == [*METHODS, *["majority rate"] * len(majority), "published"]


def test_rates_of_one_seed_are_hatched_where_others_have_several(summary):
    single = (summary["task"] == "Wearing_Earrings").to_numpy()
    figure = fairness_bars(summary.assign(n_seeds=np.where(single, 1, 3)))
    bars = [b for c in figure.axes[0].containers if hasattr(c, "patches") for b in c]
    assert [bool(b.get_hatch()) for b in bars] == [False, False, True] * len(METHODS)
    assert legend(figure) == [*METHODS, "published", "one seed: interval of the points alone"]
    for alike in (1, 3):
        figure = fairness_bars(summary.assign(n_seeds=alike))
        assert legend(figure) == [*METHODS, "published"]


def test_bars_of_a_pair_do_not_overlap_and_a_missing_method_keeps_its_place(summary):
    (axes,) = fairness_bars(summary.drop(index=1)).axes
    boxes = sorted(
        (b.get_y(), b.get_y() + b.get_height()) for c in axes.containers if hasattr(c, "patches") for b in c
    )
    assert len(boxes) == 8
    assert all(end <= start + 1e-9 for (_, end), (start, _) in pairwise(boxes))


def test_one_seed_is_said_where_no_bar_has_more(summary):
    said = [fairness_bars(summary.assign(n_seeds=n)).axes[0].get_xlabel() for n in (1, 3)]
    assert ["one seed" in s for s in said] == [True, False]


def test_published_columns_can_be_named_and_left_out(summary):
    named = fairness_bars(summary, {"published_certified_fairness": "ECCV 2022", "absent": "Merk et al."})
    assert legend(named) == [*METHODS, "ECCV 2022"]
    assert legend(fairness_bars(summary, {})) == METHODS


def test_scatter_shows_every_point_and_counts_the_abstained():
    rng = np.random.default_rng(2)
    parts = []
    for (task, sensitive), method in [(p, m) for p in PAIRS for m in METHODS]:
        radii = np.exp(rng.normal(size=(20, 2)))
        radii[:2, 0], radii[3, 1], radii[4, 0] = np.nan, np.nan, 0.0
        part = pd.DataFrame(radii, columns=["d_cs", "d_rs"])
        parts.append(part.assign(task=task, sensitive=sensitive, method=method))
    rows = pd.concat(parts, ignore_index=True)
    figure = radius_scatter(rows)
    assert len(figure.axes) == len(PAIRS)
    for axes, (task, sensitive) in zip(figure.axes, PAIRS, strict=True):
        here = rows[(rows["task"] == task) & (rows["sensitive"] == sensitive)]
        clouds = [c for c in axes.collections if c.get_label() in METHODS]
        assert [c.get_label() for c in clouds] == METHODS and all(c.get_rasterized() for c in clouds)
        for cloud in clouds:
            mine = here.loc[here["method"] == cloud.get_label(), ["d_cs", "d_rs"]].dropna().to_numpy()
            offsets = np.asarray(cloud.get_offsets())
            assert np.allclose(offsets[mine > 0], mine[mine > 0])
            assert (offsets[mine == 0] == axes.get_xlim()[0]).all()  # log axes: 0 lies on the edge
        diagonal = axes.lines[0].get_xydata()
        assert np.array_equal(diagonal[:, 0], diagonal[:, 1])
        assert axes.get_xscale() == axes.get_yscale() == "log" and axes.get_xlim() == axes.get_ylim()
        share = f"{100 * 3 / len(here[here['method'] == METHODS[0]]):.1f}"  # seeds may differ in number
        assert f"abstained: {share} / {share} / {share} %" in [t.get_text() for t in axes.texts]
        assert (
            axes.get_title("left").replace("\n", " ").split()
            == f"{task} / {sensitive}".replace("_", " ").replace("+", " + ").split()
        )
    assert legend(figure) == METHODS
    assert "Shaded: certified, d_cs < d_rs" in figure.get_supxlabel()


def test_scatter_of_abstentions_alone_is_an_empty_panel():
    rows = pd.DataFrame(
        {"task": "A", "sensitive": "B", "method": "Naive", "d_cs": [np.nan] * 3, "d_rs": np.nan}
    )
    figure = radius_scatter(rows)
    figure.draw_without_rendering()
    assert "abstained: 100.0 %" in [t.get_text() for t in figure.axes[0].texts]


def test_curve_and_norms_show_their_columns():
    history = [{"step": 0, "bpd": 3.0}, {"step": 5}, {"step": 10, "bpd": 2.0}]
    (axes,) = history_curve(history, "step", "bpd", xlabel="training step", ylabel="bits/dim").axes
    assert np.array_equal(axes.lines[0].get_xydata(), [[0, 3], [10, 2]])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("training step", "bits/dim")
    table = pd.DataFrame(
        {"attribute": ["Young", "Pale_Skin"], "norm": [3.0, 4.0], "norm / spread": [0.1, 0.2]}
    )
    (axes,) = norm_bars(table).axes
    assert [bar.get_width() for bar in axes.patches] == [3.0, 4.0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["Young", "Pale Skin"]
    assert [t.get_text() for t in axes.texts] == ["3.0 = 0.10 spreads", "4.0 = 0.20 spreads"]


def test_shares_of_constant_decisions_have_their_published_marks():
    table = pd.DataFrame(
        {"task": ["Smiling"], "sensitive": ["Young"], "method": ["ResNet18"], "eccv": [90.1]}
    )
    table = table.assign(constant=80.0, constant_low=70.0, constant_high=88.0)
    (axes,) = constant_bars(table).axes
    assert axes.get_xlabel() == "decision constant (% of points)"
    assert [line.get_xdata().tolist() for line in axes.lines if line.get_marker() == "D"] == [[90.1]]
