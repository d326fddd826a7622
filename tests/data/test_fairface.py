"""FairFace's loader: official layout, partial sets, the ECCV code's split, clear messages."""

import gzip

import numpy as np
import pytest
from PIL import Image

from lassi_lib.data.dataset import FaceDataset, load_dataset
from lassi_lib.data.fairface import AGES, ATTRIBUTES, RACES, fingerprint, load_fairface, train_or_valid
from lassi_lib.errors import StudyError

N = {"train": 40, "val": 18}


@pytest.fixture
def tiny(tmp_path):
    """Small images in the official layout; row i has age i % 9 and race i % 7, its pixels are all i."""
    root = tmp_path / "fairface"
    for part, count in N.items():
        (root / part).mkdir(parents=True)
        lines = ["file,age,gender,race,service_test"]
        for i in range(count):
            name = f"{part}/{i + 1}.jpg"
            Image.fromarray(np.full((64, 64, 3), 4 * i, dtype=np.uint8)).save(root / name, quality=100)
            lines.append(f"{name},{AGES[i % 9]},Female,{RACES[i % 7].replace('_', ' ')},True")
        text = "\n".join(lines).replace("Latino Hispanic", "Latino_Hispanic")  # as in the official file
        (root / f"fairface_label_{part}.csv").write_text(text + "\n")
    return root


def rows_of(data):
    return np.array([int(name.split("/")[1].removesuffix(".jpg")) - 1 for name in data.ids])


def test_images_and_labels_follow_the_label_file(tiny):
    for split, part in (("train", "train"), ("valid", "train"), ("test", "val")):
        data = load_fairface(split, data_root=tiny)
        rows = rows_of(data)
        assert all(name.startswith(f"{part}/") for name in data.ids)
        assert data.images.shape == (len(rows), 3, 64, 64)
        assert np.abs(data.images.float().mean((1, 2, 3)).numpy() - 4 * rows).max() < 2
        age, race = rows % 9, rows % 7
        assert np.array_equal(data.label("Age-9"), age)
        assert np.array_equal(data.label("Age-2"), age > 3)
        assert np.array_equal(data.label("Age-3"), (age > 2).astype(int) + (age > 4))
        for i, name in enumerate(RACES):
            assert np.array_equal(data.label(f"Race={name}"), race == i)
        assert [data.classes(name) for name in ("Age-2", "Age-3", "Age-9", "Race=Black")] == [2, 3, 9, 2]
        assert [len(data.extras["class_names"][f"Age-{k}"]) for k in (2, 3, 9)] == [2, 3, 9]


def test_the_split_is_the_one_of_the_eccv_code():
    # scikit-learn's own example: train_test_split(range(5), test_size=0.33, random_state=42) holds out 1, 4
    assert set(np.random.RandomState(42).permutation(5)[:2]) == {1, 4}
    split = train_or_valid(86_744)
    assert [(split == s).sum() for s in ("train", "valid")] == [69_395, 17_349]
    assert list(np.flatnonzero(train_or_valid(5) == "valid")) == [1]


def test_an_image_keeps_its_split_in_a_partial_set(tiny):
    full = {s: load_fairface(s, data_root=tiny) for s in ("train", "valid", "test")}
    assert [len(d) for d in full.values()] == [32, 8, 18]
    assert "40 of 40 annotated train images and 18 of 18 annotated val images" in full["train"].note
    for i in (*range(1, 20), 31):
        (tiny / "train" / f"{i}.jpg").unlink()
    for split, before in full.items():
        after = load_fairface(split, data_root=tiny)
        kept = [name for name in before.ids if (tiny / name).is_file()]
        assert list(after.ids) == kept
        assert "20 of 40 annotated train images" in after.note
    assert len(load_fairface("test", data_root=tiny, max_images=5)) == 5


def test_mirrors_and_packed_files_are_accepted(tiny):
    plain = load_fairface("valid", data_root=tiny)
    for path in list(tiny.glob("*.csv")):
        text = path.read_text().replace("file,", "file_name,", 1).replace("East Asian", "East_Asian")
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(text.encode()))
        path.unlink()
    packed = load_dataset("fairface", "valid", data_root=tiny.parent)
    assert np.array_equal(plain.ids, packed.ids)
    assert np.array_equal(plain.labels, packed.labels)
    assert (plain.images == packed.images).all()


