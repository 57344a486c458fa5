"""Decomposition as functions on tensors."""

from __future__ import annotations

import threading

import pytest
import torch

from fss.errors import FssError
from fss.finetune.layers.svd import decompose, full_rank, one_thread, rebuild, rounded_rank, side_by_side

# Co, Ci / groups, k, groups
SHAPES = [(64, 3, 3, 1), (8, 32, 1, 1), (32, 8, 1, 1), (8, 8, 3, 1), (12, 2, 3, 3), (6, 1, 3, 6), (5, 7, 1, 1)]


def weight(co: int, ci: int, k: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(co, ci, k, k, dtype=dtype, generator=torch.Generator().manual_seed(co * ci * k))


@pytest.mark.parametrize(("full", "multiple", "kept"), [(27, 1, 27), (27, 4, 24), (64, 4, 64), (3, 4, 1), (7, 7, 7)])
def test_rounded_rank(full: int, multiple: int, kept: int) -> None:
    assert rounded_rank(full, multiple) == kept


@pytest.mark.parametrize("multiple", [0, -4])
def test_rounded_rank_refuses(multiple: int) -> None:
    with pytest.raises(FssError, match=rf"rank_rounding={multiple} must be at least 1"):
        rounded_rank(27, multiple)


def test_full_rank() -> None:
    assert full_rank(torch.zeros(64, 3, 3, 3)) == 27
    assert full_rank(torch.zeros(64, 64, 3, 3)) == 64
    assert full_rank(torch.zeros(256, 64, 1, 1)) == 64
    assert full_rank(torch.zeros(12, 2, 3, 3), groups=3) == 4
    assert full_rank(torch.zeros(6, 1, 3, 3), groups=6) == 1


@pytest.mark.parametrize(("co", "ci", "k", "groups"), SHAPES)
def test_decompose_and_rebuild_are_inverse(co: int, ci: int, k: int, groups: int) -> None:
    w = weight(co, ci, k)
    rank = full_rank(w, groups)
    u, s, v = decompose(w, rank, groups)
    assert u.shape == (co, rank)
    assert s.shape == (groups * rank,)
    assert v.shape == (groups * rank, ci, k, k)
    assert float((rebuild(u, s, v, groups) - w).abs().max()) < 1e-12


@pytest.mark.parametrize(("co", "ci", "k", "groups"), SHAPES)
def test_factors_are_orthonormal_and_descending(co: int, ci: int, k: int, groups: int) -> None:
    w = weight(co, ci, k)
    rank = full_rank(w, groups)
    u, s, v = decompose(w, rank, groups)
    eye = torch.eye(rank, dtype=w.dtype)
    for g in range(groups):
        left = u[g * co // groups : (g + 1) * co // groups]
        right = v[g * rank : (g + 1) * rank].flatten(1)
        assert torch.allclose(left.T @ left, eye, atol=1e-12)
        assert bool((left.max(dim=0).values == left.abs().max(dim=0).values).all())  # the largest entry is positive
        assert torch.allclose(right @ right.T, eye, atol=1e-12)
        values = s[g * rank : (g + 1) * rank]
        assert bool((values >= 0).all())
        assert bool((values[1:] <= values[:-1]).all())


def test_known_singular_values() -> None:
    """W = diag(3, 4) as a 1x1 convolution with two channels: S = (4, 3)."""
    _, s, _ = decompose(torch.diag(torch.tensor([3.0, 4.0])).reshape(2, 2, 1, 1), 2)
    assert s.tolist() == pytest.approx([4.0, 3.0])


def test_truncation_error_is_the_energy_left_out() -> None:
    w = weight(64, 3, 3)
    _, full, _ = decompose(w, 27)
    u, s, v = decompose(w, 24)
    assert torch.equal(s, full[:24])
    error = float((rebuild(u, s, v) - w).norm())
    assert error == pytest.approx(float(full[24:].norm()), rel=1e-10)
    assert error > 0.1


def test_type_and_graph_of_the_weight() -> None:
    w = weight(8, 4, 3, torch.float32).requires_grad_()
    factors = decompose(w, 8)
    assert all(f.dtype == torch.float32 and not f.requires_grad and f.is_contiguous() for f in factors)
    assert float((rebuild(*factors) - w).abs().max()) < 1e-6


@pytest.mark.parametrize(("co", "ci", "k", "groups"), SHAPES)
def test_transposing_wide_matrices_keeps_the_decomposition(co: int, ci: int, k: int, groups: int) -> None:
    w = weight(co, ci, k)
    u, s, v = decompose(w, full_rank(w, groups), groups)
    plain = [torch.linalg.svd(m.flatten(1), full_matrices=False) for m in w.chunk(groups)]
    torch.testing.assert_close(s, torch.cat([p[1] for p in plain]), rtol=0, atol=1e-12)
    for g, (left, _, right) in enumerate(plain):
        own, rank = u[g * co // groups : (g + 1) * co // groups], len(right)
        signs = (own * left).sum(dim=0).sign()  # a pair of vectors is unique up to its sign
        torch.testing.assert_close(own * signs, left, rtol=0, atol=1e-10)
        rows = v[g * rank : (g + 1) * rank].flatten(1)
        torch.testing.assert_close(rows * signs[:, None], right, rtol=0, atol=1e-10)


def test_several_at_a_time_give_the_bits_of_one_after_the_other() -> None:
    weights = [weight(co, ci, 3) for co in (8, 40, 64) for ci in (4, 16, 30)]
    before = torch.get_num_threads()
    names: set[str] = set()

    def work(w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        names.add(threading.current_thread().name)
        barrier.wait(timeout=30)  # two are at work at the same time, or this raises
        return decompose(w, full_rank(w))

    barrier = threading.Barrier(2)
    torch.set_num_threads(2)
    try:
        together = side_by_side(work, weights[:8], torch.device("cpu"))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert len(names) == 2
    for w, ours in zip(weights, together, strict=False):
        assert all(torch.equal(a, b) for a, b in zip(ours, decompose(w, full_rank(w)), strict=True))


def test_the_number_of_threads_comes_back_after_an_error() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    seen: list[int] = []

    def fail() -> None:
        with one_thread(torch.device("cpu")):
            with one_thread(torch.device("cpu")):
                seen.append(torch.get_num_threads())
            seen.append(torch.get_num_threads())
            raise ValueError("mine")

    try:
        with pytest.raises(ValueError, match="mine"):
            fail()
        assert [*seen, torch.get_num_threads()] == [1, 1, 2]
    finally:
        torch.set_num_threads(before)
