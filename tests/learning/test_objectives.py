"""The losses: shared products against the plain formulation, BatchNorm modes, the farthest candidate."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import nn

from benchmarks.training_step import plain_losses
from lassi_lib.errors import StudyError
from lassi_lib.learning.objectives import BATCH_NORM, Losses, Objective, candidates, farthest, losses
from lassi_lib.learning.representation import Representation, initialisation, mlp
from lassi_lib.similarity.sets import SimilaritySet

OBJECTIVES = {
    "Naive": Objective("Naive"),
    "DataAug": Objective("DataAug", augment=True),
    "LASSI": Objective("LASSI", lambda_2=0.3),
}


def problem(n=2, d=9, batch=12, s=6):
    """Return R, head (float64), z, y, similarity set and candidates."""
    generator = torch.Generator().manual_seed(11)
    with initialisation(4, "test/init"):
        representation, head = Representation(d, (8, 7), 5).double(), nn.Linear(5, 3).double()
    representation(torch.randn(64, d, dtype=torch.float64, generator=generator) * 2)
    similarity = SimilaritySet(torch.randn(n, d, dtype=torch.float64, generator=generator), epsilon=1.5)
    z = torch.randn(batch, d, dtype=torch.float64, generator=generator)
    y = torch.randint(3, (batch,), generator=generator)
    return representation, head, z, y, similarity, similarity.sample((s, batch), generator).double()


def gradients(loss_function, objective, train):
    representation, head, z, y, similarity, t = problem()
    representation.train(train)
    batch = loss_function(representation, head, z, y, objective, similarity.vectors, t)
    (objective.lambda_1 * batch.cls + objective.lambda_2 * batch.adv).backward()
    grads = {k: p.grad for k, p in [*representation.named_parameters(), *head.named_parameters()]}
    return batch, grads, dict(representation.named_buffers()), representation.training


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_shared_products_equal_the_plain_formulation(name, train):
    ours, grads, buffers, mode = gradients(losses, OBJECTIVES[name], train)
    plain, plain_grads, plain_buffers, _ = gradients(plain_losses, OBJECTIVES[name], train)
    assert mode is train
    for attribute in ("cls", "adv", "correct"):
        torch.testing.assert_close(getattr(ours, attribute), getattr(plain, attribute))
    assert ours.rows == plain.rows == (7 * 12 if name == "DataAug" else 12)
    assert (ours.adv > 0.1) == (name == "LASSI")
    for key, grad in grads.items():
        torch.testing.assert_close(grad, plain_grads[key], rtol=1e-8, atol=1e-10)
    for key, value in buffers.items():  # running statistics: one update a train-mode forward pass
        torch.testing.assert_close(value, plain_buffers[key])
    updates = 0 if not train else 1 if name == "Naive" else 2
    assert buffers["norms.0.num_batches_tracked"] == 1 + updates


def test_gradient_of_the_first_layer_is_right_by_finite_differences():
    representation, head, z, y, similarity, t = problem()
    weight = representation.linears[0].weight
    objective = OBJECTIVES["LASSI"]

    def loss():
        return losses(copy.deepcopy(representation), head, z, y, objective, similarity.vectors, t).adv.item()

    probe = copy.deepcopy(representation)  # the forward passes move its running statistics
    losses(probe, head, z, y, objective, similarity.vectors, t).adv.backward()
    grad = probe.linears[0].weight.grad
    for index in ((0, 0), (3, 5), (7, 8)):
        values = []
        for step in (1e-6, -2e-6):
            with torch.no_grad():
                weight[index] += step
            values.append(loss())
        with torch.no_grad():
            weight[index] += 1e-6
        # Both branches' gradients and the line's direction: central difference, truncation below 1e-6.
        assert grad[index].item() == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4, abs=1e-6)


def test_farthest_candidate_is_really_farthest_in_eval_mode():
    representation, _, z, _, similarity, t = problem(s=40)
    representation.train()
    with torch.no_grad():
        chosen = farthest(
            representation, representation.first(z), representation.direction(similarity.vectors), t
        )
        assert representation.training
        representation.eval()
        reference = representation(z)

        def distance(draw):
            return (representation(z + draw @ similarity.vectors) - reference).norm(dim=1)

        everyone = torch.stack([distance(draw) for draw in t])
        torch.testing.assert_close(distance(chosen), everyone.amax(0))
        assert (everyone.amax(0) > 1.2 * everyone.mean(0)).all()
    assert all((t == row).all(-1).any() for row in chosen)


def test_ranking_updates_no_running_statistics():
    representation, _, z, _, similarity, t = problem()
    representation.train()
    before = copy.deepcopy(dict(representation.named_buffers()))
    with torch.no_grad():
        h, direction = representation.first(z), representation.direction(similarity.vectors)
    farthest(representation, h, direction, t)
    for key, value in representation.named_buffers():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


def test_augmented_cross_entropy_is_the_mean_over_the_explicit_concatenation():
    representation, head, z, y, similarity, t = problem()
    representation.train()
    with torch.no_grad():
        ours = losses(copy.deepcopy(representation), head, z, y, OBJECTIVES["DataAug"], similarity.vectors, t)
        points = torch.cat([similarity.points(z[i], t[:, i]) for i in range(len(z))])
        r = torch.cat([representation(z), representation(points)])
        labels = torch.cat([y, y.repeat_interleave(len(t))])
        expected = nn.functional.cross_entropy(head(r), labels, reduction="none").sum() / (7 * 12)
    torch.testing.assert_close(ours.cls, expected)
    assert ours.correct == (head(r).argmax(1) == labels).sum()


def plain_transfer(representation, head, z, y, objective, vectors, t, decoder):
    """Write the three losses out on materialised points z + t A, one module call a pass."""
    train = representation.training

    def farthest_points():
        representation.eval()
        with torch.no_grad():
            moved = torch.stack([(representation(z + draw @ vectors) - representation(z)) for draw in t])
        representation.train(train)
        best = moved.pow(2).sum(-1).argmax(0)
        return z + t[best, torch.arange(len(z))] @ vectors

    if objective.batch_norm == "joint":
        both = representation(torch.cat([z, farthest_points()]))
        r, r_adv = both[: len(z)], both[len(z) :]
        clean = r
    else:
        r = representation(z)
        points = farthest_points()
        representation.train(train and objective.batch_norm == "separate")
        clean = r if objective.batch_norm == "separate" else representation(z)
        r_adv = representation(points)
        representation.train(train)
    adv = (clean - r_adv).pow(2).sum(1).sqrt().mean()
    rec = (decoder(r) - z).pow(2).sum(1).sqrt().mean()
    logits = head(r)
    cls = nn.functional.cross_entropy(logits, y)
    return Losses(cls, adv, (logits.argmax(1) == y).sum(), len(y), rec)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("batch_norm", BATCH_NORM)
def test_transfer_equals_the_plain_formulation_for_every_kind_of_statistics(batch_norm, train):
    objective = Objective("Transfer", 0.01, 0.3, 0.2, batch_norm=batch_norm)
    results = []
    for loss_function in (losses, plain_transfer):
        representation, head, z, y, similarity, t = problem()
        with initialisation(8, "test/decoder"):
            decoder = mlp((5, 7, 8, 9)).double()
        modules = nn.ModuleList([representation, head, decoder]).train(train)
        batch = loss_function(representation, head, z, y, objective, similarity.vectors, t, decoder)
        objective.total(batch.cls, batch.adv, batch.rec).backward()
        grads = {k: p.grad for k, p in modules.named_parameters()}
        results.append((batch, grads, dict(modules.named_buffers()), representation.training))
    (ours, grads, buffers, mode), (plain, plain_grads, plain_buffers, _) = results
    assert mode is train
    for attribute in ("cls", "adv", "rec", "correct"):
        torch.testing.assert_close(getattr(ours, attribute), getattr(plain, attribute))
    assert ours.adv > 0.1 and ours.rec > 0.1
    for key, grad in grads.items():
        torch.testing.assert_close(grad, plain_grads[key], rtol=1e-8, atol=1e-10)
    for key, value in buffers.items():
        torch.testing.assert_close(value, plain_buffers[key])
    passes = {"separate": 2, "joint": 1, "frozen": 1}[batch_norm] if train else 0
    assert buffers["0.norms.0.num_batches_tracked"] == 1 + passes


def test_without_labels_only_the_classification_loss_is_missing():
    objective = Objective("Transfer", 0.0, 0.3, 0.2)
    results = []
    for labelled in (True, False):
        representation, head, z, y, similarity, t = problem()
        with initialisation(8, "test/decoder"):
            decoder = mlp((5, 9)).double()
        y = y if labelled else None
        batch = losses(representation, head, z, y, objective, similarity.vectors, t, decoder)
        objective.total(batch.cls, batch.adv, batch.rec).backward()
        results.append((batch, [p.grad for p in representation.parameters()]))
    (with_labels, grads), (without, again) = results
    assert with_labels.cls > 0 and without.cls == 0 and without.rows == 12
    assert torch.equal(with_labels.adv, without.adv) and torch.equal(with_labels.rec, without.rec)
    assert all(torch.equal(a, b) for a, b in zip(grads, again, strict=True))


def shifted(batch_norm, train):
    """Return L_adv of one layer where t a shifts every row alike."""
    representation, head, z, y, similarity, _ = problem(n=1)
    t = torch.full((1, len(z), 1), 1.5, dtype=torch.float64)
    linear = Representation(9, (), 5).double()
    linear.load_state_dict(
        {
            "linears.0.weight": representation.linears[0].weight.detach()[:5],
            "linears.0.bias": representation.linears[0].bias.detach()[:5],
            "norms.0.running_mean": torch.zeros(5),
            "norms.0.running_var": torch.ones(5),
            "norms.0.num_batches_tracked": torch.tensor(0),
        }
    )
    objective = dataclasses.replace(OBJECTIVES["LASSI"], batch_norm=batch_norm)
    with torch.no_grad():
        return losses(linear.train(train), head, z, y, objective, similarity.vectors, t).adv.item()


def test_a_common_shift_is_invisible_to_separate_statistics_in_train_mode_alone():
    assert shifted("separate", train=True) < 1e-6
    assert shifted("joint", train=True) > 0.1
    assert shifted("frozen", train=True) > 0.1
    in_eval_mode = [shifted(kind, train=False) for kind in BATCH_NORM]
    assert in_eval_mode[0] > 0.1 and in_eval_mode == pytest.approx([in_eval_mode[0]] * 3)


def stream():
    return torch.Generator().manual_seed(3)


def test_candidates_from_the_ball_are_the_similarity_sets_own():
    similarity = SimilaritySet(torch.eye(3), epsilon=2.0)
    expected = similarity.sample((4, 500), stream())
    assert torch.equal(candidates(similarity, OBJECTIVES["LASSI"], (4, 500), stream()), expected)
    wider = dataclasses.replace(OBJECTIVES["LASSI"], radius_scale=1.5)
    assert torch.equal(candidates(similarity, wider, (4, 500), stream()), 1.5 * expected)


@pytest.mark.parametrize(("n", "outside"), [(1, 0.124), (2, 0.306), (3, 0.500)])
def test_gaussian_candidates_leave_the_ball_as_often_as_certification_does(n, outside):
    # The share of N(0, 0.65^2 I_n) beyond radius 1; 40,000 draws have a standard error below 0.0025.
    objective = Objective("LASSI", lambda_2=0.1, sampling="gaussian", sigma_cs=0.65)
    t = candidates(SimilaritySet(torch.eye(n), epsilon=1.0), objective, (8, 5000), stream())
    assert t.shape == (8, 5000, n)
    assert (t.norm(dim=-1) > 1).float().mean().item() == pytest.approx(outside, abs=0.01)


def test_box_candidates_of_many_vectors_are_far_outside_the_ball():
    objective = Objective("LASSI", lambda_2=0.1, sampling="box")
    t = candidates(SimilaritySet(torch.eye(49), epsilon=0.5), objective, (4, 500), stream())
    assert t.abs().max() <= 0.5 and t.min() < -0.49 and t.max() > 0.49
    assert (t**2).mean().item() == pytest.approx(0.25 / 3, rel=0.02)
    assert t.norm(dim=-1).mean().item() == pytest.approx(0.5 * 4.04, rel=0.02)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"lambda_2": -0.1}, "lambda"),
        ({"lambda_3": float("nan")}, "lambda"),
        ({"lambda_1": 0.0}, "nothing is left"),
        ({"lambda_1": 0.0, "lambda_2": 0.1, "augment": True}, "augment"),
        ({"batch_norm": "seperate"}, "did you mean 'separate'"),
        ({"sampling": "sphere"}, "sampling 'sphere' is unknown"),
        ({"radius_scale": 0.0}, "radius_scale"),
        ({"sampling": "gaussian"}, "sigma_cs"),
    ],
)
def test_impossible_objectives_are_the_users_mistake(bad, message):
    with pytest.raises(StudyError, match=message) as error:
        Objective("Other", **bad)
    assert "\n" not in str(error.value)
