"""The certificate as a whole: the textbook's law, statuses, and what must not matter."""

import math
import os
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binom, ks_2samp

from lassi_lib.certification.certify import certify, certify_smoothed, smooth_centers
from lassi_lib.certification.modes import STATUSES
from lassi_lib.certification.spec import CertificationSpec
from lassi_lib.errors import StudyError
from lassi_lib.similarity.sets import SimilaritySet

from . import textbook

SPEC = CertificationSpec(
    1.0, 0.65, 4.0, n_center=800, n_radius=1400, alpha_cs=0.1, delta=0.09, n_class=200, n_votes=5000
)


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setitem(os.environ, "LASSI_QUIET", "1")


def setting(n, scale=0.1, widths=(15, 40, 25, 8), classes=2, seed=0):
    """Return (representation, classifier, similarity set, latents [60, d])."""
    g = torch.Generator().manual_seed(seed)
    classifier = torch.nn.utils.skip_init(torch.nn.Linear, widths[-1], classes)
    with torch.no_grad():
        classifier.weight.copy_(torch.randn(classes, widths[-1], generator=g))
        classifier.bias.copy_(0.2 * torch.randn(classes, generator=g))
    similarity = SimilaritySet(scale * torch.randn(n, widths[0], generator=g), 1.0)
    return (
        textbook.random_network(widths, seed),
        classifier,
        similarity,
        torch.randn(60, widths[0], generator=g),
    )


def run(parts, spec=SPEC, rows=slice(None), **options):
    representation, classifier, similarity, z = parts
    index = np.arange(60)[rows]
    options = {"seed": 0, "indices": index} | options
    return certify(
        representation, classifier, similarity, z[rows], np.zeros(len(index), int), spec, **options
    )


@pytest.mark.parametrize(("n", "classes", "seed", "scale", "row"), [(1, 2, 3, 0.1, 29), (2, 3, 0, 0.05, 49)])
def test_same_law_as_the_textbook(n, classes, seed, scale, row):
    """One latent, many streams: distances, radii and the share of certificates have the same law."""
    representation, classifier, similarity, z = setting(n, scale, classes=classes, seed=seed)
    weight, bias = classifier.weight.detach().double().numpy(), classifier.bias.detach().double().numpy()
    z, repetitions = z[row : row + 1], 120
    ours = certify(
        representation, classifier, similarity, z.expand(repetitions, -1), [0] * repetitions, SPEC,
        seed=1, indices=range(repetitions),
    )  # fmt: skip
    rng = np.random.default_rng(2)
    theirs = pd.DataFrame(
        [
            textbook.certify_point(representation, weight, bias, similarity.vectors, z, SPEC, rng)
            for _ in range(repetitions)
        ],
        columns=["status", "d_cs", "d_rs"],
    )
    for column in ("d_cs", "d_rs"):
        assert ks_2samp(ours[column].dropna(), theirs[column].dropna()).pvalue > 1e-3
    shares = [(t["status"] == "CERTIFIED").sum() for t in (ours, theirs)]
    pooled = sum(shares) / (2 * repetitions)
    assert 0.1 < pooled < 0.9  # the comparison has something to compare
    assert abs(shares[0] - shares[1]) <= 4 * math.sqrt(2 * repetitions * pooled * (1 - pooled))


@pytest.mark.parametrize("n", [1, 2])
def test_certified_sets_agree_with_the_textbook(n):
    """With more samples only points within sampling error of d_cs = d_rs may differ."""
    # and with these numbers a wrong guess or an abstention is rare
    spec = replace(SPEC, delta=0.12, n_radius=4000, n_class=5000, n_votes=100_000)
    representation, classifier, similarity, z = parts = setting(n, scale=0.05 / n, seed=3)
    weight, bias = classifier.weight.detach().double().numpy(), classifier.bias.detach().double().numpy()
    ours = run(parts, spec)
    rng = np.random.default_rng(5)
    theirs = [
        textbook.certify_point(representation, weight, bias, similarity.vectors, x[None], spec, rng)[0]
        for x in z
    ]
    theirs = np.array(theirs)
    assert 10 < (ours["status"] == "CERTIFIED").sum() < 50
    centered = (ours["status"] != "ABSTAINED_CENTER") & (theirs != "ABSTAINED_CENTER")
    assert centered.sum() > 50
    differ = ours[centered & ((ours["status"] == "CERTIFIED") != (theirs == "CERTIFIED"))]
    assert len(differ) <= 5
    assert ((differ["d_cs"] - differ["d_rs"].fillna(0)).abs() < 0.2 * differ["d_cs"]).all()


