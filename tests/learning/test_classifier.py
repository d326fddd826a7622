"""The classifier C: noise level, streams, fit on frozen representations."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from lassi_lib.errors import StudyError
from lassi_lib.learning.classifier import ClassifierTraining, fit_classifier, train_classifier
from lassi_lib.learning.representation import Representation, embed, initialisation

TRAINING = ClassifierTraining(threads=1)


def clusters(n=4000, k=16):
    """Return representations of two classes: separable by coordinate 0, and less widely by the others."""
    rng = np.random.default_rng(2)
    y = rng.integers(0, 2, n)
    r = rng.standard_normal((n, k)).astype(np.float32)
    r[:, 0] += 4 * (2 * y - 1)
    return torch.from_numpy(r), y


def test_a_separable_problem_is_learnt_at_small_noise():
    r, y = clusters()
    training = dataclasses.replace(TRAINING, epochs=5)
    classifier = fit_classifier(r, y, 2, 0.1, training, seed=0)
    assert (classifier(r).argmax(1).numpy() == y).mean() > 0.97
    assert not classifier.training and not classifier.weight.requires_grad


def test_the_noise_level_matters_as_a_ridge_does():
    r, y = clusters()
    training = dataclasses.replace(TRAINING, epochs=20, learning_rate=1e-2)
    norm = [
        (c.weight[1] - c.weight[0]).norm().item()
        for c in (fit_classifier(r, y, 2, sigma, training, seed=0) for sigma in (0.1, 4.0))
    ]
    assert norm[0] > 2 * norm[1]


def test_streams():
    r, y = clusters(600)
    state = torch.get_rng_state()
    first, again, other = (fit_classifier(r, y, 3, 1.0, TRAINING, seed=s) for s in (0, 0, 1))
    assert torch.equal(first.weight, again.weight) and not torch.equal(first.weight, other.weight)
    assert first.weight.shape == (3, 16)
    assert torch.equal(state, torch.get_rng_state())


def test_training_on_latents_equals_training_on_their_representations():
    with initialisation(0, "test/init"):
        representation = Representation(10, (8,), 6)
    z = torch.randn(300, 10, generator=torch.Generator().manual_seed(0))
    y = (z[:, 0] > 0).long()
    before = {k: v.clone() for k, v in representation.state().items()}
    expected = fit_classifier(embed(representation, z), y, 2, 0.5, TRAINING, seed=3)
    classifier = train_classifier(representation, z, y, 2, 0.5, TRAINING, seed=3)
    assert torch.equal(classifier.weight, expected.weight)
    called = train_classifier(lambda z: representation.eval()(z), z, y, 2, 0.5, TRAINING, seed=3)
    assert torch.equal(called.weight, expected.weight)
    assert all(torch.equal(before[k], v) for k, v in representation.state().items())


def test_nan_and_mismatch_are_refused():
    r, y = clusters(200)
    with pytest.raises(ValueError, match="labels"):
        fit_classifier(r, y[:-1], 2, 1.0, TRAINING, seed=0)
    with pytest.raises(StudyError, match="NaN"):
        fit_classifier(r * float("nan"), y, 2, 1.0, TRAINING, seed=0)
