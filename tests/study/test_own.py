"""An audit from image files to a verdict: with what is trained here, with modules of one's own, with mistakes."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from lassi_lib.errors import StudyError
from lassi_lib.flow.checkpoint import load_glow, save_glow
from lassi_lib.flow.glow import GlowConfig
from lassi_lib.learning.classifier import ClassifierTraining, fit_classifier
from lassi_lib.learning.representation import embed
from lassi_lib.study import notebooks, params
from lassi_lib.study.cache import StageCache
from lassi_lib.study.exactness import Question
from lassi_lib.study.own import YOURS, OwnStudy, rendered_folder
from lassi_lib.study.own_report import (
    deciding,
    own_answers,
    own_counterexamples,
    own_doubts,
    own_faces,
    own_fit,
    own_groups,
    own_setting,
    own_strips,
    own_vectors,
    own_verdict,
)
from lassi_lib.study.statistics import clopper_pearson
from lassi_lib.study.verdicts import OUTCOMES
from tests.flow.flows import random_glow

ROOT = Path(__file__).parents[2]
PAIR = "Smiling/Blond_Hair"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def folder(cache):
    """A rendered folder: 400 faces, as in docs/your_own.md."""
    return rendered_folder(StageCache(cache), 48, 400)


@pytest.fixture(scope="module")
def own(folder, cache):
    """How to open the folder's study with the smoke profile."""

    def open_(images=folder, **given):
        return OwnStudy("smoke", images, device="cpu", cache=cache, workers=1, **given)

    return open_


def audit(study, pair=PAIR, modes=("exact_decision", "empirical"), methods=("Naive",)):
    experiments = study.experiments(pair, methods, 0)
    kept, said = study.offered(modes, experiments)
    return experiments, pd.concat([study.run(experiments, Question(mode)) for mode in kept]), said


@pytest.fixture(scope="module")
def audited(own):
    study = own()
    return study, *audit(study, methods=("Naive", "LASSI"))


def test_the_folder_is_a_data_set_like_any_other(audited, folder):
    study, experiments, rows, said = audited
    names = {p.name for p in folder.glob("*.png")}
    ids = np.concatenate([study.dataset(s).ids for s in ("train", "valid", "test")])
    assert set(ids) == names and len(ids) == len(names) == 400
    assert said == "Every mode is asked."
    assert set(rows["index"]) == set(range(len(study.dataset("test"))))
    assert (rows["label"].to_numpy() == study.labels("test", "Smiling")[rows["index"]]).all()
    setting = dict(own_setting(study, experiments, ["exact_decision"]).to_numpy().tolist())
    assert setting["classifiers"] == "Naive (seed 0), LASSI (seed 0)"
    assert setting["flow"] == "the profile's Glow, K = 4, L = 4, width 48"
    assert "400 labelled images" in setting["how they were read"]


