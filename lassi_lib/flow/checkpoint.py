"""Saving and loading Glow: the study's safetensors files and the authors' released .pth files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from lassi_lib.errors import StudyError
from lassi_lib.files import whole
from lassi_lib.flow.glow import Glow, GlowConfig

_ANCHOR = "blocks.0.flows.0.actnorm.loc"


def save_glow(path: str | Path, glow: Glow, info: dict[str, Any]) -> None:
    """Write a Glow to `path` (safetensors), its config and the JSON-able `info` as metadata."""
    write_safetensors(Path(path), glow.state_dict(), {"config": asdict(glow.config), "info": info})


def load_glow(path: str | Path, config: GlowConfig | None = None) -> tuple[Glow, dict[str, Any]]:
    """Read a Glow, whoever wrote it.

    Parameters
    ----------
    path : path
        A .safetensors file of `save_glow`, a .pth or .pt state dict (the authors', on any device
        and with any prefix such as ``module.``), or a folder of such, from which the authors' rule
        picks: model_last, model_best, else the ``model*_<n>`` with the largest n.
    config : GlowConfig, optional
        What the model must be. Otherwise the file's own, or what the shapes tell, with 64 pixels.

    Returns
    -------
    Glow
        On the CPU, in eval mode.
    dict
        The `info` it was saved with; empty for the authors' files.

    Raises
    ------
    StudyError
        If the file is missing, damaged, no Glow, not finite, or not of `config`.
    """
    path = choose(Path(path))
    with _readable(path, "restore it, or download or train it again"):
        if path.suffix == ".safetensors":
            state, metadata = read_safetensors(path, "restore it or train it again")
        else:
            state, metadata = torch.load(path, map_location="cpu", weights_only=True), {}
        state = _without_prefix(state, path)
        found = _inferred(state, path, metadata.get("config", {}).get("image_size"), config)
        if config is not None and found != config:
            ours, theirs = asdict(config), asdict(found)
            wrong = [f"{k} {theirs[k]} instead of {ours[k]}" for k in ours if ours[k] != theirs[k]]
            raise StudyError(
                f"Glow checkpoint {path} has {', '.join(wrong)}: change the parameters or the file"
            )
        with torch.device("meta"):
            glow = Glow(found)
        _check(state, glow.state_dict(), path)
        info = dict(metadata.get("info", {}))
    glow.load_state_dict(state, strict=True, assign=True)
    return glow.to(memory_format=torch.channels_last).eval(), info


def write_safetensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict) -> None:
    """Write tensors and JSON-able metadata, the whole file or none."""
    plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    with whole(path) as draft:
        save_file(plain, draft, {key: json.dumps(value) for key, value in metadata.items()})


def read_safetensors(path: Path, remedy: str) -> tuple[dict[str, torch.Tensor], dict]:
    """Return the tensors and metadata of `path`; a damaged file raises StudyError with `remedy`."""
    with _readable(path, remedy), safe_open(path, framework="pt") as file:
        texts = file.metadata() or {}
        metadata = {key: json.loads(text) for key, text in texts.items() if key != "format"}
        return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118


@contextmanager
def _readable(path: Path, remedy: str) -> Iterator[None]:
    try:
        yield
    except StudyError:
        raise
    except Exception as error:  # what a cut or foreign file raises in the readers is not foreseeable
        reason = next(iter(str(error).splitlines()), "")[:80] or type(error).__name__
        raise StudyError(f"checkpoint {path} is damaged or of another kind ({reason}): {remedy}") from error


def choose(path: Path) -> Path:
    """Return the file itself, or the one the authors' rule picks in a folder."""
    if path.is_dir():
        names = [f"model_{which}.{end}" for which in ("last", "best") for end in ("pth", "pt")]
        files = [path / name for name in names if (path / name).is_file()]
        numbered = [(re.fullmatch(r"model.*_(\d+)\.(pth|pt)", f.name), f) for f in sorted(path.iterdir())]
        files += [f for m, f in sorted(((m, f) for m, f in numbered if m), key=lambda x: -int(x[0][1]))]
        if not files:
            raise StudyError(f"folder {path} holds no Glow checkpoint (model_last.pth or model_<n>.pth)")
        return files[0]
    if not path.is_file():
        raise StudyError(f"Glow checkpoint {path} is missing: restore it, or give the path of another")
    if path.suffix not in (".safetensors", ".pth", ".pt"):
        raise StudyError(f"Glow checkpoint {path} must end in .safetensors, .pth or .pt")
    return path


def _without_prefix(state: Any, path: Path) -> dict[str, torch.Tensor]:
    """Strip what stands before 'blocks.' in every name (DataParallel's 'module.', or any other)."""
    names = [n for n in state if isinstance(n, str)] if isinstance(state, dict) else []
    prefix = next((n.removesuffix(_ANCHOR) for n in names if n.endswith(_ANCHOR)), None)
    if prefix is None or len(names) < len(state) or not all(n.startswith(prefix) for n in names):
        raise StudyError(f"{path} is no Glow checkpoint: it must be a state dict with '{_ANCHOR}' and so on")
    if not all(isinstance(t, torch.Tensor) for t in state.values()):
        raise StudyError(f"{path} is no Glow checkpoint: its state dict must hold tensors alone")
    return {name.removeprefix(prefix): t for name, t in state.items()}


def _inferred(state: dict, path: Path, image_size: int | None, wanted: GlowConfig | None) -> GlowConfig:
    """Return the config the shapes tell; only the image size leaves no trace in them."""
    size = image_size or (wanted.image_size if wanted else 64)
    if not isinstance(size, int) or not 1 <= size <= 4096:
        raise StudyError(f"{path} is no Glow checkpoint: its image_size is {str(size)[:20]}")
    n_blocks = len({n.split(".")[1] for n in state if n.startswith("blocks.")})
    n_steps = len({n.split(".")[3] for n in state if n.startswith("blocks.0.flows.")})
    first, last = (state.get(f"blocks.0.flows.0.coupling.net.{k}") for k in ("0.weight", "4.scale"))
    if first is None or last is None or first.ndim != 4 or last.ndim != 4:
        raise StudyError(f"{path} is no Glow checkpoint: it has no coupling network")
    # the first block couples halves of 12 channels: 6 additive, 6 + 6 affine outputs
    return GlowConfig(size, n_steps, n_blocks, width=len(first), affine=last.shape[1] == 12)


def _check(state: dict, expected: dict, path: Path) -> None:
    """Raise StudyError unless names, shapes and dtypes are as expected and all values are usable."""
    odd = sorted(expected.keys() ^ state.keys())
    if odd:
        kind = "is missing" if odd[0] in expected else "is unknown"
        raise StudyError(f"Glow checkpoint {path} is not complete or not a Glow: '{odd[0]}' {kind}")
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape or tensor.dtype != expected[name].dtype:
            raise StudyError(
                f"Glow checkpoint {path}: '{name}' is {tensor.dtype} {list(tensor.shape)}, expected "
                f"{expected[name].dtype} {list(expected[name].shape)}"
            )
        if tensor.untyped_storage().nbytes() < tensor.nbytes:  # a few bytes that pass for terabytes
            raise StudyError(f"Glow checkpoint {path}: '{name}' is larger than what is stored of it")
        if not torch.isfinite(tensor).all():
            raise StudyError(f"Glow checkpoint {path}: '{name}' holds NaN or infinity, train it again")
        if name.endswith(".initialized") and not tensor:
            raise StudyError(f"Glow checkpoint {path}: '{name}' is 0, so the model was never trained")
