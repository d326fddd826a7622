"""The figure of docs/method.md: one face, its similarity set, and two encoders into the plane.

``python -m docs.figures.method`` trains a Naive and a LASSI encoder with two outputs on the smoke
profile's rendered faces (a minute or less), writes what the picture shows to ``method.json`` beside
this file and draws it as ``method.svg``. In two dimensions nothing has to be projected: curves,
circles and the boundary are true to scale.
"""

from __future__ import annotations

import base64
import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from PIL import Image

import lassi_lib as ll
from lassi_lib.certification.center import smallest_median
from lassi_lib.certification.line import trace
from lassi_lib.certification.network import Restriction
from lassi_lib.display.style import METHOD_COLOURS
from lassi_lib.streams import numpy_stream
from lassi_lib.study.params import load_pipeline

HERE = Path(__file__).resolve().parent
TASK, SENSITIVE, SEED = "Smiling", "Blond_Hair", 0
FACES = np.linspace(-1, 1, 5)  # coefficients at which the similarity set is shown
DOTS = 150  # of the samples of center smoothing that are drawn


def pipeline() -> Any:
    """Return the smoke profile with encoders into the plane and the papers' sample sizes."""
    p = load_pipeline("smoke")
    methods = {name: replace(p.methods[name], sigma_rs=0.5) for name in ("Naive", "LASSI")}
    methods["LASSI"] = replace(methods["LASSI"], lambda_2=0.05)
    sizes = {"n_center": 10_000, "n_radius": 10_000, "n_votes": 100_000}
    return replace(
        p,
        methods=methods,
        encoder=replace(p.encoder, output=2, epochs=5),
        certification=replace(p.certification, **sizes),
    )


def measure(cache: str | Path) -> dict[str, Any]:
    """Train, certify and choose a face; return everything that is drawn, as plain numbers and PNG text.

    The face is the first one of the test split that both classify rightly, LASSI certified and
    Naive not.
    """
    study = ll.Study(pipeline(), device="cpu", cache=cache, workers=1)
    ask = {"pairs": [f"{TASK}/{SENSITIVE}"], "methods": ["Naive", "LASSI"], "seeds": [SEED]}
    naive, lassi = ll.experiments_of(study.pipeline, ask)
    first, second = study.certificates(naive), study.certificates(lassi)
    wanted = (first.status == "NOT_CERTIFIED") & (second.status == "CERTIFIED")
    for rows in (first, second):
        wanted &= rows.prediction == rows.label
    at = int(np.flatnonzero(wanted)[0])
    similarity = study.similarity((SENSITIVE,))
    z = study.latents("test")[at]
    line = torch.as_tensor(FACES, dtype=torch.float32)[:, None] * similarity.epsilon
    images = ll.to_uint8(study.glow().decode(similarity.points(z, line)))
    found = {
        "face": int(first["index"][at]),
        "smiling": int(first.label[at]),
        "epsilon": similarity.epsilon,
        "sigma_cs": study.pipeline.certification.sigma_cs,
        "png": [_png(image) for image in images],
        "certified": {rows.method[0]: float((rows.status == "CERTIFIED").mean()) for rows in (first, second)},
    }
    for e, rows in ((naive, first), (lassi, second)):
        found[e.method] = (
            _seen_by(study, e, z, found["face"]) | rows.loc[at, ["status", "d_cs", "d_rs"]].to_dict()
        )
    return found


