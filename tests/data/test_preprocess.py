"""Resize, crop and quantisation against the definition (method of the ECCV code)."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from lassi_lib.data.preprocess import beyond_images, percent_beyond, quantise, resize_and_crop, to_uint8


def reference(image: torch.Tensor, size: int) -> torch.Tensor:
    """The definition, step by step in floats: resize, centre crop, 5-bit quantisation."""
    x = image.float()[None] / 255
    height, width = x.shape[-2:]
    short = min(height, width)
    if short != size:
        new = [size if edge == short else int(size * edge / short) for edge in (height, width)]
        x = interpolate(x, new, mode="bilinear", align_corners=False)
    height, width = x.shape[-2:]
    top, left = int((height - size + 1) * 0.5), int((width - size + 1) * 0.5)
    x = x[0, :, top : top + size, left : left + size] * 255
    return torch.floor(torch.floor(x / 8)) / 32 - 0.5


@pytest.mark.parametrize(
    ("height", "width", "size"), [(218, 178, 64), (218, 178, 128), (224, 224, 64), (78, 64, 64)]
)
def test_two_steps_in_bytes_equal_one_step_in_floats(height, width, size):
    image = torch.randint(
        0, 256, (3, height, width), generator=torch.Generator().manual_seed(1), dtype=torch.uint8
    )
    assert torch.equal(quantise(resize_and_crop(image, size)), reference(image, size))


def test_an_image_of_the_right_size_is_cropped_without_resampling():
    image = (
        torch.arange(78 * 64, dtype=torch.int64)
        .remainder(256)
        .to(torch.uint8)
        .reshape(1, 78, 64)
        .repeat(3, 1, 1)
    )
    assert torch.equal(resize_and_crop(image, 64), image[:, 7:71])


def test_celeba_crops_the_documented_rows():
    rows = torch.arange(218, dtype=torch.uint8)[None, :, None].expand(3, 218, 178)
    for size, first in ((64, 7), (128, 14)):
        small = resize_and_crop(rows.contiguous(), size)
        position = small[0, 0, 0].item() * size / 178
        assert abs(position - first) <= 1.0


def test_quantised_values_are_the_lower_edges_of_the_bins():
    every = torch.arange(256, dtype=torch.uint8)
    x = quantise(every)
    assert sorted(set(x.tolist())) == [k / 32 - 0.5 for k in range(32)]
    assert x.min() == -0.5
    assert x.max() == 0.46875
    assert torch.equal(quantise(every, 8), every.float() / 256 - 0.5)


def test_batch_and_single_image_agree_and_display_inverts_quantisation_to_a_bin():
    batch = torch.randint(
        0, 256, (4, 3, 100, 90), generator=torch.Generator().manual_seed(2), dtype=torch.uint8
    )
    small = resize_and_crop(batch, 48)
    assert torch.equal(small[2], resize_and_crop(batch[2], 48))
    assert (to_uint8(quantise(small)).int() - small.int()).abs().max() <= 8
    assert torch.equal(to_uint8(torch.tensor([-3.0, 3.0])), torch.tensor([0, 255], dtype=torch.uint8))


def test_what_no_image_can_have_begins_half_a_step_beyond_the_range():
    stored = quantise(torch.arange(256, dtype=torch.uint8))
    for noise in (-0.015, 0.0, 0.015):  # a flow's rounding of black is no impossible colour
        assert not any(mask.any() for mask in beyond_images(stored + noise))
    x = torch.tensor([-0.52, -0.5, 0.48, 0.49])
    below, above = beyond_images(x)
    assert below.tolist() == [True, False, False, False] and above.tolist() == [False, False, False, True]
    assert percent_beyond(x) == percent_beyond(x.numpy()) == 50.0


def test_real_originals_match_the_definition_and_antialiasing_would_not(celeba_originals):
    paths = sorted(celeba_originals.rglob("*.jpg"))[:20]
    changed = []
    for path in paths:
        image = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)
        ours = quantise(resize_and_crop(image, 64))
        assert torch.equal(ours, reference(image, 64))
        smooth = interpolate(image.float()[None] / 255, (78, 64), mode="bilinear", antialias=True)[0]
        changed.append((torch.floor(smooth[:, 7:71] * 255 / 8) / 32 - 0.5 != ours).float().mean().item())
    assert 0.2 < np.mean(changed) < 0.45  # about a third of the pixels
