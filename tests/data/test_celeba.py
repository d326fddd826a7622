"""CelebA's loader: official layout, partial sets, identity-disjoint split, clear messages."""

import gzip

import numpy as np
import pytest
from PIL import Image

from lassi_lib.data.celeba import fingerprint, identity_split, load_celeba
from lassi_lib.data.dataset import load_dataset
from lassi_lib.errors import StudyError

NAMES = ["Bald", "Smiling", "Young"]


@pytest.fixture
def tiny(tmp_path):
    """Thirty small images of ten people in the official layout, all in the train partition."""
    root = tmp_path / "celeba"
    (root / "img_align_celeba").mkdir(parents=True)
    rng = np.random.default_rng(0)
    files = [f"{i:06d}.jpg" for i in range(1, 31)]
    for name in files:
        Image.fromarray(rng.integers(0, 256, (78, 64, 3), dtype=np.uint8)).save(
            root / "img_align_celeba" / name
        )
    labels = rng.choice([-1, 1], (40, 3))
    rows = [f"{i + 1:06d}.jpg " + " ".join(f"{v:2d}" for v in row) for i, row in enumerate(labels)]
    (root / "list_attr_celeba.txt").write_text("\n".join(["40", " ".join(NAMES), *rows]) + "\n")
    (root / "list_eval_partition.txt").write_text("".join(f"{f} 0\n" for f in files))
    (root / "identity_CelebA.txt").write_text("".join(f"{f} {i // 3}\n" for i, f in enumerate(files)))
    return root, labels


def test_labels_follow_their_images(tiny):
    root, labels = tiny
    splits = [load_celeba(s, data_root=root) for s in ("train", "valid", "test") if has(root, s)]
    for data in splits:
        expected = labels[[int(i[:6]) - 1 for i in data.ids]] > 0
        assert np.array_equal(data.labels, expected)
        assert data.images.shape == (len(data), 3, 64, 64)
        assert np.array_equal(data.label("Smiling"), expected[:, 1])
    assert sum(len(d) for d in splits) == 30
    assert "30 of 40 annotated images" in splits[0].note
    assert "identity" in splits[0].note


def has(root, split):
    return any(identity_split(i) == split for i in range(10))


def test_the_official_partition_is_used_where_its_images_are(tiny):
    root, _ = tiny
    lines = [f"{i:06d}.jpg {0 if i <= 20 else 1 if i <= 25 else 2}\n" for i in range(1, 31)]
    (root / "list_eval_partition.txt").write_text("".join(lines))
    (root / "identity_CelebA.txt").unlink()
    assert [len(load_celeba(s, data_root=root)) for s in ("train", "valid", "test")] == [20, 5, 5]
    assert "official partition" in load_celeba("test", data_root=root).note


def test_gzipped_annotations_and_the_parent_folder_are_accepted(tiny):
    root, _ = tiny
    plain = load_celeba("train", data_root=root)
    for path in list(root.glob("*.txt")):
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    packed = load_dataset("celeba", "train", data_root=root.parent)
    assert np.array_equal(plain.ids, packed.ids)
    assert (plain.images == packed.images).all()


def test_max_images_takes_the_first_files(tiny):
    root, _ = tiny
    assert max(load_celeba("train", data_root=root, max_images=12).ids) <= "000012.jpg"


def test_the_fingerprint_changes_with_the_files(tiny):
    root, _ = tiny
    before = fingerprint(root)
    assert before == fingerprint(root.parent)
    (root / "img_align_celeba" / "000030.jpg").unlink()
    assert fingerprint(root) != before


@pytest.mark.parametrize(
    "case", ["no root", "wrong folder", "no attributes", "no identity", "no images", "bad file", "bad image"]
)
def test_what_is_missing_is_said_in_one_line(tiny, case, tmp_path):
    root, _ = tiny
    given, words = root, []
    if case == "no root":
        given, words = None, ["--data-root", "mmlab", "img_align_celeba", "demo"]
    elif case == "wrong folder":
        given, words = tmp_path / "nowhere", ["nowhere", "mmlab", "demo"]
    elif case == "no attributes":
        (root / "list_attr_celeba.txt").unlink()
        words = ["mmlab", "list_attr_celeba.txt"]
    elif case == "no identity":
        (root / "identity_CelebA.txt").unlink()
        words = ["identity_CelebA.txt"]
    elif case == "no images":
        for path in (root / "img_align_celeba").iterdir():
            path.unlink()
        words = ["no CelebA image"]
    elif case == "bad file":
        (root / "list_attr_celeba.txt").write_text("not\nwhat it\nshould be\n")
        words = ["not CelebA's attribute file"]
    else:
        for path in (root / "img_align_celeba").iterdir():
            path.write_bytes(b"\xff\xd8 cut")
        words = [".jpg", "not a readable image"]
    with pytest.raises(StudyError) as error:
        load_celeba("train", data_root=given)
    text = str(error.value)
    assert "\n" not in text
    for word in words:
        assert word in text


def test_no_person_of_the_real_faces_is_in_two_splits(celeba_root):
    lines = gzip.decompress((celeba_root / "identity_CelebA.txt.gz").read_bytes()).decode().splitlines()
    identity = dict(line.split() for line in lines)
    people, faces = {}, 0
    for split in ("train", "valid", "test"):
        data = load_celeba(split, data_root=celeba_root, max_images=600)
        faces += len(data)
        people[split] = {identity[i] for i in data.ids}
    assert faces == 600
    assert not people["train"] & people["test"]
    assert not people["train"] & people["valid"]
    assert not people["valid"] & people["test"]


def test_the_split_is_near_80_10_10():
    splits = [identity_split(i) for i in range(10_000)]
    for split, share in (("train", 0.8), ("valid", 0.1), ("test", 0.1)):
        assert abs(splits.count(split) / 10_000 - share) < 4 * (share * (1 - share) / 10_000) ** 0.5


def test_an_unknown_attribute_split_or_data_set_suggests_the_nearest(tiny):
    root, _ = tiny
    with pytest.raises(StudyError, match="did you mean 'Smiling'"):
        load_celeba("train", data_root=root).label("smilng")
    with pytest.raises(StudyError, match="did you mean 'valid'"):
        load_dataset("celeba", "validation", data_root=root)
    with pytest.raises(StudyError, match="did you mean 'celeba'"):
        load_dataset("CelebA", "train", data_root=root)
