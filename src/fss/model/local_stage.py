"""Run a stage only where its output is wanted: a masked support counts inside its mask alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

LARGEST = 16
"""Reach of a block from which on nothing is gained: stage 4 of the ResNets has blocks of 2 to 8."""
STRIPS = ((2 * LARGEST + 1, 5), (5, 2 * LARGEST + 1))
"""Sizes of the maps on which it is measured along either axis."""


@dataclass(frozen=True)
class Box:
    """Rows ``top`` to ``bottom`` and columns ``left`` to ``right``, the ends not included."""

    top: int
    bottom: int
    left: int
    right: int

    @classmethod
    def around(cls, mask: Tensor) -> Box | None:
        """Return the smallest box that holds all values above zero, or None if there is none.

        Args:
            mask: (h, w).
        """
        sides = [(mask > 0).any(dim=axis).nonzero().flatten() for axis in (1, 0)]
        if len(sides[0]) == 0:
            return None
        top, bottom, left, right = (int(side[end]) for side in sides for end in (0, -1))
        return cls(top, bottom + 1, left, right + 1)

    def grown(self, by: int, within: tuple[int, int]) -> Box:
        """Return the box with a margin, as far as the map reaches.

        Args:
            by: positions on every side.
            within: height and width of the map.
        """
        height, width = within
        return Box(
            max(self.top - by, 0), min(self.bottom + by, height), max(self.left - by, 0), min(self.right + by, width)
        )

    def cut(self, maps: Tensor, origin: Box) -> Tensor:
        """Return this part of maps (..., h, w) that show the box ``origin``.

        Args:
            maps: to cut from.
            origin: what they show.
        """
        rows = slice(self.top - origin.top, self.bottom - origin.top)
        return maps[..., rows, self.left - origin.left : self.right - origin.left]


class LocalStage:
    """A stage of stride 1, block by block; every block runs on what the later ones need of it.

    An output position depends on inputs within the block's reach alone, so that it does not change if what lies
    farther away is cut off. The reach is measured, not read from the layers: a NaN in the middle of a strip spreads
    exactly that far. A stage that mixes all positions, or changes the size, is run as a whole.
    """

    def __init__(self, stage: nn.Module, like: Tensor) -> None:
        """Measure the reach of every block.

        Args:
            stage: in evaluation mode.
            like: its input, (1, C, h, w).
        """
        self.stage = stage
        self.blocks: list[tuple[nn.Module, int]] | None = []
        strips = [like.new_zeros(1, like.shape[1], *size) for size in STRIPS]
        for block in _blocks(stage):
            measured = [_measured(block, strip) for strip in strips]
            reaches = [reach for reach, _ in measured]
            if max(reaches) >= LARGEST:
                self.blocks = None
                return
            self.blocks.append((block, max(reaches)))
            strips = [strip for _, strip in measured]

    def __call__(self, maps: Tensor, mask: Tensor) -> Tensor:
        """Run the stage.

        Args:
            maps: (1, C, h, w).
            mask: where the output is wanted, (h, w).

        Returns:
            The stage's output where the mask is above zero; elsewhere anything, (1, C', h, w).
        """
        size = (maps.shape[-2], maps.shape[-1])
        wanted = Box.around(mask)
        if self.blocks is None or wanted is None:
            output: Tensor = self.stage(maps)
            return output
        left = sum(reach for _, reach in self.blocks)
        shown = wanted.grown(left, size)
        part = shown.cut(maps, Box(0, size[0], 0, size[1]))
        for block, reach in self.blocks:
            left -= reach
            box = wanted.grown(left, size)
            part = box.cut(block(part), shown)
            shown = box
        whole = part.new_zeros(*part.shape[:2], *size)
        whole[..., shown.top : shown.bottom, shown.left : shown.right] = part
        return whole


def _blocks(stage: nn.Module) -> Iterator[nn.Module]:
    """Yield what runs one after the other; a container that somebody listens to stays whole."""
    if type(stage) is nn.Sequential and not stage._forward_hooks and not stage._forward_pre_hooks:
        for child in stage:
            yield from _blocks(child)
    else:
        yield stage


def _measured(block: nn.Module, strip: Tensor) -> tuple[int, Tensor]:
    """Return how far an input is seen, at least LARGEST if it is everywhere, and a strip for the next block.

    Hooks are left out: this is no image.
    """
    length = max(strip.shape[-2:])
    spoilt = strip.clone()
    spoilt[:, :, (strip.shape[-2] - 1) // 2, (strip.shape[-1] - 1) // 2] = torch.nan
    output: Tensor = block.forward(spoilt)
    if output.shape[-2:] != strip.shape[-2:]:
        return LARGEST, strip
    along = 2 if strip.shape[-2] > strip.shape[-1] else 3
    hit = output.isnan().any(dim=1)[0].any(dim=3 - along).nonzero().flatten()
    reach = int((hit - length // 2).abs().max()) if len(hit) else LARGEST
    return reach, output.new_zeros(output.shape)
