"""Two and more attributes: cells of deviations are the network, to float32's accuracy of the spread."""

import pytest
import torch

from lassi_lib.certification.network import Restriction
from lassi_lib.certification.patch import Piece, Points, cells, pieces

from .textbook import forward, random_network


@pytest.mark.parametrize("size", [50, 400])
@pytest.mark.parametrize("n", [2, 3, 7])
@pytest.mark.parametrize("widths", [(20, 6), (20, 50, 6), (20, 80, 40, 10), (20, 40, 30, 20, 10)])
def test_cells_equal_the_network(widths, n, size):
    g = torch.Generator().manual_seed(n)
    z, A = torch.randn(1, 20, generator=g), torch.randn(n, 20, generator=g)
    t = torch.randn(400, n, generator=g, dtype=torch.float64)
    network = random_network(widths, n)
    encoder = Restriction(network, A)
    origin, surface = pieces(encoder, encoder.first(z)[0], t, size)
    x = Points(surface, 0, 400).x
    direct = forward(network, z.double() + t @ A.double())
    spread = float((direct - direct.mean(0)).norm(dim=1).median())
    assert torch.allclose(origin, forward(network, z)[0], rtol=0, atol=1e-12)
    assert float((x + origin - direct).norm(dim=1).max()) < 1e-5 * spread


def test_accuracy_is_relative_to_the_spread_not_to_the_output():
    g = torch.Generator().manual_seed(0)
    z, A = torch.randn(1, 20, generator=g), 1e-4 * torch.randn(2, 20, generator=g)
    t = torch.randn(500, 2, generator=g, dtype=torch.float64)
    network = random_network((20, 80, 40, 10), 0)
    encoder = Restriction(network, A)
    origin, surface = pieces(encoder, encoder.first(z)[0], t)
    x = Points(surface, 0, 500).x
    direct = forward(network, z.double() + t @ A.double()) - origin
    assert float((x - direct).norm(dim=1).max()) < 1e-5 * float(direct.norm(dim=1).median())
    assert surface[0].features.shape[1] < 12  # a small region bends few units, only those are computed


def test_cells_hold_every_sample_once_and_small_ones_need_fewer_features():
    g = torch.Generator().manual_seed(1)
    t = torch.randn(1000, 2, generator=g, dtype=torch.float64)
    parts = cells(t, 100)
    assert torch.cat(parts).sort().values.tolist() == list(range(1000))
    assert max(map(len, parts)) <= 100
    assert len(cells(torch.zeros(5, 2), 100)) == 1
    encoder = Restriction(random_network((20, 80, 40, 10), 0), torch.randn(2, 20, generator=g))
    u0 = encoder.first(torch.randn(1, 20, generator=g))[0]
    small, large = (pieces(encoder, u0, t, size)[1] for size in (50, 1000))
    assert sum(p.features.shape[1] for p in small) < len(small) * large[0].features.shape[1]


def test_a_span_of_samples_is_the_same_samples():
    g = torch.Generator().manual_seed(3)
    t = torch.randn(300, 2, generator=g, dtype=torch.float64)
    encoder = Restriction(random_network((20, 30, 8), 0), torch.randn(2, 20, generator=g))
    _, surface = pieces(encoder, encoder.first(torch.randn(1, 20, generator=g))[0], t, 40)
    whole, span = Points(surface, 0, 300), Points(surface, 100, 250)
    assert len(span) == 150
    assert torch.allclose(span.x, whole.x[100:250], atol=1e-5)
    assert torch.equal(span.point(7), span.x[7].double())
    far = whole.point(0)
    assert torch.allclose(span.distances(far), whole.distances(far)[100:250], atol=1e-5)


def test_sketched_distances_are_lower_bounds_and_exact_ones_exact():
    x = torch.randn(300, 200, generator=torch.Generator().manual_seed(2))
    cloud = Points([Piece(torch.arange(300), x, torch.eye(200), torch.zeros(200))], 0, 300)
    rows = torch.tensor([0, 17, 299])
    exact = torch.cdist(x.double(), x.double(), compute_mode="donot_use_mm_for_euclid_dist")[rows] ** 2
    assert torch.allclose(cloud.squared_exact(rows).double(), exact, rtol=1e-5, atol=1e-3)
    assert (cloud.squared(rows).sqrt() <= exact.sqrt() + cloud.rounding()).all()
    assert (cloud.squared(rows) < 0.9 * exact).any()  # 64 samples do not span 200 dimensions
    columns = torch.tensor([5, 100])
    assert torch.allclose(cloud.squared(rows, columns), cloud.squared(rows)[:, columns], atol=1e-10)
    assert torch.allclose(cloud.distances(x[17].double()) ** 2, exact[1], rtol=1e-5, atol=1e-6)
