"""FairFace in its official layout; partial image sets and gzipped label files are accepted.

Age and race are what annotators saw in a photograph, not what people say of themselves. FairFace is
published under CC BY 4.0 (Karkkainen & Joo, WACV 2021; https://github.com/joojs/fairface). Gender is in
the label files too; neither paper uses it, nor does the study.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lassi_lib.data.dataset import FaceDataset
from lassi_lib.data.files import existing, listing_digest, read_images, read_text
from lassi_lib.errors import StudyError

HOMEPAGE = "https://github.com/joojs/fairface"
LABEL_FILES = {part: f"fairface_label_{part}.csv" for part in ("train", "val")}
LAYOUT = f"train/*.jpg, val/*.jpg (padding 0.25), {' and '.join(LABEL_FILES.values())} (.gz accepted)"

AGES = ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "more than 70")
RACES = ("Black", "East_Asian", "Indian", "Latino_Hispanic", "Middle_Eastern", "Southeast_Asian", "White")
# The papers' tasks: names of the classes, and the class of each of the nine age groups. 'Age-2' is the
# ECCV code's `Age_bin`, 'Age-9' its `Age`.
TASKS = {
    "Age-2": (("under 30", "30 or more"), (0, 0, 0, 0, 1, 1, 1, 1, 1)),
    "Age-3": (("0-19", "20-39", "40 or more"), (0, 0, 0, 1, 1, 2, 2, 2, 2)),
    "Age-9": (AGES, tuple(range(9))),
}
ATTRIBUTES = (*TASKS, *(f"Race={race}" for race in RACES))
N_CLASSES = (*(len(names) for names, _ in TASKS.values()), *(2 for _ in RACES))


@dataclass(frozen=True)
class LabelFile:
    """One official label file: `files` (str [M]), `age` and `race` (int [M], into AGES and RACES)."""

    files: np.ndarray
    age: np.ndarray
    race: np.ndarray

    def labels(self, rows: np.ndarray) -> np.ndarray:
        """Return uint8 [len(rows), len(ATTRIBUTES)]."""
        tasks = [np.array(of_age)[self.age[rows]] for _, of_age in TASKS.values()]
        races = [self.race[rows] == i for i in range(len(RACES))]
        return np.stack([*tasks, *races], axis=1).astype(np.uint8)


def load_fairface(
    split: str, *, image_size: int = 64, data_root: str | Path | None = None, max_images: int = 0
) -> FaceDataset:
    """Load the FairFace images that are present.

    Parameters
    ----------
    split : {'train', 'valid', 'test'}
        'test' is the official "val" part. 'train' and 'valid' are drawn from the official train part,
        80 to 20, as in the ECCV code (see `train_or_valid`). The draw is over the rows of the label
        file: an image is in the same split however many others are present.
    image_size : int
        Edge of the square images, in pixels.
    data_root : path
        The folder with the official files (or its parent, when they lie in ``fairface/``).
    max_images : int
        Use only the first images of each official part, in the order of its label file (0: all).

    Returns
    -------
    FaceDataset
        Columns 'Age-2' (1: 30 years or more), 'Age-3', 'Age-9' and a binary 'Race=...' for each of
        `RACES`; ``extras['class_names']`` names the classes of the three tasks.

    Raises
    ------
    StudyError
        If files are missing: the message says where to get them and what layout is expected.
    """
    root = find_root(data_root)
    tables = {part: read_labels(root, part) for part in LABEL_FILES}
    found = {part: _present(root, part, table, max_images) for part, table in tables.items()}
    part = "val" if split == "test" else "train"
    rows, table = found[part], tables[part]
    if split != "test":
        rows = rows[train_or_valid(len(table.files))[rows] == split]
    if not len(rows):
        raise StudyError(
            f"no FairFace image was found for split '{split}' in {root / part}: "
            f"add images from {HOMEPAGE} or raise max_images; expected layout: {LAYOUT}"
        )
    counts = [f"{len(found[p]):,} of {len(tables[p].files):,} annotated {p} images" for p in LABEL_FILES]
    return FaceDataset(
        name="fairface",
        split=split,
        images=read_images([root / name for name in table.files[rows]], image_size),
        labels=table.labels(rows),
        attribute_names=ATTRIBUTES,
        ids=table.files[rows],
        note=f"{' and '.join(counts)} used; official val is the test split, "
        "train/valid 80/20 by row of the complete label file, drawn as in the ECCV code",
        extras={"class_names": {name: names for name, (names, _) in TASKS.items()}},
        n_classes=N_CLASSES,
    )


def train_or_valid(n: int) -> np.ndarray:
    """Return 'train' or 'valid' for each of n rows: the draw of the ECCV code, without scikit-learn.

    There, ``train_test_split(train_size=0.8, random_state=RandomState(42))`` permutes the rows once and
    takes the held-out ones from the front: 69,395 and 17,349 of FairFace's 86,744.
    """
    order = np.random.RandomState(42).permutation(n)  # the legacy generator, as there
    split = np.full(n, "train")
    split[order[: n - int(0.8 * n)]] = "valid"
    return split


def find_root(data_root: str | Path | None) -> Path:
    """Return the folder that holds the official files, or raise StudyError saying how to get them."""
    help_line = (
        f"get it from {HOMEPAGE} (CC BY 4.0), expected layout: {LAYOUT}; profile demo needs no download"
    )
    if not data_root:
        raise StudyError(f"FairFace needs --data-root DIR: {help_line}")
    for root in (Path(data_root), Path(data_root) / "fairface"):
        if all((root / part).is_dir() and existing(root, name) for part, name in LABEL_FILES.items()):
            return root
    raise StudyError(f"FairFace was not found in {data_root}: {help_line}")


def fingerprint(data_root: str | Path | None) -> str:
    """Return a digest of which files are there (names and sizes): part of every cache key."""
    root = find_root(data_root)
    images = [path for part in LABEL_FILES for path in sorted((root / part).glob("*.jpg"))]
    return listing_digest(root, images + [existing(root, name) for name in LABEL_FILES.values()])


def used_files(data_root: str | Path | None, max_images: int = 0) -> tuple[list[Path], list[Path]]:
    """Return the label files and the images that `load_fairface` reads over all splits."""
    root = find_root(data_root)
    images = []
    for part in LABEL_FILES:
        table = read_labels(root, part)
        images += [root / name for name in table.files[_present(root, part, table, max_images)]]
    return [existing(root, name) for name in LABEL_FILES.values()], images


def _present(root: Path, part: str, table: LabelFile, max_images: int) -> np.ndarray:
    """Return the rows of a label file whose image is there."""
    there = {f"{part}/{path.name}" for path in (root / part).iterdir()}
    rows = np.flatnonzero([name in there for name in table.files])
    return rows[:max_images] if max_images else rows


def read_labels(root: Path, part: str) -> LabelFile:
    """Read 'file,age,gender,race,service_test' rows; some mirrors call the first column 'file_name'."""
    path = existing(root, LABEL_FILES[part])
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path, HOMEPAGE))))
    except csv.Error as error:
        raise StudyError(f"{path} is no table ({error}): get it again from {HOMEPAGE}") from None
    columns = set(rows[0]) if rows else set()
    name = "file" if "file" in columns else "file_name"
    if not {name, "age", "race"} <= columns:
        raise StudyError(
            f"{path} is not FairFace's label file (columns file, age, race): get it again from {HOMEPAGE}"
        )
    codes = {}
    for column, known in (("age", AGES), ("race", RACES)):
        values = [str(row[column]).replace(" ", "_") if column == "race" else row[column] for row in rows]
        for line, value in enumerate(values, start=2):
            if value not in known:
                raise StudyError(
                    f"{path}, line {line}: {column} '{value}' is not one of FairFace's: "
                    f"get it again from {HOMEPAGE}"
                )
        codes[column] = np.array([known.index(value) for value in values])
    files = [str(row[name]) for row in rows]
    file, count = Counter(files).most_common(1)[0]
    if count > 1:
        raise StudyError(f"{path}: '{file}' stands in {count} rows: get it again from {HOMEPAGE}")
    return LabelFile(np.array(files), codes["age"], codes["race"])
