"""3D Shapes: six factors of a room with one object, 480,000 pictures, none of a person.

Two sources give the same 480,000 pictures in the same order:

- ``rendered`` (ours): `shapes3d_renderer` draws the six factors when asked; it needs no file. Its pictures
  look like 3D Shapes but are not its bytes: the study's notes say "rendered by us".
- ``official``: DeepMind's 3dshapes.h5 (Burgess & Kim 2018, https://github.com/google-deepmind/3d-shapes),
  where a user has it and the optional package h5py.

Because every combination of factors exists, an image's true counterfactuals are known: `variations`.
The ECCV supplement uses this to check certificates against the truth (Table 19).
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lassi_lib.data.dataset import SPLITS, FaceDataset
from lassi_lib.data.files import listing_digest
from lassi_lib.data.preprocess import resize_and_crop
from lassi_lib.data.shapes3d_renderer import draw, hue_to_rgb, light_maps
from lassi_lib.errors import StudyError, nearest
from lassi_lib.numerics import threads
from lassi_lib.progress import progress
from lassi_lib.streams import numpy_stream

HOMEPAGE = "https://github.com/google-deepmind/3d-shapes"
FILE = "3dshapes.h5"
SOURCES = ("rendered", "official")
# factors and their number of values, in the official order: the last one changes fastest with the index
FACTORS = {"floor_hue": 10, "wall_hue": 10, "object_hue": 10, "scale": 8, "shape": 4, "orientation": 15}
N_VALUES = tuple(FACTORS.values())
N_IMAGES = int(np.prod(N_VALUES))  # 480,000
SHARES = {"train": 0.6, "valid": 0.2, "test": 0.2}
MIN_SIZE, MAX_SIZE = 32, 128
VERSION = 1  # counts up whenever our pictures or the splits change: caches made from older ones are dropped


def factors_of(indices: int | Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the six factors, counted from 0, of images given by index: int64 [n, 6] (one index: [6]).

    Raises
    ------
    StudyError
        If an index lies outside 0..479,999.
    """
    indices = np.asarray(indices, dtype=np.int64)
    if indices.size and not 0 <= indices.min() <= indices.max() < N_IMAGES:
        raise StudyError(f"an index of 'shapes3d' lies outside 0..{N_IMAGES - 1}: {_outside(indices)}")
    return np.stack(np.unravel_index(indices, N_VALUES), axis=-1)


