"""CelebA in its official layout; partial image sets and gzipped annotation files are accepted.

The labels are annotators' judgements of celebrities' photographs. Some of their names are offensive
("Attractive", "Chubby"); they are kept because the published results use them. CelebA is for
non-commercial research only (https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html).
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np

from lassi_lib.data.dataset import SPLITS, FaceDataset
from lassi_lib.data.files import existing, read_images, read_text
from lassi_lib.errors import StudyError

HOMEPAGE = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
LAYOUT = (
    "img_align_celeba/*.jpg, list_attr_celeba.txt, list_eval_partition.txt, and identity_CelebA.txt "
    "for a partial image set (.gz accepted)"
)


def load_celeba(
    split: str, *, image_size: int = 64, data_root: str | Path | None = None, max_images: int = 0
) -> FaceDataset:
    """Load the CelebA images that are present.

    Parameters
    ----------
    split : {'train', 'valid', 'test'}
        The official partition where its images are present. Where every image found lies in the
        official *train* partition (a partial download), an identity-disjoint 80/10/10 split by a
        hash of the identity takes its place, and the data set's note says so.
    image_size : int
        Edge of the square images, in pixels.
    data_root : path
        The folder with the official files (or its parent, when they lie in ``celeba/``).
    max_images : int
        Use only the first images by file name (0: all).

    Raises
    ------
    StudyError
        If files are missing: the message says where to get them and what layout is expected.
    """
    root = find_root(data_root)
    names, table = read_attributes(root)
    folder = root / "img_align_celeba"
    ids = _present(folder, table, max_images)
    if not ids:
        raise StudyError(f"no CelebA image of {folder} is listed in list_attr_celeba.txt: expected {LAYOUT}")
    splits, how = _splits(root, ids)
    chosen = [i for i, s in zip(ids, splits, strict=True) if s == split]
    if not chosen:
        raise StudyError(
            f"no CelebA image was found for split '{split}' in {folder}: add images or raise max_images"
        )
    return FaceDataset(
        name="celeba",
        split=split,
        images=read_images([folder / i for i in chosen], image_size),
        labels=np.array([table[i] for i in chosen], dtype=np.uint8),
        attribute_names=tuple(names),
        ids=np.array(chosen),
        note=f"{len(ids):,} of {len(table):,} annotated images used; {how}",
    )


def _present(folder: Path, table: dict[str, np.ndarray], max_images: int) -> list[str]:
    """Return the annotated images that are there, by name; the first `max_images` of them."""
    ids = sorted({p.name for p in folder.iterdir() if p.suffix == ".jpg"} & table.keys())
    return ids[:max_images] if max_images else ids


def used_files(data_root: str | Path | None, max_images: int = 0) -> tuple[list[Path], list[Path]]:
    """Return the annotation files and the images that `load_celeba` reads over all splits."""
    root = find_root(data_root)
    names = ("list_attr_celeba.txt", "list_eval_partition.txt", "identity_CelebA.txt")
    annotations = [path for path in (existing(root, name) for name in names) if path]
    folder = root / "img_align_celeba"
    return annotations, [folder / i for i in _present(folder, read_attributes(root)[1], max_images)]


def find_root(data_root: str | Path | None) -> Path:
    """Return the folder that holds the official files, or raise StudyError saying how to get them."""
    help_line = (
        f"get it from {HOMEPAGE} (non-commercial research only), expected layout: {LAYOUT}; "
        "profile demo needs no download"
    )
    if not data_root:
        raise StudyError(f"CelebA needs --data-root DIR: {help_line}")
    for root in (Path(data_root), Path(data_root) / "celeba"):
        if (root / "img_align_celeba").is_dir() and existing(root, "list_attr_celeba.txt"):
            return root
    raise StudyError(f"CelebA was not found in {data_root}: {help_line}")


def identity_split(identity: int | str) -> str:
    """Return the split of a person: 80/10/10 by a hash, so that no one is in two splits."""
    digest = hashlib.blake2b(f"identity {identity}".encode(), digest_size=8).digest()
    return {8: "valid", 9: "test"}.get(int.from_bytes(digest, "big") % 10, "train")


def _splits(root: Path, ids: list[str]) -> tuple[list[str], str]:
    """Return the split of every image and a sentence on how it was made."""
    partition = read_pairs(root, "list_eval_partition.txt")
    official = [SPLITS[int(partition[i])] if i in partition else "" for i in ids]
    if {"valid", "test"} <= set(official):
        return official, "official partition"
    if not existing(root, "identity_CelebA.txt"):
        raise StudyError(
            f"{root} holds no image of CelebA's official valid or test partition, and identity_CelebA.txt, "
            f"needed for an identity-disjoint split, is missing: get it from {HOMEPAGE}"
        )
    identity = read_pairs(root, "identity_CelebA.txt")
    missing = [i for i in ids if i not in identity]
    if missing:
        raise StudyError(f"identity_CelebA.txt in {root} has no line for {missing[0]}: get the complete file")
    how = "official valid/test images absent, identity-disjoint 80/10/10 split by a hash of the identity"
    return [identity_split(identity[i]) for i in ids], how


def read_attributes(root: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """Read list_attr_celeba.txt: count, names, then 'file -1 1 ...' rows."""
    lines = _read_text(root, "list_attr_celeba.txt").splitlines()
    path, remedy = existing(root, "list_attr_celeba.txt"), f"get the original from {HOMEPAGE}"
    count, names = lines[0].strip() if lines else "", lines[1].split() if len(lines) > 2 else []
    plain = all(re.fullmatch(r"[\w-]+", name) for name in names)
    if not (count.isdecimal() and names and plain and len(set(names)) == len(names)):
        raise StudyError(f"{path} is not CelebA's attribute file (a count, a line of names, rows): {remedy}")
    body = [line.split() for line in lines[2:]]
    for number, row in enumerate(body, start=3):
        if len(row) != len(names) + 1 or not {"-1", "1"}.issuperset(row[1:]):
            raise StudyError(
                f"{path}, line {number}: expected an image and {len(names)} labels, 1 or -1: {remedy}"
            )
    table = dict(zip([r[0] for r in body], np.array([r[1:] for r in body], dtype=np.int8) > 0, strict=True))
    if not len(table) == len(body) == int(count):
        raise StudyError(
            f"{path}: its first line says {count} images, its rows name {len(table):,} different ones: {remedy}"
        )
    return names, table


def read_pairs(root: Path, name: str) -> dict[str, str]:
    """Read 'file number' rows: list_eval_partition.txt (0, 1, 2) or identity_CelebA.txt."""
    body = [line.split() for line in _read_text(root, name).splitlines()]
    known = r"[012]" if name == "list_eval_partition.txt" else r"\d+"
    wrong = [i for i, row in enumerate(body, 1) if len(row) != 2 or not re.fullmatch(known, row[1])]
    if wrong or len({row[0] for row in body}) < len(body):
        where = f", line {wrong[0]}: expected an image and a number" if wrong else ": an image stands twice"
        raise StudyError(f"{existing(root, name)}{where}: get the original from {HOMEPAGE}")
    return dict(body)


def _read_text(root: Path, name: str) -> str:
    path = existing(root, name)
    if path is None:
        raise StudyError(f"{name} is missing in {root}: get it from {HOMEPAGE}; expected layout: {LAYOUT}")
    return read_text(path, HOMEPAGE)


def fingerprint(data_root: str | Path | None) -> str:
    """Return a digest of which files are there (names and sizes): part of every cache key."""
    root = find_root(data_root)
    files = sorted((root / "img_align_celeba").glob("*.jpg")) + sorted(root.glob("*.txt*"))
    listing = "\n".join(f"{p.name} {p.stat().st_size}" for p in files)
    return hashlib.blake2b(listing.encode(), digest_size=12).hexdigest()
