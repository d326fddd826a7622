"""Every probabilistic statement holds as often as it says; the binomial bound is no weaker than its alpha.

A failure rate is accepted up to the 99.99 % quantile of the binomial distribution with the allowed rate;
where the true rate is known, it must also lie between the 0.01 % and 99.99 % quantiles of that one.
`pytest -rP` prints the table.
"""

import math
from dataclasses import replace
from functools import cached_property, lru_cache

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import binom, combine_pvalues, ks_2samp, ncx2
from scipy.stats import norm as gauss

from lassi_lib.certification import center
from lassi_lib.certification.center import center_smoothing, smallest_median
from lassi_lib.certification.certify import certify
from lassi_lib.certification.line import Polyline
from lassi_lib.certification.modes import MODES
from lassi_lib.certification.patch import Piece, Points
from lassi_lib.certification.smoothing import linear_radius, smooth_classifier
from lassi_lib.certification.spec import (
    BOUNDS,
    CertificationSpec,
    approximation_error,
    covered_mass,
    radius_rank,
    required_mass,
    required_n_center,
)
from lassi_lib.numerics import threads
from lassi_lib.similarity.sets import SimilaritySet

from . import textbook
from .test_certify import run, setting

# small samples and generous alphas: failures are frequent enough to be counted
SPEC = CertificationSpec(0.3, 0.65, 2.0, n_center=100, n_radius=200, alpha_cs=0.2, delta=0.3)
REPETITIONS = 2200


def covers(statement, failures, repetitions, alpha, exact=None):
    """Assert that a statement fails in at most a share alpha, and in the share `exact` if that is known."""
    assert repetitions >= 2000
    known = "" if exact is None else f", exactly {exact:.4f}"
    print(f"{statement}: {failures} of {repetitions} = {failures / repetitions:.4f}, alpha {alpha:g}{known}")
    assert failures <= binom.ppf(0.9999, repetitions, alpha)
    if exact is not None:
        assert exact <= alpha
        assert binom.ppf(0.0001, repetitions, exact) <= failures <= binom.ppf(0.9999, repetitions, exact)


class Monotone:
    """One attribute, r(t) increasing and piecewise linear through (knots, values), seen from t = 0."""

    def __init__(self, knots, values):
        self.knots, self.values = np.array(knots, float), np.array(values, float)
        self.line = Polyline(torch.tensor(knots).double(), torch.tensor(values).double()[:, None])
        self.origin = float(self.line.origin)

    def draw(self, n, sigma, rng, shift=0.0):
        """Draw the cloud of a point at coefficient `shift`, relative to r(0) like all clouds."""
        return self.line.at(torch.from_numpy(shift + sigma * rng.standard_normal(n)))

    def mass(self, point, radius, sigma):
        """Return P(|r(t) - point| <= radius) for noise around t = 0."""
        ends = np.interp(np.array([-radius, radius]) + point.item() + self.origin, self.values, self.knots)
        return np.diff(gauss.cdf(ends / sigma)).item()

    @cached_property
    def ideal(self):
        """The middle of the shortest interval that holds half of r(shift + noise), for every shift."""
        u = np.linspace(1e-4, 0.4999, 4000)
        t = self.shifts[:, None, None] + SPEC.sigma_cs * gauss.ppf([u, u + 0.5])
        low, high = np.interp(t, self.knots, self.values).transpose(1, 0, 2)
        best = (high - low).argmin(1)[:, None]
        return np.take_along_axis(low + high, best, 1)[:, 0] / 2 - self.origin

    shifts = np.linspace(-SPEC.epsilon, SPEC.epsilon, 9)

    def movement(self, point):
        """Return how far the ideal smoothed map gets from `point` inside the similarity set."""
        return abs(self.ideal - point.item()).max()


class Plane:
    """Two attributes, r(t) = 3 t in the first two of four coordinates."""

    shifts = SPEC.epsilon * np.array([[1, 0], [0, -1], [0.6, 0.8], [0.0, 0.0]])

    def draw(self, n, sigma, rng, shift=0.0):
        t = torch.from_numpy(shift + sigma * rng.standard_normal((n, 2))).float()
        return Points([Piece(torch.arange(n), t, 3 * torch.eye(2, 4), torch.zeros(4))], 0, n)

    def mass(self, point, radius, sigma):
        return ncx2.cdf((radius / 3 / sigma) ** 2, 2, float(point.norm() / 3 / sigma) ** 2)

    def movement(self, point):
        return float(np.linalg.norm(np.pad(3 * self.shifts, ((0, 0), (0, 2))) - point.numpy(), axis=1).max())