def test_rendered_faces_are_known_to_the_flow_and_others_are_not(audited, own, tmp_path):
    study, experiments, _, _ = audited
    vectors = own_vectors(study, experiments[-1])
    fit = own_fit(study)
    assert own_doubts(fit, vectors, 0.3, 99.0) == []
    assert float(vectors["chance %"].iloc[0]) > 20 and vectors["outside % at the ends"].iloc[0] < 5
    assert "mostly chance" in own_doubts(fit, vectors, 0.3, 20.0)[0]
    # the same faces under noise: the flow needs more bits
    rng = np.random.default_rng(0)
    shutil.copy(study.data_root / "labels.csv", tmp_path)
    for path in study.data_root.glob("*.png"):
        pixels = np.asarray(Image.open(path)).astype(int) + rng.integers(-40, 41, (48, 48, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(tmp_path / path.name)
    foreign = own(tmp_path, max_images=120)
    doubts = own_doubts(own_fit(foreign), vectors, 0.3, 99.0)
    assert len(doubts) == 1 and "out of distribution" in doubts[0]
    unknown = fit.assign(**{"bits/dim": np.nan, "largest reconstruction error": 0.1})
    words = " ".join(own_doubts(unknown, vectors, 0.3, 99.0))
    assert "not known whether the flow fits" in words and "does not give images back" in words


def test_the_tables_are_about_the_same_faces_and_find_the_refuted_ones(audited):
    study, experiments, rows, _ = audited
    answers, groups, faces = own_answers(rows), own_groups(study, rows), own_faces(study, rows)
    exact = rows[rows["mode"] == "exact_decision"]
    assert (deciding(rows)["mode"] == "exact_decision").all()
    for method, part in exact.groupby("method"):
        fair = part["status"] == "VERIFIED"
        row = answers[(answers["method"] == method) & (answers["mode"] == "exact_decision")].iloc[0]
        assert row["fair"] == pytest.approx(100 * fair.mean())
        assert row["accuracy"] == pytest.approx(100 * (part["prediction"] == part["label"]).mean())
        of_method = groups[groups["method"] == method]
        assert of_method["n_points"].sum() == len(part)
        assert (of_method["fair"] * of_method["n_points"]).sum() == pytest.approx(100 * fair.sum())
    refuted = faces[faces["status"] == "REFUTED"]
    assert len(refuted) == (exact["status"] == "REFUTED").sum() > 0
    assert refuted["file"].str.fullmatch(r"face_\d{5}\.png").all()
    assert refuted["at t"].str.fullmatch(r"[+-]\d\.\d\d").all()
    # a counterexample is one: the plain network decides differently there
    method, shown, similar, table = own_counterexamples(study, rows)[0]
    e = next(x for x in experiments if x.method == method)
    z = study.latents("test")[table["index"].tolist()]
    t = torch.tensor([x[0] for x in table["t"]])[:, None]
    moved = z + t * study.similarity(e.sensitive).vectors
    with torch.no_grad():
        classes = [study.classifier(e)(study.representation(e)(x)).argmax(1).tolist() for x in (z, moved)]
    assert classes == [table["prediction"].tolist(), table["witness_class"].tolist()]
    assert shown.shape == similar.shape == (len(table), 3, 48, 48)


def test_strips_begin_with_the_faces_themselves(audited):
    study, experiments, _, _ = audited
    strips, t = own_strips(study, experiments[-1], count=2, steps=5)
    assert t.tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]
    assert list(strips) == [f"{name}, Blond_Hair" for name in study.dataset("test").ids[:2]]
    for frames, image in zip(strips.values(), study.dataset("test").images, strict=False):
        assert frames.shape == (5, 3, 48, 48)
        assert int((frames[2].int() - image.int()).abs().max()) <= 8  # its 5 bits
        assert not torch.equal(frames[0], frames[4])


def rows_of(n, refuted, status="VERIFIED", mode="exact_decision"):
    """Rows of one classifier, always right, with so many faces refuted."""
    table = pd.DataFrame({"index": range(n), "label": np.arange(n) % 2, "prediction": np.arange(n) % 2})
    table["status"] = np.where(np.arange(n) < refuted, "REFUTED", status)
    names = {"dataset": "folder", "task": "A", "sensitive": "B", "vector_type": "v", "method": "yours"}
    return table.assign(**names, seed=0, mode=mode)


def test_the_verdict_follows_the_bounds_and_any_doubt():
    cases = [
        (300, 0, "supported"),
        (300, 60, "not supported"),
        (300, 10, "inconclusive"),
        (10, 0, "inconclusive"),
    ]
    for n, refuted, outcome in cases:
        verdict = own_verdict(rows_of(n, refuted), [], 95.0, 0.95)
        assert verdict.outcome == outcome
        row = verdict.table.iloc[0]
        low, high = row["fair at least"], row["fair at most"]
        assert (low >= 95, high < 95) == (outcome == "supported", outcome == "not supported")
        assert low <= row["proven fair"] <= high
    doubted = own_verdict(rows_of(300, 0), ["These images are strange"])
    assert doubted.outcome == "inconclusive" and "; these images are strange." in doubted.headline
    tried = own_verdict(rows_of(300, 0, "PASSED", "empirical"), [])
    assert tried.outcome == "inconclusive" and "trying proves nothing" in tried.text
    assert own_verdict(rows_of(300, 60, "PASSED", "empirical"), []).outcome == "not supported"
    smoothed = own_verdict(rows_of(300, 0, "CERTIFIED", "monte_carlo"), [])
    assert smoothed.outcome == "supported" and "not about the classifier as it is" in smoothed.text
    constant = rows_of(300, 0).assign(prediction=0)
    assert "A constant classifier" in own_verdict(constant, []).text
    with pytest.raises(StudyError, match="min_fair = 0"):
        own_verdict(rows_of(3, 0), [], 0)


# ---- modules of one's own -------------------------------------------------------------------------


def linear(z, y):
    """Return a fitted linear classifier of latents."""
    w = z[y == 1].mean(0) - z[y == 0].mean(0)
    head = nn.Linear(len(w), 2)
    with torch.no_grad():
        head.weight.copy_(torch.stack([-w, w]))
        middle = float((z @ w).median())
        head.bias.copy_(torch.tensor([middle, -middle]))
    return head.eval()


def test_a_classifier_of_ones_own_is_decided_exactly_and_by_calls_alike(audited, own):
    plain = audited[0]
    head = linear(plain.latents("train"), torch.tensor(plain.labels("train", "Smiling")))
    _, known, said = audit(own(classifier=nn.Sequential(head)), methods=["whatever"])
    assert set(known["method"]) == {YOURS} and said == "Every mode is asked."
    # a linear classifier's margin is smallest at an end: the truth is known
    z, a = plain.latents("test").double(), plain.vector("Blond_Hair").double()
    w, b = head.weight.double(), head.bias.double()
    margin = ((z @ w.T + b).diff(dim=1)).squeeze(1)
    fair = (margin.abs() > (w @ a).diff().abs()).numpy()
    exact = known[known["mode"] == "exact_decision"]
    assert ((exact["status"] == "VERIFIED").to_numpy() == fair).all() and 0 < fair.mean() < 1
    assert (exact["prediction"].to_numpy() == (margin > 0).numpy()).all()

    def opaque(latents):
        return head(latents).asinh()

    study = own(classifier=opaque)
    _, called, said = audit(study)
    assert set(called["mode"]) == {"empirical"}
    assert "exact decision needs a piecewise linear classifier, and of yours it contains function" in said
    assert ((called["status"] == "PASSED").to_numpy() == fair).all()
    verdict = own_verdict(called, [])
    assert verdict.outcome in ("not supported", "inconclusive") and "trying proves nothing" in verdict.text
    found = own_counterexamples(study, called)
    assert found[0][0] == YOURS and len(found[0][3])
    with pytest.raises(StudyError, match=r"no mode is left .*add empirical or monte_carlo"):
        study.offered(["exact_decision"], study.experiments(PAIR, [], 0))
    with pytest.raises(StudyError, match="did you mean 'empirical'"):
        study.offered(["empiricl"], study.experiments(PAIR, [], 0))


def test_monte_carlo_of_ones_own_uses_noise_in_units_of_its_representation(own):
    def logits(z):
        return 1000 * z[:, :2]

    study = own(classifier=logits, sigma_rs=2.0)
    spread = (1000 * study.latents("train")[:512, :2]).double().var(0).mean().sqrt()
    assert study.spec(YOURS).sigma_rs == pytest.approx(2 * float(spread), rel=1e-5)


class Pixels(nn.Module):
    """A flow whose latents are 8 x 8 pixels; it knows its bits/dim."""

    image_size, bits_per_dim = 8, 5.0

    def encode(self, x):
        return x.flatten(1)

    def decode(self, z):
        return z.unflatten(1, (3, 8, 8))

    def log_prob(self, x):
        return torch.zeros(len(x))  # uniform on the cube: five bits a value


def test_a_flow_of_ones_own_carries_the_whole_audit(own):
    study = own(flow=Pixels().eval())
    experiments, rows, _ = audit(study)
    assert study.latents("test").shape[1] == 192
    fit = own_fit(study)
    assert fit["bits/dim"].tolist() == [5.0, 5.0] and fit["largest reconstruction error"][0] == 0
    assert own_doubts(fit, own_vectors(study, experiments[0]), 0.3, 99.9) == []
    assert rows["status"].isin(["VERIFIED", "REFUTED", "PASSED", "UNDECIDED"]).all()
    assert dict(own_setting(study, experiments, []).to_numpy().tolist())["flow"] == "your own module"
    with pytest.raises(StudyError, match="both a checkpoint and a flow"):
        own(flow=Pixels().eval(), checkpoint="x.safetensors")


def test_on_an_encoder_of_ones_own_the_studys_classifier_is_trained(audited, own, monkeypatch):
    """Recomputed from the study's own R: the same recipe, on the folder's training faces, on a known scale."""
    plain, (naive, _), *_ = audited
    R, z = plain.representation(naive), plain.latents("train")
    study = own(encoder=R, sigma_rs=2.0)
    (e,) = study.experiments(PAIR, ["whatever"], 3)
    r = embed(R, z)
    assert len(r) < 512  # so that all of them set the scale
    r = (r - r.mean(0)) / r.var(0).mean().sqrt()
    recipe = ClassifierTraining(**asdict(study.pipeline.classifier))
    expected = fit_classifier(r, plain.labels("train", "Smiling"), 2, 2.0, recipe, seed=3)
    assert e.method == YOURS and torch.allclose(study.classifier(e).weight, expected.weight, atol=1e-5)
    assert not torch.allclose(study.classifier(replace(e, seed=4)).weight, expected.weight, atol=1e-3)
    # other units and no known layers: the same decisions, and found by calls alone
    _, exact, _ = audit(study)
    called_study = own(encoder=lambda z: 1e-3 * R(z) - 5e-3, sigma_rs=2.0)
    _, called, said = audit(called_study)
    assert "of yours it contains function" in said and set(called["mode"]) == {"empirical"}
    exact = exact[exact["mode"] == "empirical"]
    for column in ("prediction", "status"):
        assert (exact[column].to_numpy() == called[column].to_numpy()).mean() > 0.98
    # kept: another session trains nothing, other noise is another classifier
    monkeypatch.setattr("lassi_lib.learning.classifier.train_classifier", None)
    assert torch.equal(own(encoder=R, sigma_rs=2.0).classifier(e).weight, study.classifier(e).weight)
    with pytest.raises(TypeError):
        own(encoder=R, sigma_rs=1.0).classifier(e)


def test_a_flow_and_an_encoder_are_enough(own, tmp_path, monkeypatch):
    path = tmp_path / "mine.py"
    path.write_text(
        "import torch\nfrom tests.study.test_own import Pixels\n\n"
        "def flow():\n    return Pixels().eval()\n\n"
        "def encoder():\n    layer = torch.nn.Linear(192, 192, bias=False)\n"
        "    torch.nn.init.eye_(layer.weight)\n    return torch.nn.Sequential(layer, torch.nn.ReLU())\n"
    )
    monkeypatch.syspath_prepend(str(ROOT))
    study = own(models=path)
    experiments, rows, said = audit(study)
    assert said == "Every mode is asked." and set(rows["method"]) == {YOURS}
    assert study.classifier(experiments[0]).weight.shape == (2, 192)
    exact = rows[rows["mode"] == "exact_decision"]
    assert exact["status"].isin(["VERIFIED", "REFUTED"]).all()
    with torch.no_grad():
        logits = study.classifier(experiments[0])(study.representation(experiments[0])(study.latents("test")))
    assert (logits.argmax(1).numpy() == exact["prediction"].to_numpy()).all()
    setting = dict(own_setting(study, experiments, []).to_numpy().tolist())
    n = len(study.dataset("train"))
    assert setting["flow"] == "your own module" and setting["classifiers"] == (
        f"yours (seed 0): your encoder, and a linear classifier trained here on the {n} training images"
    )
    assert own_verdict(rows, []).outcome in OUTCOMES
    for pair in ("Bald/Blond_Hair", "Smiling/Bald"):
        with pytest.raises(
            StudyError, match=r"'Bald': \d+ of \d+ train images are positive, .* needs 30: add"
        ):
            study.experiments(pair, [], 0)
    with pytest.raises(StudyError, match="both a classifier and an encoder"):
        own(encoder=nn.Flatten(), classifier=nn.Flatten())


def test_a_checkpoint_of_ones_own_sets_the_size(own, tmp_path):
    config = GlowConfig(image_size=16, n_steps=1, n_blocks=2, width=8)
    save_glow(tmp_path / "mine.safetensors", random_glow(config), {})
    study = own(checkpoint=tmp_path / "mine.safetensors")
    assert study.dataset("test").image_size == 16 and study.latents("test").shape[1] == 768
    z = load_glow(tmp_path / "mine.safetensors")[0].encode(torch.zeros(1, 3, 16, 16))
    assert torch.allclose(study.glow().encode(torch.zeros(1, 3, 16, 16)), z)
    assert np.isnan(own_fit(study)["bits/dim"][1])


def test_a_flow_trained_for_the_profile_is_used_and_measured(own, folder, cache, monkeypatch):
    pipeline = params.load_pipeline("smoke")
    data = replace(pipeline.data, image_size=32, n_train=64, n_valid=16, n_test=16)
    glow = replace(pipeline.glow, checkpoint="", n_steps=1, n_blocks=2, width=8, n_images=64)
    monkeypatch.setattr(
        "lassi_lib.study.study.load_pipeline", lambda _: replace(pipeline, data=data, glow=glow)
    )
    study = own()
    assert study.glow_stage() == study.home.glow_stage() != study.data_stage()
    assert own_fit(study)["bits/dim"][1] == study.home.latent_facts("test")["bits_per_dim"]
    assert study.dataset("test").image_size == 32


# ---- mistakes, the notebook, the page ---------------------------------------------------------------


def test_too_few_images_and_wrong_names_are_one_line(own):
    study = own()
    cases = [
        ("Smiling/Bald", ["Naive"], r"'Bald': \d of \d+ train images are positive, an attribute vector needs 30: add about"),
        ("Bald/Blond_Hair", ["Naive"], "training a classifier needs 30"),
        ("Smiling/Blond_Hiar", ["Naive"], "did you mean 'Blond_Hair'"),
        (PAIR, ["Naiv"], "did you mean 'Naive'"),
        ("Smiling", ["Naive"], "must read 'Task/Attribute'"),
    ]  # fmt: skip
    for pair, methods, words in cases:
        with pytest.raises(StudyError, match=words) as error:
            study.experiments(pair, methods, 0)
        assert "\n" not in str(error.value)


def test_the_notebook_says_how_the_page_calls_it():
    """Parameters of the command in docs/your_own.md are the notebook's, and it needs no others."""
    page = (ROOT / "docs" / "your_own.md").read_text()
    known = notebooks.parameters_of(ROOT / "notebooks" / "11_audit_your_own.ipynb")
    assert set(re.findall(r"-p (\w+) ", page)) <= set(known)
    for word in ("images", "checkpoint", "models", "modes", "min_fair", "smoothing_noise", "output"):
        assert word in known and f"`{word}`" in page
    settings = [params.load_notebook_params(p, "11_audit_your_own") for p in ("smoke", "demo")]
    differ = {k for k in settings[0] if settings[0][k] != settings[1][k]}
    assert differ == {"profile", "n_rendered"}


def test_the_page_is_right_about_how_much_300_faces_say():
    page = (ROOT / "docs" / "your_own.md").read_text()
    assert (
        "six points to either side of a share of 50 %, and three points below and two above one of 95 %"
        in page
    )
    for k, below, above in ((150, 6, 6), (285, 3, 2)):
        low, high = (100 * x for x in clopper_pearson(k, 300, 0.95))
        assert (round(k / 3 - low), round(high - k / 3)) == (below, above)


def test_the_command_of_the_page_audits_a_folder_and_a_classifier(folder, cache, tmp_path):
    """Word for word but for the paths, with the page's models file, from a folder that is not the repository."""
    page = (ROOT / "docs" / "your_own.md").read_text()
    command = shlex.split(re.search(r"^papermill (?:.*\\\n)*.*", page, re.M)[0].replace("\\\n", " "))
    paths = {
        "notebooks/11_audit_your_own.ipynb": ROOT / "notebooks/11_audit_your_own.ipynb",
        "params/demo/11_audit_your_own.yaml": ROOT / "params/smoke/11_audit_your_own.yaml",
        "/home/me/my_audit.ipynb": "my_audit.ipynb",
        "/home/me/my_faces": folder,
        "/home/me/my_audit": "my_audit",
    }
    assert set(paths) <= set(command)
    command = [sys.executable, "-m", *(str(paths.get(word, word)) for word in command)]
    (tmp_path / "my_models.py").write_text(re.search(r"^# my_models.py\n.*?(?=^```)", page, re.S | re.M)[0])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Linear(6912, 32), nn.ReLU(), nn.Linear(32, 2))
    torch.save(layers.state_dict(), tmp_path / "my_weights.pt")
    own = {"PYTHONPATH": str(ROOT), "LASSI_CACHE": str(cache), "LASSI_QUIET": "1"}
    command += ["-p", "models", "my_models.py", "-p", "device", "cpu"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | own, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads((tmp_path / "my_audit" / "verdicts" / "11_audit_your_own.json").read_text())
    assert said["outcome"] in OUTCOMES
    faces = pd.read_csv(tmp_path / "my_audit" / "tables" / "11_faces.csv")
    assert said["text"].startswith(f"yours, Smiling for Young: {said['outcome']}; of {len(faces)} faces")
    labels = pd.read_csv(folder / "labels.csv").set_index("file")["Smiling"]
    assert len(faces) > 100 and faces["file"].is_unique
    assert (faces["label"].to_numpy() == labels[faces["file"]].to_numpy()).all()
    outputs = json.loads((tmp_path / "my_audit.ipynb").read_text())["cells"]
    assert any(said["text"].rstrip(".") in str(cell.get("outputs")) for cell in outputs)


def test_the_worked_example_of_the_page_runs(tmp_path, monkeypatch, capsys, cache):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LASSI_CACHE", str(cache))
    monkeypatch.setenv("LASSI_QUIET", "1")
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "your_own.md").read_text(), re.S | re.M)
    space = {}
    for block in blocks:
        if block.startswith("# my_models.py"):
            (tmp_path / "my_models.py").write_text(block)
        else:
            exec(block, space)
    said = capsys.readouterr().out
    assert len(blocks) == 3 and "yours, Smiling for Blond Hair: " in said and "REFUTED" in said
    assert json.loads(json.dumps(space["modes"])) == ["exact_decision", "empirical"]
