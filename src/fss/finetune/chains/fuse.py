"""Residual blocks and plain stacks that run their factored convolutions as chains (:mod:`fss.finetune.chains.chain`).

Only the class of a block is exchanged: parameters, names and copies are unaffected. Where a chain would not be exact
(batch norm in training mode, trained U or V, hooks inside a block), the block runs as before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeGuard, TypeVar, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook
from torchvision.models.resnet import BasicBlock, Bottleneck

from fss.errors import FssError
from fss.finetune.chains.chain import chain
from fss.finetune.chains.unit import Unit, Values
from fss.finetune.layers.factored import SVFConv2d
from fss.finetune.layers.surgery import LAST_STAGE
from fss.types import StagedBackbone

Memory = Literal["plain", "fast", "balanced", "least"]
"""Activations kept for the backward pass: all, layer by layer (``plain``); V * x of every convolution (``fast``), only
of those that are expensive to recompute (``balanced``), or only of the first one in each block (``least``)."""

_CHEAP = 0.15
"""``balanced`` recomputes V * x if that costs at most this share of the chain."""

_M = TypeVar("_M", bound=nn.Module)

Link = tuple[SVFConv2d, nn.BatchNorm2d | None, bool]


def check_memory(memory: str) -> Memory:
    """Validate a memory rule.

    Args:
        memory: name of the rule.

    Returns:
        The same name.

    Raises:
        FssError: if it is none of :data:`Memory`.
    """
    if memory in get_args(Memory):
        return cast(Memory, memory)
    raise FssError(f"finetune.memory={memory} is not known: choose one of {', '.join(get_args(Memory))}.")


def fuse(backbone: StagedBackbone, memory: Memory) -> None:
    """Make the blocks of a backbone run their factored convolutions as chains.

    Args:
        backbone: its layers must be swapped already; changed in place.
        memory: what is kept for the backward pass; ``plain`` undoes the fusion.
    """
    for index in range(LAST_STAGE + 1):
        for module in backbone.stage(index).modules():
            if type(module) in _PLAIN:
                module.__class__ = _PLAIN[type(module)]
            if (
                memory != "plain"
                and type(module) in _FUSED
                and any(isinstance(m, SVFConv2d) for m in module.children())
            ):
                module.__class__ = _FUSED[type(module)]
                assert isinstance(module, _Fused)
                module.memory = memory


class _Fused(nn.Module):
    memory: Memory

    def run(self, x: Tensor, residual: Tensor | None, links: Sequence[Link]) -> Tensor:
        """Run links as one chain.

        Args:
            x: (N, Ci, H, W).
            residual: added before the last ReLU, (N, Co, h, w), or None.
            links: convolutions, each with its batch norm and whether a ReLU follows.

        Returns:
            (N, Co, h, w).
        """
        values = [_values(conv, norm) for conv, norm, _ in links]
        kept = keep(
            [one.V.shape[0] * one.V[0].numel() for one in values], [one.U.numel() for one in values], self.memory
        )
        units = [Unit(conv.geometry, k, relu) for (conv, _, relu), k in zip(links, kept, strict=True)]
        return chain(x, residual, units, values)


class FusedBottleneck(_Fused, Bottleneck):  # type: ignore[misc]  # torchvision has no types
    """A bottleneck block whose three convolutions run as one chain."""

    def forward(self, x: Tensor) -> Tensor:
        """Run the block, (N, Ci, H, W) to (N, Co, h, w)."""
        return _residual(self, x, super().forward, 3)


class FusedBasicBlock(_Fused, BasicBlock):  # type: ignore[misc]
    """A basic block whose two convolutions run as one chain."""

    def forward(self, x: Tensor) -> Tensor:
        """Run the block, (N, Ci, H, W) to (N, Co, h, w)."""
        return _residual(self, x, super().forward, 2)


class FusedSequential(_Fused, nn.Sequential):
    """A sequence whose runs of convolution, batch norm and ReLU become chains, as in VGG and in shortcuts."""

    def forward(self, x: Tensor) -> Tensor:
        """Run the sequence."""
        if _hooked(self):
            for layer in self.children():
                x = layer(x)
            return x
        for segment in _segments(list(self.children())):
            x = segment(x) if isinstance(segment, nn.Module) else self.run(x, None, segment)
        return x


def _residual(block: Any, x: Tensor, plain: Callable[[Tensor], Tensor], depth: int) -> Tensor:
    """Run a torchvision residual block as a chain, or layer by layer where a chain would not be exact."""
    pairs = [(getattr(block, f"conv{i}"), getattr(block, f"bn{i}")) for i in range(1, depth + 1)]
    exact = _is_plain(block.relu, nn.ReLU) and all(_fits(conv, norm) for conv, norm in pairs)
    if _hooked(block) or not exact:
        return plain(x)
    residual = x if block.downsample is None else block.downsample(x)
    links: list[Link] = [(conv, norm, True) for conv, norm in pairs]
    return cast(Tensor, block.run(x, residual, links))


def keep(right_sizes: Sequence[int], left_sizes: Sequence[int], memory: Memory) -> list[bool]:
    """Choose the convolutions whose V * x is kept.

    Args:
        right_sizes: number of values of each V, proportional to the cost of V * x.
        left_sizes: number of values of each U.
        memory: the memory rule.

    Returns:
        One entry per convolution; the first is always kept because its input is not.
    """
    if memory == "fast":
        return [True] * len(right_sizes)
    if memory == "least":
        return [True] + [False] * (len(right_sizes) - 1)
    limit = _CHEAP * (sum(right_sizes) + sum(left_sizes))
    recompute_costs = [r + before for r, before in zip(right_sizes[1:], left_sizes[:-1], strict=True)]
    return [True] + [cost > limit for cost in recompute_costs]


def _fits(conv: nn.Module, norm: nn.Module | None) -> TypeGuard[SVFConv2d]:
    """Tell whether a unit is exact: at most the singular values train, and batch norm is frozen."""
    if not _is_plain(conv, SVFConv2d) or conv.p is not None or isinstance(conv.geometry.padding, str):
        return False
    if any(t is not None and t.requires_grad for t in (conv.U, conv.V, conv.bias)):
        return False
    if norm is None:
        return True
    frozen = not norm.training and not any(p.requires_grad for p in norm.parameters())
    return _is_plain(norm, nn.BatchNorm2d) and norm.running_mean is not None and frozen


def _is_plain(module: nn.Module, kind: type[_M]) -> TypeGuard[_M]:
    """Tell whether a module computes exactly what its kind does: a subclass may compute anything."""
    return type(module) is kind and "forward" not in module.__dict__


def _hooked(block: nn.Module) -> bool:
    """Tell whether a hook, forward or backward, waits for a layer within a block: a chain would never call it."""
    return bool(_has_any_global_hook()) or any(  # type: ignore[no-untyped-call]
        m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks
        for m in block.modules()
        if m is not block
    )


def _values(conv: SVFConv2d, norm: nn.BatchNorm2d | None) -> Values:
    """Collect the tensors of a unit; batch norm in evaluation mode is an affine map per channel."""
    with torch.no_grad():
        bias = conv.U.new_zeros(len(conv.U)) if conv.bias is None else conv.bias
        if norm is None:
            return Values(conv.U, conv.S, conv.V, torch.ones_like(bias), bias)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = (norm.running_var + norm.eps).rsqrt()
        if norm.weight is not None:
            scale = scale * norm.weight
        shift = (bias - norm.running_mean) * scale
        return Values(conv.U, conv.S, conv.V, scale, shift if norm.bias is None else shift + norm.bias)


def _segments(layers: Sequence[nn.Module]) -> Iterator[nn.Module | list[Link]]:
    """Split a sequence into runs of links and other layers."""
    links: list[Link] = []
    position = 0
    while position < len(layers):
        conv, rest = layers[position], layers[position + 1 : position + 3]
        norm = rest[0] if rest and _is_plain(rest[0], nn.BatchNorm2d) else None
        if not isinstance(conv, SVFConv2d) or not _fits(conv, norm):
            if links:
                yield links
            links = []
            yield conv
            position += 1
            continue
        after = rest[1:] if norm is not None else rest
        relu = bool(after) and _is_plain(after[0], nn.ReLU)
        links.append((conv, norm, relu))
        position += 1 + (norm is not None) + relu
    if links:
        yield links


_FUSED: dict[type[nn.Module], type[_Fused]] = {
    Bottleneck: FusedBottleneck,
    BasicBlock: FusedBasicBlock,
    nn.Sequential: FusedSequential,
}
_PLAIN: dict[type[nn.Module], type[nn.Module]] = {fused: plain for plain, fused in _FUSED.items()}
