"""The command that trains a flow: every mistake is one line before anything is trained."""

import pytest

from lassi_lib.study.train_glow import main


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["--output", "--help"]),
        (["--output", "a.pth"], ["--output a.pth", ".safetensors"]),
        (["--output", "/nowhere/a.safetensors"], ["/nowhere", "create it first"]),
        (["--output", "{here}/a.safetensors", "--device", "tpu"], ["--device", "tpu"]),
        (["--output", "{here}/a.safetensors", "--profile", "sm\x1boke"], ["profile 'sm\\x1boke' is unknown"]),
        (["--output", "{here}/a.safetensors", "--profil", "smoke"], ["--profil"]),
    ],
)
def test_mistakes(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.setenv("LASSI_CACHE", str(tmp_path / "cache"))
    assert main([a.replace("{here}", str(tmp_path)) for a in arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line
    assert not list(tmp_path.iterdir())
