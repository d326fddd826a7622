"""What a run really was, beside the papers' setting: the honest first table of every notebook."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from lassi_lib.similarity.kinds import find_kind
from lassi_lib.study.experiment import Experiment
from lassi_lib.study.study import Study

# ECCV 2022, section 6 and supplement (Table 11); Merk et al. 2023 used seeds 42 and 0.
CELEBA = {
    "faces": "CelebA, photographs",
    "images (train / valid / test)": "162,770 / 19,867 / 19,962",
    "split": "official partition",
    "image size": "64 pixels (also 128)",
    "Glow": "K = 32, L = 4, width 512",
    "bits/dim on test images": "not published",
    "encoder": "2048-1024-512, 5 epochs",
    "encoder batch, steps": "500, 1,630",  # 5 ceil(162,770 / 500)
    "certified test points": "every 64th image, 312",
    "epsilon, sigma_cs": "1, 0.65",
    "seeds": "ECCV: 5, Merk et al.: 2",
}
FAIRFACE = {
    "faces": "FairFace, photographs",
    "images (train / valid / test)": "69,395 / 17,349 / 10,954",
    "split": "official train 80/20, official val",
    "image size": "64 pixels",
    "encoder batch, steps": "500, 695",  # 5 ceil(69,395 / 500)
    "certified test points": "every 32nd image, 343",
    "epsilon, sigma_cs": "0.5, 0.325",
}
SHAPES3D = {
    "faces": "3D Shapes, a room with one object",
    "images (train / valid / test)": "a biased training split; sizes not published",
    "split": "files that are not public",
    "image size": "64 pixels",
    "Glow": "K = 32, L = 3, width 512",
    "encoder batch, steps": "500, not published",
    "certified test points": "every 320th image, 300",
    "seeds": "ECCV: 1",
}


def n_steps(epochs: int, batch_size: int, images: int) -> int:
    """Return how many steps a training takes; the last batch of an epoch may be smaller."""
    return epochs * -(-images // batch_size)


def provenance(study: Study, experiments: Iterable[Experiment] = ()) -> pd.DataFrame:
    """Return a table (what, papers, this run) of data, models, sample sizes, device and minutes."""
    experiments = list(experiments)
    f, p = study.facts(), study.pipeline
    own = [p.methods[e.method] for e in experiments]
    default = p.encoder.epochs, p.encoder.batch_size
    recipes = _distinct((p.recipe(m) for m in own), default)
    steps = [f"{size}, {n_steps(n, size, f['images']['train']):,}" for n, size in recipes]
    epochs = _distinct((n for n, _ in recipes), default[0])
    scales = _distinct((find_kind(e.vector_type).epsilon for e in experiments), 1.0)  # unit vectors: 10
    every, n_test = p.certification.test_every, f["images"]["test"]
    papers = CELEBA | {"fairface": FAIRFACE, "shapes3d": SHAPES3D}.get(f["dataset"], {})
    kinds = {
        "synthfaces": "rendered synthetic faces",
        "celeba": "CelebA, photographs (Liu et al., ICCV 2015; non-commercial research only)",
        "fairface": "FairFace, photographs (Karkkainen & Joo, WACV 2021; CC BY 4.0)",
        "shapes3d": "a room with one object, rendered by us in the manner of 3D Shapes",
    }
    here = {
        "faces": kinds.get(f["dataset"], f["dataset"]),
        "images (train / valid / test)": " / ".join(f"{n:,}" for n in f["images"].values()),
        "split": f["note"] or "made by this study",
        "image size": f"{f['image_size']} pixels",
        "Glow": f["glow"],
        "bits/dim on test images": f"{f['bits_per_dim']:.2f}",
        "encoder": "-".join(str(h) for h in [*p.encoder.hidden, p.encoder.output])
        + f", {' or '.join(map(str, epochs))} epochs",
        "encoder batch, steps": " or ".join(steps),
        "certified test points": f"every {every}th, {-(-n_test // every):,}"
        if every > 1
        else f"all {n_test:,}",
        "epsilon, sigma_cs": _sets(scales, p.certification.epsilon, p.certification.sigma_cs),
        "seeds": ", ".join(str(s) for s in sorted({e.seed for e in experiments})) or "-",
    }
    if any(m.lambda_1 == 0 for m in own):  # transfer learning
        papers = papers | {"encoder": "2048-1024-512, 20 epochs", "encoder batch, steps": "500, 6,520"}
    published = map(float, papers["epsilon, sigma_cs"].split(", "))
    papers = papers | {"epsilon, sigma_cs": _sets(scales, *published)}
    rows = [{"": name, "papers": papers[name], "this run": here[name]} for name in papers]
    seen = f["glow_images_seen"]
    trained = f"{seen:,} images seen" if seen else "as it came: the checkpoint does not say"
    rows.append({"": "Glow training", "papers": "not published", "this run": trained})
    rows.append({"": "device", "papers": "-", "this run": f["device"]})
    spent = study.seconds(experiments)
    if spent:
        minutes = ", ".join(f"{name} {s / 60:.1f}" for name, s in spent.items())
        rows.append({"": "computing minutes", "papers": "-", "this run": minutes})
    return pd.DataFrame(rows)


def _sets(scales: list[float], epsilon: float, sigma_cs: float) -> str:
    return " or ".join(f"{s * epsilon:g}, {s * sigma_cs:g}" for s in scales)


def _distinct(values: Iterable, default: object) -> list:
    """Return the distinct values in rising order, the default where there are none."""
    return sorted(set(values)) or [default]
