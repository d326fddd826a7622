"""Small flows with random weights, shared by the tests of this room."""

import torch

from lassi_lib.flow.glow import Glow, GlowConfig


def random_glow(config: GlowConfig, seed: int = 0, size: float = 0.05) -> Glow:
    """Return a Glow set from a random batch, every parameter then moved by a Gaussian step."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        glow = Glow(config)
    glow.initialise(random_images(4, config.image_size, seed))
    with torch.no_grad():
        for parameter in glow.parameters():
            # wide layers take smaller steps, so that the sums stay of order one
            fan = max(1.0, parameter[0].numel() ** 0.5)
            parameter += size * torch.randn(parameter.shape, generator=generator) / fan
    return glow.eval()


def random_images(n: int, size: int, seed: int = 0) -> torch.Tensor:
    """Return float images [n, 3, size, size] in [-0.5, 0.5]."""
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed)) - 0.5


def random_bytes(n: int, size: int, seed: int = 0) -> torch.Tensor:
    """Return uint8 images [n, 3, size, size], blocks of 2x2 equal pixels."""
    shape = (n, 3, size // 2, size // 2)
    pixels = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return pixels.repeat_interleave(2, 2).repeat_interleave(2, 3)


def identity_glow(config: GlowConfig) -> Glow:
    """Return a Glow whose steps change nothing: only squeezes and splits are left."""
    glow = Glow(config)
    with torch.no_grad():
        for block in glow.blocks:
            for step in block.flows:
                conv = step.invconv
                for tensor in (conv.w_l, conv.w_u, conv.w_s):
                    tensor.zero_()
                conv.w_p.copy_(torch.eye(len(conv.w_p)))
                conv.s_sign.fill_(1)
    return glow.eval()
