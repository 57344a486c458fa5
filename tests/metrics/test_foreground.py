"""Foreground energy where the answer is known by hand."""

from __future__ import annotations

import torch

from fss.metrics.foreground import area_shares, foreground_energy


def make_image() -> torch.Tensor:
    """A label of 8 x 8 whose left quarter is object."""
    label = torch.zeros(1, 8, 8, dtype=torch.uint8)
    label[:, :, :2] = 1
    return label


def test_energy_of_maps_that_see_object_background_both_or_nothing() -> None:
    label = make_image()
    inside = (label == 1).float()
    maps = torch.stack([3 * inside, -5 * (1 - inside), torch.full_like(inside, 0.1), torch.zeros_like(inside)], dim=1)
    energy = foreground_energy(maps, label)[0]
    assert torch.allclose(energy[:3], torch.tensor([0.75, -0.25, 0.0]), atol=1e-6)
    assert energy[3].isnan(), "a map without activation says nothing"


def test_energy_squares_and_ignores_scale() -> None:
    label = make_image()
    inside = (label == 1).float()
    maps = (1 + inside)[:, None]  # 2 on 16 pixels, 1 on 48
    expected = 4 * 16 / (4 * 16 + 48) - 0.25
    assert torch.allclose(foreground_energy(maps, label), torch.tensor([[expected]]), atol=1e-6)
    assert torch.allclose(foreground_energy(-1000 * maps, label), torch.tensor([[expected]]), atol=1e-6)


def test_ignored_pixels_count_nowhere() -> None:
    label = make_image()
    label[:, :, 4:] = 255
    maps = torch.ones(1, 1, 8, 8)
    maps[..., 4:] = 99.0
    assert torch.allclose(foreground_energy(maps, label), torch.zeros(1, 1), atol=1e-6)


def test_labels_are_resized_by_area() -> None:
    label = torch.zeros(1, 4, 4, dtype=torch.uint8)
    label[0, 0, 0] = 1
    label[0, 3, 2:] = 255
    inside, counted = area_shares(label, (2, 2))
    assert inside.tolist() == [[[0.25, 0.0], [0.0, 0.0]]]
    assert counted.tolist() == [[[1.0, 1.0], [1.0, 0.5]]]


def test_images_without_object_or_without_background_say_nothing() -> None:
    labels = torch.stack([torch.zeros(4, 4), torch.ones(4, 4), torch.full((4, 4), 255.0)]).byte()
    assert foreground_energy(torch.ones(3, 2, 4, 4), labels).isnan().all()
