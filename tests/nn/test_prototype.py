"""Support masks and masked average pooling by hand."""

from __future__ import annotations

import pytest
import torch

from fss.nn.prototype import AREA_EPS, masked_average, support_mask


def test_mask_is_one_on_the_class_only() -> None:
    labels = torch.tensor([[[0, 1], [255, 1]]], dtype=torch.uint8)
    mask = support_mask(labels, torch.float64)
    assert mask.tolist() == [[[[0.0, 1.0], [0.0, 1.0]]]]
    assert mask.dtype == torch.float64
    assert support_mask(torch.zeros(2, 5, 4, 3), torch.float32).shape == (2, 5, 1, 4, 3)


def test_mean_over_the_mask() -> None:
    features = torch.tensor([[[[1.0, 2.0], [3.0, 10.0]], [[-1.0, 0.0], [5.0, 7.0]]]], dtype=torch.float64)
    mask = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]], dtype=torch.float64)
    out = masked_average(features, mask)
    assert out.shape == (1, 2, 1, 1)
    assert out.flatten().tolist() == pytest.approx([4 / 2.0005, 4 / 2.0005])


def test_soft_mask_weighs() -> None:
    features = torch.tensor([[[[4.0, 8.0]]]], dtype=torch.float64)
    mask = torch.tensor([[[[0.25, 0.5]]]], dtype=torch.float64)
    assert float(masked_average(features, mask)) == pytest.approx((1 + 4) / (0.75 + 0.0005))
    assert AREA_EPS == 0.0005


def test_each_image_has_its_own_mask() -> None:
    features = torch.ones(2, 3, 4, 4)
    mask = torch.stack([torch.ones(1, 4, 4), torch.zeros(1, 4, 4)])
    out = masked_average(features, mask)
    assert out[0].flatten().tolist() == pytest.approx([16 / 16.0005] * 3)
    assert out[1].flatten().tolist() == [0.0] * 3


def test_empty_mask_has_a_finite_gradient() -> None:
    features = torch.randn(1, 3, 4, 4, requires_grad=True)
    masked_average(features, torch.zeros(1, 1, 4, 4)).sum().backward()
    assert features.grad is not None
    assert torch.equal(features.grad, torch.zeros_like(features))
