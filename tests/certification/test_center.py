"""Center smoothing: the exact center, closed forms, coverage and abstention."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binom
from scipy.stats import norm as gauss

from lassi_lib.certification.center import center_smoothing, kth_smallest, smallest_median
from lassi_lib.certification.line import Polyline
from lassi_lib.certification.patch import Piece, Points
from lassi_lib.certification.spec import CertificationSpec, covered_mass, radius_quantile


def surface(x):
    """Any samples x [n, k] as a surface of one piece."""
    return [Piece(torch.arange(len(x)), x, torch.eye(x.shape[1]), torch.zeros(x.shape[1]))]


def points(x):
    return Points(surface(x), 0, len(x))


def brute_force(x, average=False):
    d = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").numpy()
    k = (len(x) + 1) // 2
    medians = np.median(d, axis=1) if average else np.sort(d, axis=1)[:, k - 1]
    return int(medians.argmin()), float(medians.min())


def wiggle(seed, m=40, k=6):
    """A random polyline on [-4, 4]."""
    g = torch.Generator().manual_seed(seed)
    inner = 8 * torch.rand(m - 2, generator=g, dtype=torch.float64) - 4
    t = torch.cat([torch.tensor([-4.0, 4.0], dtype=torch.float64), inner]).sort().values
    steps = torch.randn(m, k, generator=g, dtype=torch.float64) + 1.5 * torch.eye(m, k, dtype=torch.float64)
    return Polyline(t, steps.cumsum(0))


def straight(v=2.0, k=3):
    """R(t) = t v e_1, on [-8, 8]."""
    t = torch.tensor([-8.0, 8.0], dtype=torch.float64)
    return Polyline(t, t[:, None] * v * torch.eye(1, k, dtype=torch.float64))


def normal(n, seed, sigma=0.65):
    return torch.from_numpy(sigma * np.random.default_rng(seed).standard_normal(n))


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("n", "k"), [(400, 2), (501, 3), (900, 80), (30, 4), (7, 1), (5, 2)])
def test_pruned_search_equals_brute_force_on_clouds(n, k, seed, average):
    g = torch.Generator().manual_seed(seed)
    x = (
        torch.randn(n, k, generator=g) * torch.rand(k, generator=g)
        + (torch.rand(n, 1, generator=g) < 0.3) * 2
    )
    row, radius = smallest_median(points(x), average=average)
    expected = brute_force(x.double(), average)
    assert row == expected[0]  # no two candidates are closer than float32 here
    assert radius == pytest.approx(expected[1], rel=1e-5)


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_pruned_search_equals_brute_force_on_polylines(seed, average):
    cloud = wiggle(seed).at(normal(1200, seed, sigma=1.0).clamp(-4, 4).sort().values)
    row, radius = smallest_median(cloud, average=average)
    expected = brute_force(cloud.points(torch.arange(1200)), average)
    assert row == expected[0]
    assert radius == pytest.approx(expected[1], rel=1e-9)


@pytest.mark.parametrize("average", [False, True])
def test_two_clusters_of_exactly_half_do_not_rule_each_other_out(average):
    g = torch.Generator().manual_seed(0)
    spread, tight = torch.randn(200, 3, generator=g), 10 + 0.1 * torch.randn(200, 3, generator=g)
    x = torch.cat([spread, tight])[torch.randperm(400, generator=g)]
    row, radius = smallest_median(points(x), average=average)
    expected = brute_force(x.double(), average)
    assert row == expected[0]
    assert radius == pytest.approx(expected[1], rel=1e-4)


def test_ties_go_to_the_smallest_row():
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0)).repeat(2, 1)  # every sample twice
    row, _ = smallest_median(points(x))
    assert row < 200
    assert smallest_median(points(torch.zeros(50, 3)))[1] == 0.0


def test_only_few_candidates_are_evaluated():
    class Counting(Points):
        seen = 0

        def squared(self, rows, columns=None):
            self.seen += len(rows) if columns is None else 0
            return super().squared(rows, columns)

        def squared_exact(self, rows):
            self.seen += len(rows)
            return super().squared_exact(rows)

    x = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))
    cloud = Counting(surface(x), 0, 4000)
    smallest_median(cloud)
    assert cloud.seen < 400


def test_the_kth_smallest_is_counted_from_one():
    values = np.random.default_rng(0).permutation(np.arange(1, 1001).astype(float))
    assert [kth_smallest(values, k) for k in (1, 969, 1000)] == [1.0, 969.0, 1000.0]


@pytest.mark.parametrize("quantile", ["higher", "linear"])
def test_a_straight_line_has_the_radius_known_by_hand(quantile):
    """R(t) = r + t v: the center is near t = 0 and d_cs near 3 |v| sigma Phi^-1((1 + q) / 2)."""
    spec = CertificationSpec(1.0, 0.65, 1.0, quantile=quantile)
    line, q = straight(), radius_quantile(spec)
    expected = 3 * 2.0 * 0.65 * gauss.ppf((1 + q) / 2)
    found = []
    for seed in range(12):
        clouds = [line.at(normal(10_000, 3 * seed + i)) for i in range(3)]
        found.append(center_smoothing(*clouds, spec))
    # asymptotic sd of one quantile: 2.3 % of d_cs at n = 10,000; of the mean of 12, 0.7 %
    assert np.mean([f.d_cs for f in found]) == pytest.approx(expected, rel=0.02)
    assert np.mean([f.radius for f in found]) == pytest.approx(2.0 * 0.65 * gauss.ppf(0.75), rel=0.02)
    assert max(float(f.center.norm()) for f in found) < 0.2
    assert all(0.467308 < f.mass_fraction < 0.54 for f in found)


def test_interpolation_is_never_above_the_order_statistic():
    higher, linear = (CertificationSpec(1.0, 0.65, 1.0, quantile=q) for q in ("higher", "linear"))
    line = straight()
    clouds = [line.at(normal(10_000, i)) for i in range(3)]
    a, b = center_smoothing(*clouds, higher), center_smoothing(*clouds, linear)
    assert b.d_cs < a.d_cs < 1.01 * b.d_cs


def two_piece_mass(center, radius, sigma=0.65):
    """P(| r(t) - center | <= radius) for r(t) = t for t < 0, 3 t for t > 0 (one dimension)."""
    low, high = (x if x < 0 else x / 3 for x in (center - radius, center + radius))
    return gauss.cdf(high / sigma) - gauss.cdf(low / sigma)


def test_statements_cover_over_many_repetitions():
    """The ball of d_cs / 3 holds mass p, that of rho holds 1/2 - Delta, but for their alphas.

    A lower quantile would fail: the same samples at q = p - 0.01 miss most of the time.
    """
    spec = CertificationSpec(1.0, 0.65, 1.0, n_center=1500, n_radius=1500, alpha_cs=0.1)
    t = torch.tensor([-8.0, 0.0, 8.0], dtype=torch.float64)
    line = Polyline(t, torch.tensor([[-8.0], [0.0], [24.0]], dtype=torch.float64))
    p, repetitions = covered_mass(spec), 600
    missed_radius = missed_mass = missed_low = kept = 0
    for seed in range(repetitions):
        clouds = [line.at(normal(1500, 3 * seed + i)) for i in range(3)]
        found = center_smoothing(*clouds, spec)
        center = float(found.center[0])
        if found.d_cs is None:
            continue
        kept += 1
        missed_mass += two_piece_mass(center, found.radius) < 0.5 - spec.delta
        missed_radius += two_piece_mass(center, found.d_cs / 3) < p
        low = kth_smallest(clouds[2].distances(found.center).numpy(), math.ceil((p - 0.01) * 1500))
        missed_low += two_piece_mass(center, low) < p
    allowed = binom.ppf(0.9999, repetitions, spec.alpha_cs / 2)
    assert kept > 300
    assert missed_radius <= allowed
    assert missed_mass <= allowed
    assert missed_low > 0.8 * kept


def test_the_mass_check_looks_at_fresh_samples():
    """Two far clusters: the ball holds the one with 60 % of the candidates, and 40 % of the rest."""

    def clusters(share, seed):
        g = torch.Generator().manual_seed(seed)
        far = torch.arange(3000) >= share * 3000
        return points(torch.randn(3000, 3, generator=g) + 100 * far[:, None])

    spec = CertificationSpec(1.0, 0.65, 1.0, n_center=3000, n_radius=3000, delta=0.1)
    abstained = center_smoothing(clusters(0.6, 0), clusters(0.3, 1), clusters(0.6, 2), spec)
    assert abstained.d_cs is None
    assert abstained.radius < 10
    assert abstained.mass_fraction < 0.3
    kept = center_smoothing(clusters(0.6, 0), clusters(0.6, 1), clusters(0.6, 2), spec)
    assert kept.d_cs > 3 * 90  # the radius must reach the other cluster


def test_the_threshold_of_the_mass_check():
    """Abstain iff the fraction of fresh samples is below 1/2 + Delta_1 - Delta = 0.467308."""
    spec = CertificationSpec(1.0, 0.65, 1.0)
    t = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    line = Polyline(t, t[:, None])

    def found(inside):
        fresh = torch.where(torch.arange(10_000) < inside, 0.0, 0.9).double()
        spread = torch.linspace(-1, 1, 10_000, dtype=torch.float64) ** 3
        return center_smoothing(line.at(spread), line.at(fresh), line.at(spread), spec).d_cs

    assert found(4673) is None
    assert found(4674) == pytest.approx(3 * 0.968232**3, rel=1e-3)
