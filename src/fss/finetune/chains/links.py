"""Links of a chain: a factored convolution, frozen batch norm and an activation, recognised among modules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.module import _has_any_global_hook

from fss.finetune.chains.chain import chain
from fss.finetune.chains.memory import Memory, keep
from fss.finetune.chains.unit import Act, Unit, Values
from fss.finetune.layers.factored import FactoredLayer, SVFConv2d

_M = TypeVar("_M", bound=nn.Module)

_ACTS: dict[type[nn.Module], Act] = {nn.ReLU: "relu", nn.ReLU6: "relu6"}


@dataclass(frozen=True)
class Link:
    """One convolution of a chain.

    Attributes:
        conv: the convolution.
        norm: batch norm in evaluation mode, or None.
        act: the activation that follows.
    """

    conv: SVFConv2d
    norm: _BatchNorm | None
    act: Act


def run(x: Tensor, residual: Tensor | None, links: Sequence[Link], memory: Memory) -> Tensor:
    """Run links as one chain.

    Args:
        x: (N, Ci, H, W).
        residual: added before the last activation, (N, Co, h, w), or None.
        links: at least one.
        memory: what is kept for the backward pass.

    Returns:
        (N, Co, h, w).
    """
    values = [values_of(link.conv, link.norm) for link in links]
    kept = keep([one.V.shape[0] * one.V[0].numel() for one in values], [one.U.numel() for one in values], memory)
    units = [unit_of(link.conv, k, link.act) for link, k in zip(links, kept, strict=True)]
    return chain(x, residual, units, values)


def unit_of(conv: SVFConv2d, kept: bool, act: Act) -> Unit:
    """Describe a convolution as a unit of a chain.

    Args:
        conv: the convolution.
        kept: keep V * x for the backward pass.
        act: the activation that follows.
    """
    return Unit(conv.geometry, kept, act, depthwise=conv.scales_filters)


def values_of(conv: SVFConv2d, norm: _BatchNorm | None) -> Values:
    """Collect the tensors of a unit; batch norm in evaluation mode is an affine map per channel.

    Args:
        conv: the convolution.
        norm: the batch norm that follows, or None.
    """
    with torch.no_grad():
        bias = conv.U.new_zeros(len(conv.U)) if conv.bias is None else conv.bias
        if norm is None:
            scale, shift = torch.ones_like(bias), bias
        else:
            assert norm.running_mean is not None
            assert norm.running_var is not None
            scale = (norm.running_var + norm.eps).rsqrt()
            if norm.weight is not None:
                scale = scale * norm.weight
            shift = (bias - norm.running_mean) * scale
            shift = shift if norm.bias is None else shift + norm.bias
    return Values(conv.U, conv.values, conv.V, scale, shift)


def fits(conv: nn.Module, norm: nn.Module | None) -> TypeGuard[SVFConv2d]:
    """Tell whether convolution and batch norm can be a link: exact types, frozen but for the singular values."""
    if not is_plain(conv, SVFConv2d) or isinstance(conv.geometry.padding, str) or not only_s_trains(conv):
        return False
    return norm is None or (is_norm(norm) and is_frozen(norm))


def is_norm(module: nn.Module) -> TypeGuard[_BatchNorm]:
    """Tell whether a module computes what batch norm does: its class may add to it, but not have its own forward."""
    known = type(module).forward in (nn.BatchNorm2d.forward, nn.SyncBatchNorm.forward)
    return isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm) and known and "forward" not in module.__dict__


def is_frozen(norm: _BatchNorm) -> bool:
    """Tell whether batch norm is a fixed affine map."""
    trains = norm.training or any(p.requires_grad for p in norm.parameters())
    return norm.running_mean is not None and not trains


def only_s_trains(layer: FactoredLayer) -> bool:
    """Tell whether nothing but the diagonal of a factored layer trains."""
    return not any(t is not None and t.requires_grad for t in (layer.U, layer.V, layer.bias))


def act_of(module: nn.Module) -> Act | None:
    """Name the activation that a module is, None if a chain does not know it."""
    return None if "forward" in module.__dict__ else _ACTS.get(type(module))


def is_plain(module: nn.Module, kind: type[_M]) -> TypeGuard[_M]:
    """Tell whether a module computes exactly what its kind does: a subclass may compute anything."""
    return type(module) is kind and "forward" not in module.__dict__


def is_hooked(block: nn.Module) -> bool:
    """Tell whether a hook, forward or backward, waits for a layer within a block: a chain would never call it."""
    return bool(_has_any_global_hook()) or any(  # type: ignore[no-untyped-call]
        m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks
        for m in block.modules()
        if m is not block
    )
