"""Errors that the user can mend are one line; others stay errors."""

import errno
import os
import subprocess
import sys

import pytest
import torch

from lassi_lib.errors import StudyError, about, mendable, one_line


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
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), ["GPU's memory", "--device cpu"]),
        (
            RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
            ["No space left on device", "free some space"],
        ),
    ],
)
def test_trouble_with_the_machine_is_one_line_with_what_to_do(error, words):
    line = mendable(error)
    assert "\n" not in line and line.endswith("what is finished is kept, the same command goes on")
    for word in words:
        assert word in line


@pytest.mark.parametrize(
    "error", [of(errno.ENOENT, "x"), of(errno.EIO), OSError("no number"), RuntimeError("x"), ValueError(28)]
)
def test_other_errors_stay_errors(error):
    assert mendable(error) == ""


def test_an_errors_text_is_one_printable_line_about_something():
    assert one_line("a\nb\x1b[31m\u202eü") == "a\\nb\\x1b[31m\\u202eü"
    assert len(one_line("x" * 5000)) < 810
    with pytest.raises(StudyError, match=r"^file: key: wrong$"), about("file"), about("key"):
        raise StudyError("wrong")


def test_in_a_notebook_a_users_mistake_is_one_line_and_a_fault_of_the_code_keeps_its_traceback(tmp_path):
    """IPython runs the cells, in JupyterLab as here."""

    def shown(error):
        code = f"from lassi_lib.errors import StudyError; raise {error}('seeds: write [42]')"
        command = [sys.executable, "-m", "IPython", "--no-banner", "--colors=NoColor", "-c", code]
        environment = os.environ | {"IPYTHONDIR": str(tmp_path)}
        return subprocess.run(command, capture_output=True, text=True, env=environment).stdout

    assert shown("StudyError").split("\n") == ["StudyError: seeds: write [42]", ""]
    assert "Traceback" in shown("RuntimeError")
