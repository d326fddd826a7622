"""A face of one's own: an image file is checked, cropped and handed on; it is never stored."""

from __future__ import annotations

import io
import warnings

import numpy as np
import torch

from lassi_lib.data.preprocess import resize_and_crop
from lassi_lib.errors import StudyError

MAX_BYTES, MAX_PIXELS = 5_000_000, 40_000_000
FORMATS = ("PNG", "JPEG", "WEBP")


def read_face(content: bytes, size: int, name: str = "image") -> torch.Tensor:
    """Turn an image file's content into a square face: uint8 [3, size, size].

    Turned upright as its camera says, resized and centre-cropped like every other face (one four times
    as large or more is averaged down before); transparency becomes white.

    Parameters
    ----------
    content : bytes
        The whole file: PNG, JPEG or WebP, whatever its name says.
    size : int
        Edge of the result, in pixels.
    name : str
        What messages call it.

    Raises
    ------
    StudyError
        If the file is too large, no image of these formats, damaged, smaller than `size`, or would unpack
        to more than 40 million pixels (read from its header, before anything is unpacked).
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    check_size(len(content), name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        raise StudyError(f"{name} is no {', '.join(FORMATS)} image: save it as one of these") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_many(name) from None
    except Exception as error:  # a hostile header may raise anything
        raise StudyError(f"{name} cannot be read ({type(error).__name__}): save it anew") from None
    if image.width * image.height > MAX_PIXELS:
        raise _too_many(name)
    if min(image.size) < size:
        raise StudyError(
            f"{name} has {image.width} x {image.height} pixels, at least {size} x {size} are needed"
        )
    if image.mode[0] in "IF":
        raise StudyError(f"{name} has more than 8 bits a colour: save it with 8")
    try:
        upright = ImageOps.exif_transpose(image).convert("RGBA")
        # the papers' resizing skips pixels: a photograph is averaged down to two to four times the size first
        upright = upright.reduce(max(1, min(upright.size) // (2 * size)))
    except Exception as error:
        raise StudyError(f"{name} is damaged ({type(error).__name__}): save it anew") from None
    page = Image.new("RGBA", upright.size, "white")
    pixels = np.asarray(Image.alpha_composite(page, upright).convert("RGB"))
    return resize_and_crop(torch.from_numpy(pixels.copy()).permute(2, 0, 1), size)


def check_size(size: int, name: str) -> None:
    """Refuse a file of more than 5 MB, a `StudyError`."""
    if size > MAX_BYTES:
        raise StudyError(f"{name}: {size / 1e6:.1f} MB, at most {MAX_BYTES / 1e6:g} are read: shrink it")


def _too_many(name: str) -> StudyError:
    return StudyError(f"{name} unpacks to more than {MAX_PIXELS / 1e6:g} million pixels: shrink it")
