"""The prior mask against the formula of PFENet, written with loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fss.nn.prior import CHUNK, best_cosine, prior_mask


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_hand(query: np.ndarray, support: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """One image: query (C, h, w), support (C, r, s), mask (r, s) at feature size; methods.md section 2."""
    _, h, w = query.shape
    best = np.zeros((h, w))
    for y in range(h):
        for x in range(w):
            q = query[:, y, x]
            values = []
            for j in range(support.shape[1]):
                for i in range(support.shape[2]):
                    s = support[:, j, i] * mask[j, i]
                    values.append(s @ q / (np.sqrt(s @ s) * np.sqrt(q @ q) + 1e-7))
            best[y, x] = max(values)
    return (best - best.min()) / (best.max() - best.min() + 1e-7)


def test_unscaled_similarity_by_hand() -> None:
    """The first position points like the object, the second away from it; outside the mask the similarity is 0."""
    query = torch.tensor([[3.0, 0.0], [-2.0, 0.0]], dtype=torch.float64).T.reshape(1, 2, 1, 2)
    support = torch.tensor([[5.0, 0.0], [-7.0, 0.0]], dtype=torch.float64).T.reshape(1, 2, 1, 2)
    full, half = torch.ones(1, 1, 1, 2, dtype=torch.float64), torch.tensor([[[[1.0, 0.0]]]], dtype=torch.float64)
    assert best_cosine(query, support, full).flatten().tolist() == pytest.approx([1, 1], abs=1e-6)
    assert best_cosine(query, support, half).flatten().tolist() == pytest.approx([1, 0], abs=1e-6)
    assert best_cosine(query, support[..., :1], full[..., :1]).flatten().tolist() == pytest.approx([1, -1], abs=1e-6)


@pytest.mark.parametrize("soft", [False, True])
def test_equals_the_plain_formula(soft: bool) -> None:
    query, support = randn(2, 5, 4, 3), randn(2, 5, 3, 6, seed=1)
    mask = torch.rand(2, 1, 3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    if not soft:
        mask = (mask > 0.6).double()
    assert 0 < float(mask.sum()) < mask.numel()
    prior = prior_mask(query, support, mask)
    assert prior.shape == (2, 1, 4, 3)
    for b in range(2):
        expected = by_hand(query[b].numpy(), support[b].numpy(), mask[b, 0].numpy())
        np.testing.assert_allclose(prior[b, 0].numpy(), expected, atol=1e-12)


def test_full_size_mask_is_resized_with_aligned_corners() -> None:
    query, support = randn(1, 4, 3, 3), randn(1, 4, 3, 3, seed=1)
    mask = torch.zeros(1, 1, 5, 5, dtype=torch.float64)
    mask[..., :2] = 1  # with aligned corners columns 0, 2, 4 are taken: 1, 0, 0
    small = np.array([[1.0, 0, 0]] * 3)
    np.testing.assert_allclose(
        prior_mask(query, support, mask)[0, 0].numpy(),
        by_hand(query[0].numpy(), support[0].numpy(), small),
        atol=1e-12,
    )


def test_one_where_the_query_equals_the_masked_support() -> None:
    query, support = randn(1, 16, 4, 4), randn(1, 16, 4, 4, seed=1)
    mask = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    mask[0, 0, 2, 3] = 1
    query[0, :, 1, 1] = 3 * support[0, :, 2, 3]  # length does not matter
    prior = prior_mask(query, support, mask)[0, 0]
    assert float(prior[1, 1]) == pytest.approx(1.0, abs=1e-6)
    assert int((prior > 0.999).sum()) == 1
    assert float(prior.min()) == 0.0


def test_equal_outside_the_mask_does_not_count() -> None:
    query, support = randn(1, 16, 4, 4), randn(1, 16, 4, 4, seed=1)
    mask = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    mask[0, 0, 0, :2] = 1
    query[0, :, 3, 3] = support[0, :, 2, 2]
    changed = prior_mask(query, support, mask)
    support[0, :, 2, 2] = 0
    assert torch.equal(changed, prior_mask(query, support, mask))


def test_scaled_per_image() -> None:
    query = randn(2, 4, 3, 3)
    query[1] *= 100
    support = randn(2, 4, 3, 3, seed=1)
    prior = prior_mask(query, support, torch.ones(2, 1, 3, 3, dtype=torch.float64))
    for image in prior:
        assert float(image.min()) == 0.0
        assert float(image.max()) == pytest.approx(1.0, abs=1e-5)


def test_empty_mask_gives_zero_and_finite_gradients() -> None:
    query, support = randn(1, 4, 3, 3).requires_grad_(), randn(1, 4, 3, 3, seed=1).requires_grad_()
    prior = prior_mask(query, support, torch.zeros(1, 1, 9, 9, dtype=torch.float64))
    assert torch.equal(prior, torch.zeros_like(prior))
    prior.sum().backward()
    for leaf in (query, support):
        assert leaf.grad is not None
        assert bool(leaf.grad.isfinite().all())


def test_gradient_is_finite_where_features_vanish() -> None:
    query, support = randn(1, 4, 3, 3), randn(1, 4, 3, 3, seed=1)
    query[0, :, 1, 1] = 0
    support[0, :, 0, 0] = 0
    query.requires_grad_()
    support.requires_grad_()
    mask = torch.ones(1, 1, 3, 3, dtype=torch.float64)
    mask[..., 2] = 0
    prior_mask(query, support, mask).square().sum().backward()
    for leaf in (query, support):
        assert leaf.grad is not None
        assert bool(leaf.grad.isfinite().all())
        assert float(leaf.grad.abs().max()) > 0


def plain(query: Tensor, support: Tensor, mask: Tensor) -> Tensor:
    """Write the formula with the whole matrix, as the release does; the mask has the size of the maps."""
    s, q = (support * mask).flatten(2), query.flatten(2)
    similarity = torch.bmm(s.transpose(1, 2), q) / (s.norm(dim=1).unsqueeze(2) * q.norm(dim=1).unsqueeze(1) + 1e-7)
    best = similarity.amax(dim=1)
    low, high = best.amin(dim=1, keepdim=True), best.amax(dim=1, keepdim=True)
    return ((best - low) / (high - low + 1e-7)).view(len(query), 1, *query.shape[2:])


@pytest.mark.parametrize("share", [0.1, 0.6, 1.1])
def test_pieces_and_gradients_equal_the_whole_matrix(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fss.nn.prior.CHUNK", 7 * 63)  # seven support positions at a time
    given = [randn(3, 8, 7, 9), randn(3, 8, 6, 5, seed=1)]
    mask = torch.rand(3, 1, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    mask = mask * (mask < share)
    gradients = []
    for formula in (plain, prior_mask):
        leaves = [t.clone().requires_grad_() for t in given]
        prior = formula(*leaves, mask)
        with torch.no_grad():
            torch.testing.assert_close(formula(*leaves, mask), plain(*leaves, mask), rtol=0, atol=1e-12)
        torch.testing.assert_close(prior, plain(*leaves, mask), rtol=0, atol=1e-12)
        gradients.append(torch.autograd.grad((prior * randn(*prior.shape, seed=4)).sum(), leaves))
    for ours, expected in zip(gradients[1], gradients[0], strict=True):
        assert float(expected.abs().max()) > 0
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-11)


class Largest(TorchDispatchMode):
    """Notes the size of the largest tensor that any operation makes."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = out if isinstance(out, tuple | list) else (out,)
        self.numel = max([self.numel, *(t.numel() for t in made if isinstance(t, Tensor))])
        return out


@pytest.mark.parametrize("training", [False, True])
def test_the_matrix_of_all_pairs_never_exists(training: bool) -> None:
    side = 81  # of the maps at 641^2
    query, support = randn(2, 2, side, side).float().requires_grad_(training), randn(2, 2, side, side, seed=1).float()
    with Largest() as largest:
        prior = prior_mask(query, support, torch.ones(2, 1, side, side))
    if training:
        with largest:
            prior.sum().backward()
    assert largest.numel <= CHUNK < side**4 / 10