def test_the_fingerprint_changes_with_the_files(tiny):
    before = fingerprint(tiny)
    assert before == fingerprint(tiny.parent)
    (tiny / "val" / "3.jpg").unlink()
    assert fingerprint(tiny) != before


@pytest.mark.parametrize(
    "case",
    ["no root", "wrong folder", "no labels", "no images", "bad age", "bad columns", "cut", "bad image"],
)
def test_what_is_missing_is_said_in_one_line(tiny, case):
    given, words = tiny, []
    labels = tiny / "fairface_label_train.csv"
    if case == "no root":
        given, words = None, ["--data-root", "joojs/fairface", "train/*.jpg", "demo"]
    elif case == "wrong folder":
        given, words = tiny / "nowhere", ["nowhere", "joojs/fairface", "demo"]
    elif case == "no labels":
        labels.unlink()
        words = ["joojs/fairface", labels.name]
    elif case == "no images":
        for path in (tiny / "train").iterdir():
            path.unlink()
        words = ["no FairFace image", "'train'"]
    elif case == "bad age":
        labels.write_text(labels.read_text().replace(",10-19,", ",Oct-19,", 1))
        words = [labels.name, "line 4", "age 'Oct-19'"]
    elif case == "bad columns":
        labels.write_text("not,what\nit,should\n")
        words = ["not FairFace's label file"]
    elif case == "cut":
        labels.with_name(labels.name + ".gz").write_bytes(gzip.compress(labels.read_bytes())[:-20])
        labels.unlink()
        words = ["cannot be read", "joojs/fairface"]
    else:
        for path in (tiny / "train").iterdir():
            path.write_bytes(b"\xff\xd8 cut")
        words = [".jpg", "not a readable image"]
    with pytest.raises(StudyError) as error:
        load_fairface("train", data_root=given)
    text = str(error.value)
    assert "\n" not in text
    for word in words:
        assert word in text


def test_an_unknown_name_suggests_the_nearest(tiny):
    data = load_fairface("test", data_root=tiny)
    with pytest.raises(StudyError, match="did you mean 'Race=Black'"):
        data.label("Race=black")
    with pytest.raises(StudyError, match="did you mean 'valid'"):
        load_dataset("fairface", "val", data_root=tiny)
    with pytest.raises(StudyError, match="did you mean 'fairface'"):
        load_dataset("FairFace", "train", data_root=tiny)


def test_a_data_set_without_class_counts_is_binary(tiny):
    data = load_fairface("test", data_root=tiny)
    binary = FaceDataset("x", "test", data.images, data.labels[:, 3:], ATTRIBUTES[3:], data.ids)
    assert binary.classes("Race=White") == 2


def test_the_real_images_at_hand(fairface_root):
    splits = {
        s: load_fairface(s, data_root=fairface_root, max_images=500) for s in ("train", "valid", "test")
    }
    assert len(splits["train"]) + len(splits["valid"]) == 500 == len(splits["test"])
    assert 0.7 < len(splits["train"]) / 500 < 0.9
    assert "of 86,744 annotated train images" in splits["test"].note
    assert "of 10,954 annotated val images" in splits["test"].note
    assert splits["test"].images.float().std() > 30  # photographs, not blanks


def test_rates_of_the_official_labels_are_the_published_ones(fairface_root):
    """ECCV supplement, Table 5: 14.1 % Black in train; majorities of every 32nd image of test."""
    from lassi_lib.data.fairface import read_labels

    train, val = read_labels(fairface_root, "train"), read_labels(fairface_root, "val")
    black = ATTRIBUTES.index("Race=Black")
    rates = train.labels(np.arange(len(train.files))).mean(0)
    assert round(100 * rates[black], 1) == 14.1
    subset = val.labels(np.arange(0, len(val.files), 32))
    assert len(subset) == 343
    for column, majority in enumerate((55.69, 51.31, 29.74)):
        assert round(100 * np.bincount(subset[:, column]).max() / 343, 2) == majority
