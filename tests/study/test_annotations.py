"""Label files without images: the papers' subsets of them, and clear words where they are missing."""

import functools
import gzip

import numpy as np
import pytest

from lassi_lib.errors import StudyError
from lassi_lib.study.annotations import Annotations, find_annotations
from tests.conftest import SHARED


@functools.cache
def found_in(folder):
    return find_annotations(folder)


def real_annotations():
    """CelebA's and FairFace's complete label files, or a skip that says what is missing."""
    for name in ("celeba/list_attr_celeba.txt.gz", "fairface/fairface_label_val.csv.gz"):
        if not (SHARED / name).is_file():
            pytest.skip(f"official label file is not at {SHARED / name}")
    return found_in(SHARED)


def write_celeba(root, n=260, packed=False):
    rng = np.random.default_rng(3)
    labels = rng.choice([-1, 1], (n, 2))
    rows = [f"{i + 1:06d}.jpg {a:2d} {b:2d}" for i, (a, b) in enumerate(labels)]
    parts = [f"{i + 1:06d}.jpg {0 if i < 60 else 1 if i < 80 else 2}" for i in range(n)]
    root.mkdir()
    for name, lines in (
        ("list_attr_celeba.txt", [str(n), "Bald Smiling", *rows]),
        ("list_eval_partition.txt", parts),
    ):
        text = "\n".join(lines) + "\n"
        if packed:
            (root / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
        else:
            (root / name).write_text(text)
    return labels > 0


@pytest.mark.parametrize("packed", [False, True])
def test_labels_splits_and_every_kth_image(tmp_path, packed):
    truth = write_celeba(tmp_path / "celeba", packed=packed)
    (celeba,) = find_annotations(tmp_path).values()  # no images are there, and none are needed
    assert celeba.name == "CelebA" and np.array_equal(celeba.labels.to_numpy(), truth)
    assert [len(celeba.of_split(s)) for s in ("train", "valid", "test", "all")] == [60, 20, 180, 260]
    assert celeba.stride("test", 3) == 64 and celeba.stride("test", 180) == 1
    assert np.array_equal(celeba.subset("test", 3).to_numpy(), truth[[80, 144, 208]])
    assert celeba.stride("test", 4) is None and celeba.subset("test", 4) is None


def test_a_folder_without_label_files_is_no_error_but_a_missing_folder_is(tmp_path):
    assert find_annotations("") == {} and find_annotations(None) == {} and find_annotations(tmp_path) == {}
    with pytest.raises(StudyError, match="does not exist"):
        find_annotations(tmp_path / "nowhere")


def test_an_image_without_a_split_is_named(tmp_path):
    write_celeba(tmp_path / "celeba")
    path = tmp_path / "celeba" / "list_eval_partition.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(StudyError, match=r"no line for 000260\.jpg"):
        find_annotations(tmp_path)


def test_the_official_files_have_the_official_sizes():
    real = real_annotations()
    sizes = {
        name: [len(a.of_split(s)) for s in ("train", "valid", "test", "all")] for name, a in real.items()
    }
    assert sizes == {
        "CelebA": [162_770, 19_867, 19_962, 202_599],
        "FairFace": [69_395, 17_349, 10_954, 97_698],
    }
    assert isinstance(real["CelebA"], Annotations) and real["CelebA"].labels.shape[1] == 40
    assert len(real["CelebA"].subset("test", 312)) == 312 and len(real["FairFace"].subset("test", 343)) == 343
