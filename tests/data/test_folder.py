"""A folder as users bring it: every way to write it wrongly is one line, every right way the same faces."""

import csv

import numpy as np
import pytest
from PIL import Image

from lassi_lib.data.dataset import load_dataset
from lassi_lib.data.folder import find_root, fingerprint, load_folder, read_labels
from lassi_lib.data.own_image import read_face
from lassi_lib.errors import StudyError


def write(root, header, *lines, separator=","):
    with (root / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=separator).writerows([header, *lines])


@pytest.fixture
def folder(tmp_path):
    """Forty random images, Smiling and Old in turn."""
    rng = np.random.default_rng(0)
    lines = []
    for i in range(40):
        Image.fromarray(rng.integers(0, 256, (20, 16, 3), dtype=np.uint8)).save(tmp_path / f"{i:02d}.png")
        lines.append([f"{i:02d}.png", i % 2, 1 if i % 3 else -1])
    write(tmp_path, ["file", "Smiling", "Old"], *lines)
    return tmp_path


def splits(root, **options):
    return {s: load_folder(s, image_size=16, data_root=root, **options) for s in ("train", "valid", "test")}


def test_every_image_is_in_one_split_with_its_labels(folder):
    parts = splits(folder)
    ids = np.concatenate([d.ids for d in parts.values()])
    assert sorted(ids) == [f"{i:02d}.png" for i in range(40)]
    assert len(parts["train"]) > len(parts["test"]) > len(parts["valid"]) > 0
    for data in parts.values():
        assert data.images.shape == (len(data), 3, 16, 16)
        numbers = np.array([int(name[:2]) for name in data.ids])
        assert (data.label("Smiling") == numbers % 2).all()
        assert (data.label("Old") == (numbers % 3 > 0)).all()
        first = read_face((folder / data.ids[0]).read_bytes(), 16)
        assert (data.images[0] == first).all()
    same = load_dataset("folder", "test", image_size=16, data_root=folder)
    assert (same.images == parts["test"].images).all()


