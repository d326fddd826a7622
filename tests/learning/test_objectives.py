"""The losses: shared products against the plain formulation, BatchNorm modes, the farthest candidate."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from benchmarks.training_step import plain_losses
from lassi_lib.errors import StudyError
from lassi_lib.learning.objectives import Objective, farthest, losses
from lassi_lib.learning.representation import Representation, initialisation
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


def test_a_common_shift_is_invisible_in_train_mode_but_not_in_eval_mode():
    representation, head, z, y, similarity, _ = problem(n=1)
    t = torch.full((1, len(z), 1), 1.5, dtype=torch.float64)
    adv = {}
    for train in (True, False):
        representation.train(train)
        with torch.no_grad():
            linear = Representation(9, (), 5).double()  # one layer: t a shifts every row alike
            linear.load_state_dict(
                {
                    "linears.0.weight": representation.linears[0].weight[:5],
                    "linears.0.bias": representation.linears[0].bias[:5],
                    "norms.0.running_mean": torch.zeros(5),
                    "norms.0.running_var": torch.ones(5),
                    "norms.0.num_batches_tracked": torch.tensor(0),
                }
            )
            batch = losses(linear.train(train), head, z, y, OBJECTIVES["LASSI"], similarity.vectors, t)
        adv[train] = batch.adv.item()
    assert adv[True] < 1e-6 and adv[False] > 0.1


@pytest.mark.parametrize("bad", [{"lambda_3": 0.1}, {"lambda_2": -0.1}])
def test_impossible_weights_are_the_users_mistake(bad):
    with pytest.raises(StudyError, match="lambda"):
        Objective("Other", **bad)
