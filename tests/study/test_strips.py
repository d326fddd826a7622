"""Faces along a vector: chosen by a rule, and what stands below them is what the modes said."""

import numpy as np
import pytest
import torch

from lassi_lib.errors import StudyError
from lassi_lib.study.experiment import Experiment, Question
from lassi_lib.study.strips import strip_table, strips


@pytest.fixture(scope="module")
def study(tiny_study):
    return tiny_study


def asked(*methods, sensitive=("Pale_Skin",)):
    return [Experiment("synthfaces", "Smiling", sensitive, "mean_difference", m, 0) for m in methods]


def test_faces_stand_from_the_fairest_to_the_least_fair(study):
    (e,) = asked("LASSI")
    found = strips(study, [e], 3, steps=5)
    rows = study.certificates(e).set_index("index")
    ratio = (rows["d_cs"] / rows["d_rs"]).fillna(np.inf)
    values = [ratio[s.index] for s in found]
    assert values == sorted(values)
    assert (values[0], values[-1]) == (ratio.min(), ratio.max())
    (middle,) = strips(study, [e], 1, steps=5)
    assert abs(ratio.rank(method="first")[middle.index] - 12.5) <= 0.5


def test_what_stands_below_is_what_the_modes_said(study):
    experiments = asked("Naive", "LASSI")
    found = strips(study, experiments, 4, steps=9)
    for s in found:
        assert s.images.shape == (9, 3, 48, 48) and s.images.dtype == np.uint8
        assert s.t[[0, 4, -1]].tolist() == [-1, 0, 1] and 0 <= s.outside <= 100
        for e, answer in zip(experiments, s.answers.to_dict("records"), strict=True):
            exact = study.certificates(e, Question("exact_decision")).set_index("index").loc[s.index]
            assert (answer["method"], answer["decision"]) == (e.method, exact["status"])
            assert answer["classes"][4] == exact["prediction"]
            if answer["decision"] == "VERIFIED":
                assert len(set(answer["classes"])) == 1
            if answer["decision"] == "REFUTED":
                assert answer["t"] == exact["witness_1"]
    table = strip_table(found)
    assert len(table) == 8 and table["face"].tolist() == [s.index for s in found for _ in range(2)]
    changed = [sum(c != a[4] for c in a) for s in found for a in s.answers["classes"]]
    assert table["frames of another class"].tolist() == changed


def test_the_middle_frame_is_the_reconstructed_face(study):
    from lassi_lib.data.preprocess import to_uint8

    (s,) = strips(study, asked("LASSI"), 1, steps=3)
    z = study.latents("test")[[s.index]]
    difference = to_uint8(study.glow().decode(z))[0].to(int) - torch.from_numpy(s.images[1]).to(int)
    assert difference.abs().max() <= 1


def test_a_set_of_two_attributes_has_no_line(study):
    with pytest.raises(StudyError, match="spans no line"):
        strips(study, asked("LASSI", sensitive=("Pale_Skin", "Young")), 1)