def test_a_split_hangs_on_content_or_person_and_not_on_names_or_other_images(folder):
    before = {i: s for s, d in splits(folder).items() for i in d.ids}
    (folder / "07.png").rename(folder / "renamed.png")
    text = (folder / "labels.csv").read_text().replace("07.png", "renamed.png")
    (folder / "labels.csv").write_text(text.replace("39.png,1,-1\n", "").replace("39.png,1,-1\r\n", ""))
    after = {i: s for s, d in splits(folder).items() for i in d.ids}
    assert after.pop("renamed.png") == before.pop("07.png")
    before.pop("39.png")
    assert after == before
    write(folder, ["file", "person", "A"], *[[f"{i:02d}.png", i // 8, 0] for i in range(7)])
    with pytest.raises(StudyError, match="none of the 7 images is in split"):
        splits(folder)  # one person, one split


def test_images_without_a_person_are_split_by_themselves(folder):
    write(
        folder, ["file", "person", "A"], *[[f"{i:02d}.png", "x" if i < 3 else "", i % 2] for i in range(40)]
    )
    parts = splits(folder)
    assert all(len(d) for d in parts.values())
    assert len({s for s, d in parts.items() for i in d.ids if int(i[:2]) < 3}) == 1
    assert "of the person, or of the image (37 without one)" in parts["test"].note


def test_one_file_written_in_two_ways_is_one_file(folder):
    write(folder, ["file", "A"], *[[f"./{i:02d}.png", i % 2] for i in range(40)])
    assert all("without a label" not in d.note for d in splits(folder).values())
    write(folder, ["file", "A"], ["00.png", 0], ["sub/../00.png", 1])
    with pytest.raises(StudyError, match="more than once"):
        read_labels(folder)


def test_a_column_split_is_followed_and_max_images_cuts(folder):
    names = ["train", "valid", "test"]
    write(folder, ["split", "A", "file"], *[[names[i % 3], 1, f"{i:02d}.png"] for i in range(9)])
    assert list(load_folder("valid", image_size=8, data_root=folder).ids) == ["01.png", "04.png", "07.png"]
    assert list(load_folder("test", image_size=8, data_root=folder, max_images=3).ids) == ["02.png"]
    write(folder, ["split", "A", "file"], ["tets", 1, "00.png"])
    with pytest.raises(StudyError, match=r"'tets' of '00\.png' is not train, valid or test"):
        load_folder("test", data_root=folder)


def test_notes_say_what_was_left_out_and_what_is_grey(folder):
    Image.fromarray(np.full((30, 30), 7, np.uint8)).save(folder / "grey.jpg")
    Image.fromarray(np.zeros((30, 30, 3), np.uint8)).save(folder / "unlabelled.png")
    lines = [[f"{i:02d}.png", 1, "test"] for i in range(4)] + [["grey.jpg", 0, "test"]]
    write(folder, ["file", "A", "split"], *lines)
    note = load_folder("test", image_size=16, data_root=folder).note
    assert "5 labelled images, split as its column says" in note
    assert "37 images without a label left out" in note and "1 of the test images are grey" in note


def test_the_fingerprint_follows_labels_and_images_and_nothing_else(folder):
    first = fingerprint(folder)
    (folder / "notes.txt").write_text("x")
    assert fingerprint(folder) == first
    text = (folder / "labels.csv").read_text()
    (folder / "labels.csv").write_text(text.replace("00.png,0", "00.png,1"))
    other = fingerprint(folder)
    assert other != first
    Image.new("RGB", (20, 16)).save(folder / "00.png")
    assert fingerprint(folder) not in (first, other)


FILE = ["file", "A"]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([["name", "A"], ["00.png", 1]], "no column 'file', it has name, A"),
        ([["file;A"], ["00.png;1"]], "separate its columns by commas"),
        ([["file", "split"], ["00.png", "test"]], "has no attribute"),
        ([["file", "A", "A"], ["00.png", 1, 1]], "column 'A' is unnamed, stands twice"),
        ([["file", "A/B"], ["00.png", 1]], "column 'A/B'"),
        ([FILE, ["00.png", ""]], "line 2, column 'A': the label is missing"),
        ([FILE, ["00.png", 1], ["01.png", "yes"]], "line 3, column 'A': 'yes' is neither"),
        ([FILE, ["00.png", 2]], "'2' is neither 0/1 nor -1/1"),
        ([FILE, ["00.png", 0], ["01.png", -1]], "has both 0 and -1"),
        ([FILE, ["00.png"]], "line 2: 1 values for 2 columns"),
        ([FILE, ["00.png", 1], ["00.png", 0]], "lists '00.png' more than once"),
        ([FILE, ["97.png", 1], ["98.png", 0]], "names '97.png' and 1 more, not in the folder"),
        ([FILE, ["../x.png", 1]], "'../x.png' is not inside the folder"),
        ([FILE], "lists no image"),
        ([], "is empty"),
    ],
)
def test_a_wrong_table_is_one_line_with_its_place(folder, lines, words):
    if lines:
        write(folder, *lines)
    else:
        (folder / "labels.csv").write_text("")
    with pytest.raises(StudyError) as error:
        read_labels(folder)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_spreadsheets_ways_of_writing_are_read(folder):
    text = '\ufefffile,"A"\r\n00.png,1.0\r\n\r\n 01.png , 0 \r\n'
    (folder / "labels.csv").write_bytes(text.encode())
    assert read_labels(folder) == (["A"], [{"file": "00.png", "A": 1}, {"file": "01.png", "A": 0}])
    (folder / "labels.csv").write_bytes(b"file,A\n\xff\xfe,1\n")
    with pytest.raises(StudyError, match="save it as CSV in UTF-8"):
        read_labels(folder)


def test_what_is_no_image_and_no_folder_is_said(folder):
    for name, content in (("00.png", b"no image"), ("01.png", (folder / "02.png").read_bytes()[:90])):
        (folder / name).write_bytes(content)
        write(folder, ["file", "A", "split"], [name, 1, "test"])
        with pytest.raises(StudyError, match=f"{name} is (no PNG|damaged)"):
            load_folder("test", image_size=8, data_root=folder)
    with pytest.raises(StudyError, match="'/nowhere' is not there"):
        find_root("/nowhere")
    (folder / "labels.csv").unlink()
    with pytest.raises(StudyError, match=r"has no labels\.csv: write one"):
        find_root(folder)
