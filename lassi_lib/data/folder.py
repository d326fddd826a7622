"""Your own images: a folder of faces with a `labels.csv` beside them.

`labels.csv` has a line per image: a column `file` (a path inside the folder), a column per attribute with
0/1 or -1/1, and, where you have them, `person` (images of one person stay in one split) and `split` (train,
valid or test). Without `split` the images are divided 60/10/30 by a hash of the person, or of the file's
content, so that copies of an image stay together and new images move no old one.

Images are read as `own_image.read_face` says: PNG, JPEG or WebP, turned upright, transparency on white,
resized and cropped to the central square. No face is looked for: each image must show one, centred.
"""

from __future__ import annotations

import csv
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import torch

from lassi_lib.data.dataset import SPLITS, FaceDataset
from lassi_lib.data.own_image import read_face
from lassi_lib.errors import StudyError

LABELS = "labels.csv"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
VERSION = 1  # counts up whenever images are read or split in another way: kept results are dropped then
_RESERVED = ("file", "person", "split")


def load_folder(
    split: str, *, image_size: int = 64, data_root: str | Path | None = None, max_images: int = 0
) -> FaceDataset:
    """Load one split of a folder of face images.

    Parameters
    ----------
    split : {'train', 'valid', 'test'}
        Which split.
    image_size : int
        Edge of the square images, in pixels.
    data_root : path
        The folder with the images and `labels.csv`.
    max_images : int
        Use only the first images by file name (0: all).

    Returns
    -------
    FaceDataset
        `ids` are the file names; the note says how the images were split and what was mended.

    Raises
    ------
    StudyError
        If the folder, a label or an image is missing or unusable: file, line and remedy are named.
    """
    root = find_root(data_root)
    names, rows = read_labels(root)
    rows = rows[:max_images] if max_images else rows
    splits, how = _splits(root, rows)
    chosen = [row for row, s in zip(rows, splits, strict=True) if s == split]
    if not chosen:
        raise StudyError(
            f"{root / LABELS}: none of the {len(rows)} images is in split '{split}': add images, or lines "
            "to the column 'split'"
        )
    with ThreadPoolExecutor() as pool:
        paths = [root / row["file"] for row in chosen]
        images = torch.stack(
            list(pool.map(lambda path: read_face(path.read_bytes(), image_size, str(path)), paths))
        )
    grey = int((images == images[:, :1]).flatten(1).all(1).sum())
    listed = {row["file"] for row in rows}
    unlabelled = sum(p.suffix.lower() in SUFFIXES and p.name not in listed for p in root.iterdir())
    notes = [f"{len(rows):,} labelled images, {how}"]
    notes += [f"{unlabelled:,} images without a label left out"] * (unlabelled > 0 and not max_images)
    notes += [f"{grey:,} of the {split} images are grey"] * (grey > 0)
    return FaceDataset(
        name="folder",
        split=split,
        images=images,
        labels=np.array([[row[n] for n in names] for row in chosen], dtype=np.uint8),
        attribute_names=tuple(names),
        ids=np.array([row["file"] for row in chosen]),
        note="; ".join(notes),
    )


def find_root(data_root: str | Path | None) -> Path:
    """Return the folder, or raise StudyError saying what must be in it."""
    root = Path(data_root or "")
    if not data_root or not root.is_dir():
        raise StudyError(f"the folder of images '{data_root or ''}' is not there: give the path of a folder")
    if not (root / LABELS).is_file():
        raise StudyError(
            f"{root} has no {LABELS}: write one with a column 'file' and a column of 0 and 1 per attribute"
        )
    return root


