"""Pyramid pooling: order, sizes and values that can be worked out by hand."""

from __future__ import annotations

import torch

from fss.nn.ppm import PPM


def test_input_comes_first_and_channels_double() -> None:
    net = PPM(8).eval()
    x = torch.rand(2, 8, 9, 7)
    out = net(x)
    assert out.shape == (2, 16, 9, 7)
    assert net.out_channels == 16
    assert torch.equal(out[:, :8], x)


def test_bin_one_is_the_mean_everywhere() -> None:
    net = PPM(4, bins=(1, 3)).eval()
    torch.nn.init.constant_(net.features[0][1].weight, 0.25)  # the mean over channels
    x = torch.rand(1, 4, 6, 6)
    out = net(x)[:, 4:6]
    scale = 1 / (1 + 1e-5) ** 0.5  # batch norm as built
    assert torch.allclose(out, (x.mean() * scale).expand_as(out), atol=1e-6)
