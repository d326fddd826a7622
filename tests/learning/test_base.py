"""Base classifiers: the architecture, training, images of any size, saving."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lassi_lib.data.preprocess import quantise
from lassi_lib.errors import StudyError
from lassi_lib.learning import base as module
from lassi_lib.learning.base import BaseClassifier, BaseTraining, train_base_classifier
from lassi_lib.learning.representation import initialisation
from lassi_lib.learning.resnet import ResNet18

TRAINING = BaseTraining(epochs=2, batch_size=50, hidden=(24, 16, 8), threads=1)


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n=160, size=32, seed=0):
    """Return noisy uint8 images [n, 3, size, size] whose class is the position of a bright patch."""
    generator = stream(seed)
    y = torch.randint(0, 3, (n,), generator=generator)
    x = torch.randint(0, 100, (n, 3, size, size), generator=generator, dtype=torch.uint8)
    for k in range(3):
        x[y == k, :, 10 * k : 10 * k + 8] += 120
    return x, y.numpy()


def latents(n=900, seed=0):
    """Return latents [n, 12] of two classes that no linear classifier can tell apart."""
    z = torch.randn(n, 12, generator=stream(seed))
    return z, (z[:, 0] * z[:, 1] > 0).long().numpy()


def fit(kind="latent", training=TRAINING, seed=0, n=900, **changes):
    (x, y), k = (images(), 3) if kind == "resnet18" else (latents(n), 2)
    cut = len(x) * 3 // 4
    training = dataclasses.replace(training, **changes)
    return train_base_classifier(kind, x[:cut], y[:cut], x[cut:], y[cut:], k, training, seed=seed)


def equal(a, b):
    return all(torch.equal(x, b.state()[key]) for key, x in a.state().items())


# What torchvision 0.28's resnet18 without its fully connected layer returns for the weights and
# images below, in float64: the norm of the features, and two of them.
TORCHVISION = {
    32: (97.77919866438765, 0.0, 0.6817487046538175),
    33: (121.3166452105888, 0.45184390946572145, 4.299526192321215),
    48: (161.42985028512854, 0.20569008829958882, 3.4507430790220908),
    64: (201.84429888681694, 0.9481563389718265, 3.5893942393443425),
    128: (338.6435676909831, 2.1451554787889027, 4.4942247341110155),
}


def known_weights(network):
    """Fill a ResNet from one generator, in the order of its state dict."""
    generator, state = stream(5), {}
    for name, value in network.state_dict().items():
        if value.dtype == torch.int64:
            state[name] = value
            continue
        x = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        if value.ndim == 4:
            x = (2 / value[0].numel()) ** 0.5 * x
        else:
            x = x.abs() * 0.3 + 0.7 if name.endswith(("running_var", "weight")) else 0.1 * x
        state[name] = x.float()
    network.load_state_dict(state)
    return network.double().eval()


@torch.no_grad()
def test_resnet_equals_torchvisions():
    network = known_weights(ResNet18())
    for size, (norm, first, last) in TORCHVISION.items():
        x = torch.rand(3, 3, size, size, generator=stream(size), dtype=torch.float64) - 0.5
        features = network(x)
        assert features.shape == (3, 512)
        found = [features.norm().item(), features[0, 0].item(), features[2, 511].item()]
        assert found == pytest.approx([norm, first, last], rel=1e-9, abs=1e-12)


def test_resnet_has_torchvisions_names_size_and_start():
    with initialisation(0, "test/init"):
        network = ResNet18()
    state = network.state_dict()
    assert sum(p.numel() for p in network.parameters()) == 11_176_512 and len(state) == 120
    assert {"layer2.0.downsample.0.weight", "layer4.1.bn2.running_var", "bn1.bias"} <= set(state)
    assert "layer1.0.downsample.0.weight" not in state
    for weight in (network.conv1.weight, network.layer4[1].conv2.weight):  # He et al. 2015, fan_out
        expected = (2 / (weight.shape[0] * weight[0, 0].numel())) ** 0.5
        assert weight.std().item() == pytest.approx(expected, rel=0.03)


def test_latent_classifier_has_the_papers_widths():
    with torch.device("meta"):
        classifier = BaseClassifier("latent", 2, d=12_288)
    linears = [m for m in classifier.modules() if isinstance(m, torch.nn.Linear)]
    assert [m.in_features for m in linears] == [12_288, 2048, 1024, 512] and linears[-1].out_features == 2
    kinds = [type(m).__name__ for m in classifier.network]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU"] * 3 + ["Linear"]


def test_resnet_learns_positions_and_takes_bytes_or_floats():
    # many small steps: in eval mode a deep network needs dozens before its running statistics fit
    classifier, history = fit("resnet18", epochs=3, batch_size=10)
    x, y = images(seed=9)
    predicted = classifier.predict(x)
    assert (predicted == y).mean() > 0.9 and predicted.dtype == np.int64
    assert max(row["valid_accuracy"] for row in history) > 0.9
    assert np.array_equal(predicted, classifier.predict(quantise(x)))
    torch.testing.assert_close(classifier(x[:5]), classifier(quantise(x[:5])), rtol=0, atol=0)
    assert not torch.allclose(classifier(x[:5]), classifier(x[:5].float() / 256 - 0.5), atol=1e-4)


def test_the_latent_classifier_learns_what_is_not_linear():
    classifier, history = fit(n=3000, epochs=15, learning_rate=1e-2)
    z, y = latents(seed=5)
    assert (classifier.predict(z) == y).mean() > 0.9  # a linear one: half
    assert history[-1]["loss"] < history[0]["loss"] and history[-1]["accuracy"] > 0.85


@pytest.mark.parametrize("kind", ["resnet18", "latent"])
def test_same_seed_same_weights_other_seed_other_weights(kind):
    state = torch.get_rng_state()
    once = {"epochs": 1, "batch_size": 120}
    first, history = fit(kind, **once)
    again, _ = fit(kind, **once)
    other, _ = fit(kind, **once, seed=1)
    assert equal(first, again) and not equal(first, other)
    assert torch.equal(state, torch.get_rng_state())
    assert not first.training and not any(p.requires_grad for p in first.parameters())
    assert set(history[0]) == {"epoch", "loss", "accuracy", "valid_accuracy", "seconds", "selected"}


def test_the_first_of_the_best_epochs_is_returned(monkeypatch):
    z, y = latents()
    hits = iter([400, 500, 500, 300])
    share = []

    def predict(self, x, batch_size=256):
        n = next(hits)
        share.append(n / 600)
        return np.where(np.arange(600) < n, y[300:], 1 - y[300:])

    monkeypatch.setattr(BaseClassifier, "predict", predict)
    train = (z[:300], y[:300], z[300:], y[300:], 2)
    four = dataclasses.replace(TRAINING, epochs=4)
    chosen, history = train_base_classifier("latent", *train, four, seed=0)
    assert [row["selected"] for row in history] == [False, True, False, False]
    assert [row["valid_accuracy"] for row in history] == share
    hits = iter([1, 2])
    two, _ = train_base_classifier("latent", *train, dataclasses.replace(four, epochs=2), seed=0)
    assert equal(chosen, two)  # epoch 2's weights, though training went on to epoch 4


@pytest.mark.parametrize("kind", ["resnet18", "latent"])
def test_saved_and_restored_it_says_the_same(kind, tmp_path):
    classifier, _ = fit(kind, epochs=1, batch_size=120, bits=4)
    save_file(classifier.state(), tmp_path / "base.safetensors")
    again = BaseClassifier.from_state(load_file(tmp_path / "base.safetensors"))
    x = images(seed=3)[0] if kind == "resnet18" else latents(seed=3)[0]
    with torch.no_grad():
        torch.testing.assert_close(classifier(x), again(x), rtol=1e-6, atol=1e-6)
    assert np.array_equal(classifier.predict(x), again.predict(x))
    assert again.kind == kind and again.n_classes == classifier.n_classes and again.bits == 4
    assert not again.training and not any(p.requires_grad for p in again.parameters())


def test_predictions_do_not_depend_on_the_batches_and_restore_the_mode():
    classifier, _ = fit(epochs=1)
    classifier.train()
    z, _ = latents(seed=4)
    assert np.array_equal(classifier.predict(z), classifier.predict(z, batch_size=7))
    assert classifier.training and len(classifier.predict(z[:0])) == 0


@pytest.mark.parametrize("size", [32, 48, 64, 128])
def test_images_of_every_profile_can_be_trained_on(size):
    x, y = images(n=5, size=size)
    training = dataclasses.replace(TRAINING, epochs=1, batch_size=2)  # the last batch has one row
    classifier, history = train_base_classifier("resnet18", x, y, x, y, 3, training, seed=0)
    assert classifier.predict(x).shape == (5,) and np.isfinite(history[0]["loss"])


def test_mistakes_are_named():
    z, y = latents()
    fine = (z[:100], y[:100], z[100:], y[100:])
    with pytest.raises(StudyError, match="did you mean 'resnet18'"):
        train_base_classifier("resnet-18", *fine, 2, TRAINING, seed=0)
    with pytest.raises(StudyError, match="raise what is too small"):
        train_base_classifier("latent", z[:1], y[:1], z, y, 2, TRAINING, seed=0)
    with pytest.raises(ValueError, match="class 1 of 1"):
        train_base_classifier("latent", *fine, 1, TRAINING, seed=0)
    with pytest.raises(ValueError, match="32 pixels"):
        BaseClassifier("resnet18", 2)(torch.zeros(2, 3, 16, 16))
    z = z.clone()
    z[3] = float("nan")
    with pytest.raises(StudyError, match=r"epoch 1: the loss is nan.*learning_rate"):
        train_base_classifier("latent", z[:100], y[:100], z[100:], y[100:], 2, TRAINING, seed=0)


def test_training_fixes_the_number_of_threads_and_gives_it_back(monkeypatch):
    seen = set()
    original = module.BaseClassifier.forward

    def spy(self, x):
        seen.add(torch.get_num_threads())
        return original(self, x)

    monkeypatch.setattr(module.BaseClassifier, "forward", spy)
    before = torch.get_num_threads()
    fit(epochs=1, batch_size=400, threads=2)
    assert seen == {2} and torch.get_num_threads() == before
