"""Find out on torch's meta device which sides of the image a network takes, and what its stages give."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from timm.layers import AvgPool2dSame, Conv2dSame
from torch import Tensor, nn

from fss.errors import FssError

_TRIED = (1, 2, 5)
"""Multiples of the step that are tried, besides the one above the side that the network was made for."""


@dataclass(frozen=True)
class Sides:
    """What a network takes and gives.

    Attributes:
        step: allowed sides are ``step * n + offset``.
        offset: see ``step``.
        most: largest allowed side; None: no limit.
        strides: input pixels per position of stages 0 to 4.
        channels: of stages 0 to 4.
    """

    step: int
    offset: int
    most: int | None
    strides: tuple[int, ...]
    channels: tuple[int, ...]


def find_sides(run: Callable[[int], list[Tensor]], made_for: int, even: bool) -> Sides:
    """Try sides until a rule is found whose every tried side gives maps that cover the whole image.

    A map covers the image if it has ``side / stride`` positions, one in the middle of each patch of pixels, or, for a
    side of ``step * n + 1``, ``(side - 1) / stride + 1``, the first and the last in the middle of the border pixels.
    Else pixels at the right and at the bottom were dropped or made up: positions would not be where a head takes them
    to be. The first kind suits networks that see patches, the second networks of convolutions with odd kernels.

    Args:
        run: side -> maps of stages 0 to 4 of a square image, (1, C, h, h).
        made_for: a side that the network takes.
        even: whether a strided convolution has an even kernel, so that the network sees patches.

    Raises:
        FssError: if no rule is found.
    """
    maps = run(made_for)
    made = _sides(maps)
    strides = tuple(max(round(made_for / side), 1) for side in made)
    channels = tuple(int(m.shape[1]) for m in maps)
    last = max(strides)
    rules = [(last, 0)] if even else [(last, 1), (last, 0)]
    rules += [(last * more, 0) for more in (2, 7, 8)]
    for step, offset in rules:
        tried = [step * n + offset for n in (*_TRIED, made_for // step + 1)]
        if _all_cover(run, tried, strides, offset):
            return Sides(step, offset, None, strides, channels)
    if _all_cover(run, [made_for], strides, 0):
        return Sides(made_for, 0, made_for, strides, channels)
    raise FssError(f"its maps at {made_for} pixels have {made} positions, which do not cover the image evenly")


def _all_cover(run: Callable[[int], list[Tensor]], sides: Iterable[int], strides: tuple[int, ...], offset: int) -> bool:
    for side in sides:
        try:
            found = _sides(run(side))
        except Exception:  # every family refuses a side in its own way
            return False
        if found != [(side - offset) / stride + offset for stride in strides]:
            return False
    return True


def _sides(maps: list[Tensor]) -> list[int]:
    """Return the sides of square maps.

    Raises:
        FssError: if an output is no square map.
    """
    for m in maps:
        if not isinstance(m, Tensor) or m.dim() != 4 or m.shape[2] != m.shape[3]:
            raise FssError("a stage gives no map of positions")
    return [int(m.shape[-1]) for m in maps]


def sees_patches(net: nn.Module) -> bool:
    """Tell whether a convolution with a stride has an even kernel.

    Args:
        net: any network.
    """
    strided = (m for m in net.modules() if isinstance(m, nn.Conv2d) and max(m.stride) > 1)
    return any(m.kernel_size[0] % 2 == 0 for m in strided)


def shifts(parts: Sequence[nn.Module], strides: Sequence[int]) -> tuple[float, ...]:
    """Say how far dilation shifts the maps of a chain: what had a stride and an even kernel looks right and down.

    Without the stride such a layer is padded at the right and at the bottom alone, so that its output belongs half a
    position further on. This happens once per stage of ConvNeXt and of ResNets with average pooling (ResNet-D).

    Args:
        parts: stages 0 to 4.
        strides: input pixels per position of each stage.

    Returns:
        Input pixels, of each stage with those before.
    """
    found: list[float] = []
    for part, stride in zip(parts, strides, strict=True):
        uneven = any(_looks_aside(m) for m in part.modules())
        found.append((found[-1] if found else 0.0) + uneven * stride / 2)
    return tuple(found)


def _looks_aside(module: nn.Module) -> bool:
    if not isinstance(module, AvgPool2dSame | Conv2dSame):
        return False
    kernel, stride, dilation = (_first(getattr(module, n, 1)) for n in ("kernel_size", "stride", "dilation"))
    return stride == 1 and (kernel - 1) * dilation % 2 == 1


def _first(value: int | Sequence[int]) -> int:
    return value if isinstance(value, int) else value[0]
