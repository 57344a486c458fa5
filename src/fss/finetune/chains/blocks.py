"""Any block with factored layers, run with little memory for its backward pass.

The class of a block is exchanged for one that inherits from it; parameters, names and copies are unaffected. At its
first call the block finds out how it can be run: as a chain (:mod:`fss.finetune.chains.line`), by being computed again
in the backward pass (:mod:`fss.finetune.chains.replay`), or as before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, SupportsIndex, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from fss.finetune.chains.line import Line, find_line
from fss.finetune.chains.links import is_hooked
from fss.finetune.chains.memory import Memory
from fss.finetune.chains.plans import find_plan
from fss.finetune.chains.replay import Arguments, Plan, replayed
from fss.finetune.chains.tape import current
from fss.finetune.layers.factored import FactoredLayer, SVFConv2d, SVFLinear
from fss.finetune.layers.tuned import TunedLayer

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)

_RATES = ("p", "drop_prob", "drop_rate", "drop_path_rate")
_MOST = 24
"""Factored layers of a block at most: what is computed again at a time should stay small."""

Way = Literal["chain", "again", "as before"]


@dataclass
class Lean:
    """How a block is run.

    Attributes:
        memory: what is kept for the backward pass.
        lines: mode and shape of the input -> the block's chain, None if it is none.
        plans: likewise, with all that gradients depend on -> what is kept for being computed again, None if it cannot.
        last: how the block was run last; None before its first call.
    """

    memory: Memory
    lines: dict[object, Line | None] = field(default_factory=dict)
    plans: dict[object, Plan | None] = field(default_factory=dict)
    last: Way | None = None


class LeanBlock(nn.Module):
    """A block that keeps little for its backward pass; its plain class is the other base."""

    _lean: Lean

    def forward(self, *given: Any, **named: Any) -> Any:
        """Run the block."""
        traced = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
        y = None if traced or current() is not None else _run_lean(self, given, named)
        return self._plain(*given, **named) if y is None else y

    def _plain(self, *given: Any, **named: Any) -> Any:
        return super().forward(*given, **named)

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        """Pickle by the plain class, as this one cannot be imported."""
        reduced = cast(tuple[Any, ...], super().__reduce_ex__(protocol))
        return _empty, (plain_class(self),), *reduced[2:]


def _run_lean(block: LeanBlock, given: tuple[Any, ...], named: Mapping[str, Any]) -> Tensor | None:
    """Run a block in a lean way, if there is one; None if it must run as its class does."""
    block._lean.last = "as before"
    x, rest = given[0] if given else None, Arguments(given[1:], named)
    if not torch.is_grad_enabled() or not isinstance(x, Tensor) or not x.is_floating_point() or x.is_meta:
        return None
    trained = {n: p for n, p in block.named_parameters() if p.requires_grad}
    if not (x.requires_grad or trained) or x.numel() == 0 or is_hooked(block):
        return None
    if any(isinstance(m, _BatchNorm) and m.training for m in block.modules()):
        return None
    y = _as_chain(block, x, rest)
    return _again(block, x, rest, trained) if y is None else y


def _as_chain(block: LeanBlock, x: Tensor, rest: Arguments) -> Tensor | None:
    if rest.given or rest.named or _draws(block):
        return None
    lean, mode = block._lean, (block.training, x.shape[1:])
    if mode not in lean.lines:
        lean.lines[mode] = find_line(block, block._plain, x.shape)
    line = lean.lines[mode]
    y = None if line is None else line.run(block, x, lean.memory)
    if y is not None:
        lean.last = "chain"
    return y


def _again(block: LeanBlock, x: Tensor, rest: Arguments, trained: Mapping[str, nn.Parameter]) -> Tensor | None:
    lean, parameters = block._lean, list(trained.values())
    # gradient hooks would be called for the gradients of either run
    if lean.memory == "fast" or not rest.simple or any(p._backward_hooks for p in parameters):
        return None
    autocast = torch.is_autocast_enabled(x.device.type)
    mode = (block.training, x.shape[1:], rest.kinds, x.requires_grad, tuple(trained), autocast)
    if mode not in lean.plans:
        lean.plans[mode] = find_plan(block, block._plain, lean.memory, x, rest, parameters)
    plan = lean.plans[mode]
    if plan is None:
        return None
    lean.last = "again"
    return replayed(block._plain, plan, x, rest, parameters)


def _draws(block: nn.Module) -> bool:
    """Tell whether something in a block may draw random numbers, as dropout does while it trains."""
    rates = (getattr(m, rate, 0) for m in block.modules() if m.training for rate in _RATES)
    return any(isinstance(rate, int | float) and rate > 0 for rate in rates)


_CLASSES: dict[type[nn.Module], type[LeanBlock]] = {}


def _lean_class(kind: type[nn.Module]) -> type[LeanBlock]:
    if kind in _CLASSES:
        return _CLASSES[kind]
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    _CLASSES[kind] = cast(type[LeanBlock], type(kind.__name__, (LeanBlock, kind), names))
    return _CLASSES[kind]


def plain_class(block: LeanBlock) -> type[nn.Module]:
    """Return the class that a block had before."""
    return cast(type[nn.Module], type(block).__bases__[1])


def _empty(kind: type[nn.Module]) -> nn.Module:
    made = _lean_class(kind)
    return made.__new__(made)


def make_lean(block: nn.Module, memory: Memory) -> None:
    """Let a block keep little for its backward pass.

    Args:
        block: changed in place.
        memory: what is kept.
    """
    block.__class__ = _lean_class(type(block))
    assert isinstance(block, LeanBlock)
    block._lean = Lean(memory)


def make_plain(block: LeanBlock) -> None:
    """Undo :func:`make_lean`."""
    del block._lean
    block.__class__ = plain_class(block)  # type: ignore[assignment]  # the other base of its class


def way(block: nn.Module) -> Way | None:
    """Tell how a block was run last, None if it is no lean block or has not been called."""
    return block._lean.last if isinstance(block, LeanBlock) else None


def blocks(root: nn.Module, fused: Sequence[type[nn.Module]]) -> Iterator[nn.Module]:
    """Yield the blocks below a root, and what within them runs by itself where the whole block cannot.

    A block holds factored layers and is not made of blocks itself, as the stages of a network are: nothing in it has
    several children of at least two factored layers each, in a list or of one class.

    Args:
        root: a stage, or a whole network; yielded itself if it is a block.
        fused: classes that have a lean form of their own.

    Yields:
        Modules, parents before children.
    """
    for module in root.modules():
        if isinstance(module, TunedLayer | parametrize.ParametrizationList) or parametrize.is_parametrized(module):
            continue
        if type(module) in fused or "forward" in module.__dict__:
            continue
        if type(module) in _CONTAINERS and not _is_stack(module):
            continue
        if 0 < _count(module) <= _MOST and not any(_has_blocks(m) for m in module.modules()):
            yield module


def _is_stack(module: nn.Module) -> bool:
    """Tell whether a container is a block of layers that follow each other, as linear layers with GELU between them."""
    kinds = [type(m) for m in module.children()]
    return type(module) is nn.Sequential and any(issubclass(k, FactoredLayer) for k in kinds) and SVFConv2d not in kinds


def _has_blocks(module: nn.Module) -> bool:
    kinds = [type(m) for m in module.children() if _count(m) >= 2 and not isinstance(m, TunedLayer)]
    return len(kinds) >= 2 and (isinstance(module, _CONTAINERS) or len(set(kinds)) < len(kinds))


def _count(module: nn.Module) -> int:
    return sum(isinstance(m, SVFConv2d | SVFLinear) for m in module.modules())
