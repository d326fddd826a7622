"""The flow against its definition: order of the latent, inverse, density, names of the weights."""

import math

import pytest
import torch
from torch.nn import functional as F

from lassi_lib.data.preprocess import quantise
from lassi_lib.errors import StudyError
from lassi_lib.flow.glow import Glow, GlowConfig, bits_per_dim, dequantise, nats_to_bits_per_dim
from lassi_lib.streams import torch_stream

from .flows import identity_glow, random_bytes, random_glow, random_images

TINY = {
    "additive": GlowConfig(8, n_steps=2, n_blocks=2, width=8),
    "affine": GlowConfig(8, n_steps=2, n_blocks=2, width=8, affine=True),
    "one block": GlowConfig(6, n_steps=3, n_blocks=1, width=4),
    "three blocks": GlowConfig(24, n_steps=1, n_blocks=3, width=4, affine=True),
}
# K = 32 and width 512; entries, bytes and parameters of the released state dicts
OFFICIAL = {
    "glow_celeba_64": (64, 4, 12_288, 61_214_032, 2316, 251_146_176),
    "glow_fairface": (64, 4, 12_288, 61_214_032, 2316, 251_146_176),
    "glow_celeba_128": (128, 5, 49_152, 100_870_544, 2895, 428_671_200),
    "glow_3dshapes": (64, 3, 12_288, 37_899_696, 1737, 153_157_920),
}


@pytest.mark.parametrize("config", TINY.values(), ids=TINY)
def test_decode_inverts_encode(config):
    glow, x = random_glow(config), random_images(5, config.image_size, seed=1)
    z = glow.encode(x)
    assert z.shape == (5, glow.latent_dim) and z.dtype == torch.float32
    assert glow.latent_dim == sum(math.prod(s) for s in glow.latent_shapes)
    assert (z - x.flatten(1)).abs().max() > 0.1  # the flow does something
    torch.testing.assert_close(glow.decode(z), x, rtol=0, atol=2e-5)


def test_round_trip_at_the_papers_full_depth():
    glow = random_glow(GlowConfig(64, n_steps=32, n_blocks=4, width=512))
    x = random_images(2, 64, seed=1)
    error = (glow.decode(glow.encode(x)) - x).abs().max().item()
    assert error < 1e-3


def test_squeeze_puts_the_pixels_of_a_cell_into_neighbouring_channels():
    glow = identity_glow(GlowConfig(4, n_steps=1, n_blocks=1, width=2))
    ramp = torch.arange(16.0).view(1, 1, 4, 4) + torch.tensor([0.0, 100.0, 200.0]).view(1, 3, 1, 1)
    z = glow.encode(ramp).view(12, 2, 2)
    assert z[:4, 0, 0].tolist() == [0, 1, 4, 5]  # channel 4 c + 2 dy + dx
    assert z[4:8, 0, 0].tolist() == [100, 101, 104, 105]
    assert z[0].tolist() == [[0, 2], [8, 10]]


