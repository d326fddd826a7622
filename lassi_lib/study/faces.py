"""What the flow does to faces: reconstructions, traversals along attributes, tables of vectors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lassi_lib.similarity.kinds import find_kind
from lassi_lib.study.study import Study
from lassi_lib.study.verdicts import Verdict

if TYPE_CHECKING:
    import torch


def label_table(study: Study, attributes: Iterable[str]) -> pd.DataFrame:
    """Return how often each attribute occurs: percent of every split, and the training positives.

    An attribute of more than two classes has a row for each of them.
    """
    rows = []
    for name in attributes:
        n = study.n_classes(name)
        named = study.dataset("test").extras.get("class_names", {}) if n > 2 else {}
        for c in range(n) if n > 2 else [1]:
            row = {"attribute": f"{name}: {named.get(name, range(n))[c]}" if n > 2 else name}
            row |= {f"{s} %": 100 * (study.labels(s, name) == c).mean() for s in study.splits}
            rows.append(row | {"train positives": int((study.labels("train", name) == c).sum())})
    return pd.DataFrame(rows)


def _directions(study: Study, attributes: Iterable[str]) -> dict[str, torch.Tensor]:
    """Return one direction [d] per attribute: its vector, or the longest of several.

    More than two classes have directions only where the profile's vectors are differences of all class means.
    """
    pairs = "codes" in find_kind(study.pipeline.vector_type).needs
    found = {a: study.vector(a) for a in attributes if pairs or study.n_classes(a) == 2}
    return {a: v if v.ndim == 1 else v[v.norm(dim=1).argmax()] for a, v in found.items()}


def reconstructions(study: Study, count: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the first `count` test faces and D(E(x)), both uint8 [count, 3, S, S].

    The originals are shown as the flow sees them, with their 5 bits.
    """
    from lassi_lib.data.preprocess import quantise, to_uint8

    x = quantise(study.dataset("test").images[:count], study.pipeline.data.bits)
    return to_uint8(x), to_uint8(study.decode(study.latents("test")[:count]))


def traversals(
    study: Study, attributes: Iterable[str], index: int, t: np.ndarray
) -> tuple[dict[str, torch.Tensor], pd.DataFrame]:
    """Return a test face moved along each attribute vector, and how far the pixels leave their range.

    `t` [m] are coefficients, in units of the vector. Strips: attribute -> uint8 [m, 3, S, S], without those
    that have no direction (see `vector_table`). Table: per attribute the percentage of decoded values
    that no image can have: the similarity set lives in latent space and is no set of storable images.
    """
    import torch

    from lassi_lib.data.preprocess import percent_beyond, to_uint8

    z = study.latents("test")[index]
    strips, rows = {}, []
    for name, a in _directions(study, attributes).items():
        x = study.decode(z + torch.as_tensor(t, dtype=z.dtype)[:, None] * a)
        strips[name] = to_uint8(x)
        rows.append({"attribute": name, "outside range %": percent_beyond(x)})
    return strips, pd.DataFrame(rows)


def vector_table(study: Study, attributes: Iterable[str]) -> pd.DataFrame:
    """Return each attribute vector's length, its share of the typical latent spread, and cosines.

    `norm / spread` compares ||a|| with the root mean square distance of test latents from their
    mean; cosines tell how much two vectors share (a class mean drags correlated attributes along).
    Attributes of more than two classes have no direction and are passed over, except where the profile's
    vectors are differences of all class means: then the longest of them stands here.
    """
    from lassi_lib.similarity.diagnostics import describe_vectors, latent_spread

    table = describe_vectors(_directions(study, attributes), spread=latent_spread(study.latents("test")))
    return table.rename(columns={"vector": "attribute"})


def flow_table(study: Study) -> pd.DataFrame:
    """Return the flow's fit per split: images, bits/dim, largest reconstruction error."""
    names = {"images": "images", "bits_per_dim": "bits/dim"}
    names["max_reconstruction_error"] = "largest reconstruction error"
    facts = {split: study.latent_facts(split) for split in ("train", "valid", "test")}
    return pd.DataFrame([{"split": s} | {names[k]: f[k] for k in names} for s, f in facts.items()])


def flow_history(study: Study) -> pd.DataFrame:
    """Return the flow's training history: step, bits_per_dim, learning_rate (from its checkpoint).

    The authors' checkpoints have none: no rows.
    """
    history = study.glow_info().get("history") or {"step": [], "bits_per_dim": [], "learning_rate": []}
    return pd.DataFrame(history)


def flow_verdict(study: Study) -> Verdict:
    """Judge whether the flow is fit for use: bits/dim within the profile's bound, round trip exact.

    The bound, `glow.bits_per_dim_at_most`, stands in the profile's pipeline.yaml.
    """
    facts = study.latent_facts("test")
    bound = study.pipeline.glow.bits_per_dim_at_most
    bits, error, largest_error = facts["bits_per_dim"], facts["max_reconstruction_error"], 1e-3
    fit, exact = bits <= bound, error < largest_error
    text = (
        f"{bits:.2f} bits/dim on unseen faces ({'within' if fit else 'above'} this profile's bound of {bound:g}), "
        f"largest reconstruction error {error:.1e} ({'below' if exact else 'not below'} {largest_error:g})"
    )
    return Verdict("supported" if fit and exact else "not supported", text, flow_table(study))