@pytest.mark.parametrize("n", [1, 2])
def test_workers_do_not_change_a_byte(n):
    parts = setting(n)
    assert run(parts, workers=1).to_csv() == run(parts, workers=3).to_csv()


@pytest.mark.parametrize("n", [1, 3])
def test_order_and_batch_do_not_matter(n):
    parts = setting(n)
    whole = run(parts)
    shuffled = np.random.default_rng(0).permutation(60)
    again = run(parts, rows=shuffled).sort_values("index").reset_index(drop=True)
    pd.testing.assert_frame_equal(whole, again, rtol=1e-9)
    single = pd.concat([run(parts, rows=slice(i, i + 1)) for i in (0, 33, 59)], ignore_index=True)
    pd.testing.assert_frame_equal(whole.iloc[[0, 33, 59]].reset_index(drop=True), single, rtol=1e-9)


@pytest.mark.parametrize(("n", "classes"), [(1, 2), (2, 3)])
def test_centers_shared_by_classifiers_give_each_its_own_certificates(n, classes):
    """To the bit, and through the cache's file too (`Study.certificates`)."""
    representation, _, similarity, z = setting(n)
    for seed in range(2):
        classifier = setting(n, classes=classes, seed=seed)[1]
        whole = run((representation, classifier, similarity, z))
        smoothed = smooth_centers(
            representation, similarity, z, SPEC, seed=0, indices=range(60), workers=1 + seed
        )
        shared = certify_smoothed(smoothed, classifier, np.zeros(60, int), SPEC, seed=0)
        pd.testing.assert_frame_equal(whole, shared, check_exact=True)
    assert smoothed["center"].shape == (60, 8) and len(set(whole["status"])) > 1


def test_seed_and_index_name_the_streams():
    parts = setting(1)
    base, other_seed = run(parts), run(parts, seed=1)
    assert (base["center_radius"] != other_seed["center_radius"]).all()
    twins = (*parts[:3], parts[3][:1].expand(60, -1))
    assert run(twins)["center_radius"].nunique() == 60  # one latent, sixty indices


def test_columns_and_statuses():
    rows = run(setting(1))
    assert list(rows.columns) == [
        "index", "label", "prediction", "status", "d_cs", "d_rs", "p_A", "center_radius",
        "mass_fraction", "smoothing_error", "n_pieces",
    ]  # fmt: skip
    assert set(rows["status"]) <= set(STATUSES)
    assert len(set(rows["status"])) >= 3
    abstained = rows["status"].str.startswith("ABSTAINED")
    assert ((rows["prediction"] == -1) == abstained).all()
    assert rows.loc[abstained, "d_rs"].isna().all()
    assert rows.loc[~abstained, ["d_cs", "d_rs", "p_A"]].notna().all(axis=None)
    fair = rows["status"] == "CERTIFIED"
    assert (rows.loc[fair, "d_cs"] < rows.loc[fair, "d_rs"]).all()
    unfair = rows["status"] == "NOT_CERTIFIED"
    assert (rows.loc[unfair, "d_cs"] >= rows.loc[unfair, "d_rs"] * (1 - 1e-5)).all()


