"""One attribute: the polyline is the network, at any depth."""

import pytest
import torch

from lassi_lib.certification.line import Polyline, trace
from lassi_lib.certification.network import Restriction

from .textbook import forward, random_network


def problem(widths, seed, scale=1.0):
    g = torch.Generator().manual_seed(seed + 100)
    z, a = torch.randn(1, widths[0], generator=g), scale * torch.randn(1, widths[0], generator=g)
    network = random_network(widths, seed)
    return network, Restriction(network, a), z, a


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "widths", [(8, 5), (8, 40, 6), (12, 60, 30, 8), (12, 40, 30, 20, 8), (12, 30, 20, 20, 10, 4)]
)
def test_polyline_equals_the_network(widths, seed):
    network, encoder, z, a = problem(widths, seed)
    curve = trace(encoder, encoder.first(z)[0], -3.0, 3.0)
    t = torch.linspace(-3, 3, 2001, dtype=torch.float64)
    direct = forward(network, z.double() + t[:, None] * a.double())
    points = curve.at(t).points(torch.arange(len(t))) + curve.origin
    assert torch.allclose(points, direct, rtol=0, atol=1e-12 * float(direct.abs().max()))
    assert torch.allclose(curve.origin, forward(network, z)[0], rtol=0, atol=1e-12)


def test_every_node_between_the_ends_is_a_kink_and_none_is_missing():
    network, encoder, z, a = problem((10, 30, 20, 5), 3)
    curve = trace(encoder, encoder.first(z)[0], -2.0, 2.0)
    direct = forward(network, z.double() + curve.t[:, None] * a.double())
    slopes = direct.diff(dim=0) / curve.t.diff()[:, None]
    apart = curve.t.diff().minimum(torch.tensor(1.0))
    sharp = slopes.diff(dim=0).norm(dim=1)[(apart[1:] > 1e-6) & (apart[:-1] > 1e-6)]
    # a crossing of a dead or unconnected unit could be a node without a bend; none here
    assert len(sharp) > 20
    assert (sharp > 1e-9).all()


def test_distances_agree_with_points_written_out():
    _, encoder, z, _ = problem((10, 30, 20, 5), 1)
    g = torch.Generator().manual_seed(0)
    t = torch.randn(200, generator=g, dtype=torch.float64).clamp(-3, 3)
    cloud = trace(encoder, encoder.first(z)[0], -3.0, 3.0).at(t)
    x = cloud.points(torch.arange(200))
    exact = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    rows, columns = torch.tensor([3, 77]), torch.tensor([0, 5, 199])
    assert torch.allclose(cloud.squared(rows), exact[rows] ** 2, atol=1e-12)
    assert torch.allclose(cloud.squared(rows, columns), exact[rows][:, columns] ** 2, atol=1e-12)
    assert torch.allclose(cloud.distances(x[9]) ** 2, exact[9] ** 2, atol=1e-12)
    assert cloud.rounding() == pytest.approx(1e-7 * float(x.norm(dim=1).max()), rel=1e-9)


def test_small_displacements_around_a_large_output_keep_their_digits():
    """A fair encoder: spread 1e-4 around a point of norm 1e3 (where float32 would see noise)."""
    network, encoder, z, a = problem((10, 30, 5), 2, scale=1e-5)
    weight, bias = network.layers[-1]
    network.layers[-1] = (weight, bias + 1e3)
    encoder = Restriction(network, a)
    t = torch.linspace(-2, 2, 101, dtype=torch.float64)
    cloud = trace(encoder, encoder.first(z)[0], -2.0, 2.0).at(t)
    direct = forward(network, z.double() + t[:, None] * a.double())
    expected = (direct - direct[50]).norm(dim=1)
    assert torch.allclose(cloud.distances(cloud.point(50)), expected, rtol=1e-6, atol=1e-11)


def test_a_network_that_ignores_the_attribute_is_one_point():
    network, encoder, z, _ = problem((10, 30, 20, 5), 2, scale=0.0)
    curve = trace(encoder, encoder.first(z)[0], -2.0, 2.0)
    assert len(curve.t) == 2
    assert torch.equal(curve.r, torch.zeros_like(curve.r))
    assert torch.allclose(curve.origin, forward(network, z)[0])


def test_nodes_at_the_same_place_count_once():
    t = torch.tensor([-1.0, 0.5, 0.5, 1.0], dtype=torch.float64)
    r = torch.tensor([[0.0], [3.0], [3.0], [3.5]], dtype=torch.float64)
    curve = Polyline(t, r)
    assert curve.t.tolist() == [-1.0, 0.5, 1.0]
    at = curve.at(torch.tensor([-1.0, 0.0, 0.75, 1.0], dtype=torch.float64))
    assert (at.points(torch.arange(4)) + curve.origin)[:, 0].tolist() == pytest.approx([0, 2, 3.25, 3.5])
