"""The papers' preprocessing: resize, centre crop, 5-bit quantisation (ECCV code, data_manager).

The order matters: the image is resized as a float tensor *without antialiasing* (torchvision 0.8's
behaviour; today's default would change a third of the pixels), cropped, and quantised.
Images are kept as uint8 between the two steps: flooring to a byte first and to 5 bits afterwards
gives the same levels as flooring once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import interpolate


def resize_and_crop(image: torch.Tensor, size: int) -> torch.Tensor:
    """Resize the shorter edge to `size` and crop the centre.

    Parameters
    ----------
    image : torch.Tensor
        uint8 [N, 3, H, W] (or [3, H, W]).
    size : int
        Edge of the square result, in pixels. An image whose shorter edge already has it is
        cropped without resampling.

    Returns
    -------
    torch.Tensor
        uint8 of the same rank, square.
    """
    single = image.ndim == 3
    batch = image[None] if single else image
    height, width = batch.shape[-2:]
    if min(height, width) != size:
        # torchvision's rule: the other edge is truncated, not rounded
        new = (size, int(size * width / height)) if height < width else (int(size * height / width), size)
        batch = interpolate(batch.float() / 255, new, mode="bilinear", align_corners=False, antialias=False)
        batch = (batch * 255).floor().clamp_(0, 255).to(torch.uint8)
    height, width = batch.shape[-2:]
    top, left = int((height - size + 1) * 0.5), int((width - size + 1) * 0.5)
    batch = batch[..., top : top + size, left : left + size]
    return batch[0] if single else batch


def quantise(images: torch.Tensor, bits: int = 5) -> torch.Tensor:
    """Map uint8 images to the flow's input: the lower edges of ``2**bits`` bins, minus one half.

    With 5 bits the values are k/32 - 0.5, k = 0..31. No dequantisation noise is added here.
    Returns float32 of the same shape.
    """
    levels = images >> (8 - bits)
    return levels.float() / 2**bits - 0.5


def beyond_images(x: Any, bits: int = 5) -> tuple[Any, Any]:
    """Return which values lie below, and which above, all that an image can have (`quantise`).

    Masks like x, a tensor or an array; half a step is allowed for, within which a value is still nearest to
    one that an image has.
    """
    half = 0.5 / 2**bits
    return x < -0.5 - half, x > 0.5 - half


def percent_beyond(x: Any, bits: int = 5) -> float:
    """Return the percentage of values that no image can have (`beyond_images`)."""
    below, above = beyond_images(torch.as_tensor(x), bits)
    return 100 * float((below | above).float().mean())


def to_uint8(x: torch.Tensor) -> torch.Tensor:
    """Map flow outputs in [-0.5, 0.5] back to displayable uint8; values outside are clipped."""
    return ((x + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
