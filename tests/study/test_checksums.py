"""A digest of data tells apart what would give other numbers, and is computed once."""

import gzip
from dataclasses import replace

import pytest

from lassi_lib.data import celeba, fairface
from lassi_lib.study import checksums
from lassi_lib.study.checksums import data_checksums, in_words
from lassi_lib.study.params import load_pipeline
from lassi_lib.study.study import Study


def save(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture
def root(tmp_path):
    """A made-up CelebA: its images are never decoded here."""
    rows = "".join(f"{i:06d}.jpg  1 -1\n" for i in range(1, 5))
    save(tmp_path / "data" / "list_attr_celeba.txt", f"4\nSmiling Young\n{rows}".encode())
    pairs = gzip.compress("".join(f"{i:06d}.jpg 0\n" for i in range(1, 5)).encode(), mtime=0)
    save(tmp_path / "data" / "list_eval_partition.txt.gz", pairs)
    for i in (1, 2, 3, 9):  # 4 is missing, 9 has no annotation
        save(tmp_path / "data" / "img_align_celeba" / f"{i:06d}.jpg", b"abc%d" % i)
    return tmp_path / "data"


def study(root, folder, max_images=0):
    pipeline = load_pipeline("celeba20k")
    pipeline = replace(pipeline, data=replace(pipeline.data, max_images=max_images))
    return Study(pipeline, data_root=root, device="cpu", cache=folder / "cache")


def test_photographs_are_known_by_the_bytes_that_are_used(root, tmp_path):
    found = data_checksums(study(root, tmp_path))
    assert found["images"] == 3
    assert list(found["files"]) == ["list_attr_celeba.txt", "list_eval_partition.txt.gz"]
    assert found["images_digest"] != data_checksums(study(root, tmp_path, 2))["images_digest"]
    again = data_checksums(study(root, tmp_path / "another cache"))
    assert again == found
    save(root / "img_align_celeba" / "000002.jpg", b"abd2")  # as many bytes
    assert data_checksums(study(root, tmp_path / "third"))["images_digest"] != found["images_digest"]
    words = in_words(found)
    assert words.startswith(f"3 images {found['images_digest'][:8]}, list_attr_celeba.txt ")


def test_files_are_read_once(root, tmp_path, monkeypatch):
    found = data_checksums(study(root, tmp_path))
    monkeypatch.setattr(checksums, "digest", lambda paths: pytest.fail("read again"))
    assert data_checksums(study(root, tmp_path)) == found


def test_rendered_data_are_known_by_version_and_parameters(tmp_path):
    pipeline = load_pipeline("smoke")
    found = [
        data_checksums(Study(replace(pipeline, data=replace(pipeline.data, seed=s)), cache=tmp_path, device="cpu"))
        for s in (0, 0, 1)
    ]  # fmt: skip
    assert found[0] == found[1] != found[2]
    assert "version" in found[0]["content"] and found[2]["parameters"]["seed"] == 1
    assert in_words(found[0]) == in_words(found[1]) != in_words(found[2])
    assert not list(tmp_path.iterdir())  # nothing to keep


def test_nothing_recorded_is_said():
    assert in_words({}) == "not recorded"


def test_used_files_are_those_that_the_data_sets_load(root, fairface_root):
    assert [p.name for p in celeba.used_files(root)[1]] == ["000001.jpg", "000002.jpg", "000003.jpg"]
    annotations, images = fairface.used_files(fairface_root, 30)
    test = fairface.load_fairface("test", data_root=fairface_root, max_images=30)
    assert set(test.ids) == {f"val/{p.name}" for p in images if p.parent.name == "val"}
    assert len(annotations) == 2
