"""Glow (Kingma & Dhariwal 2018) in the form whose checkpoints the LASSI authors released.

L blocks; each squeezes space into channels, applies K steps (ActNorm, invertible 1x1 convolution,
coupling) and emits half of its channels as latent z_i (the last block emits all). LASSI's latent
z = E(x) holds the *raw* emitted halves, block 0 (the finest) first, each flattened in (C, H, W)
order: they are not standardised by the prior heads, which serve the likelihood and sampling only.
Names, order, shapes and dtypes of the parameters are those of the released state dicts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from lassi_lib.data.preprocess import quantise
from lassi_lib.errors import StudyError
from lassi_lib.numerics import full_precision, shrinking


@dataclass(frozen=True)
class GlowConfig:
    """Shape of a Glow.

    Attributes
    ----------
    image_size : int
        Edge S of the square images; divisible by ``2**n_blocks``.
    n_steps, n_blocks : int
        K flow steps in each of L blocks (the papers: K = 32; L = 4, 5 or 3).
    width : int
        Hidden channels of the coupling networks (the papers: 512).
    affine : bool
        Affine instead of additive coupling (all released models are additive).
    """

    image_size: int = 64
    n_steps: int = 32
    n_blocks: int = 4
    width: int = 512
    affine: bool = False

    def __post_init__(self) -> None:
        for name in ("image_size", "n_steps", "n_blocks", "width"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise StudyError(f"Glow's {name} is {value!r}: use a whole number of at least 1")
        if self.image_size % 2**self.n_blocks:
            raise StudyError(
                f"Glow's image_size {self.image_size} cannot be halved {self.n_blocks} times: "
                f"use a multiple of {2**self.n_blocks}, or fewer blocks"
            )

    @property
    def latent_shapes(self) -> tuple[tuple[int, int, int], ...]:
        """(C, H, W) of z_0 ... z_{L-1}."""
        size, last = self.image_size, self.n_blocks - 1
        return tuple(
            (6 * 2**i * (2 if i == last else 1), size >> (i + 1), size >> (i + 1))
            for i in range(self.n_blocks)
        )


class ActNorm(nn.Module):
    """Map x to scale * (x + loc) per channel, set from the first batch to give mean 0 and sd 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.scale = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.register_buffer("initialized", torch.tensor(0, dtype=torch.uint8))

    @torch.no_grad()
    def initialise(self, x: torch.Tensor) -> None:
        """Set loc = -mean and scale = 1 / (sd + 1e-6) from x [N, C, H, W]."""
        values = x.transpose(0, 1).flatten(1)
        self.loc.copy_(-values.mean(1).view_as(self.loc))
        self.scale.copy_(1 / (values.std(1).view_as(self.scale) + 1e-6))
        self.initialized.fill_(1)


