"""A file is there as a whole or not at all."""

import pytest

from lassi_lib.files import whole


def test_a_file_takes_its_place_only_when_it_is_finished(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with whole(path) as draft:
        draft.write_text("first")
        assert draft != path and not path.exists()
    assert path.read_text() == "first"
    with pytest.raises(RuntimeError), whole(path) as draft:
        draft.write_text("half of the sec")
        raise RuntimeError
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path]
