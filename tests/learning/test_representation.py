"""R: architecture, folding, saving, initialisation."""

from __future__ import annotations

import torch
from torch import nn

from lassi_lib.learning.representation import Representation, embed, initialisation


def trained_like(d=7, hidden=(6, 5), output=4, n=200):
    """Return a small R whose statistics and affine parameters are all away from their start values."""
    generator = torch.Generator().manual_seed(3)
    with initialisation(1, "test/init"):
        representation = Representation(d, hidden, output)
    with torch.no_grad():
        for norm in representation.norms:
            if norm.affine:
                norm.weight.uniform_(0.5, 2.0, generator=generator)
                norm.bias.normal_(generator=generator)
        for _ in range(20):
            representation(torch.randn(n, d, generator=generator) * 2 + 1)
    return representation.eval(), torch.randn(50, d, generator=generator)


def test_parameter_count_is_the_papers():
    with torch.device("meta"):
        representation = Representation(12_288)
    assert sum(p.numel() for p in representation.parameters()) == 27_796_992


def test_forward_is_the_stated_stack():
    representation, z = trained_like()
    first, second, last = representation.linears
    a, b, out = representation.norms
    stack = nn.Sequential(first, a, nn.ReLU(), second, b, nn.ReLU(), last, out)
    torch.testing.assert_close(representation(z), stack(z), rtol=0, atol=0)
    assert out.weight is None and out.bias is None


def test_first_layer_products_add_up_on_the_line():
    representation, z = trained_like()
    representation.double()
    z, vectors = (
        z.double(),
        torch.randn(2, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(5)),
    )
    t = torch.linspace(-1, 1, 100, dtype=torch.float64).reshape(50, 2)
    h, direction = representation.first_and_direction(z, vectors)
    torch.testing.assert_close(h, representation.first(z))
    torch.testing.assert_close(direction, representation.direction(vectors))
    torch.testing.assert_close(h + t @ direction, representation.first(z + t @ vectors))


def test_folded_layers_equal_the_eval_forward():
    for hidden in ((6, 5), (6,), ()):
        representation, z = trained_like(hidden=hidden)
        layers = representation.folded_layers()
        assert len(layers) == len(hidden) + 1
        assert all(w.dtype == b.dtype == torch.float64 for w, b in layers)
        h = z.double()
        for k, (weight, bias) in enumerate(layers):
            h = (h.relu() if k else h) @ weight.T + bias
        torch.testing.assert_close(h, representation.double()(z.double()), rtol=1e-10, atol=1e-10)


def test_state_round_trip_keeps_widths_mode_and_outputs():
    representation, z = trained_like()
    state = representation.state()
    assert all(type(v) is torch.Tensor and not v.requires_grad for v in state.values())
    again = Representation.from_state(state)
    assert not again.training and not any(p.requires_grad for p in again.parameters())
    torch.testing.assert_close(again(z), representation(z), rtol=0, atol=0)


def test_initialisation_is_a_stream_and_leaves_the_global_generator_alone():
    def weights(seed):
        with initialisation(seed, "test/init"):
            return Representation(5, (4,), 3).linears[0].weight

    torch.rand(3)
    before = torch.get_rng_state()
    first, again, other = weights(0), weights(0), weights(1)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())
    assert first.abs().max() <= 5**-0.5  # PyTorch's default: uniform within 1/sqrt(fan_in)


def test_embed_equals_the_eval_forward_in_any_batches_and_restores_the_mode():
    representation, z = trained_like()
    expected = representation(z)
    representation.train()
    for batch_size in (7, 49, 1000):
        torch.testing.assert_close(embed(representation, z, batch_size), expected, rtol=1e-6, atol=1e-6)
    assert representation.training
