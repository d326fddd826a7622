"""One face: moved frames are the flow's, and a view says what the modes say, at any epsilon and sigma."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lassi_lib.data.preprocess import quantise
from lassi_lib.errors import StudyError
from lassi_lib.study.experiment import Experiment, Question
from lassi_lib.study.explore import Judge, Line, certificate_views, moved_frames, offered_kinds

STEPS = np.round(np.linspace(-2, 2, 41), 1)


def status_of(view, mode="exact_decision"):
    return view.answers.set_index("mode").loc[mode, "status"]


def asked(*methods, sensitive=("Pale_Skin",)):
    return [Experiment("synthfaces", "Smiling", sensitive, "mean_difference", m, 0) for m in methods]


@pytest.mark.parametrize("kind", ["mean_difference", "perpendicular"])
def test_a_frame_is_the_decoded_sum_of_vectors(tiny_study, kind):
    line = Line(tiny_study, 3)
    t = {"Smiling": -0.5, "Young": 0.7}
    frame = line.frame(t, kind, STEPS, "title", "note")
    scale = 10 if kind == "perpendicular" else 1  # unit vectors: the papers' epsilon is 10
    path = sum(scale * x * tiny_study.vector(a, kind) for a, x in t.items())
    expected = tiny_study.glow().decode((tiny_study.latents("test")[3] + path)[None])[0].numpy()
    assert np.abs(frame.image - expected).max() < 1e-4
    assert frame.distance == pytest.approx(float(path.norm()), rel=1e-5)
    beyond = (expected < -0.5 - 1 / 64) | (expected > 0.5 - 1 / 64)
    assert frame.outside == pytest.approx(100 * beyond.mean(), abs=0.1)
    assert (frame.title, frame.note) == ("title", "note") and 0 < frame.spreads < 3


def test_a_vector_that_cannot_be_made_says_why(tiny_study):
    with pytest.raises(StudyError, match="'Pale_Skin' has no boundary"):
        Line(tiny_study, 3).frame({"Pale_Skin": 1.0}, "perpendicular")


def test_a_slider_s_neighbours_are_decoded_once(tiny_study, monkeypatch):
    line, calls = Line(tiny_study, 3), []
    decode = tiny_study.glow().decode
    monkeypatch.setattr(tiny_study.glow(), "decode", lambda z: calls.append(len(z)) or decode(z))
    assert not line.has({"Young": 0.8})
    first = [line.frame({"Young": float(x)}, along=STEPS).image for x in STEPS[24:32]]
    assert calls == [8]
    have = [x for x in STEPS if line.has({"Young": float(x)})]
    assert have == list(STEPS[24:32]) and not line.has({"Young": 0.8}, "random")
    again = [line.frame({"Young": float(x)}, along=STEPS).image for x in STEPS[24:32]]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True)) and calls == [8]
    assert np.abs(np.diff(first, axis=0)).max(axis=(1, 2, 3)).min() > 0


def test_vectors_that_nobody_has_made_are_named(tiny_study):
    line, t = Line(tiny_study, 3), {"Young": 0.0, "Eyeglasses": 0.5, "Smiling": 0.5}
    tiny_study.vector("Smiling", "partialled")
    assert line.unmade(t, "partialled") == ["Eyeglasses"]
    line.frame(t, "partialled")
    assert line.unmade(t, "partialled") == []


def test_an_own_face_is_encoded_as_the_data_sets_are(tiny_study):
    own = Line(tiny_study, tiny_study.dataset("test").images[3])
    assert torch.allclose(own.z, tiny_study.latents("test")[3], atol=1e-4)
    x = quantise(tiny_study.dataset("test").images[3], tiny_study.pipeline.data.bits)
    assert np.abs(own.frame({}).image - x.numpy()).max() < 1e-3


def test_only_kinds_that_can_be_made_here_are_offered(tiny_study):
    kinds = offered_kinds(tiny_study, "Young")
    assert kinds[0] == "mean_difference" and {"true_factor", "partialled", "degraded_60"} <= set(kinds)
    assert not any("ramaswamy" in k or "discovered" in k or "pairs" in k for k in kinds)
    assert "ramaswamy" in offered_kinds(tiny_study, "Young", "Smiling")
    face, frames = moved_frames(
        tiny_study, ["Pale_Skin", "Young"], ["mean_difference", "random", "pairs"], most=1
    )
    assert face.shape == (3, 48, 48)
    assert [(f.title, f.note) for f in frames] == [
        (title, note) for title in ("mean difference", "random") for note in ("t=-1: ", "t=+1: ")
    ]
    assert len({round(f.distance, 2) for f in frames}) == 1  # the control has the vector's length


def test_a_view_says_what_the_kept_certificates_say(tiny_study):
    for e in asked("Naive", "LASSI"):
        judge = Judge(tiny_study, e)
        for index in (0, 5, 11):
            view = judge.view(index)
            for a in view.answers.to_dict("records"):
                row = tiny_study.certificates(e, Question(a["mode"])).set_index("index").loc[index]
                assert (a["status"], a["prediction"]) == (row["status"], row["prediction"])
                for name in ("d_cs", "d_rs"):
                    if name in row and np.isfinite(row[name]):
                        assert a[name] == pytest.approx(row[name], rel=1e-5)
            assert view.label == tiny_study.labels("test", "Smiling")[index]
            assert view.images.shape == (9, 3, 48, 48) and view.t[[0, 4, -1]].tolist() == [-1, 0, 1]


def test_the_margin_is_exact_between_its_kinks_and_refutes_where_it_is_negative(tiny_study):
    (e,) = asked("Naive")
    judge, z = Judge(tiny_study, e), tiny_study.latents("test")
    R, C, a = tiny_study.representation(e), tiny_study.classifier(e), tiny_study.vector("Pale_Skin")
    seen, weight = set(), C.weight.detach().numpy()
    for index in range(24):
        view = judge.view(index, steps=3)
        t = np.linspace(*view.nodes[[0, -1]], 101)
        with torch.no_grad():
            logits = C(R(z[index] + torch.as_tensor(t, dtype=torch.float32)[:, None] * a)).numpy()
        i = view.classes[0]
        distance = (logits[:, i] - logits[:, 1 - i]) / np.linalg.norm(weight[i] - weight[1 - i])
        assert np.interp(t, view.nodes, view.margin) == pytest.approx(distance, abs=1e-3)
        inside = view.margin[np.abs(view.nodes) <= view.epsilon]
        status = status_of(view)
        seen.add(status)
        if status == "REFUTED":
            assert view.pair.shape == (2, 3, 48, 48) and view.classes[0] != view.classes[1]
            witness = view.answers.set_index("mode").loc["exact_decision", "witness"]
            assert np.interp(witness, view.nodes, view.margin) < 0
        elif status == "VERIFIED":
            assert inside.min() > 0 and view.pair is None
    assert seen >= {"VERIFIED", "REFUTED"}
    judge.decide(judge.faces[:5])
    assert set(judge.faces[:5]) <= set(judge.decided)
    judge.decide(judge.faces)
    assert judge.decided == {i: status_of(judge.view(i, steps=3)) for i in judge.faces}
    tiny_study.certificates(judge.experiment, Question("exact_decision"))
    assert Judge(tiny_study, judge.experiment).decided == judge.decided  # the kept rows


def test_the_plane_shows_the_boundary_edge_on(tiny_study):
    (e,) = asked("LASSI")
    view = Judge(tiny_study, e).view(2)
    t, x, _ = view.path.T
    same = np.abs(t) <= 1
    margin = np.interp(t[same], view.nodes, view.margin)
    smooth = view.answers.set_index("mode").loc["exact_smoothing"]
    if smooth["prediction"] == view.classes[0]:  # x = d_rs is the boundary: the margin is what is left to it
        assert view.d_rs - x[same] == pytest.approx(margin, abs=1e-6)
    radius = np.linalg.norm(view.path[same, 1:], axis=1)
    assert radius.max() <= view.d_cs  # every similar point lies within d_cs of the smoothed centre


def test_epsilon_and_sigma_are_asked_anew(tiny_study):
    (e,) = asked("LASSI")
    judge = Judge(tiny_study, e)
    own, small, wide = judge.view(1), judge.view(1, 0.5), judge.view(1, sigma_cs=1.3)
    assert (small.epsilon, wide.sigma_cs) == (0.5, 1.3)
    assert small.t[[0, -1]].tolist() == [-0.5, 0.5] and small.d_cs < own.d_cs != wide.d_cs
    exact = tiny_study.certificates(e, Question("exact_smoothing", sigma_cs=1.3)).set_index("index").loc[1]
    assert wide.d_cs == pytest.approx(exact["d_cs"], rel=1e-6)
    impossible = judge.view(1, sigma_cs=0.1)
    assert status_of(impossible, "monte_carlo") == "IMPOSSIBLE" and status_of(impossible) != "IMPOSSIBLE"
    assert "too large for any number of samples" in impossible.answers["note"][0]


def test_no_latent_is_decoded_twice_for_another_epsilon_or_sigma(tiny_study, monkeypatch):
    (e,) = asked("Naive")
    judge, calls, decode = Judge(tiny_study, e), [], tiny_study.decode
    monkeypatch.setattr(tiny_study, "decode", lambda z: calls.append(z) or decode(z))
    views = [judge.view(1), judge.view(1, sigma_cs=1.3)]
    assert len(calls) == 1
    views.append(judge.view(1, 0.5))  # every second step, and the middle, are known
    first, second = ({tuple(z.tolist()) for z in call} for call in calls)
    assert not first & second and len(second) == len(calls[1]) >= 4
    fresh = Judge(tiny_study, e).view(1, 0.5)
    assert np.abs(views[-1].images.astype(int) - fresh.images).max() <= 1
    assert np.array_equal(views[0].images, views[1].images)


def test_one_face_for_all_methods_is_chosen_by_a_rule(tiny_study):
    experiments = [*asked("Naive", "LASSI", sensitive=("Pale_Skin", "Young")), *asked("Naive", "LASSI")]
    experiments += [replace(e, seed=1) for e in experiments]
    views = certificate_views(tiny_study, experiments)
    assert [v.method for v in views] == ["Naive", "LASSI"] and len({v.index for v in views}) == 1
    rows = tiny_study.certificates(asked("LASSI")[0])
    slack = (rows["d_rs"] - rows["d_cs"]).fillna(-np.inf)
    assert slack[rows["index"] == views[0].index].item() == sorted(slack, reverse=True)[11]
    (refuted, *_) = certificate_views(tiny_study, experiments, face="refuted")
    rows = tiny_study.certificates(asked("Naive")[0], Question("exact_decision"))
    assert refuted.index == rows.loc[rows["margin"].idxmin(), "index"]
    assert status_of(refuted) == "REFUTED"
    for ask in (lambda e: certificate_views(tiny_study, [e]), lambda e: Judge(tiny_study, e)):
        with pytest.raises(StudyError, match="attribute"):
            ask(experiments[0])
