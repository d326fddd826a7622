"""A problem travels to other processes as safetensors and JSON, and arrives as it was, bit for bit."""

import numpy as np
import pytest
import torch

from lassi_lib.certification.network import Restriction
from lassi_lib.certification.problem import Problem
from lassi_lib.certification.spec import CertificationSpec
from lassi_lib.errors import StudyError
from lassi_lib.similarity.sets import SimilaritySet

from . import textbook

SPEC = CertificationSpec(1 / 3, 0.65 / 3, 2.5, n_center=2000, bound="binomial")


@pytest.mark.parametrize("widths", [(15, 40, 8), (15, 40, 25, 8)])
def test_a_saved_problem_comes_back_bit_for_bit(tmp_path, widths):
    vectors = torch.randn(2, widths[0])
    encoder = Restriction(textbook.random_network(widths, 0), vectors).without_first()
    similarity = SimilaritySet(vectors, SPEC.epsilon, ("Pale_Skin", "Young"))
    rng = np.random.default_rng(0)
    problem = Problem(encoder, similarity, rng.normal(size=(2, widths[-1])), rng.normal(size=2), SPEC, 42)
    problem.save(tmp_path / "problem.safetensors")
    again = Problem.load(tmp_path / "problem.safetensors")
    assert (again.spec, again.seed) == (SPEC, 42)
    assert (again.similarity.epsilon, again.similarity.names) == (SPEC.epsilon, ("Pale_Skin", "Young"))
    assert torch.equal(again.similarity.vectors, vectors) and torch.equal(again.encoder.U, encoder.U)
    assert np.array_equal(again.weight, problem.weight) and np.array_equal(again.bias, problem.bias)
    for name in ("tail", "tail32", "size32"):
        ours, theirs = getattr(again.encoder, name), getattr(encoder, name)
        assert len(ours) == len(theirs) == len(widths) - 2
        for a, b in zip(ours, theirs, strict=True):
            pairs = zip(a, b, strict=True) if name == "tail" else [(a, b)]
            assert all(torch.equal(x, y) and x.dtype == y.dtype for x, y in pairs)


def test_a_damaged_file_is_one_line(tmp_path):
    (tmp_path / "problem.safetensors").write_bytes(b"cut")
    with pytest.raises(StudyError, match="damaged"):
        Problem.load(tmp_path / "problem.safetensors")