class InvertibleConv(nn.Module):
    """1x1 convolution W = P (L + I) (U + diag(sign * exp(log s))), triangular factors learnt."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        rotation, _ = torch.linalg.qr(torch.randn(channels, channels))
        p, lower, upper = torch.linalg.lu(rotation)
        s = upper.diagonal()
        ones = torch.ones(channels, channels)
        self.w_l = nn.Parameter(lower.contiguous())
        self.w_s = nn.Parameter(s.abs().log())
        self.w_u = nn.Parameter(upper.triu(1))
        self.register_buffer("w_p", p.contiguous())
        self.register_buffer("u_mask", ones.triu(1))
        self.register_buffer("l_mask", ones.tril(-1))
        self.register_buffer("s_sign", s.sign())
        self.register_buffer("l_eye", torch.eye(channels))

    def weight(self, dtype: torch.dtype) -> torch.Tensor:
        """Return W [C, C], computed in `dtype`."""
        p, l_mask, l_eye, u_mask = (t.to(dtype) for t in (self.w_p, self.l_mask, self.l_eye, self.u_mask))
        lower = self.w_l.to(dtype) * l_mask + l_eye
        diagonal = self.s_sign.to(dtype) * self.w_s.to(dtype).exp()
        return p @ lower @ (self.w_u.to(dtype) * u_mask + torch.diag(diagonal))


class ZeroConv(nn.Module):
    """3x3 convolution that starts at zero; the border is padded with *ones*, the output rescaled."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(1, channels_out, 1, 1))
        self.conv = nn.Conv2d(channels_in, channels_out, 3)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the convolved [N, C_out, H, W] of x [N, C_in, H, W]."""
        return self.conv(F.pad(x, (1, 1, 1, 1), value=1.0)) * (3 * self.scale).exp()


class Coupling(nn.Module):
    """Halves (a, b): a stays, b' = b + net(a), or b' = (b + t) * s with (s, t) from net(a)."""

    def __init__(self, channels: int, width: int, affine: bool) -> None:
        super().__init__()
        self.affine = affine
        half = channels // 2
        self.net = nn.Sequential(
            nn.Conv2d(half, width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 1),
            nn.ReLU(inplace=True),
            ZeroConv(width, channels if affine else half),
        )
        for conv in (self.net[0], self.net[2]):
            nn.init.normal_(conv.weight, 0.0, 0.05)
            nn.init.zeros_(conv.bias)

    def _scale_and_shift(self, a: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
        out = self.net(a).to(a.dtype)  # the network alone may run in mixed precision
        if not self.affine:
            return None, out
        s_raw, t = out.chunk(2, 1)
        return s_raw + 2, t

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | float]:
        """Map x [N, C, H, W]; return it with the log-determinant ([N], or 0 for additive coupling)."""
        a, b = x.chunk(2, 1)
        s_raw, t = self._scale_and_shift(a)
        if s_raw is None:
            return torch.cat([a, b + t], 1), 0.0
        return torch.cat([a, (b + t) * s_raw.sigmoid()], 1), F.logsigmoid(s_raw).flatten(1).sum(1)

    def inverse(self, y: torch.Tensor) -> torch.Tensor:
        """Invert `forward`: [N, C, H, W] -> [N, C, H, W]."""
        a, b = y.chunk(2, 1)
        s_raw, t = self._scale_and_shift(a)
        return torch.cat([a, b - t if s_raw is None else b / s_raw.sigmoid() - t], 1)


class FlowStep(nn.Module):
    """ActNorm, 1x1 convolution and coupling; the first two are applied as one affine map M x + m."""

    def __init__(self, channels: int, width: int, affine: bool) -> None:
        super().__init__()
        self.actnorm = ActNorm(channels)
        self.invconv = InvertibleConv(channels)
        self.coupling = Coupling(channels, width, affine)
        self._cache: tuple = (None, None)

    def _affine(self, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Return M [C, C] = W diag(scale) and m [C] = M loc."""
        matrix = self.invconv.weight(dtype) * self.actnorm.scale.to(dtype).view(1, -1)
        return matrix, matrix @ self.actnorm.loc.to(dtype).view(-1)

    def _cached(self) -> tuple[torch.Tensor, ...]:
        """Return (M, m, M^-1, -M^-1 m), worked out once in float64 and kept until a weight changes."""
        tensors = [*self.actnorm.parameters(), *self.invconv.parameters(), *self.invconv.buffers()]
        # every in-place change (an optimiser's step, loading) raises a tensor's version
        key = tuple((t.data_ptr(), t._version, t.dtype) for t in tensors)
        if key != self._cache[0]:
            with torch.no_grad():
                matrix, shift = self._affine(torch.float64)
                inverse = torch.linalg.inv(matrix)
                maps = (matrix, shift, inverse, -inverse @ shift)
                self._cache = key, tuple(t.to(self.actnorm.loc.dtype) for t in maps)
        return self._cache[1]

    def log_det(self, pixels: int) -> torch.Tensor:
        """Return the log-determinant of the affine map on an image of `pixels` = H * W."""
        return pixels * (self.actnorm.scale.abs().log().sum() + self.invconv.w_s.sum())

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | float]:
        """Map x [N, C, H, W]; return it with the coupling's log-determinant ([N], or 0)."""
        with torch.autocast(x.device.type, enabled=False):
            matrix, shift = self._affine(x.dtype) if torch.is_grad_enabled() else self._cached()[:2]
            x = F.conv2d(x, matrix[:, :, None, None], shift)
        return self.coupling(x)

    def inverse(self, y: torch.Tensor) -> torch.Tensor:
        """Invert `forward` (no gradients)."""
        matrix, shift = self._cached()[2:]
        return F.conv2d(self.coupling.inverse(y), matrix[:, :, None, None], shift)