def read_labels(root: Path) -> tuple[list[str], list[dict]]:
    """Read `labels.csv`: the attributes' names and one mapping per image, in order of the file names.

    Raises
    ------
    StudyError
        If it is no such table, a value is missing or neither 0/1 nor -1/1, or an image is not there.
    """
    path = root / LABELS
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *lines = [(reader.line_num, row) for reader in [csv.reader(file)] for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StudyError(f"{path} cannot be read ({error}): save it as CSV in UTF-8") from None
    except ValueError:
        raise StudyError(f"{path} is empty: its first line must read 'file,Attribute,...'") from None
    columns = [name.strip() for name in header[1]]
    if "file" not in columns:
        hint = "separate its columns by commas" if len(columns) == 1 and ";" in columns[0] else "add it"
        raise StudyError(f"{path} has no column 'file', it has {', '.join(columns)}: {hint}")
    names = [c for c in columns if c not in _RESERVED]
    wrong = [c for c in columns if columns.count(c) > 1 or not c or set("/+") & set(c)]
    if wrong or not names:
        what = (
            f"column '{wrong[0]}' is unnamed, stands twice or has a / or +" if wrong else "has no attribute"
        )
        raise StudyError(f"{path}: {what}: name every column once, and at least one attribute")
    rows = []
    for number, cells in lines:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(columns):
            raise StudyError(
                f"{path}, line {number}: {len(cells)} values for {len(columns)} columns: mend it"
            )
        row = {c: cell.strip() for c, cell in zip(columns, cells, strict=True)}
        row["file"] = row["file"] and Path(os.path.normpath(row["file"])).as_posix()  # './a.png' is 'a.png'
        rows.append(row | {n: _sign(row[n], f"{path}, line {number}, column '{n}'") for n in names})
    for name in names:
        if {-1, 0} <= {row[name] for row in rows}:
            raise StudyError(f"{path}: column '{name}' has both 0 and -1: use 0/1 or -1/1, not a mixture")
    _check_files(root, [row["file"] for row in rows])
    rows = [row | {n: int(row[n] > 0) for n in names} for row in rows]
    return names, sorted(rows, key=lambda row: row["file"])


def _sign(text: str, where: str) -> int:
    try:
        value = float(text)
    except ValueError:
        value = None
    if value not in (-1, 0, 1):
        what = f"'{text}' is" if text else "the label is missing: a blank is"
        raise StudyError(f"{where}: {what} neither 0/1 nor -1/1: label the image, or leave its line out")
    return int(value)


def _check_files(root: Path, files: list[str]) -> None:
    path, inside = root / LABELS, root.resolve()
    if not files:
        raise StudyError(f"{path} lists no image: add a line per image")
    if len(set(files)) < len(files):
        twice = next(f for f in files if files.count(f) > 1)
        raise StudyError(f"{path} lists '{twice}' more than once: keep one line")
    for file in files:
        if not file or not (root / file).resolve().is_relative_to(inside):
            raise StudyError(f"{path}: '{file}' is not inside the folder: move the image into it")
    missing = [f for f in files if not (root / f).is_file()]
    if missing:
        more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        raise StudyError(f"{path} names '{missing[0]}'{more}, not in the folder: add images or drop lines")


def _splits(root: Path, rows: list[dict]) -> tuple[list[str], str]:
    """Return the split of every row, and how it was made."""
    if "split" in rows[0]:
        for row in rows:
            if row["split"] not in SPLITS:
                raise StudyError(
                    f"{root / LABELS}: split '{row['split']}' of '{row['file']}' is not train, valid or test"
                )
        return [row["split"] for row in rows], "split as its column says"
    if "person" in rows[0]:
        lone = sum(not row["person"] for row in rows)
        how = "split 60/10/30 by a hash of the person" + f", or of the image ({lone:,} without one)" * bool(
            lone
        )
        return [_split_of(row["person"] or _content(root / row["file"])) for row in rows], how
    return [_split_of(_content(root / row["file"])) for row in rows], "split 60/10/30 by a hash of the image"


def _split_of(name: str) -> str:
    number = int.from_bytes(hashlib.blake2b(f"folder {name}".encode(), digest_size=8).digest(), "big") % 10
    return "train" if number < 6 else "valid" if number == 6 else "test"


def fingerprint(data_root: str | Path | None) -> str:
    """Return a digest of labels.csv and of all images it lists: part of every cache key."""
    root = find_root(data_root)
    contents = [f"version {VERSION}", _content(root / LABELS)]
    contents += [_content(root / row["file"]) for row in read_labels(root)[1]]
    return hashlib.blake2b("\n".join(contents).encode(), digest_size=12).hexdigest()


def _content(path: Path) -> str:
    """Return a digest of a file's bytes; each file is read once, unless it has changed since."""
    state = path.stat()
    return _content_then(path, state.st_size, state.st_mtime_ns)


@cache
def _content_then(path: Path, size: int, changed: int) -> str:  # size and time are for the cache
    return hashlib.blake2b(path.read_bytes(), digest_size=12).hexdigest()
