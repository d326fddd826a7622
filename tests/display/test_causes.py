"""Figures of the experiments on causes show every condition where it belongs."""

import numpy as np
import pandas as pd
import pytest

from lassi_lib.display.causes import kind_dots, phi_lines
from lassi_lib.display.style import save_figure


def table(**columns):
    out = pd.DataFrame({"task": "Smiling", "sensitive": "Blond_Hair", "celebas": False, **columns})
    for name in ("certified_fairness", "exact_fairness", "ratio_percent"):
        out[name] = 40.0 + 10 * np.arange(len(out))
        out[f"{name}_low"], out[f"{name}_high"] = out[name] - 5, out[name] + 5
    return out


def test_phi_lines_has_a_row_per_pair_and_a_line_per_method(tmp_path):
    summary = table(phi=[0.0, 0.35, 0.0, 0.35], method=["Naive", "Naive", "LASSI", "LASSI"])
    summary.loc[0, "celebas"] = True
    summary = pd.concat([summary, summary.assign(sensitive="Young")])
    figure = phi_lines(summary)
    assert len(figure.axes) == 6
    for axes in figure.axes:
        lines = {c.get_label(): c.lines[0].get_ydata().tolist() for c in axes.containers}
        assert lines == {"Naive": [40.0, 50.0], "LASSI": [60.0, 70.0]}
    assert figure.axes[2].get_yscale() == "log"
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["Naive", "LASSI"]
    save_figure(figure, tmp_path, "phi", "lines")
    assert (tmp_path / "phi.svg").stat().st_size > 1000


def test_one_phi_alone_and_missing_ratios_can_be_drawn():
    summary = table(phi=[0.2], method=["LASSI"])
    summary[["ratio_percent", "ratio_percent_low", "ratio_percent_high"]] = np.nan
    figure = phi_lines(summary)
    figure.draw_without_rendering()
    assert figure.axes[2].get_ylim() == pytest.approx((50, 200))


def test_kind_dots_has_a_row_per_kind():
    kinds = ["mean_difference", "random"]
    summary = table(phi=0.35, vector_type=kinds * 2, method=["Naive", "Naive", "LASSI", "LASSI"])
    figure = kind_dots(summary)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["mean difference", "random"]
    assert figure.axes[0].get_title(loc="left") == "Smiling / Blond Hair, phi 0.35"
    (naive, lassi) = (c.lines[0] for c in figure.axes[0].containers)
    assert naive.get_xdata().tolist() == [40, 50]
    assert (lassi.get_ydata() > naive.get_ydata()).all()
