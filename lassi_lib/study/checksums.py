"""Which data made a run's numbers: digests of the files that were read, or what a renderer was asked for.

The digests are over bytes: of every annotation file, and of all images used, with their names. They are
computed once for each state of the files (their names and sizes, as in the keys of everything made from
them) and kept in the stage cache.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lassi_lib.progress import progress
from lassi_lib.study.cache import Stage, checksum

if TYPE_CHECKING:
    from lassi_lib.study.study import Study


def data_checksums(study: Study) -> dict[str, Any]:
    """Return what identifies a study's data.

    Photographs in an official layout: ``files`` (name of each annotation file -> digest), ``images``
    (their number) and ``images_digest``. All others: ``content``, which says a renderer's version or
    the fingerprint of the files, and ``parameters``.
    """
    data, stage = study.pipeline.data, study.data_stage()
    module = import_module(f"lassi_lib.data.{data.name}")
    if not hasattr(module, "used_files"):
        return {"content": f"{data.name}: {stage.params['files']}", "parameters": data.made_by()}

    def compute(folder: Path) -> None:
        annotations, images = module.used_files(study.data_root, data.max_images)
        found = {
            "files": {path.name: checksum(path) for path in annotations},
            "images": len(images),
            "images_digest": digest(images),
        }
        (folder / "data.json").write_text(json.dumps(found))

    kept = study.cache.fetch(Stage("checksums", 1, {}, (stage.key,)), compute)
    return json.loads((kept / "data.json").read_text())


def digest(paths: Iterable[Path]) -> str:
    """Return the blake2b digest over files' names and bytes, in the order given."""
    found = hashlib.blake2b(digest_size=16)
    for path in progress(list(paths), label="checksum of the images", unit="image"):
        content = path.read_bytes()
        found.update(f"{path.name} {len(content)}\n".encode())
        found.update(content)
    return found.hexdigest()


def in_words(data: dict[str, Any]) -> str:
    """Return `data_checksums` in one line, digests cut to eight digits."""
    if not data:
        return "not recorded"
    if "content" in data:
        asked = json.dumps(data["parameters"], sort_keys=True).encode()
        return f"{data['content']}, parameters {hashlib.blake2b(asked, digest_size=4).hexdigest()}"
    files = ", ".join(f"{name} {value[:8]}" for name, value in data["files"].items())
    return f"{data['images']:,} images {data['images_digest'][:8]}, {files}"
