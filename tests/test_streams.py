"""Named random streams: equal names give equal draws, other names independent ones."""

import numpy as np
import torch

from lassi_lib.errors import nearest
from lassi_lib.streams import numpy_stream, stream_seed, torch_stream


def test_streams_are_reproducible_and_differ_in_each_part_of_their_name():
    assert stream_seed(42, "center", 7) == stream_seed(42, "center", 7)
    names = [(s, stage, i) for s in (0, 42) for stage in ("center", "votes") for i in range(500)]
    assert len({stream_seed(*n) for n in names}) == len(names)


def test_neighbouring_streams_are_uncorrelated():
    draws = np.stack([numpy_stream(0, "x", i).standard_normal(2000) for i in range(40)])
    correlation = np.corrcoef(draws)[np.triu_indices(40, 1)]
    assert np.abs(correlation).max() < 5 / 2000**0.5


def test_drawing_leaves_the_global_generators_alone():
    torch_before, numpy_before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    torch.rand(3, generator=torch_stream(1, "a"))
    numpy_stream(1, "a").random(3)
    assert torch.equal(torch_before, torch.random.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])  # noqa: NPY002


def test_nearest_suggests_a_name_or_lists_them():
    assert nearest("Palle_Skin", ["Pale_Skin", "Young"]) == "; did you mean 'Pale_Skin'?"
    assert nearest("pale skin", ["Pale_Skin", "Young"]) == "; did you mean 'Pale_Skin'?"
    assert nearest("xyz", ["Pale_Skin", "Young"]) == "; known: Pale_Skin, Young"
