"""Files from outside: what unpacks to far more than it is, or is not what its name says, is refused."""

import gzip

import pytest
import torch
from PIL import Image

from lassi_lib.data import files
from lassi_lib.data.files import existing, listing_digest, read_images, read_text
from lassi_lib.errors import StudyError


def test_plain_and_gzipped_texts_are_read(tmp_path):
    (tmp_path / "a.txt").write_bytes("ä\r\nb\n".encode())
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress("ä\nb\n".encode()))
    assert existing(tmp_path, "a.txt").name == "a.txt"
    assert existing(tmp_path, "b.txt").name == "b.txt.gz"
    assert existing(tmp_path, "c.txt") is None
    assert {read_text(path, "home") for path in sorted(tmp_path.iterdir())} == {"ä\nb\n"}


@pytest.mark.parametrize("content", [b"x" * 2000, gzip.compress(b"x" * 2000, mtime=0), b"\xff", b""])
def test_texts_that_are_too_large_or_damaged_are_refused(tmp_path, monkeypatch, content):
    monkeypatch.setattr(files, "MAX_TEXT", 1000)
    path = tmp_path / ("a.txt.gz" if content[:2] == b"\x1f\x8b" else "a.txt")
    path.write_bytes(content)
    if not content:
        assert read_text(path, "home") == ""
        return
    with pytest.raises(StudyError, match=r"a\.txt.* cannot be read .*get it again from home"):
        read_text(path, "home")


def test_images_are_read_and_too_large_or_foreign_ones_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.new("RGB", (30, 20), (10, 20, 30)).save(path)
    image = read_images([path], 16)
    assert image.shape == (1, 3, 16, 16) and image.dtype == torch.uint8
    assert image.amax((0, 2, 3)).tolist() == [10, 20, 30]
    monkeypatch.setattr(files, "MAX_PIXELS", 500)
    with pytest.raises(StudyError, match=r"a\.png is not a readable image \(30 x 20 pixels\)"):
        read_images([path], 16)
    path.write_bytes(b"<script>")
    with pytest.raises(StudyError, match=r"a\.png is not a readable image"):
        read_images([path], 16)


def test_a_digest_tells_names_and_sizes(tmp_path):
    (tmp_path / "a").write_text("1")
    before = listing_digest(tmp_path, [tmp_path / "a"])
    (tmp_path / "a").write_text("12")
    assert len({before, listing_digest(tmp_path, [tmp_path / "a"]), listing_digest(tmp_path, [])}) == 3
