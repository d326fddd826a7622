"""Training: selection, streams, odd batches, and what LASSI does to a toy problem."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from lassi_lib.errors import StudyError
from lassi_lib.learning import train as module
from lassi_lib.learning.objectives import Objective
from lassi_lib.learning.train import EncoderTraining, keep_best, selection_score, train_representation
from lassi_lib.similarity.sets import SimilaritySet

NAIVE = Objective("Naive")
AUGMENT = Objective("DataAug", augment=True)
LASSI = Objective("LASSI", lambda_2=0.1)
SMALL = EncoderTraining(epochs=5, batch_size=100, n_candidates=5, hidden=(32, 16), output=8, threads=1)


def toy(n=1500, n_valid=400, seed=0):
    """Return train and valid data whose label shows in coordinate 0 and leans on the attribute's too."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n + n_valid, 12)).astype(np.float32)
    y = (2.0 * z[:, 0] + 0.7 * z[:, 1] + 0.3 * rng.standard_normal(len(z)) > 0).astype(np.int64)
    z = torch.from_numpy(z)
    vectors = torch.zeros(1, 12)
    vectors[0, 1] = 1.5
    return (z[:n], y[:n], z[n:], y[n:]), SimilaritySet(vectors, epsilon=1.0, names=("toy",))


def fit(objective, training=SMALL, seed=0, **changes):
    data, similarity = toy()
    return train_representation(
        *data, similarity, objective, dataclasses.replace(training, **changes), seed=seed
    )


def equal(a, b):
    return all(torch.equal(x, b.state()[key]) for key, x in a.state().items())


def test_lassi_shrinks_the_spread_along_the_attribute_and_keeps_the_accuracy():
    (_, _, z, _), similarity = toy()
    ends = similarity.endpoints() @ similarity.vectors
    spread, accuracy, scale = {}, {}, {}
    for objective in (NAIVE, dataclasses.replace(LASSI, lambda_2=0.5)):
        representation, history = fit(objective, epochs=10)
        with torch.no_grad():
            r = [representation(z + end) for end in ends]
            spread[objective.name] = (r[0] - r[1]).norm(dim=1).mean().item()
            scale[objective.name] = representation(z).std(0).mean().item()
        accuracy[objective.name] = history[-1]["valid_accuracy"]
    assert spread["LASSI"] < spread["Naive"] / 4
    assert accuracy["Naive"] > 0.85 and accuracy["LASSI"] > accuracy["Naive"] - 0.05
    assert scale["LASSI"] > 0.8  # the output BatchNorm forbids shrinking everything


@pytest.mark.parametrize("objective", [NAIVE, AUGMENT, LASSI], ids=lambda o: o.name)
def test_same_seed_same_weights_other_seed_other_weights(objective):
    state = torch.get_rng_state()
    first, history = fit(objective, epochs=2)
    again, _ = fit(objective, epochs=2)
    other, _ = fit(objective, epochs=2, seed=1)
    assert equal(first, again) and not equal(first, other)
    assert torch.equal(state, torch.get_rng_state())
    assert not first.training and not any(p.requires_grad for p in first.parameters())
    assert len(history) == 2 and sum(row["selected"] for row in history) == 1
    assert all(np.isfinite(list(row.values())).all() for row in history)


def test_naive_does_not_look_at_the_similarity_set():
    data, similarity = toy()
    with_set, _ = train_representation(*data, similarity, NAIVE, SMALL, seed=0)
    without, _ = train_representation(*data, None, NAIVE, SMALL, seed=0)
    assert equal(with_set, without)
    with pytest.raises(ValueError, match="similarity"):
        train_representation(*data, None, LASSI, SMALL, seed=0)


def test_outputs_have_unit_variance_over_the_training_data():
    data, similarity = toy()
    representation, _ = train_representation(*data, similarity, NAIVE, SMALL, seed=0)
    with torch.no_grad():
        r = representation(data[0])
    # Running statistics trail the last steps' weights, hence the tolerance.
    assert r.mean(0).abs().max() < 0.2
    assert (r.var(0) - 1).abs().max() < 0.3


def test_selection_uses_the_loss_for_lassi_and_the_accuracy_otherwise():
    row = {"valid_loss": 0.7, "valid_accuracy": 0.9}
    assert selection_score(LASSI, row) == 0.7
    assert selection_score(NAIVE, row) == selection_score(AUGMENT, row) == -0.9


def test_the_last_epoch_is_kept_where_it_is_asked_for():
    _, history = fit(LASSI, epochs=4, keep="last")
    assert [row["selected"] for row in history] == [False, False, False, True]
    best, chosen = fit(LASSI, epochs=4)
    at = next(i for i, row in enumerate(chosen) if row["selected"])
    earlier, _ = fit(LASSI, epochs=at + 1, keep="last")
    assert equal(best, earlier)  # the best epoch is the last of a training that ends there
    assert selection_score(LASSI, {"epoch": 3, "valid_loss": 0.7}, "last") == -3
    for broken in (float("nan"), float("inf")):  # as for the best epoch, it does not count
        assert selection_score(LASSI, {"epoch": 3, "valid_loss": broken}, "last") == float("inf")


