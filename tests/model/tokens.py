"""The smallest plain transformer: a class token travels between its blocks, so that its stages run in one call."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from fss.backbones.staged import StagedModule
from fss.types import InputSpec

PATCH = 7


class Block(nn.Module):
    """Attention and MLP, each with a norm before it and a residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        x = x + self.attention(normed, normed, normed, need_weights=False)[0]
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Embedding(nn.Module):
    """Patches, and a class token before them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, PATCH, PATCH)
        self.first = nn.Parameter(torch.randn(1, 1, width))
        self.position = nn.Parameter(torch.randn(2, width))

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image)
        rows, columns = (torch.linspace(-1, 1, side).to(x) for side in x.shape[-2:])
        x = x + (rows[:, None] * self.position[0][:, None, None] + columns * self.position[1][:, None, None])
        return torch.cat([self.first.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], dim=1)


class Tokens(StagedModule):
    """A plain transformer of one block per stage, on patches of 7 x 7 pixels."""

    stepwise = False
    input = InputSpec((0.5, 0.4, 0.3), (0.25, 0.2, 0.5), PATCH, 0)

    def __init__(self, width: int = 8, depth: int = 1) -> None:
        """Build with random values.

        Args:
            width: channels of every stage.
            depth: blocks per stage.
        """
        super().__init__((width,) * self.STAGES)
        self.calls = 0
        self.layer0: nn.Module = Embedding(width)
        for index in range(1, self.STAGES):
            self.add_module(f"layer{index}", nn.ModuleList(Block(width) for _ in range(depth)))

    def maps(
        self, image: Tensor, stages: Collection[int], taps: Collection[int] = ()
    ) -> tuple[dict[int, Tensor], dict[int, list[Tensor]]]:
        """Run all blocks up to the last one that is wanted."""
        self.calls += len(image)
        side = (image.shape[-2] // PATCH, image.shape[-1] // PATCH)
        x = self.layer0(image)

        def as_map(tokens: Tensor) -> Tensor:
            return tokens[:, 1:].transpose(1, 2).unflatten(2, side)  # type: ignore[no-untyped-call, no-any-return]

        outputs = {0: as_map(x)} if 0 in stages else {}
        tapped: dict[int, list[Tensor]] = {}
        for index in range(1, max((*stages, *taps, 0)) + 1):
            found = []
            for block in self.blocks(index):
                x = block(x)
                found.append(as_map(x))
            if index in stages:
                outputs[index] = found[-1]
            if index in taps:
                tapped[index] = found
        return outputs, tapped


def tokens(width: int = 8, seed: int = 0, depth: int = 1) -> Tokens:
    """Return one with values, in evaluation mode."""
    torch.manual_seed(seed)
    backbone = Tokens(width, depth)
    backbone.norm_mode = "eval"
    return backbone.eval()
