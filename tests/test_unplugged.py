"""Without a network the study runs, and its pages ask for nothing from outside."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.study.reading import complaints

ROOT = Path(__file__).resolve().parents[1]
# A namespace of its own has no network but a loopback that is down; kernels talk over it.
LOOPBACK_UP = """
import fcntl, os, socket, struct, sys
with socket.socket() as s:
    fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
os.execv(sys.argv[1], sys.argv[1:])
"""


def unplugged(tmp_path):
    environment = os.environ | {"LASSI_CALLS": str(tmp_path / "calls")}
    return environment | {"PYTHONPATH": str(ROOT / "tests" / "unplugged")}


def test_the_guard_refuses_what_lies_outside_and_notes_it(tmp_path):
    code = """
import socket, urllib.request
for url in ("http://example.invalid/a", "http://192.0.2.1/"):
    try:
        urllib.request.urlopen(url)
    except OSError as error:
        assert "unplugged" in str(error)
    else:
        raise SystemExit("reached")
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname()).close()
"""
    subprocess.run([sys.executable, "-c", code], env=unplugged(tmp_path), check=True)
    calls = (tmp_path / "calls").read_text().split()
    assert "example.invalid" in calls and "192.0.2.1" in calls and "127.0.0.1" not in calls


def test_the_smoke_run_reaches_for_nothing_outside(smoke):
    output, _, done = smoke
    calls = output.parent / "calls"
    assert not calls.exists(), calls.read_text()
    assert done.returncode == 0


def test_pages_of_a_run_are_whole_offline_and_for_everyone(smoke):
    output, _, _ = smoke
    pages = sorted(output.glob("*.html"))
    assert len(pages) == 1 + len(json.loads((output / "run.json").read_text())["notebooks"])
    assert [c for page in pages for c in complaints(page)] == []


@pytest.mark.slow
def test_a_machine_without_any_network_runs_the_study(tmp_path):
    """The kernel's own word for it: in a network namespace that holds nothing but a loopback."""
    inside = ["unshare", "--map-root-user", "--net", sys.executable, "-c", LOOPBACK_UP]
    try:
        subprocess.run([*inside, "/bin/true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network namespaces here ({error})")
    command = [
        sys.executable,
        str(ROOT / "run_all.py"),
        "--profile",
        "smoke",
        "--only",
        "01,10",
        "--device",
        "cpu",
    ]
    command += ["--output", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    done = subprocess.run(
        [*inside, *command], cwd=ROOT, capture_output=True, text=True, env=unplugged(tmp_path)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [c for page in sorted((tmp_path / "out").glob("*.html")) for c in complaints(page)] == []
