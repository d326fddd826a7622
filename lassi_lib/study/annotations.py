"""The complete official label files, without images: what the papers' subsets of them contain.

The papers judge models on every k-th image of an official split; which labels these images have can
be recomputed by anyone who holds the label files. Images need not be there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lassi_lib.errors import StudyError

FILES = {
    "CelebA": ("list_attr_celeba.txt", "list_eval_partition.txt"),
    "FairFace": ("fairface_label_train.csv", "fairface_label_val.csv"),
}
FOLDERS = {"CelebA": "celeba", "FairFace": "fairface"}
# Every k-th image of a split: ECCV 2022, section 6 (64; FairFace 32) and the workshop text (128).
STRIDES = {"CelebA": (1, 64, 128), "FairFace": (1, 32)}


@dataclass(frozen=True)
class Annotations:
    """All labels of one data set, in the order of its official file."""

    name: str  # 'CelebA' or 'FairFace', as the published rows call it
    labels: pd.DataFrame  # one row per image, one column of class numbers per attribute or task
    split: np.ndarray  # [N] 'train', 'valid' or 'test'

    def of_split(self, split: str) -> pd.DataFrame:
        """Return the labels of 'train', 'valid', 'test' or 'all'."""
        return self.labels if split == "all" else self.labels[self.split == split]

    def stride(self, split: str, n: int) -> int | None:
        """Return k of `STRIDES` such that every k-th image of the split makes n images, or None."""
        size = len(self.of_split(split))
        return next((k for k in STRIDES[self.name] if -(-size // k) == n), None)

    def subset(self, split: str, n: int) -> pd.DataFrame | None:
        """Return the labels of the papers' n images of a split (images 0, k, 2k, ...), or None."""
        k = self.stride(split, n)
        return None if k is None else self.of_split(split).iloc[::k]


def find_annotations(folder: str | Path | None) -> dict[str, Annotations]:
    """Return the complete label files found in `folder` (or in its celeba/ and fairface/), by name.

    An empty `folder`, or one without such files, gives an empty dictionary: checks that need the
    labels then say that they were not made.

    Raises
    ------
    StudyError
        If `folder` does not exist, or a file is damaged.
    """
    if not folder:
        return {}
    if not Path(folder).is_dir():
        raise StudyError(
            f"annotations folder '{folder}' does not exist: name a folder or leave the parameter empty"
        )
    found = {}
    for name, read in (("CelebA", _celeba), ("FairFace", _fairface)):
        for root in (Path(folder), Path(folder) / FOLDERS[name]):
            if all((root / f).is_file() or (root / f"{f}.gz").is_file() for f in FILES[name]):
                found[name] = read(root)
                break
    return found


def _celeba(root: Path) -> Annotations:
    from lassi_lib.data.celeba import read_attributes, read_pairs
    from lassi_lib.data.dataset import SPLITS

    names, table = read_attributes(root)
    partition = read_pairs(root, "list_eval_partition.txt")
    labels = pd.DataFrame(np.stack(list(table.values())).astype(np.uint8), columns=names)
    missing = [image for image in table if image not in partition]
    if missing:
        raise StudyError(
            f"list_eval_partition.txt in {root} has no line for {missing[0]}: get the complete file"
        )
    return Annotations("CelebA", labels, np.array([SPLITS[int(partition[image])] for image in table]))


def _fairface(root: Path) -> Annotations:
    """Read FairFace's two files; the official 'val' part is the test split, as in the papers."""
    from lassi_lib.data.fairface import ATTRIBUTES, read_labels, train_or_valid

    parts = [read_labels(root, part) for part in ("train", "val")]
    labels = np.concatenate([part.labels(np.arange(len(part.files))) for part in parts])
    split = [*train_or_valid(len(parts[0].files)), *["test"] * len(parts[1].files)]
    return Annotations("FairFace", pd.DataFrame(labels, columns=list(ATTRIBUTES)), np.array(split))
