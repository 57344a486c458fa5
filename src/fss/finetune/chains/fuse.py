"""Residual blocks and plain stacks that run their factored convolutions as chains (:mod:`fss.finetune.chains.chain`).

The class of a block is exchanged and nothing else: parameters, names and copies stay what they are. Wherever a chain
would not be exact (batch norm in training, trained U or V, hooks inside a block), the block runs as before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeGuard, cast, get_args

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from fss.errors import FssError
from fss.finetune.chains.chain import chain
from fss.finetune.chains.unit import Unit, Values
from fss.finetune.layers.factored import SVFConv2d
from fss.finetune.layers.surgery import LAST_STAGE
from fss.types import StagedBackbone

Memory = Literal["plain", "fast", "balanced", "least"]
"""What of the activations is kept: everything, layer by layer (``plain``); V * x of every convolution (``fast``); only
of those that would be dear to compute again (``balanced``); only of the first of each block (``least``)."""

_CHEAP = 0.15
"""Share of a chain's cost up to which ``balanced`` computes V * x again."""

Link = tuple[SVFConv2d, nn.BatchNorm2d | None, bool]


def check_memory(memory: str) -> Memory:
    """Validate a choice.

    Args:
        memory: as given.

    Returns:
        The same.

    Raises:
        FssError: if it is none of :data:`Memory`.
    """
    if memory in get_args(Memory):
        return cast(Memory, memory)
    raise FssError(f"finetune.memory={memory} is not known: choose one of {', '.join(get_args(Memory))}.")


def fuse(backbone: StagedBackbone, memory: Memory) -> None:
    """Let the blocks of a backbone run their factored convolutions as chains.

    Args:
        backbone: after its layers were swapped; changed in place. ``plain`` undoes it.
        memory: what is kept for the backward pass.
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
            links: convolutions with what follows them.

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
    """Three convolutions and the shortcut."""

    def forward(self, x: Tensor) -> Tensor:
        """Run the block, (N, Ci, H, W) to (N, Co, h, w)."""
        return _residual(self, x, super().forward, 3)


class FusedBasicBlock(_Fused, BasicBlock):  # type: ignore[misc]
    """Two convolutions and the shortcut."""

    def forward(self, x: Tensor) -> Tensor:
        """Run the block, (N, Ci, H, W) to (N, Co, h, w)."""
        return _residual(self, x, super().forward, 2)


class FusedSequential(_Fused, nn.Sequential):
    """A stack in which runs of convolution, batch norm and ReLU become chains, as in VGG and in shortcuts."""

    def forward(self, x: Tensor) -> Tensor:
        """Run the stack."""
        if _hooked(self):
            for layer in self.children():
                x = layer(x)
            return x
        for part in _parts(list(self.children())):
            x = part(x) if isinstance(part, nn.Module) else self.run(x, None, part)
        return x


def _residual(block: Any, x: Tensor, plain: Callable[[Tensor], Tensor], depth: int) -> Tensor:
    """Run a residual block of torchvision as a chain, or as it is where a chain would not be exact."""
    pairs = [(getattr(block, f"conv{i}"), getattr(block, f"bn{i}")) for i in range(1, depth + 1)]
    if _hooked(block) or not all(_fits(conv, norm) for conv, norm in pairs):
        return plain(x)
    residual = x if block.downsample is None else block.downsample(x)
    links: list[Link] = [(conv, norm, True) for conv, norm in pairs]
    return cast(Tensor, block.run(x, residual, links))


def keep(right_sizes: Sequence[int], left_sizes: Sequence[int], memory: Memory) -> list[bool]:
    """Choose of which convolutions V * x is kept.

    Args:
        right_sizes: number of values of each V, proportional to the cost of V * x.
        left_sizes: of each U.
        memory: the rule.

    Returns:
        One entry per convolution; the first is always kept, as its input is not.
    """
    if memory == "fast":
        return [True] * len(right_sizes)
    if memory == "least":
        return [True] + [False] * (len(right_sizes) - 1)
    limit = _CHEAP * (sum(right_sizes) + sum(left_sizes))
    again = [r + before for r, before in zip(right_sizes[1:], left_sizes[:-1], strict=True)]
    return [True] + [cost > limit for cost in again]


def _fits(conv: nn.Module, norm: nn.Module | None) -> TypeGuard[SVFConv2d]:
    """Tell whether a unit gives what the two layers give: singular values alone train, batch norm is frozen."""
    if not isinstance(conv, SVFConv2d) or conv.p is not None or isinstance(conv.geometry.padding, str):
        return False
    if any(t is not None and t.requires_grad for t in (conv.U, conv.V, conv.bias)):
        return False
    if norm is None:
        return True
    frozen = not norm.training and not any(p.requires_grad for p in norm.parameters())
    return isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and frozen


def _hooked(block: nn.Module) -> bool:
    return any(m._forward_hooks or m._forward_pre_hooks for m in block.modules() if m is not block)


def _values(conv: SVFConv2d, norm: nn.BatchNorm2d | None) -> Values:
    """Read the tensors of a unit; batch norm in evaluation mode is an affine map per channel."""
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


def _parts(layers: Sequence[nn.Module]) -> Iterator[nn.Module | list[Link]]:
    """Split a stack into runs of links and other layers."""
    links: list[Link] = []
    at = 0
    while at < len(layers):
        conv, rest = layers[at], layers[at + 1 : at + 3]
        norm = rest[0] if rest and isinstance(rest[0], nn.BatchNorm2d) else None
        if not isinstance(conv, SVFConv2d) or not _fits(conv, norm):
            if links:
                yield links
            links = []
            yield conv
            at += 1
            continue
        after = rest[1:] if norm is not None else rest
        relu = bool(after) and isinstance(after[0], nn.ReLU)
        links.append((conv, norm, relu))
        at += 1 + (norm is not None) + relu
    if links:
        yield links


_FUSED: dict[type[nn.Module], type[_Fused]] = {
    Bottleneck: FusedBottleneck,
    BasicBlock: FusedBasicBlock,
    nn.Sequential: FusedSequential,
}
_PLAIN: dict[type[nn.Module], type[nn.Module]] = {fused: plain for plain, fused in _FUSED.items()}
