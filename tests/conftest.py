"""Where the real data lie, and quiet progress bars."""

import os
from pathlib import Path

import pytest

os.environ["LASSI_QUIET"] = "1"
ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"


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
