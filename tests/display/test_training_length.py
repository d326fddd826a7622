"""Curves of losses: every seed's line is there, and the dot stands at the lowest total loss."""

import numpy as np
import pandas as pd

from lassi_lib.display.training_length import loss_curves


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
