"""A file that somebody drops in: read as every other face, or refused in one line before it is unpacked."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from lassi_lib.data.own_image import MAX_BYTES, read_face
from lassi_lib.data.preprocess import resize_and_crop
from lassi_lib.errors import StudyError

RNG = np.random.default_rng(0)


def encoded(pixels, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def bomb(width, height):
    """A PNG of a few bytes whose header promises width x height pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_a_face_is_cropped_as_the_data_sets_are(kind):
    pixels = RNG.integers(0, 256, (80, 60, 3), dtype=np.uint8)
    face = read_face(encoded(pixels, kind, **({"lossless": True} if kind == "WEBP" else {})), 48)
    expected = resize_and_crop(torch.from_numpy(pixels).permute(2, 0, 1), 48)
    assert face.shape == (3, 48, 48) and torch.equal(face, expected)


def test_a_camera_s_orientation_and_transparency_are_heeded():
    pixels = RNG.integers(0, 256, (48, 60, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    turned = read_face(encoded(pixels[::-1, ::-1].copy(), exif=exif), 48)
    assert torch.equal(turned, read_face(encoded(pixels), 48))
    clear = np.dstack([pixels, np.zeros(pixels.shape[:2], np.uint8)])
    assert (read_face(encoded(clear), 48) == 255).all()


def test_what_is_no_face_is_refused_in_one_line():
    good = encoded(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    cases = {
        "is no PNG, JPEG, WEBP image": b"<svg onload='x'/>",
        "at most 5 are read": bytes(MAX_BYTES + 1),
        "million pixels": bomb(7_000, 7_000),
        "more than 40 million": bomb(60_000, 60_000),
        "is damaged": good[: len(good) // 2],
        "at least 48 x 48": encoded(np.zeros((40, 90, 3), np.uint8)),
        "is no PNG, JPEG, WEBP": encoded(np.zeros((60, 60, 3), np.uint8), "BMP"),
    }
    for words, content in cases.items():
        with pytest.raises(StudyError, match=words) as error:
            read_face(content, 48, "mine.png")
        assert str(error.value).startswith("mine.png") and "\n" not in str(error.value)