# "step": nearly all of the mass lies near 0 or near 1, and 0.9 of it, just below p, near 0.
ENCODERS = {
    "two pieces": Monotone([-9, 0, 9], [-9, 0, 27]),
    "step": Monotone([-9, 0.833, 0.8331, 9], [0, 0.05, 1, 1.05]),
    "plane": Plane(),
}


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Both bounds look at the same clouds: remember the last few searches for the center.

    And one thread: many small steps are far slower with several on a busy machine.
    """
    with pytest.MonkeyPatch.context() as patch, threads(1):
        patch.setattr(center, "smallest_median", lru_cache(maxsize=4)(smallest_median))
        yield


@pytest.fixture(scope="module", params=ENCODERS)
def repeated(request):
    """Center smoothing at one point and at a similar one, many times, with both bounds."""
    encoder, sigma, rng, rows = (
        ENCODERS[request.param],
        SPEC.sigma_cs,
        np.random.default_rng(len(request.param)),
        [],
    )
    specs = {bound: replace(SPEC, bound=bound).validate() for bound in BOUNDS}
    sizes = (SPEC.n_center, SPEC.n_center, SPEC.n_radius)
    for _ in range(REPETITIONS):
        here = [encoder.draw(n, sigma, rng) for n in sizes]
        far = encoder.shifts[rng.integers(len(encoder.shifts))]
        there = [encoder.draw(n, sigma, rng, far) for n in sizes]
        for bound, spec in specs.items():
            cs, similar = center_smoothing(*here, spec), center_smoothing(*there, spec)
            rows.append(
                {
                    "bound": bound,
                    "d_cs": math.nan if cs.d_cs is None else cs.d_cs,
                    "rho_mass": encoder.mass(cs.center, cs.radius, sigma),
                    "mass": math.nan if cs.d_cs is None else encoder.mass(cs.center, cs.d_cs / 3, sigma),
                    "ideal": math.nan if cs.d_cs is None else encoder.movement(cs.center),
                    "sampled": math.nan
                    if similar.d_cs is None
                    else float((cs.center - similar.center).norm()),
                }
            )
    return request.param, pd.DataFrame(rows)


@pytest.mark.parametrize("bound", BOUNDS)
def test_center_smoothing_covers(repeated, bound):
    """The ball of d_cs / 3 holds more than p; d_cs bounds what the smoothed point does nearby."""
    name, rows = repeated
    spec, rows = replace(SPEC, bound=bound), rows[rows["bound"] == bound]
    p, alpha = covered_mass(SPEC), SPEC.alpha_cs
    kept = rows[rows["d_cs"].notna()]
    missed = kept["mass"] <= p
    exact = binom.sf(radius_rank(spec) - 1, SPEC.n_radius, p)  # for a continuous law of distances
    covers(f"{name}, {bound}: radius", missed.sum(), len(kept), alpha / 2, exact)
    covers(f"{name}, {bound}: mass check", (kept["rho_mass"] < 0.5 - SPEC.delta).sum(), len(kept), alpha / 4)
    far = kept["ideal"] > kept["d_cs"]
    covers(f"{name}, {bound}: movement of the ideal center", far.sum(), len(kept), alpha / 2)
    assert (kept["ideal"] <= 2 / 3 * kept["d_cs"])[~missed].all()  # given the radius, it is certain
    far = kept["sampled"] > kept["d_cs"]
    covers(f"{name}, {bound}: movement of sampled centers", far.sum(), len(kept), alpha)


def test_the_binomial_radius_is_smaller(repeated):
    _, rows = repeated
    pairs = rows.pivot_table(values="d_cs", columns="bound", index=np.arange(len(rows)) // 2).dropna()
    assert (pairs["binomial"] <= pairs["hoeffding"]).all()
    assert (pairs["binomial"] < pairs["hoeffding"]).mean() > 0.8


@pytest.mark.parametrize("bound", BOUNDS)
def test_the_mass_check_covers_where_it_is_hardest(bound):
    """A ball of mass exactly 1/2 - Delta (a hair less would be a failure) passes as seldom as it must."""
    spec, rng = replace(SPEC, bound=bound), np.random.default_rng(2)
    line = Polyline(torch.tensor([-9.0, 9.0]).double(), torch.tensor([[-9.0], [9.0]]).double())
    candidates = line.at(torch.linspace(-1, 1, 100, dtype=torch.float64) ** 3)
    radius = line.at(torch.linspace(-1, 1, 200, dtype=torch.float64))
    passed = 0
    for _ in range(REPETITIONS):
        inside = torch.from_numpy(rng.random(100) < 0.5 - spec.delta)
        mass = line.at(torch.where(inside, 0.0, 5.0).double())
        passed += center_smoothing(candidates, mass, radius, spec).d_cs is not None
    exact = binom.sf(required_mass(spec) - 1, 100, 0.5 - spec.delta)
    covers(f"mass check at its limit, {bound}", passed, REPETITIONS, spec.alpha_cs / 4, exact)


@pytest.mark.parametrize("bound", BOUNDS)
def test_the_median_ball_is_a_2_approximation_where_it_is_hardest(bound):
    """1/2 + Delta of the mass at the two ends of a diameter, all other samples far from everything."""
    spec, rng = replace(SPEC, bound=bound), np.random.default_rng(3)
    n = required_n_center(spec)
    spec = replace(spec, n_center=n)
    line = Polyline(torch.tensor([-1.0, 1e6]).double(), torch.tensor([[-1.0], [1e6]]).double())
    failed = 0
    for _ in range(REPETITIONS):
        ends = torch.from_numpy(rng.choice([-1.0, 1.0], n))
        inside = torch.from_numpy(rng.random(n) < 0.5 + spec.delta)
        t = torch.where(inside, ends, 100.0 * torch.arange(1, n + 1))
        failed += smallest_median(line.at(t))[1] > 2.001
    exact = approximation_error(spec)
    covers(f"2-approximation at its limit, {bound}", failed, REPETITIONS, spec.alpha_cs / 4, exact)


@pytest.mark.parametrize("p", [0.6, 0.9, 0.99])
@pytest.mark.parametrize("classes", [2, 3])
def test_clopper_pearson_covers_and_d_rs_stays_within_the_true_radius(classes, p):
    """p_A <= P(C votes for the class); for two classes that is d_rs <= the exact radius."""
    n, alpha, sigma, repetitions = 1000, 0.05, 2.0, 4000
    spec = replace(SPEC, sigma_rs=sigma, n_votes=n, n_class=400, alpha_rs=alpha)
    weight = np.eye(classes, 5)
    margin = sigma * math.sqrt(2) * gauss.ppf(p)
    logits = np.eye(classes)[0] * margin
    # the logits' noise is independent: P(all rivals below) = E Phi(margin / sigma + x)^(K - 1)
    p = quad(lambda x: gauss.pdf(x) * gauss.cdf(margin / sigma + x) ** (classes - 1), -9, 9)[0]
    above = beyond = kept = 0
    for seed in range(repetitions):
        guess, count = (np.random.default_rng([seed, part]) for part in (0, 1))
        found = smooth_classifier(logits, weight, spec, guess, count)
        if found.prediction != 0:
            continue
        kept += 1
        above += found.p_A > p
        beyond += found.d_rs is not None and found.d_rs > linear_radius(logits, weight)
    k = 1 + int(binom.ppf(1 - alpha, n, p))  # from so many votes on the bound is above p
    exact = binom.sf(k - 1, n, p)
    covers(f"p_A, {classes} classes, p = {p:.3f}", above, kept, alpha, exact)
    covers(f"d_rs, {classes} classes, p = {p:.3f}", beyond, kept, alpha, exact if classes == 2 else None)


def test_certified_predictions_hold_at_similar_points():
    """The whole certificate, run independently at z and at z + t a with |t| <= epsilon.

    A failure: z is certified and the similar point has another prediction (it may abstain). Allowed:
    alpha_cs, and alpha_rs for either prediction. The boundary of C lies where about half are certified.
    (Hoeffding's bound certifies fewer of the same points, see above.)
    """
    spec = replace(SPEC, n_votes=4000, n_class=200, alpha_rs=0.01, sigma_rs=8.0, bound="binomial")
    one = torch.ones(1, 1, dtype=torch.float64)
    layers = [  # r = z for z < 0, 3 z for z > 0
        (torch.cat([one, -one]), torch.zeros(2).double()),
        (torch.tensor([[3.0, -1.0]]).double(), torch.zeros(1).double()),
    ]
    classifier = torch.nn.utils.skip_init(torch.nn.Linear, 1, 2)
    with torch.no_grad():
        classifier.weight.copy_(torch.tensor([[0.0], [1.0]]))
        classifier.bias.copy_(torch.tensor([0.0, 11.0]))
    rng, m = np.random.default_rng(4), 2000
    t = torch.from_numpy(np.concatenate([np.zeros(m), rng.uniform(-spec.epsilon, spec.epsilon, m)]))
    t[m : m + m // 2] = -spec.epsilon  # half of them as near to the boundary as possible
    rows = certify(
        textbook.Folded(layers), classifier, SimilaritySet(torch.ones(1, 1), spec.epsilon),
        t[:, None].float(), np.zeros(2 * m, int), spec, seed=0, indices=range(2 * m),
    )  # fmt: skip
    here, there = rows[:m], rows[m:]
    certified = (here["status"] == "CERTIFIED").to_numpy()
    other = ~there["prediction"].isin([-1]).to_numpy() & (
        there["prediction"].to_numpy() != here["prediction"].to_numpy()
    )
    assert 0.1 < certified.mean() < 0.95
    covers("certified prediction", (certified & other).sum(), m, spec.alpha_cs + 2 * spec.alpha_rs)


def binomial_textbook(sample, spec):
    """Return (center, d_cs) with exact binomial bounds, written with the distribution's quantiles."""
    r = sample(spec.n_center)
    medians = torch.cdist(r, r).kthvalue((spec.n_center + 1) // 2, dim=1).values
    center, rho = r[medians.argmin()], medians.min()
    alpha_1 = alpha_2 = spec.alpha_cs / 2
    inside = int(((sample(spec.n_center) - center).norm(dim=1) <= rho).sum())
    if inside <= binom.ppf(1 - alpha_1 / 2, spec.n_center, 0.5 - spec.delta):
        return center, None
    p = gauss.cdf(gauss.ppf(0.5 + spec.delta) + spec.epsilon / spec.sigma_cs)
    distances = np.sort((sample(spec.n_radius) - center).norm(dim=1).numpy())
    return center, 3 * distances[int(binom.ppf(1 - alpha_2, spec.n_radius, p))]


@pytest.mark.parametrize("n", [1, 2])
def test_same_law_as_the_textbook_with_the_binomial_bound(n, monkeypatch):
    """Hundreds of runs of a dozen latents: distances, radii, and how often each latent is certified."""
    monkeypatch.setattr(textbook, "center_smoothing", binomial_textbook)
    spec = CertificationSpec(
        1.0, 0.65, 4.0, n_center=300, n_radius=400, alpha_cs=0.1, delta=0.12, n_class=200, n_votes=5000,
        bound="binomial",
    )  # fmt: skip
    latents, times = 12, 25
    representation, classifier, similarity, z = setting(n, 0.1 / n, seed=3)
    weight, bias = classifier.weight.detach().double().numpy(), classifier.bias.detach().double().numpy()
    z = z[:latents].repeat_interleave(times, 0)
    ours = certify(
        representation, classifier, similarity, z, [0] * len(z), spec, seed=1, indices=range(len(z))
    )
    rng = np.random.default_rng(2)
    theirs = pd.DataFrame(
        [
            textbook.certify_point(representation, weight, bias, similarity.vectors, x[None], spec, rng)
            for x in z
        ],
        columns=["status", "d_cs", "d_rs"],
    )
    group = np.arange(len(z)) // times
    for column in ("d_cs", "d_rs"):
        parts = [[t[column][group == g].dropna() for t in (ours, theirs)] for g in range(latents)]
        p_values = [ks_2samp(*part).pvalue for part in parts if min(map(len, part)) > 5]
        assert len(p_values) >= 6
        assert combine_pvalues(p_values).pvalue > 1e-3
    for status in ("CERTIFIED", "ABSTAINED_CENTER"):
        a, b = ((t["status"] == status).groupby(group).sum().to_numpy() for t in (ours, theirs))
        pooled = (a + b) / (2 * times)
        sd = np.sqrt(2 * times * pooled * (1 - pooled))
        assert (abs(a - b) <= 4 * sd + 1).all()
        assert abs(a.sum() - b.sum()) <= 4 * math.sqrt((sd**2).sum())
        assert (sd > 0).any()


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("mode", MODES)
def test_order_batch_and_workers_do_not_matter_in_any_mode(mode, n):
    if n > MODES[mode]:
        pytest.skip(f"{mode} is offered for at most {MODES[mode]} attributes")
    parts = setting(n, 0.05)
    whole = run(parts, mode=mode)
    assert whole["status"].nunique() > 1
    assert run(parts, mode=mode, workers=2).to_csv() == whole.to_csv()
    shuffled = np.random.default_rng(0).permutation(60)
    again = run(parts, rows=shuffled, mode=mode).sort_values("index").reset_index(drop=True)
    pd.testing.assert_frame_equal(whole, again, rtol=1e-9)
    singles = [run(parts, rows=slice(i, i + 1), mode=mode) for i in (0, 33, 59)]
    single = pd.concat(singles, ignore_index=True)
    pd.testing.assert_frame_equal(whole.iloc[[0, 33, 59]].reset_index(drop=True), single, rtol=1e-9)
