"""Errors that the user can mend are one line; others stay errors."""

import errno
import os

import pytest

from lassi_lib.errors import disk_trouble


def of(code, *where):
    return OSError(code, os.strerror(code), *where)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (of(errno.ENOSPC), ["No space left on device", "free some space", "--cache", "--output"]),
        (of(errno.EDQUOT), ["quota", "free some space"]),
        (of(errno.EFBIG), ["File too large", "free some space"]),
        (of(errno.EROFS, "/here/file"), ["/here/file: Read-only file system", "name other folders"]),
        (of(errno.EACCES, "/here/file"), ["/here/file: Permission denied", "permissions"]),
        (of(errno.EPERM, "/here/file"), ["/here/file: Operation not permitted", "permissions"]),
        (of(errno.ENOTDIR, "/here/file"), ["/here/file: Not a directory", "move the file away"]),
        (of(errno.EEXIST, "/here/file"), ["/here/file: File exists", "move the file away"]),
        (of(errno.EISDIR, "/here/file"), ["/here/file: Is a directory", "move the folder away"]),
        (
            RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
            ["No space left on device", "free some space"],
        ),
    ],
)
def test_trouble_with_the_disk_is_one_line_with_what_to_do(error, words):
    line = disk_trouble(error)
    assert "\n" not in line and line.endswith("what is finished is kept, the same command goes on")
    for word in words:
        assert word in line


@pytest.mark.parametrize(
    "error", [of(errno.ENOENT, "x"), of(errno.EIO), OSError("no number"), RuntimeError("x"), ValueError(28)]
)
def test_other_errors_stay_errors(error):
    assert disk_trouble(error) == ""
