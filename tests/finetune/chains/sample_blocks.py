"""Small blocks as libraries write them: names and order of the layers differ from ours."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NormAct(nn.BatchNorm2d):
    """Batch norm and activation in one layer, as timm has it."""

    def __init__(self, channels: int, act: nn.Module) -> None:
        super().__init__(channels)
        self.drop = nn.Identity()
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.drop(super().forward(x)))
        return y


class Inverted(nn.Module):
    """Expansion, depthwise filters, projection."""

    def __init__(self, c_in: int, c_out: int, stride: int, act: Callable[[], nn.Module] = nn.ReLU6) -> None:
        super().__init__()
        inner = 3 * c_in
        self.conv_pw = nn.Conv2d(c_in, inner, 1, bias=False)
        self.bn1 = NormAct(inner, act())
        self.conv_dw = nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False)
        self.bn2 = NormAct(inner, act())
        self.se: nn.Module = nn.Identity()
        self.conv_pwl = nn.Conv2d(inner, c_out, 1, bias=False)
        self.bn3 = NormAct(c_out, nn.Identity())
        self.has_skip = c_in == c_out and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        x = self.bn1(self.conv_pw(x))
        x = self.bn2(self.conv_dw(x))
        x = self.bn3(self.conv_pwl(self.se(x)))
        return x + shortcut if self.has_skip else x


class Squeeze(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, 2, 1), nn.Conv2d(2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.expand(self.reduce(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class Bottleneck(nn.Module):
    """A residual block whose residual is added in place before an activation of its own."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv1, self.bn1, self.act1 = nn.Conv2d(c_in, 4, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.conv2, self.bn2, self.act2 = nn.Conv2d(4, c_out, 3, 2, 1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()
        self.downsample = nn.Sequential(nn.Conv2d(c_in, c_out, 1, 2, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        x = self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x)))))
        x += self.downsample(shortcut)
        y: Tensor = self.act2(x)
        return y


class Mlp(nn.Module):
    """Two linear layers around GELU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels)
        self.drop = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.drop(self.fc2(self.act(self.fc1(x))))
        return y


class ConvNeXt(nn.Module):
    """Depthwise filters, LayerNorm, two linear layers and LayerScale on a residual branch."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm, self.mlp = nn.LayerNorm(channels), Mlp(channels)
        self.gamma = nn.Parameter(torch.linspace(0.5, 1.5, channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.mlp(self.norm(self.conv_dw(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return x + y * self.gamma.reshape(1, -1, 1, 1)


class Attention(nn.Module):
    """Query, key and value from one layer."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        x = F.scaled_dot_product_attention(q, k, v, bias).transpose(1, 2).reshape(b, n, c)
        y: Tensor = self.proj(x)
        return y


class Transformer(nn.Module):
    """A pre-norm block of a ViT."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(channels), Attention(channels, 2)
        self.norm2, self.mlp = nn.LayerNorm(channels), Mlp(channels)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        x = x + self.attn(self.norm1(x), bias)
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class Shifted(nn.Module):
    """Attention within shifted windows of a map, with a trained bias per position, as in Swin."""

    def __init__(self, channels: int = 8, window: int = 3) -> None:
        super().__init__()
        self.window = window
        self.norm1, self.attn = nn.LayerNorm(channels), Attention(channels, 2)
        self.norm2, self.mlp = nn.LayerNorm(channels), Mlp(channels)
        self.table = nn.Parameter(torch.randn(2, window**2, window**2))

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        s = self.window
        y = torch.roll(self.norm1(x), (-1, -1), (1, 2))
        y = y.view(b, h // s, s, w // s, s, c).transpose(2, 3).reshape(-1, s * s, c)
        y = self.attn(y, self.table)
        y = y.view(b, h // s, w // s, s, s, c).transpose(2, 3).reshape(b, h, w, c)
        x = x + torch.roll(y, (1, 1), (1, 2))
        z: Tensor = x + self.mlp(self.norm2(x))
        return z


class TorchEncoder(nn.Module):
    """A block around torch's own attention, as torchvision writes it."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(channels), nn.MultiheadAttention(channels, 2, batch_first=True)
        self.norm2, self.mlp = nn.LayerNorm(channels), Mlp(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        z: Tensor = x + self.mlp(self.norm2(x))
        return z