def _seen_by(study: Any, e: Any, z: torch.Tensor, index: int) -> dict[str, Any]:
    """Return where an encoder puts z + t a, its center r_cs, and the classifier's boundary."""
    similarity, spec = study.similarity(e.sensitive), study.spec(e.method)
    restriction = Restriction(study.representation(e), similarity.vectors)
    curve = trace(restriction, restriction.first(z[None])[0], -4 * spec.sigma_cs, 4 * spec.sigma_cs)
    t = similarity.gaussian(spec.n_center, spec.sigma_cs, numpy_stream(SEED, "center/candidates", index))
    samples = curve.at(torch.from_numpy(t[:, 0]).clamp(curve.t[0], curve.t[-1]).sort().values)
    center = curve.origin + samples.point(smallest_median(samples)[0])
    dots = torch.stack([curve.origin + samples.point(i) for i in range(0, len(t), len(t) // DOTS)])
    weight = study.classifier(e).weight.detach().double()
    bias = study.classifier(e).bias.detach().double()
    return {
        "t": curve.t.numpy().round(4).tolist(),
        "curve": (curve.r + curve.origin).numpy().round(4).tolist(),
        "dots": dots.numpy().round(4).tolist(),
        "center": center.tolist(),
        "normal": (weight[1] - weight[0]).tolist(),
        "offset": float(bias[1] - bias[0]),
    }


def _png(image: torch.Tensor) -> str:
    content = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(content, "png")
    return base64.b64encode(content.getvalue()).decode()


def draw(found: dict[str, Any]) -> Figure:
    """Draw the face's similarity set above what the two encoders make of it."""
    figure = Figure(figsize=(8.6, 5.6), layout="constrained")
    rows = figure.subfigures(2, 1, height_ratios=(1, 2.6))
    for axes, t, png in zip(rows[0].subplots(1, len(FACES)), FACES, found["png"], strict=True):
        axes.imshow(Image.open(io.BytesIO(base64.b64decode(png))))
        axes.set_title("x" if t == 0 else f"t = {t * found['epsilon']:g}", fontsize=9)
        axes.set_axis_off()
    rows[0].suptitle("S(x): one face moved along the attribute vector of Blond_Hair", fontsize=10)
    panels = rows[1].subplots(1, 2)
    reach = 1.08 * max(found[name]["d_cs"] for name in ("Naive", "LASSI"))
    for axes, name in zip(panels, ("Naive", "LASSI"), strict=True):
        _panel(axes, found, name, reach)
    handles = dict(zip(*panels[0].get_legend_handles_labels()[::-1], strict=True))
    rows[1].legend(handles.values(), handles, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def _panel(axes: Any, found: dict[str, Any], name: str, reach: float) -> None:
    """Draw one encoder's plane around its center; LASSI's small circles again, magnified."""
    own = found[name]
    _plane(axes, own, found["epsilon"], METHOD_COLOURS[name], reach)
    said = "certified" if own["status"] == "CERTIFIED" else "not certified"
    sign = "<" if own["d_cs"] < own["d_rs"] else "≥"
    axes.set_title(f"{name}: d_cs = {own['d_cs']:.2f} {sign} d_rs = {own['d_rs']:.2f}, {said}", fontsize=10)
    axes.tick_params(labelsize=8)
    axes.set_xlabel("first coordinate of R", fontsize=9)
    axes.set_ylabel("second", fontsize=9)
    close = 1.15 * max(own["d_cs"], own["d_rs"])
    if close < reach / 3:
        inset = axes.inset_axes((0.55, 0.55, 0.43, 0.43), xticks=[], yticks=[])
        _plane(inset, own, found["epsilon"], METHOD_COLOURS[name], close)
        axes.indicate_inset_zoom(inset, edgecolor="0.4")


def _plane(axes: Any, own: dict[str, Any], epsilon: float, colour: str, reach: float) -> None:
    t, curve, dots, center = (np.array(own[key]) for key in ("t", "curve", "dots", "center"))
    ends = [np.interp(end, t, curve[:, k]) for end in (-epsilon, epsilon) for k in (0, 1)]
    similar = np.vstack([ends[:2], curve[np.abs(t) <= epsilon], ends[2:]])
    normal = np.array(own["normal"])
    size = np.linalg.norm(normal)
    foot = center - (normal @ center + own["offset"]) / size**2 * normal
    along = 9 * reach * np.array([[-1.0], [1.0]]) * np.array([-normal[1], normal[0]]) / size
    axes.plot(*dots.T, ".", markersize=4, color="0.55", label="samples R(z + t a), t normal")
    axes.plot(*similar.T, color=colour, linewidth=3, solid_capstyle="round", label="R(S(x))")
    circle = {"fill": False, "linewidth": 1.6}
    axes.add_patch(Circle(center, own["d_cs"], color=colour, label="radius d_cs", **circle))
    axes.add_patch(Circle(center, own["d_rs"], color="0.15", linestyle="--", label="radius d_rs", **circle))
    axes.plot(*center, marker="P", markersize=6, color="black", linestyle="none", label="center r_cs")
    axes.plot(*(foot + along).T, color="#D55E00", linewidth=1.4, label="boundary of C")
    axes.set_xlim(center[0] - reach, center[0] + reach)
    axes.set_ylim(center[1] - reach, center[1] + reach)
    axes.set_aspect("equal")


def svg(figure: Figure) -> bytes:
    """Return the drawing; equal data give equal bytes."""
    content = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "lassi", "svg.fonttype": "path"}):
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    return content.getvalue()


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        shown = measure(sys.argv[1] if len(sys.argv) > 1 else folder)
    (HERE / "method.json").write_text(json.dumps(shown, separators=(",", ":")) + "\n")
    (HERE / "method.svg").write_bytes(svg(draw(shown)))
