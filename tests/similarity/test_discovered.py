"""Discovered directions where the right answer is known, and the slip of the projection."""

from dataclasses import replace

import pytest
import torch

from lassi_lib.errors import StudyError
from lassi_lib.similarity.discovered import Discovery, discover, project
from lassi_lib.streams import torch_stream

D = 24
QUICK = Discovery(iterations=600, learning_rate=1e-2, step=1.0, mended=True)
E = torch.eye(D)
Z = torch.randn(800, D, generator=torch_stream(0, "latents"))


def predict(z):
    """Answers change along e_0 (the task), e_1 and e_2, in this order of strength."""
    return torch.sigmoid(z @ (2.0 * E[0] + 1.5 * E[1] + 0.75 * E[2]))


def test_mended_projection_lands_on_the_plane_and_the_slip_does_not():
    w = torch.randn(400, generator=torch_stream(1, "w"))
    z = torch.randn(50, 400, generator=torch_stream(1, "z"))
    b = torch.tensor(0.8)
    on_plane = project(z, w, b)
    assert (on_plane @ w + b).abs().max() < 1e-3
    # the move is along w: what is orthogonal to it stays
    orthogonal = z - (z @ w / (w @ w))[:, None] * w
    assert torch.allclose(on_plane - (on_plane @ w / (w @ w))[:, None] * w, orthogonal, atol=1e-5)
    assert torch.allclose(project(on_plane, w, b), on_plane, atol=1e-5)
    thrown = project(z, w, b, mended=False)
    before = (z @ w + b).abs() / w.norm()
    after = (thrown @ w + b).abs() / w.norm()
    assert after.median() > 300 * before.median()  # by about ||w||^2 = 400
    # with a unit normal both agree: the slip only shows because w is never normalised
    unit = w / w.norm()
    assert torch.allclose(project(z, unit, b, mended=False), project(z, unit, b), atol=1e-5)


def test_mended_search_finds_what_the_classifier_uses_besides_the_task():
    vectors, history = discover(Z, E[0], predict, replace(QUICK, count=1), seed=0)
    # orthogonal to the task, the answer depends on 1.5 e_1 + 0.75 e_2 alone
    sought = (1.5 * E[1] + 0.75 * E[2]) / (1.5**2 + 0.75**2) ** 0.5
    row = history[0]
    assert abs(float(vectors[0] @ sought)) > 0.8
    assert abs(row["cos_task"]) < 0.5
    assert row["change_last"] > 2 * row["change_first"]
    assert row["off_plane"] < 1e-5
    assert row["norm_ratio"] <= 1.0 + 0.1


def test_vectors_are_units_nearly_orthogonal_and_described():
    vectors, history = discover(Z, E[0], predict, QUICK, seed=0)
    assert vectors.shape == (3, D)
    assert vectors.dtype == torch.float32
    assert torch.allclose(vectors.norm(dim=1), torch.ones(3), atol=1e-6)
    gram = torch.cat([E[:1], vectors]) @ torch.cat([E[:1], vectors]).T
    # three random directions in 24 dimensions would reach 0.2 each; the task pulls all of them
    assert (gram - torch.eye(4)).abs().max() < 0.4
    for k, row in enumerate(history):
        assert row["k"] == k
        start = torch.randn(D, generator=torch_stream(0, "discovered/start", k))
        assert row["cos_start"] == pytest.approx(float(vectors[k] @ start / start.norm()), abs=1e-6)
        assert row["cos_task"] == pytest.approx(float(gram[0, k + 1]), abs=1e-6)
        assert row["cos_earlier"] == pytest.approx(
            float(gram[1 : k + 1, k + 1].abs().max()) if k else 0.0, abs=1e-6
        )


def test_a_constant_classifier_leaves_the_start_but_for_the_orthogonality():
    def constant(z):
        return 0.5 + 0 * z[:, 0]

    free = replace(QUICK, count=1, orthogonality=0.0)
    (a,), (row,) = discover(Z, E[0], constant, free, seed=0)
    start = torch.randn(D, generator=torch_stream(0, "discovered/start", 0))
    assert torch.allclose(a, start / start.norm(), atol=1e-6)
    assert row["cos_start"] == pytest.approx(1, abs=1e-6)
    assert row["change_first"] == row["change_last"] == 0
    task = int(start.abs().argmax())  # the coordinate to which the start is least orthogonal
    (a,), (row,) = discover(Z, E[task], constant, replace(free, orthogonality=10.0), seed=0)
    assert abs(row["cos_task"]) < 0.05
    assert abs(float(start[task] / start.norm())) > 0.3


def test_the_slip_throws_latents_far_away_and_mostly_keeps_the_start():
    rows = {
        mended: [
            discover(Z, E[0], predict, replace(QUICK, count=1, mended=mended), seed=seed)[1][0]
            for seed in (1, 2, 3)
        ]
        for mended in (False, True)
    }
    slip, mended = ({k: sum(abs(r[k]) for r in rows[m]) / 3 for k in rows[m][0]} for m in (False, True))
    assert slip["off_plane"] > 5
    assert mended["off_plane"] < 1e-5
    assert slip["norm_ratio"] > 2
    assert mended["norm_ratio"] == pytest.approx((1 - 1 / D) ** 0.5, abs=0.05)  # one of D directions is gone
    assert slip["change_last"] < 0.1 < 0.2 < mended["change_last"]
    assert slip["cos_start"] > 0.8 > 0.3 > mended["cos_start"]


def test_results_depend_on_the_seed_alone():
    few = replace(QUICK, iterations=30, count=2)
    state = torch.random.get_rng_state()
    one, two = (discover(Z, E[0], predict, few, seed=0)[0] for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, discover(Z, E[0], predict, few, seed=1)[0])
    assert torch.equal(torch.random.get_rng_state(), state)
    # more directions leave the first ones alone; fewer latents than needed come again
    assert torch.equal(discover(Z, E[0], predict, replace(few, count=1), seed=0)[0], one[:1])
    assert discover(Z[:7], E[0], predict, few, seed=0)[0].isfinite().all()


def test_a_prediction_that_is_not_finite_is_an_error_of_one_line():
    with pytest.raises(StudyError, match="discovered vector 0: step 1: the loss is nan"):
        discover(Z, E[0], lambda z: z[:, 0] * torch.nan, replace(QUICK, count=1), seed=0)
