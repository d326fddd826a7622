"""Rendered faces whose labels follow CelebA's joint law: the data set that needs no download.

*Labels.* Binary, with CelebA's names; marginals and pairwise rates follow CelebA's annotations through
a Gaussian copula (`label_law`). Every attribute but `Attractive` has a factor that is drawn; the picture
follows the attribute's latent without the annotator's own part, so labels are as noisy as a
plain classifier finds CelebA's (see `label_law.NOISE`; fixed by accuracy, never by looking at fairness).

*`Attractive`* is a label drawn from that law and nothing else: nothing in a picture is made
attractive. "Attractive" and "Chubby" are annotators' opinions about people, not facts about them; they
are kept only because published results use them.

*Counterfactuals.* A face is a function of its factors and nuisances, so it can be drawn again with one
factor changed: `render_counterfactual`.

The faces show that the method works and how. They are no evidence for CelebA's numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch

from lassi_lib.data.dataset import SPLITS, FaceDataset
from lassi_lib.data.label_law import BLOCK, LabelLaw, celeba_label_law
from lassi_lib.data.renderer import CHUNK, FACTORS, NUISANCES, render
from lassi_lib.errors import StudyError, nearest
from lassi_lib.progress import progress
from lassi_lib.streams import numpy_stream

# attribute -> (factor, sign): the factor grows with the attribute, or falls
FACTOR_OF = {
    "Smiling": "smile", "Wearing_Earrings": "earrings", "Wearing_Hat": "hat", "Wearing_Necklace": "necklace",
    "High_Cheekbones": "cheekbones", "Oval_Face": "oval_face", "Mouth_Slightly_Open": "mouth_opening",
    "Heavy_Makeup": "makeup", "Wearing_Lipstick": "lipstick", "Wavy_Hair": "wavy_hair",
    "Arched_Eyebrows": "arched_brows", "Pale_Skin": "paleness", "Young": "youth", "Blond_Hair": "blond_hair",
    "Bald": "baldness", "Big_Lips": "lip_size", "Chubby": "chubbiness", "Narrow_Eyes": "narrow_eyes",
    "Bags_Under_Eyes": "eye_bags", "Brown_Hair": "brown_hair", "Male": "masculinity",
    "Black_Hair": "black_hair", "Gray_Hair": "gray_hair", "Rosy_Cheeks": "blush",
    "Double_Chin": "double_chin", "Bangs": "bangs", "Bushy_Eyebrows": "brow_thickness",
    "Big_Nose": "nose_size", "Eyeglasses": "eyeglasses", "No_Beard": "clean_shaven",
}  # fmt: skip
MIN_SIZE, MAX_SIZE = 32, 128
VERSION = 2  # counts up whenever the faces or their labels change: caches made from older ones are dropped


def factor_of(attribute: str) -> str | None:
    """Return the factor that an attribute describes, or None for `Attractive`, which has none.

    Raises
    ------
    StudyError
        If the data set has no such attribute.
    """
    names = celeba_label_law().names
    if attribute not in names:
        raise StudyError(
            f"attribute '{attribute}' is not in data set 'synthfaces'{nearest(attribute, names)}"
        )
    return FACTOR_OF.get(attribute)


@cache
def law_of(dial: str = "", phi: float = 0.0) -> LabelLaw:
    """Return CelebA's label law, or with `dial` ('Task/Attribute') the one with their correlation set to phi.

    Raises
    ------
    StudyError
        If `dial` does not name two attributes, or phi is out of reach (see `LabelLaw.dialled`).
    """
    if not dial:
        return celeba_label_law()
    task, _, attribute = dial.partition("/")
    if factor_of(task) == factor_of(attribute):
        raise StudyError(f"dial '{dial}' must name two attributes: 'Smiling/Blond_Hair'")
    return celeba_label_law().dialled(task, attribute, phi)


def draw_faces(
    n: int, *, seed: int, split: str, law: LabelLaw | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw labels, factors and nuisances of faces 0..n-1 of a split, without rendering them.

    Face i depends on (seed, split, i) and `law` (default: CelebA's) alone.

    Returns
    -------
    labels : numpy.ndarray
        uint8 [n, A], columns as in ``celeba_label_law().names``.
    factors : numpy.ndarray
        float32 [n, F]. A factor with an attribute is in standard deviations from the point where half of
        the annotators see the attribute; the others are standard normal.
    nuisances : numpy.ndarray
        float32 [n, M] in [-1, 1]: pose, light, background, clothes.
    """
    law = law or celeba_label_law()
    labels, margins = law.draw(n, seed=seed, stream=f"synthfaces/{split}")
    streams = [numpy_stream(seed, f"synthfaces/{split}", b) for b in range(-(-n // BLOCK))]
    free = np.concatenate([rng.standard_normal((BLOCK, 3)) for rng in streams])[:n]
    nuisances = np.concatenate([rng.uniform(-1, 1, (BLOCK, len(NUISANCES))) for rng in streams])[:n]

    columns = {factor: margins[:, law.names.index(attribute)] for attribute, factor in FACTOR_OF.items()}
    # women's hair is longer on average, no more than that
    columns["hair_length"] = 0.5 - 0.9 * columns["masculinity"] + 0.5 * free[:, 0]
    columns["face_width"], columns["eye_size"] = free[:, 1], free[:, 2]
    # dark skin goes with dark eyes and no red hair (drawn so; a counterfactual skin leaves them alone)
    fair = np.clip((columns["paleness"] + 3.2) / 1.2, 0.1, 1)
    for name in ("eye_colour", "hair_tone"):
        column = NUISANCES.index(name)
        nuisances[:, column] = (nuisances[:, column] + 1) * fair - 1
    factors = np.stack([columns[name] for name in FACTORS], axis=1)
    return labels, factors.astype(np.float32), nuisances.astype(np.float32)


def render_faces(
    factors: np.ndarray, nuisances: np.ndarray, image_size: int, *, device: str = "cpu", label: str = ""
) -> torch.Tensor:
    """Draw faces: uint8 [n, 3, S, S] on the CPU, from factors and nuisances.

    Chunks always hold `CHUNK` faces (the last one is padded), so that a face's bytes depend neither on
    the number nor on the order of the faces drawn with it.

    Parameters
    ----------
    factors, nuisances : numpy.ndarray
        [n, F] and [n, M], as `draw_faces` returns them.
    image_size : int
        Edge S of the square pictures in pixels.
    device : str
        Where to draw. Another device may round a few bytes differently.
    label : str
        Caption of a progress bar; without it there is none.
    """
    n = len(factors)
    images = torch.empty(n, 3, image_size, image_size, dtype=torch.uint8)
    starts = range(0, n, CHUNK)
    for start in progress(starts, label=label, unit="chunk") if label else starts:
        rows = np.minimum(np.arange(start, start + CHUNK), n - 1)
        f, m = (torch.from_numpy(table[rows]).to(device, torch.float32) for table in (factors, nuisances))
        images[start : start + CHUNK] = render(f, m, image_size)[: n - start].cpu()
    return images


def load_synthfaces(
    split: str,
    *,
    image_size: int = 48,
    n_train: int = 8000,
    n_valid: int = 1000,
    n_test: int = 1000,
    seed: int = 0,
    dial: str = "",
    dial_phi: float = 0.0,
    device: str = "cpu",
) -> FaceDataset:
    """Draw one split of the rendered faces.

    Parameters
    ----------
    split : {'train', 'valid', 'test'}
        Every split has its own random stream: its faces do not depend on the other splits' sizes, and a
        larger split begins with the faces of a smaller one.
    image_size : int
        Edge S of the square pictures in pixels, 32 to 128.
    n_train, n_valid, n_test : int
        Number of faces of each split.
    seed : int
        Seed of all streams.
    dial, dial_phi : str, float
        A pair 'Task/Attribute' whose labels get another phi coefficient than CelebA's (see `law_of`). A
        face then differs by that attribute alone (and by what the renderer derives from paleness, masculinity).
    device : str
        Where to draw; the result is on the CPU. Another device may round a few bytes differently.

    Returns
    -------
    FaceDataset
        ``extras`` holds 'factors' (float32 [N, F]), 'factor_names', 'nuisances' (float32 [N, M]) and
        'nuisance_names'; see `draw_faces` for the units.

    Raises
    ------
    StudyError
        If the split is unknown, the size is outside 32..128, a count is not positive or `law_of` raises.
    """
    counts = dict(zip(SPLITS, (n_train, n_valid, n_test), strict=True))
    if split not in counts:
        raise StudyError(f"split '{split}' is unknown{nearest(split, SPLITS)}")
    if not MIN_SIZE <= image_size <= MAX_SIZE:
        raise StudyError(
            f"image_size {image_size} of 'synthfaces' is out of range: use {MIN_SIZE} to {MAX_SIZE}"
        )
    for name, count in counts.items():
        if count < 1:
            raise StudyError(f"n_{name} = {count} of 'synthfaces' must be at least 1")
    n = counts[split]
    labels, factors, nuisances = draw_faces(n, seed=seed, split=split, law=law_of(dial, dial_phi))
    images = render_faces(factors, nuisances, image_size, device=device, label=f"drawing {split} faces")
    return FaceDataset(
        name="synthfaces",
        split=split,
        images=images,
        labels=labels,
        attribute_names=celeba_label_law().names,
        ids=np.arange(n),
        note=f"{n:,} rendered {split} faces (seed {seed}); labels follow CelebA's joint law"
        + (f", but phi({dial}) = {dial_phi:g}." if dial else "."),
        extras={
            "factors": factors,
            "factor_names": tuple(FACTORS),
            "nuisances": nuisances,
            "nuisance_names": tuple(NUISANCES),
        },
    )


def render_counterfactual(
    dataset: FaceDataset, indices: Sequence[int], factor: str, value: float | np.ndarray
) -> torch.Tensor:
    """Draw faces again with one factor changed and everything else identical.

    Parameters
    ----------
    dataset : FaceDataset
        Made by `load_synthfaces`.
    indices : sequence of int
        Which n faces.
    factor : str
        One of ``dataset.extras['factor_names']``; `factor_of` gives an attribute's factor.
    value : float or numpy.ndarray
        The factor's new value, for all or [n]: +1 clearly shows the attribute, -1 clearly does not.

    Returns
    -------
    torch.Tensor
        uint8 [n, 3, S, S].

    Raises
    ------
    StudyError
        If the data set was not rendered or the factor is unknown.
    """
    if "factors" not in dataset.extras:
        raise StudyError(f"data set '{dataset.name}' is not rendered: only 'synthfaces' has counterfactuals")
    names = dataset.extras["factor_names"]
    if factor not in names:
        raise StudyError(f"factor '{factor}' is unknown{nearest(factor, names)}")
    rows = np.asarray(indices, dtype=np.int64)
    factors = dataset.extras["factors"][rows]
    factors[:, names.index(factor)] = value
    return render_faces(factors, dataset.extras["nuisances"][rows], dataset.image_size)
