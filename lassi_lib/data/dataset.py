"""One interface for every data set: uint8 images, a table of labels, fixed splits."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lassi_lib.errors import StudyError, nearest

SPLITS = ("train", "valid", "test")
# each has a module of its name here, with load_<name> and what tells its content: fingerprint or VERSION
DATASETS = ("synthfaces", "celeba", "fairface", "shapes3d", "folder")


@dataclass(frozen=True)
class FaceDataset:
    """Images of one split, resized and cropped, with named labels.

    Attributes
    ----------
    name, split : str
        Which data set and which of 'train', 'valid', 'test'.
    images : torch.Tensor
        uint8 [N, 3, S, S], resized and centre-cropped as in the papers (before quantisation).
    labels : numpy.ndarray
        uint8 [N, n_attributes]: the class of each image, 0 or 1 where an attribute is binary.
    attribute_names : tuple of str
        Names of the columns of `labels`.
    ids : numpy.ndarray
        [N] identifier of each image inside its data set (a file name or an index).
    note : str
        One honest sentence on what was found and how it was split.
    extras : dict
        What only this data set has (the factors of a rendered one, for instance).
    n_classes : tuple of int
        Number of classes of each column of `labels`; all are binary where it is not given.
    """

    name: str
    split: str
    images: torch.Tensor
    labels: np.ndarray
    attribute_names: tuple[str, ...]
    ids: np.ndarray
    note: str = ""
    extras: dict = field(default_factory=dict, repr=False)
    n_classes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.n_classes:  # every column is binary
            object.__setattr__(self, "n_classes", (2,) * len(self.attribute_names))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_size(self) -> int:
        """Edge length S of the square images, in pixels."""
        return self.images.shape[-1]

    def label(self, attribute: str) -> np.ndarray:
        """Return one attribute as int64 [N], classes from 0 (binary: 0 or 1).

        Raises
        ------
        StudyError
            If the attribute is unknown; the nearest name is suggested.
        """
        return self.labels[:, self.column(attribute)].astype(np.int64)

    def classes(self, attribute: str) -> int:
        """Return the number of classes of `attribute`; raises StudyError as `label` does."""
        return self.n_classes[self.column(attribute)]

    def column(self, attribute: str) -> int:
        """Return the column of `attribute` in `labels`; raises StudyError as `label` does."""
        if attribute not in self.attribute_names:
            where = "labels.csv" if self.name == "folder" else f"data set '{self.name}'"
            raise StudyError(
                f"attribute '{attribute}' is not in {where}{nearest(attribute, self.attribute_names)}"
            )
        return self.attribute_names.index(attribute)


def load_dataset(
    name: str,
    split: str,
    *,
    image_size: int = 64,
    data_root: str | Path | None = None,
    **options: Any,
) -> FaceDataset:
    """Load one split of a data set by name.

    Parameters
    ----------
    name : {'synthfaces', 'celeba', 'fairface', 'shapes3d', 'folder'}
        Which data set. 'synthfaces' is rendered and needs no files, nor does 'shapes3d' unless asked to.
        'folder' is any folder of images with a `labels.csv`.
    split : {'train', 'valid', 'test'}
        Which split.
    image_size : int
        Edge S of the square images, in pixels.
    data_root : path, optional
        Folder of the official files (not used by 'synthfaces'), or your own folder.
    **options
        What the data set itself takes, for instance ``n_train``, ``n_valid``, ``n_test`` and
        ``seed`` for 'synthfaces', ``max_images`` for 'celeba', 'fairface' and 'folder', ``biased`` and ``source``
        for 'shapes3d'.

    Raises
    ------
    StudyError
        If the name or split is unknown, or files are missing (the message says where to get them).
    """
    if split not in SPLITS:
        raise StudyError(f"split '{split}' is unknown{nearest(split, SPLITS)}")
    if name not in DATASETS:
        raise StudyError(f"data set '{name}' is unknown{nearest(name, DATASETS)}")
    load = getattr(import_module(f"lassi_lib.data.{name}"), f"load_{name}")
    files = {} if name == "synthfaces" else {"data_root": data_root}
    return load(split, image_size=image_size, **files, **options)
