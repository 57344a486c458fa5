"""Random rotations."""

from __future__ import annotations

import torch

from fss.finetune.layers.rotation import random_rotation


def test_rotations_are_orthogonal_and_drawn_from_seed_and_name_alone() -> None:
    like = torch.zeros(1)
    R = random_rotation(7, 3, 0, "layer2.0.conv1", like)
    assert R.dtype == torch.float64
    eye = torch.eye(7, dtype=torch.float64).expand(3, 7, 7)
    assert float((R @ R.mT - eye).abs().max()) < 1e-12
    torch.manual_seed(99)
    assert torch.equal(R, random_rotation(7, 3, 0, "layer2.0.conv1", like))
    state = torch.get_rng_state()
    for other in (random_rotation(7, 3, 1, "layer2.0.conv1", like), random_rotation(7, 3, 0, "layer2.0.conv2", like)):
        assert float((R - other).abs().max()) > 0.1
    assert torch.equal(state, torch.get_rng_state())
    assert float((R[0] - R[1]).abs().max()) > 0.1
    assert random_rotation(7, 1, 0, "x", torch.zeros(1, device="meta")).is_meta