class Block(nn.Module):
    """Squeeze, K flow steps, split; with the prior head of the emitted half."""

    def __init__(self, channels: int, config: GlowConfig, last: bool) -> None:
        super().__init__()
        squeezed = 4 * channels
        self.last = last
        self.flows = nn.ModuleList(
            FlowStep(squeezed, config.width, config.affine) for _ in range(config.n_steps)
        )
        kept = squeezed if last else squeezed // 2
        self.prior = ZeroConv(kept, 2 * kept)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor]:
        """Map x [N, C, H, W] to (kept half or None, emitted z_i, log-determinant)."""
        # pixel (dy, dx) of each 2x2 cell goes to channel 4 c + 2 dy + dx
        x = F.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last)
        pixels, log_det = x.shape[2] * x.shape[3], torch.zeros((), dtype=x.dtype, device=x.device)
        for step in self.flows:
            x, of_coupling = step(x)
            log_det = log_det + step.log_det(pixels) + of_coupling
        if self.last:
            return None, x, log_det
        kept, z = x.chunk(2, 1)
        return kept, z, log_det

    def inverse(self, kept: torch.Tensor | None, z: torch.Tensor) -> torch.Tensor:
        """Rebuild the block's input from its outputs, z_i being the raw emitted half."""
        x = z if kept is None else torch.cat([kept, z], 1)
        x = x.contiguous(memory_format=torch.channels_last)
        for step in reversed(self.flows):
            x = step.inverse(x)
        return F.pixel_shuffle(x, 2)

    def prior_moments(self, kept: torch.Tensor | None, like: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return mean and log-sd of z_i, each shaped as `like`; the last block's head sees zeros."""
        return self.prior(torch.zeros_like(like) if kept is None else kept).chunk(2, 1)


class Glow(nn.Module):
    """The flow: E(x) = `encode`, D(z) = `decode`, and the density of images.

    Parameters
    ----------
    config : GlowConfig
        Image size, K, L, width, kind of coupling. Weights are drawn from torch's global generator
        (wrap in ``torch.random.fork_rng`` to leave it alone).

    Examples
    --------
    >>> glow = Glow(GlowConfig(image_size=8, n_steps=2, n_blocks=2, width=4))
    >>> glow.encode(torch.zeros(5, 3, 8, 8)).shape
    torch.Size([5, 192])
    """

    def __init__(self, config: GlowConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(
            Block(3 * 2**i, config, last=i == config.n_blocks - 1) for i in range(config.n_blocks)
        )

    @property
    def latent_shapes(self) -> tuple[tuple[int, int, int], ...]:
        """(C, H, W) of z_0 ... z_{L-1} in the order in which z holds them."""
        return self.config.latent_shapes

    @property
    def latent_dim(self) -> int:
        """Dimension d of z, equal to 3 * S * S."""
        return 3 * self.config.image_size**2

    @torch.no_grad()
    def initialise(self, x: torch.Tensor) -> None:
        """Set every ActNorm from the batch x [N, 3, S, S] (done once, before training)."""
        kept = self._input(x)
        for block in self.blocks:
            h = F.pixel_unshuffle(kept, 2)
            for step in block.flows:
                step.actnorm.initialise(h)
                h, _ = step(h)
            kept = h.chunk(2, 1)[0]

    @torch.no_grad()
    def encode(self, x: torch.Tensor, batch_size: int = 128) -> torch.Tensor:
        """Map images to latents.

        Parameters
        ----------
        x : torch.Tensor
            Float [N, 3, S, S], quantised images in [-0.5, 0.5].
        batch_size : int
            Images at a time; changes results by float rounding at most.

        Returns
        -------
        torch.Tensor
            z [N, d] in the weights' dtype (float32), on x's device.
        """
        with full_precision():
            return shrinking(
                lambda size: torch.cat([self._encode_batch(b).to(x.device) for b in x.split(size)]),
                batch_size,
            )

    @torch.no_grad()
    def decode(self, z: torch.Tensor, batch_size: int = 128) -> torch.Tensor:
        """Map latents z [N, d] back to images [N, 3, S, S]: the exact inverse of `encode`."""
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            raise ValueError(f"latents must be [N, {self.latent_dim}], got {list(z.shape)}")
        with full_precision():
            return shrinking(
                lambda size: torch.cat([self._decode_batch(b).to(z.device) for b in z.split(size)]),
                batch_size,
            )

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """Return log p(x) [N] in nats, the density of continuous images x [N, 3, S, S].

        Differentiable; the whole of x is one batch.
        """
        kept, total = self._input(x), 0.0
        for block in self.blocks:
            kept, z, log_det = block(kept)
            mean, log_sd = (t.to(z.dtype) for t in block.prior_moments(kept, z))
            log_p = -0.5 * ((z - mean) * (-log_sd).exp()) ** 2 - log_sd - 0.5 * math.log(2 * math.pi)
            total = total + log_p.flatten(1).sum(1) + log_det
        return total

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """Draw n images [n, 3, S, S] from the prior."""
        like, x = next(self.parameters()), None
        with full_precision():
            for block, shape in zip(reversed(self.blocks), reversed(self.latent_shapes), strict=True):
                noise = torch.randn((n, *shape), generator=generator, device=generator.device).to(like)
                mean, log_sd = block.prior_moments(x, noise)
                x = block.inverse(x, mean + log_sd.exp() * noise)
        return x.contiguous()

    def _input(self, x: torch.Tensor) -> torch.Tensor:
        size = self.config.image_size
        if x.ndim != 4 or x.shape[1:] != (3, size, size) or not x.is_floating_point():
            raise ValueError(f"images must be float [N, 3, {size}, {size}], got {x.dtype} {list(x.shape)}")
        return x.to(next(self.parameters())).contiguous(memory_format=torch.channels_last)

    def _encode_batch(self, x: torch.Tensor) -> torch.Tensor:
        kept, latents = self._input(x), []
        for block in self.blocks:
            kept, z, _ = block(kept)
            latents.append(z.flatten(1))
        return torch.cat(latents, 1)

    def decode_differentiable(self, z: torch.Tensor) -> torch.Tensor:
        """Map one batch of latents [N, d] to images, keeping the graph for gradients with respect to z."""
        with full_precision():
            return self._decode_batch(z)

    def _decode_batch(self, z: torch.Tensor) -> torch.Tensor:
        z, x = z.to(next(self.parameters())), None
        parts = z.split([math.prod(s) for s in self.latent_shapes], 1)
        for block, part, shape in zip(
            reversed(self.blocks), reversed(parts), reversed(self.latent_shapes), strict=True
        ):
            x = block.inverse(x, part.unflatten(1, shape))
        return x.contiguous()


def dequantise(images: torch.Tensor, bits: int, generator: torch.Generator) -> torch.Tensor:
    """Quantise uint8 images and spread each bin's lower edge over the bin: add U(0, 2^-bits)."""
    noise = torch.rand(images.shape, generator=generator)
    return quantise(images, bits) + (noise / 2**bits).to(images.device)


def nats_to_bits_per_dim(log_prob: torch.Tensor, n_values: int, bits: int = 5) -> torch.Tensor:
    """Turn log-densities in nats into bits per value: a bin has the volume 2^-bits in each value."""
    return -(log_prob / n_values - bits * math.log(2)) / math.log(2)


@torch.no_grad()
def bits_per_dim(
    glow: Glow, images: torch.Tensor, generator: torch.Generator, bits: int = 5, batch_size: int = 128
) -> float:
    """Return the mean negative log-likelihood of images, in bits per value.

    An upper bound on the cost of coding the quantised images, estimated with one draw of
    dequantisation noise per image.

    Parameters
    ----------
    glow : Glow
        The model.
    images : torch.Tensor
        uint8 [N, 3, S, S], S as in the model.
    generator : torch.Generator
        On the CPU; what the noise is drawn from.
    bits : int
        Images are quantised to 2^bits values.
    batch_size : int
        Images at a time; fewer where the memory runs out.
    """
    total = 0.0
    with full_precision():
        for batch in images.split(batch_size):
            x = dequantise(batch, bits, generator)  # drawn once, however often the next line is tried
            parts = shrinking(lambda size, x=x: [glow.log_prob(b) for b in x.split(size)], batch_size)
            total += torch.cat(parts).double().sum().item()
    mean = torch.tensor(total / len(images), dtype=torch.float64)
    return nats_to_bits_per_dim(mean, glow.latent_dim, bits).item()


def round_trip_error(glow: Glow, images: torch.Tensor, bits: int = 5) -> float:
    """Return max |D(E(x)) - x| over quantised uint8 images [N, 3, S, S]."""
    x = quantise(images, bits)
    return (glow.decode(glow.encode(x)) - x).abs().max().item()
