"""Where the real data lie, and quiet progress bars."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

os.environ["LASSI_QUIET"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait must not take cores from other tests
ROOT = Path(__file__).resolve().parents[1]
_LONG = re.compile(r"def \w+\([^)]*\b(smoke|stages|lab|run_cells|rendered)\b")  # fixtures that take a minute
SHARED = ROOT.parent / "shared" / "data"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keep together, where tests run side by side (pytest -n), a file's and those that need a long fixture."""
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.partition("::")[0]
            return "long" if _LONG.search((ROOT / file).read_text()) else file

    return Together(config, log)


@pytest.fixture
def celeba_root() -> Path:
    """The folder of real CelebA faces, or a skip that says what is missing."""
    if not (SHARED / "celeba" / "img_align_celeba").is_dir():
        pytest.skip(f"real CelebA faces are not at {SHARED / 'celeba'}")
    return SHARED / "celeba"


@pytest.fixture
def celeba_originals() -> Path:
    """Untouched 178x218 CelebA files, or a skip that says what is missing."""
    folder = SHARED / "celeba_original_size"
    if not folder.is_dir():
        pytest.skip(f"original CelebA files are not at {folder}")
    return folder


@pytest.fixture
def fairface_root() -> Path:
    """The folder of real FairFace images, or a skip that says what is missing."""
    if not (SHARED / "fairface" / "train").is_dir():
        pytest.skip(f"real FairFace images are not at {SHARED / 'fairface'}")
    return SHARED / "fairface"


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """The smoke profile's results, computed from an empty cache without a network (`tests/unplugged`).

    Returns (output, cache, process); what was tried to reach stands in 'calls' beside the output.
    """
    base = tmp_path_factory.mktemp("smoke")
    command = [sys.executable, ROOT / "run_all.py", "--profile", "smoke", "--output", base / "out"]
    environment = os.environ | {"LASSI_CACHE": str(base / "cache"), "LASSI_CALLS": str(base / "calls")}
    paths = (str(ROOT / "tests" / "unplugged"), environment.get("PYTHONPATH"))
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    command = [*map(str, command), "--device", "cpu", "--workers", "2", "-v"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return base / "out", base / "cache", done


@pytest.fixture(scope="session")
def rendered(tmp_path_factory) -> Path:
    """The committed results with all their pages made anew, by the code as it is."""
    from lassi_lib.study.overview import write_overview
    from lassi_lib.study.record import write_again

    results = tmp_path_factory.mktemp("rendered") / "results"
    shutil.copytree(ROOT / "results", results, ignore=shutil.ignore_patterns("*.html"))
    (results / "index.html").touch()  # pages lead to it
    write_again(results)
    write_overview(results)
    return results


@pytest.fixture(scope="session")
def tiny_study(tmp_path_factory):
    """A study of the smoke profile with few faces; what tests ask of it is kept for the whole session."""
    from lassi_lib.study.params import load_pipeline
    from lassi_lib.study.study import Study

    pipeline = load_pipeline("smoke")
    data = replace(pipeline.data, n_train=300, n_valid=60, n_test=24)
    return Study(
        replace(pipeline, data=data), device="cpu", cache=tmp_path_factory.mktemp("cache"), workers=1
    )
