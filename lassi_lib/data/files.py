"""Reading a data set's official files: plain or gzipped text, images, and what identifies them."""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lassi_lib.data.preprocess import resize_and_crop
from lassi_lib.errors import StudyError

MAX_TEXT = 2**28  # bytes of a label file, unpacked; the largest official one has 26 million
MAX_PIXELS = 2**26  # of one image file: a small file can unpack to gigabytes


def existing(root: Path, name: str) -> Path | None:
    """Return the file `name` of a folder, or its gzipped form, or None."""
    return next((p for p in (root / name, root / f"{name}.gz") if p.is_file()), None)


def read_text(path: Path, homepage: str) -> str:
    """Return the text of a plain or gzipped file; a damaged one is a StudyError with its homepage."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(MAX_TEXT + 1)
        if len(content) > MAX_TEXT:
            raise OSError(f"more than {MAX_TEXT:,} bytes")
        return io.TextIOWrapper(io.BytesIO(content), encoding="utf-8").read()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise StudyError(f"{path} cannot be read ({error}): get it again from {homepage}") from None


def read_images(paths: Iterable[Path], size: int) -> torch.Tensor:
    """Return images resized and cropped as in the papers: uint8 [N, 3, size, size]."""
    with ThreadPoolExecutor() as pool:
        return torch.stack(list(pool.map(lambda path: _read_image(path, size), paths)))


def _read_image(path: Path, size: int) -> torch.Tensor:
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels")
            pixels = np.array(image.convert("RGB"))
    except Exception as error:  # what a damaged file raises in the readers is not foreseeable
        raise StudyError(f"{path} is not a readable image ({error}): get it again or remove it") from None
    return resize_and_crop(torch.from_numpy(pixels).permute(2, 0, 1), size)


def listing_digest(root: Path, files: Iterable[Path]) -> str:
    """Return a digest of files' names below `root` and their sizes: part of every cache key."""
    listing = "\n".join(f"{p.relative_to(root).as_posix()} {p.stat().st_size}" for p in files)
    return hashlib.blake2b(listing.encode(), digest_size=12).hexdigest()