def test_latent_holds_second_halves_finest_block_first():
    glow = identity_glow(GlowConfig(8, n_steps=1, n_blocks=2, width=2))
    x = random_images(3, 8)
    squeezed = F.pixel_unshuffle(x, 2)
    coarse = F.pixel_unshuffle(squeezed[:, :6], 2)
    expected = torch.cat([squeezed[:, 6:].flatten(1), coarse.flatten(1)], 1)
    assert glow.latent_shapes == ((6, 4, 4), (24, 2, 2))
    torch.testing.assert_close(glow.encode(x), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("affine", [False, True])
def test_a_step_is_actnorm_then_conv_then_coupling(affine):
    config = GlowConfig(8, n_steps=1, n_blocks=1, width=5, affine=affine)
    step = random_glow(config, size=0.3).double().blocks[0].flows[0]
    x = random_images(2, 8).double().reshape(2, 12, 4, 4)
    norm, conv, net = step.actnorm, step.invconv, step.coupling.net
    lower = conv.w_l.tril(-1) + torch.eye(12)
    upper = conv.w_u.triu(1) + torch.diag(conv.s_sign * conv.w_s.exp())
    y = torch.einsum("ij,njhw->nihw", conv.w_p @ lower @ upper, norm.scale * (x + norm.loc))
    a, b = y[:, :6], y[:, 6:]
    h = F.relu(net[2](F.relu(F.conv2d(a, net[0].weight, net[0].bias, padding=1))))
    framed = torch.ones(2, 5, 6, 6, dtype=torch.float64)
    framed[:, :, 1:-1, 1:-1] = h
    out = F.conv2d(framed, net[4].conv.weight, net[4].conv.bias) * torch.exp(3 * net[4].scale)
    b = (b + out[:, 6:]) * torch.sigmoid(out[:, :6] + 2) if affine else b + out
    for grad in (True, False):  # with gradients and with the cached matrix
        with torch.set_grad_enabled(grad):
            torch.testing.assert_close(step(x)[0], torch.cat([a, b], 1), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("affine", [False, True])
def test_log_determinant_is_that_of_the_jacobian(affine):
    glow = random_glow(GlowConfig(4, n_steps=2, n_blocks=2, width=8, affine=affine), size=0.3).double()
    x = random_images(1, 4).double()
    jacobian = torch.autograd.functional.jacobian(lambda v: glow._encode_batch(v.view(1, 3, 4, 4))[0], x)
    log_det, kept = 0.0, x
    for block in glow.blocks:
        kept, _, part = block(kept)
        log_det = log_det + part
    expected = torch.linalg.slogdet(jacobian.reshape(48, 48)).logabsdet
    assert expected.abs() > 1
    torch.testing.assert_close(log_det.reshape(()), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("affine", [False, True])
def test_density_integrates_to_one(affine):
    # for x drawn from p, the mean of q(x) / p(x) is the integral of q, which is 1
    glow = random_glow(GlowConfig(2, n_steps=2, n_blocks=1, width=8, affine=affine), size=0.2)
    x = glow.sample(100_000, torch_stream(0, "density")).double().flatten(1)
    q = torch.distributions.MultivariateNormal(x.mean(0), 0.8 * torch.cov(x.T))
    with torch.no_grad():
        log_p = glow.double().log_prob(x.view(-1, 3, 2, 2))
    ratio = (q.log_prob(x) - log_p).exp()
    standard_error = (ratio.std() / len(x) ** 0.5).item()
    assert standard_error < 0.005
    assert abs(ratio.mean().item() - 1) < 4 * standard_error


def test_bits_per_dim_of_a_known_density():
    glow = identity_glow(GlowConfig(4, n_steps=1, n_blocks=2, width=2))  # p is N(0, I)
    images = random_bytes(20, 4)
    x = dequantise(images, 5, torch_stream(0, "noise")).double()
    expected = 5 + (0.5 * (x**2).mean().item() + 0.5 * math.log(2 * math.pi)) / math.log(2)
    found = bits_per_dim(glow, images, generator=torch_stream(0, "noise"), batch_size=20)
    assert found == pytest.approx(expected, abs=1e-6)
    # a density of 1 on the unit cube codes every image with 5 bits a value
    assert nats_to_bits_per_dim(torch.tensor(0.0), 12).item() == pytest.approx(5)


def test_dequantised_images_stay_in_their_bins():
    images = random_bytes(50, 8)
    offset = dequantise(images, 5, torch_stream(0, "noise")) - quantise(images)
    assert offset.min() >= 0 and offset.max() <= 1 / 32
    assert offset.mean().item() == pytest.approx(1 / 64, abs=2e-4)


@pytest.mark.parametrize("n_blocks", [1, 3])
def test_latents_do_not_depend_on_batch_size(n_blocks):
    glow = random_glow(GlowConfig(8, n_steps=3, n_blocks=n_blocks, width=8))
    x = random_images(7, 8)
    z = glow.encode(x)
    for size in (1, 3):
        torch.testing.assert_close(glow.encode(x, batch_size=size), z, rtol=0, atol=1e-5)
        torch.testing.assert_close(glow.decode(z, batch_size=size), glow.decode(z), rtol=0, atol=1e-5)


def test_latents_are_raw_so_the_prior_plays_no_part():
    glow, x = random_glow(TINY["additive"]), random_images(3, 8)
    z, density = glow.encode(x), glow.log_prob(x)
    with torch.no_grad():
        for block in glow.blocks:
            block.prior.conv.bias += 1.0
    assert torch.equal(glow.encode(x), z)
    torch.testing.assert_close(glow.decode(z), x, rtol=0, atol=2e-5)
    assert (glow.log_prob(x) - density).abs().min() > 1


def test_changed_weights_are_never_served_from_the_cache():
    glow, x = random_glow(TINY["additive"]), random_images(3, 8)
    before = glow.encode(x)
    optimiser = torch.optim.SGD(glow.parameters(), lr=1e-3)
    glow.log_prob(x).sum().backward()
    optimiser.step()
    after = glow.encode(x)
    assert (after - before).abs().max() > 1e-3
    torch.testing.assert_close(after, glow._encode_batch(x).detach(), rtol=0, atol=1e-5)
    torch.testing.assert_close(glow.decode(after), x, rtol=0, atol=2e-5)


def test_actnorm_starts_with_mean_zero_and_sd_one():
    config = TINY["affine"]
    glow, x = Glow(config), random_images(16, 8) * 0.3 + 0.1
    glow.initialise(x)
    with torch.no_grad():
        for block in glow.blocks:
            h = F.pixel_unshuffle(x, 2)
            for step in block.flows:
                norm = step.actnorm
                assert norm.initialized.item() == 1 and norm.initialized.dtype == torch.uint8
                y = (norm.scale * (h + norm.loc)).transpose(0, 1).flatten(1)
                torch.testing.assert_close(y.mean(1), torch.zeros(len(y)), rtol=0, atol=1e-4)
                torch.testing.assert_close(y.std(1), torch.ones(len(y)), rtol=0, atol=1e-3)
                h, _ = step(h)
            x = h.chunk(2, 1)[0]


def test_encoding_never_initialises():
    glow = Glow(TINY["additive"])
    before = {name: t.clone() for name, t in glow.state_dict().items()}
    glow.encode(random_images(2, 8))
    assert all(torch.equal(t, before[name]) for name, t in glow.state_dict().items())


@pytest.mark.parametrize("name", OFFICIAL)
def test_state_dict_is_that_of_the_released_models(name):
    size, n_blocks, d, parameters, entries, n_bytes = OFFICIAL[name]
    with torch.device("meta"):
        glow = Glow(GlowConfig(size, n_steps=32, n_blocks=n_blocks, width=512))
    state = glow.state_dict()
    assert glow.latent_dim == d
    assert sum(p.numel() for p in glow.parameters()) == parameters
    assert len(state) == entries
    assert sum(t.numel() * t.element_size() for t in state.values()) == n_bytes


def test_names_order_and_shapes_of_one_step():
    with torch.device("meta"):
        state = Glow(GlowConfig(64, n_steps=32, n_blocks=4, width=512)).state_dict()
    step = "blocks.0.flows.0."
    expected = {
        "actnorm.loc": (1, 12, 1, 1),
        "actnorm.scale": (1, 12, 1, 1),
        "actnorm.initialized": (),
        "invconv.w_l": (12, 12),
        "invconv.w_s": (12,),
        "invconv.w_u": (12, 12),
        "invconv.w_p": (12, 12),
        "invconv.u_mask": (12, 12),
        "invconv.l_mask": (12, 12),
        "invconv.s_sign": (12,),
        "invconv.l_eye": (12, 12),
        "coupling.net.0.weight": (512, 6, 3, 3),
        "coupling.net.0.bias": (512,),
        "coupling.net.2.weight": (512, 512, 1, 1),
        "coupling.net.2.bias": (512,),
        "coupling.net.4.scale": (1, 6, 1, 1),
        "coupling.net.4.conv.weight": (6, 512, 3, 3),
        "coupling.net.4.conv.bias": (6,),
    }
    assert [(n, tuple(t.shape)) for n, t in list(state.items())[:18]] == [
        (step + name, shape) for name, shape in expected.items()
    ]
    heads = {n: tuple(t.shape) for n, t in state.items() if ".prior." in n}
    assert heads["blocks.0.prior.scale"] == (1, 12, 1, 1)
    assert heads["blocks.0.prior.conv.weight"] == (12, 6, 3, 3)
    assert heads["blocks.3.prior.conv.weight"] == (192, 96, 3, 3)
    assert list(heads)[:3] == [f"blocks.0.prior.{n}" for n in ("scale", "conv.weight", "conv.bias")]


@pytest.mark.parametrize(
    ("values", "message"),
    [((36, 1, 3, 4), "multiple of 8"), ((8, 0, 1, 4), "n_steps is 0"), ((8, 1, 1, 4.0), "width is 4.0")],
)
def test_impossible_configs_are_refused(values, message):
    with pytest.raises(StudyError, match=message):
        GlowConfig(*values)


def test_images_and_latents_of_the_wrong_shape_are_refused():
    glow = identity_glow(TINY["additive"])
    with pytest.raises(ValueError, match=r"\[N, 3, 8, 8\]"):
        glow.encode(random_images(1, 16))
    with pytest.raises(ValueError, match=r"float"):
        glow.encode(random_bytes(1, 8))
    with pytest.raises(ValueError, match=r"\[N, 192\]"):
        glow.decode(torch.zeros(1, 191))