def index_of(factors: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the indices int64 [n] of images given by their factors [n, 6]; the inverse of `factors_of`.

    Raises
    ------
    StudyError
        If a factor has no such value.
    """
    factors = np.asarray(factors, dtype=np.int64)
    if factors.shape[-1:] != (6,) or (factors < 0).any() or (factors >= N_VALUES).any():
        raise StudyError(f"factors of 'shapes3d' are {_ranges()}, each counted from 0")
    return np.ravel_multi_index(tuple(np.moveaxis(factors, -1, 0)), N_VALUES)


def variations(indices: Sequence[int] | np.ndarray, factor: str = "orientation") -> np.ndarray:
    """Return the indices of all images that differ from the given ones in one factor alone.

    Returns
    -------
    numpy.ndarray
        int64 [n, v]: column k holds the images with value k of the factor; an image is among its own.

    Raises
    ------
    StudyError
        If the factor is unknown or an index lies outside.
    """
    if factor not in FACTORS:
        raise StudyError(f"factor '{factor}' is unknown{nearest(factor, FACTORS)}")
    base = factors_of(np.asarray(indices).reshape(-1))
    every = np.repeat(base[:, None], FACTORS[factor], axis=1)
    every[..., list(FACTORS).index(factor)] = np.arange(FACTORS[factor])
    return index_of(every)


def split_indices(split: str, *, seed: int = 0, biased: bool = False) -> np.ndarray:
    """Return the indices of a split: 60/20/20 of all images in an order drawn once per seed.

    The ECCV code reads its splits from files that are not public; their sizes are guessed from its sample
    of every 320th test image. With `biased`, the training split keeps what correlates hue with orientation
    (ECCV 2022, supplement): object hues 0-4 seen from orientations 0-6, hues 5-9 from 8-14, none from 7.
    The other two splits stay whole.

    Returns
    -------
    numpy.ndarray
        int64 [N], in random order; the first images of a split are a random sample of it.
    """
    if split not in SPLITS:
        raise StudyError(f"split '{split}' is unknown{nearest(split, SPLITS)}")
    order = numpy_stream(seed, "shapes3d/splits").permutation(N_IMAGES)
    ends = np.cumsum([round(SHARES[s] * N_IMAGES) for s in SPLITS])
    indices = np.split(order, ends[:-1])[SPLITS.index(split)]
    if not (biased and split == "train"):
        return indices
    factors = factors_of(indices)
    hue, orientation = (factors[:, list(FACTORS).index(f)] for f in ("object_hue", "orientation"))
    return indices[((hue < 5) & (orientation < 7)) | ((hue >= 5) & (orientation > 7))]


def load_shapes3d(
    split: str,
    *,
    image_size: int = 64,
    data_root: str | Path | None = None,
    source: str = "rendered",
    n_train: int = 0,
    n_valid: int = 0,
    n_test: int = 0,
    seed: int = 0,
    biased: bool = False,
) -> FaceDataset:
    """Load (or draw) one split of 3D Shapes.

    Parameters
    ----------
    split : {'train', 'valid', 'test'}
        See `split_indices`.
    image_size : int
        Edge S of the square images in pixels, 32 to 128; the official ones are 64.
    data_root : path, optional
        Where 3dshapes.h5 is (or its parent, when it lies in ``shapes3d/``); for the source 'official'.
    source : {'rendered', 'official'}
        Pictures drawn by us, or DeepMind's file.
    n_train, n_valid, n_test : int
        The first so many images of each split (0: all; 288,000 images of training take 3.5 GB).
    seed : int
        Seed of the splits.
    biased : bool
        Whether the training split correlates object hue with orientation.

    Returns
    -------
    FaceDataset
        Columns `FACTORS` with 10, 10, 10, 8, 4 and 15 classes; ``ids`` are the official indices.

    Raises
    ------
    StudyError
        If an option is impossible, or the official file or h5py is missing.
    """
    indices = split_indices(split, seed=seed, biased=biased)
    counts = dict(zip(SPLITS, (n_train, n_valid, n_test), strict=True))
    if not 0 <= counts[split] <= len(indices):
        raise StudyError(
            f"n_{split} = {counts[split]} of 'shapes3d' must lie in 0..{len(indices)} (0: all of the split)"
        )
    chosen = indices[: counts[split] or None]
    images = read_shapes(
        chosen, source=source, data_root=data_root, image_size=image_size, label=f"{split} shapes"
    )
    made = "rendered by us in the manner of 3D Shapes" if source == "rendered" else f"of DeepMind's {FILE}"
    bias = ", object hue correlated with orientation" if biased and split == "train" else ""
    return FaceDataset(
        name="shapes3d",
        split=split,
        images=images,
        labels=factors_of(chosen).astype(np.uint8),
        attribute_names=tuple(FACTORS),
        ids=chosen,
        note=f"{len(chosen):,} {split} images {made}{bias}; our own 60/20/20 split (seed {seed})",
        n_classes=N_VALUES,
    )


def read_shapes(
    indices: Sequence[int] | np.ndarray,
    *,
    source: str = "rendered",
    data_root: str | Path | None = None,
    image_size: int = 64,
    label: str = "",
) -> torch.Tensor:
    """Return any of the 480,000 images by official index: uint8 [n, 3, S, S].

    Parameters
    ----------
    indices : sequence of int
        [n] official indices, 0 to 479,999, in any order.
    source, data_root, image_size : str, path, int
        As in `load_shapes3d`.
    label : str
        Caption of a progress bar; without it there is none.

    Raises
    ------
    StudyError
        If an index or the size is outside, the source is unknown, or file or h5py are missing.
    """
    indices = np.asarray(indices, dtype=np.int64).reshape(-1)
    factors = factors_of(indices)
    if source not in SOURCES:
        raise StudyError(f"source '{source}' of 'shapes3d' is unknown{nearest(source, SOURCES)}")
    if not MIN_SIZE <= image_size <= MAX_SIZE:
        raise StudyError(f"image_size {image_size} of 'shapes3d' must lie in {MIN_SIZE}..{MAX_SIZE}")
    if source == "rendered":
        return _render(factors, image_size, label)
    return _read_official(indices, find_file(data_root), image_size, label)


def find_file(data_root: str | Path | None) -> Path:
    """Return where 3dshapes.h5 is, or raise StudyError saying how to get it."""
    help_line = (
        f"get it from {HOMEPAGE}, expected layout: DIR/{FILE} or DIR/shapes3d/{FILE}; "
        "source 'rendered' (profile shapes3d) needs no download"
    )
    if not data_root:
        raise StudyError(f"{FILE} needs --data-root DIR: {help_line}")
    for path in (Path(data_root) / FILE, Path(data_root) / "shapes3d" / FILE):
        if path.is_file():
            return path
    raise StudyError(f"{FILE} was not found in {data_root}: {help_line}")


def fingerprint(source: str, data_root: str | Path | None) -> str:
    """Return what identifies the pictures beyond the parameters: part of every cache key."""
    if source == "rendered":
        return f"rendered, version {VERSION}"
    path = find_file(data_root)
    return f"{listing_digest(path.parent, [path])}, splits version {VERSION}"


@threads(1)  # its steps are too small to share out
def _render(factors: np.ndarray, image_size: int, label: str) -> torch.Tensor:
    """Draw images from factors [n, 6], one geometry after the other."""
    hues = torch.from_numpy(factors[:, :3] / 10).float()
    geometries, which = np.unique(factors[:, 3:], axis=0, return_inverse=True)
    images = torch.empty(len(factors), 3, image_size, image_size, dtype=torch.uint8)
    bar = progress(geometries, label=f"drawing {label}", unit="scene") if label else geometries
    for k, geometry in enumerate(bar):
        maps = light_maps(*geometry.tolist(), image_size)
        for rows in torch.from_numpy(np.flatnonzero(which.reshape(-1) == k)).split(256):
            images[rows] = draw(hue_to_rgb(hues[rows]), maps)
    return images


def _read_official(indices: np.ndarray, path: Path, image_size: int, label: str) -> torch.Tensor:
    """Read images from 3dshapes.h5; each of its compressed chunks is unpacked once."""
    try:
        h5py = importlib.import_module("h5py")
    except ImportError:
        raise StudyError(
            f"reading {path} needs the optional package h5py: pip install h5py; "
            "source 'rendered' (profile shapes3d) needs neither package nor download"
        ) from None
    images = torch.empty(len(indices), 3, image_size, image_size, dtype=torch.uint8)
    try:
        with h5py.File(path, "r") as file:
            pictures = file["images"]
            _check_official(path, pictures.shape, file["labels"])
            step = (pictures.chunks or (1,))[0]
            order = np.argsort(indices, kind="stable")
            cuts = np.flatnonzero(np.diff(indices[order] // step)) + 1
            blocks = np.split(order, cuts) if len(indices) else []
            for rows in progress(blocks, label=f"reading {label}", unit="block") if label else blocks:
                start = int(indices[rows[0]] // step * step)
                block = torch.from_numpy(pictures[start : start + step][indices[rows] - start])
                images[torch.from_numpy(rows)] = resize_and_crop(block.permute(0, 3, 1, 2), image_size)
    except (OSError, KeyError, AttributeError) as error:  # the last: a group where an array belongs
        raise StudyError(f"{path} cannot be read ({error}): get it again from {HOMEPAGE}") from None
    return images


def _check_official(path: Path, shape: tuple[int, ...], labels: Any) -> None:
    """Refuse a file whose labels, replaced by their ranks as in the ECCV code, are not in the known order."""
    if tuple(shape) == (N_IMAGES, 64, 64, 3) and labels.shape == (N_IMAGES, 6):
        ranks = [np.unique(column, return_inverse=True)[1] for column in labels[()].T]
        if np.array_equal(np.stack(ranks, axis=1), factors_of(np.arange(N_IMAGES))):
            return
    raise StudyError(f"{path} is not the official {FILE} (images or labels differ): get it from {HOMEPAGE}")


def _ranges() -> str:
    return ", ".join(f"{name} 0..{n - 1}" for name, n in FACTORS.items())


def _outside(indices: np.ndarray) -> int:
    return int(indices[(indices < 0) | (indices >= N_IMAGES)].flat[0])
