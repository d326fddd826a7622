"""Every seed's losses, and every length's rates, are drawn where their tables put them."""

import numpy as np
import pandas as pd

from lassi_lib.display.training_length import length_dots, loss_curves


def history():
    """Two seeds of a method with a task, one of a method without; a shorter training that is not shown."""
    parts = []
    for method, seed, epochs, lowest in (("LASSI", 0, 4, 2), ("LASSI", 1, 4, 3), ("LASSI_transfer", 0, 3, 3)):
        epoch = np.arange(1, epochs + 1)
        part = pd.DataFrame(
            {"epoch": epoch, "valid_loss": 1.0 + (epoch - lowest) ** 2, "valid_adv": 1.0 / epoch}
        )
        part["valid_cls" if method == "LASSI" else "valid_rec"] = epoch + 10.0
        part = part.assign(method=method, seed=seed, epochs=epochs, kept="last epoch")
        parts += [
            part,
            part[part["epoch"] == 1].assign(epochs=1),
            part.assign(kept="best", valid_loss=np.nan),
        ]
    return pd.concat(parts).assign(task="Smiling", sensitive="Pale_Skin")


def test_every_seed_has_a_line_and_a_dot_at_the_lowest_total_loss():
    axes = np.array(loss_curves(history()).axes).reshape(4, 2)
    adversarial = axes[2, 0]
    lines, dots = ([x for x in adversarial.lines if (x.get_marker() == "o") == dot] for dot in (False, True))
    assert [len(line.get_xdata()) for line in lines] == [4, 4]
    assert [float(dot.get_xdata()[0]) for dot in dots] == [2.0, 3.0]
    assert [float(dot.get_ydata()[0]) for dot in dots] == [1 / 2, 1 / 3]
    assert adversarial.get_ylabel() == "adversarial loss" and adversarial.get_ylim()[0] == 0


def test_a_loss_that_a_method_does_not_have_leaves_its_panel_empty():
    axes = np.array(loss_curves(history()).axes).reshape(4, 2)
    assert not axes[0, 1].lines and not axes[1, 0].lines
    assert (
        axes[0, 0].get_ylabel() == "classification loss" and axes[1, 1].get_ylabel() == "reconstruction loss"
    )
    assert axes[0, 1].get_title(loc="left").startswith("LASSI transfer")
    alone = history()[lambda t: t["method"] == "LASSI"]
    assert len(loss_curves(alone).axes) == 3  # no reconstruction, no row for it


def test_every_length_has_a_dot_with_its_interval_and_the_printed_rates_a_line():
    table = pd.DataFrame(
        {
            "sensitive": ["Young"] * 4 + ["Pale_Skin"],
            "method": ["Naive"] * 2 + ["LASSI"] * 3,
            "kept": ["best epoch", "last epoch"] * 2 + ["best epoch"],
            "epochs": [5, 50, 5, 50, 5],
            "certified_fairness": [0.0, 5.0, 40.0, 90.0, 70.0],
            "accuracy": [88.0, 86.0, 85.0, 84.0, 83.0],
            "eccv_certified_fairness": [np.nan, np.nan, 94.0, np.nan, np.nan],
            "eccv_accuracy": np.nan,
        }
    ).assign(task="Smiling", majority_rate=51.0)
    for value in ("certified_fairness", "accuracy"):
        table = table.assign(**{f"{value}_low": table[value] - 2, f"{value}_high": table[value] + 3})
    figure = length_dots(table)
    left, right = figure.axes
    dots = [line for line in left.lines if line.get_marker() == "o"]
    assert [(float(d.get_xdata()[0]), d.get_ydata()[0]) for d in dots] == [
        (0.0, 0), (5.0, 1), (40.0, 2), (90.0, 3), (70.0, 5)  # a gap between pairs
    ]  # fmt: skip
    assert [d.get_mfc() == d.get_mec() for d in dots] == [False, True, False, True, False]
    bars = [bar.get_segments() for bar in left.collections]
    assert bars[1][0][:, 0].tolist() == [38.0, 43.0]
    (printed,) = (line for line in left.lines if line.get_linestyle() == ":")
    assert list(printed.get_xdata()) == [94.0, 94.0] and list(printed.get_ydata()) == [2, 3]
    names = [text.get_text() for text in left.get_yticklabels()]
    assert names[:3] == ["Smiling / Young   Naive   best of 5", "last of 50", "LASSI   best of 5"]
    assert names[4] == "Smiling / Pale Skin   LASSI   best of 5"
    strokes = [line for line in right.lines if line.get_linestyle() == "-" and len(line.get_xdata()) == 2]
    assert [line.get_xdata()[0] for line in strokes] == [51.0, 51.0]