def test_a_center_that_holds_too_little_mass_abstains():
    """One big step at t = 0: which side the center takes is chance, and so is its mass.

    Each side holds about half of the samples and the ball holds one side only, so fresh samples fall
    below the threshold whenever Delta leaves no room.
    """
    step = 1e7
    w1 = torch.tensor([[step], [step]], dtype=torch.float64)
    layers = [
        (w1, torch.tensor([0.0, -1.0], dtype=torch.float64)),
        (torch.tensor([[100.0, -100.0]], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)),
    ]
    _, classifier, _, _ = setting(1, widths=(1, 1))
    delta = 0.0481  # just above Delta_1 = 0.0480
    spec = CertificationSpec(1.0, 0.65, 4.0, n_center=1300, n_radius=1300, delta=delta, n_votes=5000)
    rows = certify(
        textbook.Folded(layers), classifier, SimilaritySet(torch.ones(1, 1), 1.0), torch.zeros(60, 1),
        [0] * 60, spec, seed=0, indices=range(60),
    )  # fmt: skip
    gone = rows["status"] == "ABSTAINED_CENTER"
    # the larger side of the candidates has a true mass of 1/2; the fresh share is below it half the time
    assert binom.ppf(0.001, 60, 0.5) <= gone.sum() <= binom.ppf(0.999, 60, 0.5)
    assert rows.loc[gone, ["d_cs", "d_rs", "p_A"]].isna().all(axis=None)
    assert (rows.loc[gone, "prediction"] == -1).all()
    assert (rows.loc[gone, "mass_fraction"] < 0.5 + 0.0480 - delta + 1e-3).all()


def test_a_classifier_without_margin_abstains():
    parts = setting(1)
    with torch.no_grad():
        parts[1].weight.zero_()[1, 0] = 1.0  # logits (0, r_1); the bias puts every center on the boundary
        parts[1].bias.zero_()
    layers = parts[0].layers
    layers[-1] = (0 * layers[-1][0], 0 * layers[-1][1])  # R = 0
    rows = run(parts)
    assert (rows["status"] == "ABSTAINED_CLASSIFIER").sum() >= 58
    assert (rows["d_cs"] == 0).all()


def test_a_network_blind_to_the_attribute_is_certified_wherever_c_is_sure():
    parts = setting(1, scale=0.0)
    rows = run(parts)
    assert (rows["d_cs"] == 0).all()
    assert (rows["center_radius"] == 0).all()
    assert (rows["n_pieces"] == 1).all()
    assert set(rows["status"]) <= {"CERTIFIED", "ABSTAINED_CLASSIFIER"}
    assert (rows["status"] == "CERTIFIED").sum() > 40


def test_ties_are_not_certified(monkeypatch):
    from lassi_lib.certification import monte_carlo as module

    parts = setting(1)
    rows = run(parts)
    fair = rows[rows["status"] == "CERTIFIED"].iloc[0]

    def pretend(factor):
        def smooth(*_):
            return module.smoothing.Smoothed(1, 0.9, float(fair["d_cs"]) * factor)

        monkeypatch.setattr(module.smoothing, "smooth_classifier", smooth)
        index = int(fair["index"])
        return run(parts, rows=slice(index, index + 1))["status"].item()

    assert pretend(1.0) == "NOT_CERTIFIED"
    assert pretend(1.0 + 5e-6) == "NOT_CERTIFIED"
    assert pretend(1.0 + 2e-5) == "CERTIFIED"


def test_misuse_is_reported():
    parts = setting(1)
    with pytest.raises(StudyError, match="n_center"):
        run(parts, CertificationSpec(1.0, 0.65, 4.0, n_center=10))
    with pytest.raises(ValueError, match=r"epsilon is 1.* in the set and 2.* in the spec"):
        run(parts, CertificationSpec(2.0, 1.3, 4.0))
    with pytest.raises(ValueError, match="60 latents and 2 indices"):
        run(parts, indices=[0, 1])
    representation, _, similarity, z = parts[:4]
    with pytest.raises(ValueError, match="60 latents and 61 indices"):
        smooth_centers(representation, similarity, z, SPEC, seed=0, indices=range(61))
    with pytest.raises(ValueError, match=r"epsilon is 1.* in the set and 2.* in the spec"):
        smooth_centers(
            representation, similarity, z, CertificationSpec(2.0, 1.3, 4.0), seed=0, indices=range(60)
        )
    parts[3][7, 0] = math.nan
    with pytest.raises(StudyError, match="not finite"):
        run(parts, label="Smiling")
