"""Run a stage only where its output is needed: of a masked support, only the inside of the mask counts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

LARGEST = 16
"""Reach of a block from which cropping no longer pays off; in stage 4 of the ResNets blocks reach 2 to 8."""
SHIFTS = (1, 2)
"""By how much strips are moved to see whether the output moves with them; windows and strides within a block do not."""
ROUNDING = 1e-2
"""Allowed difference relative to the largest value, also in half precision."""
STRIPS = ((2 * LARGEST + 1, 5), (5, 2 * LARGEST + 1))
"""Sizes of the maps on which the reach is measured, one per axis."""


@dataclass(frozen=True)
class Box:
    """Rows ``top`` to ``bottom`` and columns ``left`` to ``right``, ends excluded."""

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
        """Return the box with a margin, clipped to the map.

        Args:
            by: width of the margin.
            within: height and width of the map.
        """
        height, width = within
        return Box(
            max(self.top - by, 0), min(self.bottom + by, height), max(self.left - by, 0), min(self.right + by, width)
        )

    def cut(self, maps: Tensor, origin: Box) -> Tensor:
        """Cut this box out of maps (..., h, w) that cover the box ``origin``.

        Args:
            maps: the maps.
            origin: the box they cover.
        """
        rows = slice(self.top - origin.top, self.bottom - origin.top)
        return maps[..., rows, self.left - origin.left : self.right - origin.left]


class LocalStage:
    """Runs a stage of stride 1 block by block, each block only on the region that later ones need.

    An output position depends only on inputs within the block's reach, so cutting off everything farther away does not
    change it. The reach is measured, not derived from the layers: a NaN in the middle of a strip spreads exactly that
    far. A stage that mixes all positions, changes the size, takes no strips, or holds hooks runs on the whole map; so
    does one whose output depends on where the map begins, as with windows or absolute positions.
    """

    def __init__(self, stage: nn.Module, like: Tensor) -> None:
        """Measure the reach of every block.

        Args:
            stage: in evaluation mode.
            like: an input of the stage, (1, C, h, w).
        """
        self.stage = stage
        self.blocks: list[tuple[nn.Module, int]] | None = []
        if _hooked(stage):
            self.blocks = None
            return
        strips = [like.new_zeros(1, like.shape[1], *size) for size in STRIPS]
        for block in _blocks(stage):
            try:
                measured = [_measure_reach(block, strip) for strip in strips]
            except Exception:  # a block for maps of one size alone; it runs as it always does
                self.blocks = None
                return
            reach = max(reach for reach, _ in measured)
            if reach >= LARGEST or not all(_is_the_same_anywhere(block, strip, reach) for strip in strips):
                self.blocks = None
                return
            self.blocks.append((block, reach))
            strips = [strip for _, strip in measured]

    def __call__(self, maps: Tensor, mask: Tensor) -> Tensor:
        """Run the stage.

        Args:
            maps: (1, C, h, w).
            mask: above zero where the output is needed, (h, w).

        Returns:
            The stage's output, (1, C', h, w); undefined where the mask is zero.
        """
        size = (maps.shape[-2], maps.shape[-1])
        wanted = Box.around(mask)
        if self.blocks is None or wanted is None:
            output: Tensor = self.stage(maps)
            return output
        margin = sum(reach for _, reach in self.blocks)
        covered = wanted.grown(margin, size)
        crop = covered.cut(maps, Box(0, size[0], 0, size[1]))
        for block, reach in self.blocks:
            margin -= reach
            box = wanted.grown(margin, size)
            crop = box.cut(block(crop), covered)
            covered = box
        whole = crop.new_zeros(*crop.shape[:2], *size)
        whole[..., covered.top : covered.bottom, covered.left : covered.right] = crop
        return whole


def _hooked(stage: nn.Module) -> bool:
    """Tell whether anybody listens within a stage: hooks must neither receive the strips nor a part of a map."""
    listened = any(m._forward_hooks or m._forward_pre_hooks for m in stage.modules())
    return listened or bool(_has_any_global_hook())  # type: ignore[no-untyped-call]


def _blocks(stage: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules that run in sequence."""
    if type(stage) is nn.Sequential:
        for child in stage:
            yield from _blocks(child)
    else:
        yield stage


def _measure_reach(block: nn.Module, strip: Tensor) -> tuple[int, Tensor]:
    """Return the reach of a block, at least LARGEST if it is global, and a strip for the next block."""
    length = max(strip.shape[-2:])
    probe = strip.clone()
    probe[:, :, (strip.shape[-2] - 1) // 2, (strip.shape[-1] - 1) // 2] = torch.nan
    output: Tensor = block(probe)
    if output.shape[-2:] != strip.shape[-2:]:
        return LARGEST, strip
    along = 2 if strip.shape[-2] > strip.shape[-1] else 3
    hit = output.isnan().any(dim=1)[0].any(dim=3 - along).nonzero().flatten()
    reach = int((hit - length // 2).abs().max()) if len(hit) else LARGEST
    return reach, output.new_zeros(output.shape)


def _is_the_same_anywhere(block: nn.Module, strip: Tensor, reach: int) -> bool:
    """Tell whether a block computes the same of two strips where they overlap, but for what their ends can reach."""
    along = 2 if strip.shape[-2] > strip.shape[-1] else 3
    length, longer = strip.shape[along], list(strip.shape)
    longer[along] += max(SHIFTS)
    values = torch.arange(math.prod(longer), dtype=torch.float64).mul_(12.9898).sin_().mul_(43758.5453).frac_()
    probe = values.view(longer).to(strip)  # no random number is drawn, and no two positions are alike
    first: Tensor = block(probe.narrow(along, 0, length))
    scale = first.abs().amax()
    for shift in SHIFTS:
        shifted: Tensor = block(probe.narrow(along, shift, length))
        inner = length - shift - 2 * reach
        difference = first.narrow(along, shift + reach, inner) - shifted.narrow(along, reach, inner)
        if not bool(difference.abs().amax() <= ROUNDING * scale):
            return False
    return True