def test_the_first_of_equally_good_epochs_is_returned_with_its_own_weights(monkeypatch):
    scores = iter([3.0, 1.0, 1.0, 2.0])
    monkeypatch.setattr(module, "selection_score", lambda *_: next(scores))
    chosen, history = fit(LASSI, epochs=4)
    assert [row["selected"] for row in history] == [False, True, False, False]
    monkeypatch.setattr(module, "selection_score", lambda *_: -1.0)
    last_of_two, _ = fit(LASSI, epochs=2)
    first_of_two, _ = fit(LASSI, epochs=1)
    assert equal(last_of_two, first_of_two)  # a tie keeps the earlier epoch
    descending = iter([2.0, 1.0])
    monkeypatch.setattr(module, "selection_score", lambda *_: next(descending))
    second, _ = fit(LASSI, epochs=2)
    assert equal(second, chosen)  # epoch 2's weights, though training went on to epoch 4


def test_validation_numbers_are_those_of_the_returned_encoder_for_one_epoch():
    data, _ = toy()
    representation, history = fit(NAIVE, epochs=1)
    assert history[0]["valid_adv"] == 0 and history[0]["valid_loss"] == history[0]["valid_cls"]
    _, augmented = fit(AUGMENT, epochs=1)
    assert round(augmented[0]["valid_accuracy"] * 6 * 400) == pytest.approx(
        augmented[0]["valid_accuracy"] * 6 * 400, abs=1e-6
    )
    _, lassi = fit(LASSI, epochs=1)
    assert lassi[0]["valid_loss"] == pytest.approx(lassi[0]["valid_cls"] + 0.1 * lassi[0]["valid_adv"])
    assert representation(data[2]).shape == (400, 8)


@pytest.mark.parametrize("objective", [NAIVE, AUGMENT, LASSI], ids=lambda o: o.name)
def test_a_last_batch_of_one_row_is_skipped_and_a_last_partial_batch_is_not(objective):
    (z, y, zv, yv), similarity = toy()
    one_epoch = dataclasses.replace(SMALL, epochs=1)
    steps = []
    for n in (201, 202):
        representation, _ = train_representation(
            z[:n], y[:n], zv[:1], yv[:1], similarity, objective, one_epoch, seed=0
        )
        steps.append(int(representation.norms[0].num_batches_tracked))
    passes = 1 if objective is NAIVE else 2
    assert steps == [2 * passes, 3 * passes]


def test_nan_stops_with_a_clear_error():
    (z, y, zv, yv), similarity = toy()
    z = z.clone()
    z[17, 3] = float("nan")
    with pytest.raises(StudyError, match=r"epoch 1: the loss is nan.*learning_rate"):
        train_representation(z, y, zv, yv, similarity, LASSI, SMALL, seed=0)
    with pytest.raises(StudyError, match="validation"):
        train_representation(zv, yv, z, y, similarity, LASSI, SMALL, seed=0)


def test_batches_follow_the_order_and_cover_every_row():
    (z, y, _, _), _ = toy()
    order = torch.randperm(250, generator=torch.Generator().manual_seed(0))
    seen = [(a.clone(), b) for a, b in module.Examples(z[:250], y[:250], "cpu").batches(order, 100)]
    assert [len(b) for _, b in seen] == [100, 100, 50]
    assert torch.equal(torch.cat([a for a, _ in seen]), z[order])
    assert torch.equal(torch.cat([b for _, b in seen]), torch.tensor(y)[order])


def test_too_few_examples_and_mismatched_labels_are_refused():
    (z, y, zv, yv), similarity = toy()
    with pytest.raises(StudyError, match="more images"):
        train_representation(z[:1], y[:1], zv, yv, similarity, NAIVE, SMALL, seed=0)
    with pytest.raises(ValueError, match="labels"):
        train_representation(z, y[:-1], zv, yv, similarity, NAIVE, SMALL, seed=0)


def test_training_fixes_the_number_of_threads_and_gives_it_back(monkeypatch):
    seen = set()
    original = module.losses

    def spy(*args):
        seen.add(torch.get_num_threads())
        return original(*args)

    monkeypatch.setattr(module, "losses", spy)
    before = torch.get_num_threads()
    fit(NAIVE, epochs=1, threads=2)
    assert seen == {2} and torch.get_num_threads() == before


def test_fused_adam_equals_plain_adam():
    results = []
    for fused in (True, False):
        weight = torch.nn.Parameter(torch.linspace(-1, 1, 50))
        optimiser = torch.optim.Adam([weight], lr=1e-3, fused=fused)
        for step in range(20):
            weight.grad = torch.sin(weight.detach() * (step + 3))
            optimiser.step()
        results.append(weight.detach())
    torch.testing.assert_close(*results, rtol=0, atol=1e-6)


def test_the_first_of_the_best_epochs_is_kept_and_the_module_frozen():
    layer, scores = torch.nn.Linear(1, 1, bias=False), [3.0, 1.0, float("nan"), 1.0]

    def run(epoch):
        layer.weight.data.fill_(epoch)
        return {"loss": scores[epoch]}

    history = keep_best(layer, 4, run, lambda row: row["loss"])
    assert layer.weight.item() == 1
    assert not layer.training and not layer.weight.requires_grad
    assert [row["selected"] for row in history] == [False, True, False, False]
    assert list(history[0]) == ["epoch", "loss", "seconds", "selected"]
    assert not any(row["selected"] for row in keep_best(layer, 1, run, lambda row: float("nan")))
