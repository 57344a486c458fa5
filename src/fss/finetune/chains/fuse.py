"""Let a tuned backbone keep little for its backward pass, block by block and layer by layer.

Residual blocks of torchvision, and plain stacks, run their factored convolutions as chains
(:mod:`fss.finetune.chains.chain`); other blocks find out by themselves what they can do
(:mod:`fss.finetune.chains.blocks`). Only the class of a block is exchanged: parameters, names and copies are
unaffected. Where a chain would not be exact (batch norm in training mode, trained U or V, hooks inside a block), the
block runs as before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from fss.finetune.chains import lean_layer
from fss.finetune.chains.blocks import LeanBlock, blocks, make_lean, make_plain
from fss.finetune.chains.links import Link, act_of, fits, is_hooked, is_norm, run
from fss.finetune.chains.memory import Memory
from fss.finetune.chains.tape import current
from fss.finetune.layers.factored import FactoredLayer, SVFConv2d, SVFLinear
from fss.finetune.layers.surgery import LAST_STAGE
from fss.types import StagedBackbone


def fuse(backbone: StagedBackbone, memory: Memory) -> None:
    """Make a backbone keep little for its backward pass.

    Args:
        backbone: its layers must be swapped already; changed in place.
        memory: what is kept for the backward pass; ``plain`` undoes the fusion.
    """
    for index in range(LAST_STAGE + 1):
        stage = backbone.stage(index)
        for module in stage.modules():
            _undo(module)
        if memory == "plain":
            continue
        for module in stage.modules():
            if isinstance(module, SVFConv2d | SVFLinear):
                module.lean = lean_layer.run
            elif type(module) in _FUSED and any(isinstance(m, SVFConv2d) for m in module.children()):
                module.__class__ = _FUSED[type(module)]
                assert isinstance(module, _Fused)
                module.memory = memory
        for block in list(blocks(stage, tuple(_PLAIN))):
            make_lean(block, memory)


def _undo(module: nn.Module) -> None:
    if isinstance(module, FactoredLayer):
        module.lean = None
    elif isinstance(module, LeanBlock):
        make_plain(module)
    elif type(module) in _PLAIN:
        module.__class__ = _PLAIN[type(module)]


class _Fused(nn.Module):
    memory: Memory


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
    """A sequence whose runs of convolution, batch norm and activation become chains, as in VGG and in shortcuts."""

    def forward(self, x: Tensor) -> Tensor:
        """Run the sequence."""
        if _must_run_plain(self, x):
            for layer in self.children():
                x = layer(x)
            return x
        for segment in _segments(list(self.children())):
            x = segment(x) if isinstance(segment, nn.Module) else run(x, None, segment, self.memory)
        return x


def _residual(block: Any, x: Tensor, plain: Callable[[Tensor], Tensor], depth: int) -> Tensor:
    """Run a torchvision residual block as a chain, or layer by layer where a chain would not be exact."""
    pairs = [(getattr(block, f"conv{i}"), getattr(block, f"bn{i}")) for i in range(1, depth + 1)]
    act = act_of(block.relu)
    if act is None or _must_run_plain(block, x) or not all(fits(conv, norm) for conv, norm in pairs):
        return plain(x)
    residual = x if block.downsample is None else block.downsample(x)
    return run(x, residual, [Link(conv, norm, act) for conv, norm in pairs], block.memory)


def _must_run_plain(block: nn.Module, x: Tensor) -> bool:
    """Tell whether somebody waits for the layers of a block: a hook, or a block around it that is computed again."""
    return x.is_meta or is_hooked(block) or (not torch.compiler.is_compiling() and current() is not None)


def _segments(layers: Sequence[nn.Module]) -> Iterator[nn.Module | list[Link]]:
    """Split a sequence into runs of links and other layers."""
    links: list[Link] = []
    position = 0
    while position < len(layers):
        conv, rest = layers[position], layers[position + 1 : position + 3]
        norm = rest[0] if rest and is_norm(rest[0]) else None
        if not isinstance(conv, SVFConv2d) or not fits(conv, norm):
            if links:
                yield links
            links = []
            yield conv
            position += 1
            continue
        after = rest[1:] if norm is not None else rest
        act = act_of(after[0]) if after else None
        links.append(Link(conv, norm, act or "none"))
        position += 1 + (norm is not None) + (act is not None)
    if links:
        yield links


_FUSED: dict[type[nn.Module], type[_Fused]] = {
    Bottleneck: FusedBottleneck,
    BasicBlock: FusedBasicBlock,
    nn.Sequential: FusedSequential,
}
_PLAIN: dict[type[nn.Module], type[nn.Module]] = {fused: plain for plain, fused in _FUSED.items()}
