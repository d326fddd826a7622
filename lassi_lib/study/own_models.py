"""Flows and classifiers that users bring: read, checked on a few faces, and put into the study's forms.

The interface stands in docs/your_own.md. Whatever does not meet it is one clear line.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lassi_lib.errors import StudyError

_AGREE = 1e-3  # two ways to compute the same answers may differ by this share of the largest


def load_models(path: str | Path) -> dict[str, Any]:
    """Run a Python file that defines `classifier()` or `encoder()`, and perhaps `flow()`; return what they return.

    Raises
    ------
    StudyError
        If the file is missing, fails, or has neither or both of `classifier()` and `encoder()`.
    """
    path = Path(path)
    if path.suffix != ".py" or not path.is_file():
        raise StudyError(
            f"models '{path}' must be a Python file that defines classifier() or encoder(): "
            "see docs/your_own.md"
        )
    spec = importlib.util.spec_from_file_location("your_own_models", path)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))  # it may import its neighbours
    try:
        with _yours(f"{path.name} cannot be read"):
            spec.loader.exec_module(module)
        if hasattr(module, "classifier") == hasattr(module, "encoder"):
            which = "both" if hasattr(module, "encoder") else "neither"
            raise StudyError(f"{path.name} defines {which} of classifier() and encoder(): define one of them")
        found = {}
        for name in ("flow", "classifier", "encoder"):
            if hasattr(module, name):
                with _yours(f"{path.name}, {name}()"):
                    found[name] = getattr(module, name)()
                if found[name] is None:
                    raise StudyError(f"{path.name}, {name}() returns None: let it return the module")
        return found
    finally:
        sys.path.remove(str(path.resolve().parent))


@contextmanager
def _yours(where: str) -> Any:
    """Turn whatever a user's code raises into one line."""
    try:
        yield
    except StudyError:
        raise
    except Exception as error:
        raise StudyError(f"{where}: {type(error).__name__}: {' '.join(str(error).split())[:200]}") from error


class OwnFlow:
    """A user's flow with every answer checked; the study uses it as it uses `Glow`.

    The module has ``image_size``, ``encode`` (images [N, 3, S, S] in [-0.5, 0.5] -> latents [N, d]) and
    ``decode`` (back); perhaps ``log_prob`` (images -> [N] nats) and ``bits_per_dim``, which it reached.
    """

    def __init__(self, module: Any) -> None:
        for name in ("encode", "decode", "image_size"):
            if not hasattr(module, name):
                raise StudyError(f"your flow has no {name}: see the interface in docs/your_own.md")
        size = module.image_size
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise StudyError(f"your flow's image_size must be a whole number of pixels, not {size!r}")
        _evaluating(module, "flow")
        self.module, self.image_size, self.latent_dim = module, size, 0
        self.device = torch.device("cpu")
        generator = torch.Generator().manual_seed(0)
        self._probe = torch.randint(0, 32, (2, 3, size, size), generator=generator) / 32 - 0.5
        z = self.encode(self._probe)
        self.latent_dim = z.shape[1]
        self.decode(z)

    def to(self, device: torch.device) -> OwnFlow:
        """Move the module, where it can be moved."""
        if isinstance(self.module, nn.Module):
            self.module.to(device)
            self.device = device
        return self

    @torch.no_grad()
    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Return latents float32 [N, d] of images."""
        with _yours("your flow's encode"):
            parts = [self.module.encode(part.to(self.device)) for part in x.split(128)]
        wanted = [None, self.latent_dim or None]
        return torch.cat([_checked(p, [len(p), wanted[1]], "flow's encode") for p in parts])

    @torch.no_grad()
    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Return images float32 [N, 3, S, S] of latents."""
        with _yours("your flow's decode"):
            parts = [(len(part), self.module.decode(part.to(self.device))) for part in z.split(128)]
        shape = [3, self.image_size, self.image_size]
        return torch.cat([_checked(p, [n, *shape], "flow's decode") for n, p in parts])

    @torch.no_grad()
    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """Return log-densities [N] in nats; NaN where the module has none."""
        if not hasattr(self.module, "log_prob"):
            return torch.full((len(x),), torch.nan)
        with _yours("your flow's log_prob"):
            found = self.module.log_prob(x.to(self.device))
        return _checked(found, [len(x)], "flow's log_prob")

    def key(self) -> str:
        """Return a digest of its weights and of its answers to two images: part of every cache key."""
        z = self.encode(self._probe)
        return _digest([*_weights(self.module), z, self.decode(z)])


