"""Where a GPU's memory runs out, batches shrink and results stay; simulated, so no GPU is needed."""

import numpy as np
import pandas as pd
import pytest
import torch

from lassi_lib.certification import batched
from lassi_lib.errors import StudyError
from lassi_lib.flow.glow import Glow, GlowConfig, bits_per_dim
from lassi_lib.learning.base import BaseClassifier
from lassi_lib.learning.representation import Representation, embed
from lassi_lib.numerics import shrinking
from tests.certification.test_batched import problem

FULL = "CUDA out of memory. Tried to allocate 2.00 GiB."


def runs_out(function, most, sizes):
    """Return the function with a memory for `most` rows; `sizes` notes what was asked for."""

    def limited(x, *rest):
        sizes.append(len(x))
        if len(x) > most:
            raise torch.OutOfMemoryError(FULL)
        return function(x, *rest)

    return limited


def test_sizes_are_halved_until_the_memory_suffices():
    tried = []

    def attempt(size):
        tried.append(size)
        if size > 3:
            raise torch.OutOfMemoryError(FULL)
        return size

    assert shrinking(attempt, 100) == 3
    assert tried == [100, 50, 25, 12, 6, 3]


def test_a_memory_too_small_for_anything_is_one_clear_line():
    def attempt(_):
        raise torch.OutOfMemoryError(FULL)

    with pytest.raises(StudyError, match=r"too small .*--device cpu") as error:
        shrinking(attempt, 100, least=30)
    assert "\n" not in str(error.value)


def test_other_errors_are_raised_at_once():
    calls = []

    def attempt(size):
        calls.append(size)
        raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(RuntimeError, match="assert"):
        shrinking(attempt, 100)
    assert calls == [100]


@pytest.fixture
def glow():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Glow(GlowConfig(image_size=8, n_steps=2, n_blocks=2, width=4)).eval()


def test_encoding_and_decoding(glow, monkeypatch):
    x = torch.rand(20, 3, 8, 8) - 0.5
    z, sizes = glow.encode(x), []
    monkeypatch.setattr(glow, "_encode_batch", runs_out(glow._encode_batch, 6, sizes))
    monkeypatch.setattr(glow, "_decode_batch", runs_out(glow._decode_batch, 6, sizes))
    torch.testing.assert_close(glow.encode(x, batch_size=16), z)
    torch.testing.assert_close(glow.decode(z, batch_size=16), x, atol=1e-5, rtol=0)
    assert sizes == 2 * [16, 8, 4, 4, 4, 4, 4]


def test_bits_per_dim_draws_its_noise_once(glow, monkeypatch):
    images = (255 * torch.rand(20, 3, 8, 8)).byte()
    expected, sizes = bits_per_dim(glow, images, torch.Generator().manual_seed(1), batch_size=10), []
    monkeypatch.setattr(glow, "log_prob", runs_out(glow.log_prob, 6, sizes))
    found = bits_per_dim(glow, images, torch.Generator().manual_seed(1), batch_size=10)
    assert found == pytest.approx(expected, rel=1e-6)
    assert sizes == 2 * [10, 5, 5]


def test_embedding(monkeypatch):
    z, sizes = torch.randn(20, 7), []
    representation = Representation(7, (6, 5), 4).eval()
    expected = embed(representation, z)
    monkeypatch.setattr(representation, "rest", runs_out(representation.rest, 6, sizes))
    torch.testing.assert_close(embed(representation, z, batch_size=16), expected)
    assert sizes == [16, 8, 4, 4, 4, 4, 4]


def test_prediction(monkeypatch):
    z, sizes = torch.randn(20, 7), []
    classifier = BaseClassifier("latent", 2, d=7, hidden=(5,)).eval()
    expected = classifier.predict(z)
    monkeypatch.setattr(classifier, "forward", runs_out(classifier.forward, 6, sizes))
    assert np.array_equal(classifier.predict(z, batch_size=16), expected)
    assert sizes == [16, 8, 4, 4, 4, 4, 4]


@pytest.mark.parametrize(
    ("mode", "n", "place"),
    [
        ("monte_carlo", 1, "_smooth_line"),
        ("monte_carlo", 2, "_smooth_surface"),
        ("exact_decision", 1, "trace_lines"),
    ],
)
def test_certification(monkeypatch, mode, n, place):
    given, u0 = problem(n)
    u0, numbers, sizes = u0[:20], list(range(20)), []
    expected = batched.certify_batch(given, u0, numbers, mode)
    function = getattr(batched, place)

    def limited(layers, points, *rest):
        sizes.append(len(points))
        if len(points) > 6:
            raise torch.OutOfMemoryError(FULL)
        return function(layers, points, *rest)

    monkeypatch.setattr(batched, place, limited)
    rows = batched.certify_batch(given, u0, numbers, mode)
    assert sizes[0] == 20 and max(sizes[-4:]) <= 6
    pd.testing.assert_frame_equal(pd.DataFrame(rows), pd.DataFrame(expected), rtol=1e-9)
