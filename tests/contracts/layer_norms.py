"""A small backbone of the layers of ConvNeXt and transformers, with every kind of LayerNorm that there is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.backbones.staged import StagedModule


class LayerNorm2d(nn.LayerNorm):
    """Over the channels of a map, as timm's and torchvision's classes of this name."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class RmsNorm2d(nn.Module):
    """Over the channels of a map and of no class of torch, as timm's; without bias."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.normalized_shape = (channels,)
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.movedim(1, -1), self.normalized_shape, self.weight).movedim(-1, 1)


class Mlp(nn.Module):
    """A ConvNeXt block: depthwise convolution, LayerNorm, two linear layers, LayerScale."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.fc1 = nn.Linear(channels, 2 * channels)
        self.fc2 = nn.Linear(2 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), 0.7))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x).movedim(1, -1))
        return x + (self.gamma * self.fc2(F.gelu(self.fc1(y)))).movedim(-1, 1)


class Attention(nn.Module):
    """A transformer block without its MLP, over the positions of a map: LayerNorm, one matrix for q, k and v."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x.flatten(2).mT)).chunk(3, dim=-1)
        y = self.proj(F.scaled_dot_product_attention(q, k, v))
        return x + y.mT.reshape(x.shape)


class LayerNorms(StagedModule):
    """Stem of stride 4 with LayerNorm2d; ConvNeXt blocks; GroupNorm; RMSNorm; attention."""

    def __init__(self) -> None:
        super().__init__((4, 4, 6, 6, 6))
        self.layer0 = nn.Sequential(nn.Conv2d(3, 4, 4, 4), LayerNorm2d(4))
        self.layer1 = nn.Sequential(Mlp(4))
        self.layer2 = nn.Sequential(nn.GroupNorm(1, 4), nn.Conv2d(4, 6, 2, 2), Mlp(6))
        self.layer3 = nn.Sequential(RmsNorm2d(6), Mlp(6))
        self.layer4 = nn.Sequential(Attention(6), Mlp(6))


NORMS = {
    "layer0.1": ("weight", "bias"),
    "layer1.0.norm": ("weight", "bias"),
    "layer2.0": ("weight", "bias"),
    "layer2.2.norm": ("weight", "bias"),
    "layer3.0": ("weight",),
    "layer3.1.norm": ("weight", "bias"),
    "layer4.0.norm": ("weight", "bias"),
    "layer4.1.norm": ("weight", "bias"),
}
"""Every LayerNorm, RMSNorm and GroupNorm -> its parameters."""
WIDTHS = {"layer0.1": 4, "layer1.0.norm": 4, "layer2.0": 4}
"""Number of values of each of these parameters where it is not 6."""
DEEP_RANKS = {
    "layer2.1.S": 6,
    "layer2.2.conv.S": 6,
    "layer2.2.fc1.S": 6,
    "layer2.2.fc2.S": 6,
    "layer3.1.conv.S": 6,
    "layer3.1.fc1.S": 6,
    "layer3.1.fc2.S": 6,
    "layer4.0.qkv.S": 6,
    "layer4.0.proj.S": 6,
    "layer4.1.conv.S": 6,
    "layer4.1.fc1.S": 6,
    "layer4.1.fc2.S": 6,
}
"""Ranks in stages 2 to 4; a depthwise filter has one singular value per channel."""


def norms(affine: tuple[str, ...] = ("weight", "bias")) -> dict[str, int]:
    """Values of every LayerNorm, RMSNorm and GroupNorm."""
    return {f"{n}.{a}": WIDTHS.get(n, 6) for n, own in NORMS.items() for a in affine if a in own}
