"""Responses of the singular components of a factored convolution: V * x, before U mixes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fss.finetune.layers.factored import SVFConv2d
from fss.finetune.layers.surgery import LAST_STAGE, find
from fss.types import ImageBackbone, StagedBackbone

See = Callable[[str, Tensor], None]
"""Called with the name of a convolution and its input, (N, Ci, H, W)."""


def tuned_convolutions(backbone: StagedBackbone) -> dict[str, SVFConv2d]:
    """List the factored convolutions whose diagonal trains.

    Args:
        backbone: after a strategy was applied.

    Returns:
        Path in the backbone -> layer, in module order.
    """
    sites = find(backbone, range(LAST_STAGE + 1), lambda m: isinstance(m, SVFConv2d))
    found: dict[str, SVFConv2d] = {}
    for site in sites:
        layer = site.module
        assert isinstance(layer, SVFConv2d)
        if any(p is not None and p.requires_grad for p in (layer.S, layer.p)):
            found[site.name] = layer
    return found


def last_of_stage(layers: Iterable[tuple[str, SVFConv2d]], stage: int) -> list[str]:
    """Name the last 3x3 and the last 1x1 convolution of a stage, which the paper's figures show.

    Args:
        layers: path -> layer, in module order.
        stage: 0 (stem) to 4.

    Returns:
        At most two names, the 3x3 convolution first; shortcut convolutions are skipped.
    """
    last: dict[int, str] = {}
    for name, layer in layers:
        parts = name.split(".")
        size = {tuple(layer.V.shape[2:])} & {(1, 1), (3, 3)}
        if parts[0] == f"layer{stage}" and "downsample" not in parts and size:
            last[layer.V.shape[-1]] = name
    return [last[k] for k in (3, 1) if k in last]


@torch.no_grad()
def component_maps(layer: SVFConv2d, x: Tensor) -> Tensor:
    """Return V * x, scaled by the diagonal.

    Args:
        layer: a factored convolution.
        x: its input, (N, Ci, H, W).

    Returns:
        One map per component, (N, groups * R, h, w).
    """
    maps = layer.geometry.run(x, layer.V.to(x.dtype), None)
    return maps * layer.values.to(x.dtype).view(1, -1, 1, 1)


@torch.no_grad()
def look_inside(backbone: ImageBackbone, images: Tensor, layers: dict[str, SVFConv2d], see: See) -> None:
    """Run images through a backbone and pass the inputs of some of its convolutions to a function.

    Fused blocks run layer by layer meanwhile. The backbone is not changed.

    Args:
        backbone: in evaluation mode, or with frozen batch norm.
        images: normalised RGB, (N, 3, H, W).
        layers: path in the backbone -> layer.
        see: called once per layer, in execution order.
    """
    wanted = {id(layer) for layer in layers.values()}
    last = max((i for i in range(LAST_STAGE + 1) if _contains(backbone.stage(i), wanted)), default=-1)
    with _report_inputs(layers, see):
        if last >= 0 and not backbone.stepwise:
            backbone.maps(images, [last])
            return
        for index in range(last + 1):
            images = backbone.stage(index)(images)


def _contains(stage: nn.Module, wanted: set[int]) -> bool:
    return any(id(m) in wanted for m in stage.modules())


@contextmanager
def _report_inputs(layers: dict[str, SVFConv2d], see: See) -> Iterator[None]:
    """Call ``see`` with the input of every layer while the context is open."""
    handles = []
    for name, layer in layers.items():

        def report(_: nn.Module, inputs: tuple[Tensor, ...], at: str = name) -> None:
            see(at, inputs[0])

        handles.append(layer.register_forward_pre_hook(report))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