@dataclass(frozen=True)
class OwnClassifier:
    """A user's classifier as encoder R and linear head C; `why_not` says why exact modes are not offered.

    Without a `head` it is an encoder alone, and C is trained on its representations.
    """

    encoder: Any
    head: nn.Linear | None
    why_not: str
    key: str


@torch.no_grad()
def adapt(given: Any, z: torch.Tensor, what: str = "classifier") -> OwnClassifier:
    """Split, check on latents z [N, d] of real faces, N > 2, and where possible fold a user's classifier.

    It is a callable latents [N, d] -> logits [N, K], or a pair (encoder [N, d] -> [N, k], linear head).
    `what` it is may also be an "encoder" alone.
    A plain ``nn.Sequential`` of Linear, BatchNorm1d, ReLU, Dropout, Identity and Flatten is piecewise linear:
    it is folded, and the exact modes apply.

    Raises
    ------
    StudyError
        If it does not meet the interface.
    """
    alone = what == "encoder"
    pair = isinstance(given, tuple | list) and not alone
    if pair and not (len(given) == 2 and isinstance(given[1], nn.Linear)):
        raise StudyError("classifier() must return a module, or a pair (encoder, torch.nn.Linear head)")
    for part in given if pair else [given]:
        if not callable(part):
            raise StudyError(f"your {what} is a {type(part).__name__}: return a module that can be called")
        _evaluating(part, what)
    if pair or alone:
        encoder, head = given if pair else (given, None)
        if isinstance(encoder, nn.Module):
            encoder.to(z.device)
    else:
        encoder, head = _split(given.to(z.device) if isinstance(given, nn.Module) else given)
    with _yours(f"your {what}"):
        r, few, again = encoder(z), encoder(z[:2]), encoder(z)
    r = _checked(r, [len(z), None], "encoder" if pair else what)
    if not (_close(r[:2], few) and _close(r, again)):
        raise StudyError(
            f"your {what}'s answer to a face depends on chance or on the other faces of its batch: "
            "switch that off (a BatchNorm without running statistics does so)"
        )
    if not alone:
        head = _usable(head, r.shape[1]).to(z.device)
    layers, why_not = _layers(encoder)
    folded = Folded(layers) if layers else encoder
    if layers and not _close(folded(z), r):
        folded, why_not = encoder, "its answers are not those of its layers"
    weights = head.parameters() if head is not None else ()
    return OwnClassifier(folded, head, why_not, _digest([*weights, r]))


def _usable(head: nn.Linear | None, width: int) -> nn.Linear:
    """Return a checked copy of the head of `width` values; without one they are the logits."""
    if head is None:
        head = _linear(torch.eye(width))
    elif head.in_features != width:
        raise StudyError(f"the head takes {head.in_features} values, but the encoder returns {width}")
    head = _linear(head.weight, head.bias)
    if head.out_features < 2:
        raise StudyError(
            "your classifier returns 1 logit: return one per class, torch.cat([-s, s], 1) for two"
        )
    if not all(torch.isfinite(p).all() for p in head.parameters()):
        raise StudyError("your classifier's head has weights that are not finite: train it again")
    return head


@torch.no_grad()
def standardised(own: OwnClassifier, z: torch.Tensor) -> OwnClassifier:
    """Return an encoder alone, centred and in units of its spread over latents z [N, d].

    The study's own encoders end in a BatchNorm, and what C learns in an epoch depends on that scale.

    Raises
    ------
    StudyError
        If the encoder tells no two faces apart, or an answer of it does not meet the interface.
    """
    device = z.device

    def answers(z: torch.Tensor) -> torch.Tensor:
        with _yours("your encoder"):
            r = own.encoder(z.to(device))
        return _checked(r, [len(z), None], "encoder")

    r = answers(z)
    mean, spread = r.mean(0), float(r.double().var(0).mean().sqrt())
    if not spread > 1e-6 * float(r.abs().max()):
        raise StudyError(
            f"your encoder answers the same for {len(z)} training images: no classifier can learn from it"
        )
    key = own.key + _digest([mean, torch.tensor(spread)])
    if not hasattr(own.encoder, "folded_layers"):
        return replace(own, encoder=lambda z: (answers(z) - mean) / spread, key=key)
    *layers, (weight, bias) = own.encoder.folded_layers()
    last = weight / spread, (bias - mean.cpu().double()) / spread
    return replace(own, encoder=Folded([*layers, last]), key=key)


