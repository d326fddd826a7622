"""The copula reproduces CelebA's rates, and its numerics agree with independent computations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import optimize

from lassi_lib.data import label_law as law_module
from lassi_lib.data.celeba import read_attributes
from lassi_lib.data.label_law import (
    ATTRIBUTES,
    PUBLISHED_PAIRS,
    bivariate_upper,
    celeba_label_law,
    fit_loadings,
    make_table,
    tetrachoric,
)
from lassi_lib.errors import StudyError

ANNOTATIONS = Path(__file__).parents[3] / "shared/data/celeba/list_attr_celeba.txt.gz"
N = 100_000


@pytest.fixture(scope="module")
def drawn():
    return celeba_label_law().draw(N, seed=3)


def test_table_serves_every_published_attribute():
    law = celeba_label_law()
    assert law.names == ATTRIBUTES
    for pair in PUBLISHED_PAIRS:
        assert set(pair) <= set(law.names)
    assert ((law.loadings**2).sum(1) + law.noise <= 1 + 1e-3).all()
    np.testing.assert_allclose(law.joint.diagonal(), law.rates, atol=1e-6)


def test_marginals_of_drawn_labels(drawn):
    law = celeba_label_law()
    rates = drawn[0].mean(0)
    # 31 rates, each within 4.5 binomial standard deviations
    assert (np.abs(rates - law.rates) < 4.5 * np.sqrt(law.rates * (1 - law.rates) / N)).all()


def test_published_conditional_rates_of_drawn_labels(drawn):
    """P(task | sensitive) is right to 1.1 points of fit plus 4 standard deviations of sampling."""
    law, labels = celeba_label_law(), drawn[0].astype(bool)
    for task, sensitive in PUBLISHED_PAIRS:
        i, j = law.names.index(task), law.names.index(sensitive)
        n, p = labels[:, j].sum(), law.joint[i, j] / law.rates[j]
        tolerance = 0.011 + 4 * np.sqrt(p * (1 - p) / n) + 1 / n
        assert abs(labels[labels[:, j], i].mean() - p) < tolerance, (task, sensitive)


def test_other_pairs_of_drawn_labels(drawn):
    """Over all pairs the joint rates are within half a point on average, 4.5 points at worst."""
    y = drawn[0].astype(np.float64)
    error = np.abs(y.T @ y / N - celeba_label_law().joint)
    assert error.mean() < 0.005
    assert error.max() < 0.045


def test_picture_explains_labels_up_to_the_annotators_noise(drawn):
    """P(label | margin) = Phi(margin sqrt((1 - noise) / noise)): one half at margin 0, calibrated elsewhere."""
    law = celeba_label_law()
    labels, margins = drawn
    for a, name in enumerate(law.names):
        noise = law.noise[a]
        p = torch.special.ndtr(torch.from_numpy(margins[:, a]) * np.sqrt((1 - noise) / noise)).numpy()
        gap = (labels[:, a] - p).mean()
        assert abs(gap) < 4.5 * np.sqrt((p * (1 - p)).mean() / N), name
        split = np.abs(margins[:, a]) < 0.1
        assert abs(labels[split, a].mean() - 0.5) < 4.5 * 0.5 / np.sqrt(split.sum()), name


def test_row_does_not_depend_on_the_number_drawn():
    law = celeba_label_law()
    for few, many in zip(law.draw(700, seed=1), law.draw(3000, seed=1), strict=True):
        np.testing.assert_array_equal(few, many[:700])
    assert (law.draw(700, seed=2)[1] != law.draw(700, seed=1)[1]).all()


@pytest.mark.parametrize(
    ("task", "attribute", "phi"),
    [("Smiling", "Blond_Hair", 0.0), ("Smiling", "Blond_Hair", 0.35), ("Attractive", "Chubby", 0.0),
     ("Wearing_Earrings", "Blond_Hair", -0.15)],
)  # fmt: skip
def test_dialled_correlation_is_reached_and_nothing_else_of_the_face_moves(drawn, task, attribute, phi):
    law = celeba_label_law()
    other = law.dialled(task, attribute, phi)
    labels, margins = other.draw(N, seed=3)
    t, s = law.names.index(task), law.names.index(attribute)
    p, q = law.rates[t], law.rates[s]
    both = p * q + phi * np.sqrt(p * (1 - p) * q * (1 - q))
    assert abs((labels[:, t] & labels[:, s]).mean() - both) < 4.5 * np.sqrt(both * (1 - both) / N)
    assert abs(labels[:, s].mean() - q) < 4.5 * np.sqrt(q * (1 - q) / N)
    assert (other.loadings[s] ** 2).sum() + law.noise[s] <= 1 + 1e-3
    rest = np.arange(len(law.names)) != s
    for ours, theirs in zip((labels, margins), drawn, strict=True):
        np.testing.assert_array_equal(ours[:, rest], theirs[:, rest])
    # the picture still explains the dialled label up to the annotators' noise
    noise = law.noise[s]
    seen = torch.special.ndtr(torch.from_numpy(margins[:, s]) * np.sqrt((1 - noise) / noise)).numpy()
    assert abs((labels[:, s] - seen).mean()) < 4.5 * np.sqrt((seen * (1 - seen)).mean() / N)


def test_dialled_to_its_own_value_is_the_law_itself(drawn):
    law = celeba_label_law()
    t, s = law.names.index("Smiling"), law.names.index("Blond_Hair")
    same = law.dialled("Smiling", "Blond_Hair", law.phi[t, s])
    np.testing.assert_allclose(same.loadings, law.loadings, atol=1e-9)
    np.testing.assert_array_equal(same.draw(N, seed=3)[0], drawn[0])
    np.testing.assert_allclose(law.phi[t, s], np.corrcoef(drawn[0][:, [t, s]].T)[0, 1], atol=4.5 / N**0.5)


@pytest.mark.parametrize("phi", [0.02, 0.35])
def test_dialled_loadings_are_the_nearest(phi):
    """Against a general solver of the same constrained least squares."""
    law = celeba_label_law()
    t, s = law.names.index("Wearing_Earrings"), law.names.index("Blond_Hair")
    found = law.dialled("Wearing_Earrings", "Blond_Hair", phi)
    others = np.delete(law.loadings, [t, s], axis=0)
    rho, most = found.loadings[s] @ law.loadings[t], 1 - law.noise[s]
    solved = optimize.minimize(
        lambda x: ((others @ (x - law.loadings[s])) ** 2).sum(),
        law.loadings[s],
        constraints=[
            {"type": "eq", "fun": lambda x: x @ law.loadings[t] - rho},
            {"type": "ineq", "fun": lambda x: most - x @ x},
        ],
        tol=1e-14,
    )
    np.testing.assert_allclose(found.loadings[s], solved.x, atol=2e-4)


def test_a_correlation_out_of_reach_names_the_range():
    with pytest.raises(StudyError, match=r"use -0\.\d+ to 0\.43"):
        celeba_label_law().dialled("Smiling", "Blond_Hair", 0.6)


def test_bivariate_upper_against_sheppard_and_sampling():
    rho = torch.tensor([-0.9, -0.3, 0.0, 0.5, 0.95], dtype=torch.float64)
    zero = torch.zeros_like(rho)
    np.testing.assert_allclose(
        bivariate_upper(zero, zero, rho), 0.25 + torch.asin(rho) / (2 * np.pi), atol=1e-9
    )
    g = np.random.default_rng(0).standard_normal((2, 1_000_000))
    sampled = ((g[0] > 0.7) & (0.6 * g[0] + 0.8 * g[1] > -0.4)).mean()
    h, k, r = (torch.tensor(value, dtype=torch.float64) for value in (0.7, -0.4, 0.6))
    assert abs(bivariate_upper(h, k, r).item() - sampled) < 4 * np.sqrt(0.2 * 0.8 / 1e6)


def test_tetrachoric_and_fit_recover_a_known_law():
    loadings = np.array([[0.8, 0.0], [0.5, 0.6], [-0.7, 0.2], [0.1, -0.6], [0.3, 0.5]])
    truth = loadings @ loadings.T
    np.fill_diagonal(truth, 1)
    rates = np.array([0.5, 0.2, 0.05, 0.3, 0.7])
    tau = torch.special.ndtri(torch.from_numpy(1 - rates))
    joint = bivariate_upper(tau[:, None], tau[None], torch.from_numpy(truth).clamp(-0.9999, 0.9999)).numpy()
    np.fill_diagonal(joint, rates)
    np.testing.assert_allclose(tetrachoric(rates, joint), truth, atol=1e-5)
    fitted = fit_loadings(rates, joint, np.ones((5, 5)), rank=2, noise=0.1)
    off = ~np.eye(5, dtype=bool)
    np.testing.assert_allclose((fitted @ fitted.T)[off], truth[off], atol=5e-3)


def test_command_writes_the_table_it_reads(tmp_path, monkeypatch):
    """On a made-up annotation file: rates and joint rates come back as they were counted."""
    rng = np.random.default_rng(0)
    labels = rng.random((400, len(ATTRIBUTES))) < 0.3 + 0.4 * rng.random((400, 1))
    rows = [f"{i:06d}.jpg " + " ".join("1" if v else "-1" for v in row) for i, row in enumerate(labels)]
    source, out = tmp_path / "list_attr_celeba.txt", tmp_path / "law.csv"
    source.write_text("\n".join(["400", " ".join(ATTRIBUTES), *rows]) + "\n")
    monkeypatch.setattr(law_module, "RANK", 2)
    make_table(source, out)
    law = celeba_label_law(out)
    np.testing.assert_allclose(law.rates, labels.mean(0), atol=1e-6)
    np.testing.assert_allclose(law.joint, labels.T.astype(float) @ labels / 400, atol=1e-6)
    with pytest.raises(StudyError, match="is not there"):
        make_table(tmp_path / "nosuch.txt", out)
    source.write_text(source.read_text().rsplit("\n", 2)[0])
    with pytest.raises(StudyError, match="first line says 400 images"):
        make_table(source, out)


@pytest.mark.skipif(
    not ANNOTATIONS.exists(), reason="CelebA's annotation file is not in ../shared/data/celeba"
)
def test_shipped_rates_are_the_official_ones():
    names, table = read_attributes(ANNOTATIONS.parent)
    y = np.stack(list(table.values()))[:, [names.index(a) for a in ATTRIBUTES]].astype(np.float64)
    law = celeba_label_law()
    np.testing.assert_allclose(law.joint, y.T @ y / len(y), atol=1e-6)