class Folded:
    """R as plain affine layers (W [out, in], b [out]) with ReLU in between, float64."""

    def __init__(self, layers: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        self._layers = layers

    def folded_layers(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return the layers: what the exact modes look at."""
        return self._layers

    def __call__(self, z: torch.Tensor) -> torch.Tensor:
        """Return representations float32 [N, k] of latents."""
        x = z.double().cpu()
        for i, (weight, bias) in enumerate(self._layers):
            x = torch.addmm(bias, x.clamp(min=0) if i else x, weight.T)
        return x.to(z)


def _split(module: Any) -> tuple[Any, nn.Linear | None]:
    """Return encoder and head: a Sequential's last Linear is the head, other modules have none."""
    layers = list(_flat(module))
    if len(layers) > 1 and isinstance(layers[-1], nn.Linear):
        return nn.Sequential(*layers[:-1]).eval(), layers[-1]
    return module, None


def _flat(module: Any) -> Iterable[Any]:
    if type(module) is nn.Sequential:  # a subclass may compute something else
        for child in module:
            yield from _flat(child)
    else:
        yield module


def _layers(encoder: Any) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], str]:
    """Return the encoder's affine layers, or none and what stands against it."""
    if hasattr(encoder, "folded_layers"):
        return encoder.folded_layers(), ""
    found: list[tuple[torch.Tensor, torch.Tensor]] = []
    affine: tuple[torch.Tensor, torch.Tensor] | None = None  # the maps since the last ReLU, as one
    for layer in _flat(encoder):
        if isinstance(layer, nn.Linear):
            weight, bias = (p.detach().cpu().double() for p in _linear(layer.weight, layer.bias).parameters())
            affine = (weight @ affine[0], weight @ affine[1] + bias) if affine else (weight, bias)
        elif isinstance(layer, nn.BatchNorm1d) and affine and layer.running_var is not None:
            scale = (layer.running_var.cpu().double() + layer.eps).rsqrt()
            scale = scale if layer.weight is None else scale * layer.weight.detach().cpu().double()
            shift = 0.0 if layer.bias is None else layer.bias.detach().cpu().double()
            mean = layer.running_mean.cpu().double()
            affine = (scale[:, None] * affine[0], scale * (affine[1] - mean) + shift)
        elif isinstance(layer, nn.ReLU) and (affine or found):
            found, affine = found + [affine] * (affine is not None), None
        elif not isinstance(layer, nn.Identity | nn.Dropout | nn.Flatten):
            return [], f"it contains {type(layer).__name__}" + " at its start" * isinstance(layer, nn.ReLU)
    if not found and affine is None:
        return [], "it has no Linear layer"
    if affine is None:  # it ends in a ReLU, and nothing may stand after the last layer
        width = len(found[-1][1])
        affine = torch.eye(width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64)
    return [*found, affine], ""


def _linear(weight: torch.Tensor, bias: torch.Tensor | None = None) -> nn.Linear:
    """Return a frozen copy of a linear layer, with a bias."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device).requires_grad_(False)
    layer.weight.copy_(weight.detach())
    layer.bias.copy_(torch.zeros(len(weight)) if bias is None else bias.detach())
    return layer


def _evaluating(module: Any, what: str) -> None:
    """Refuse layers in training mode: their answers depend on the batch or on chance."""
    kinds = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    for layer in module.modules() if isinstance(module, nn.Module) else ():
        if layer.training and isinstance(layer, kinds):
            raise StudyError(f"your {what} has a {type(layer).__name__} in training mode: call .eval() on it")


def _checked(found: Any, shape: list[int | None], what: str) -> torch.Tensor:
    """Return an answer as float32, or say what is wrong with its type, shape or values."""
    if not isinstance(found, torch.Tensor):
        raise StudyError(f"your {what} returns a {type(found).__name__}: return a torch.Tensor")
    if not found.is_floating_point():
        raise StudyError(f"your {what} returns {found.dtype}: return floating-point numbers")
    fits = found.ndim == len(shape) and all(w in (None, n) for n, w in zip(found.shape, shape, strict=True))
    if not fits:
        words = ", ".join("any" if n is None else str(n) for n in shape)
        raise StudyError(f"your {what} returns shape {list(found.shape)} where [{words}] is needed")
    if not torch.isfinite(found).all():
        raise StudyError(f"your {what} returns values that are not finite: check its weights")
    return found.detach().float()


def _close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and float((a - b).abs().max()) <= _AGREE * float(a.abs().max())


def _weights(module: Any) -> list[torch.Tensor]:
    return list(module.state_dict().values()) if isinstance(module, nn.Module) else []


def _digest(tensors: Iterable[torch.Tensor]) -> str:
    found = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
