"""Blocks whose convolutions follow each other in a line, found by running them once and watching their layers.

Inverted residuals, bottlenecks and pairs of convolution and batch norm differ in the names of their layers and in
where they add their input. A run on a fixed pattern shows which layer reads the output of which, and that nothing but
an addition is computed besides; what is added, and where, is tried out. Only a chain whose output is the block's own
counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from fss.finetune.chains.links import Link, act_of, is_frozen, is_plain, only_s_trains, run
from fss.finetune.chains.memory import Memory
from fss.finetune.chains.surroundings import unmoved
from fss.finetune.layers.factored import FactoredLayer, SVFConv2d

_CLOSE = 1e-4
"""Greatest difference, relative to the largest value, of a chain to its block in single precision."""

_ADDS = {"add", "add_", "__add__", "__iadd__", "__radd__"}
_SILENT = {"__get__", "size", "dim", "__len__", "is_contiguous", "is_floating_point"}

Add = Literal["nothing", "before", "after"]
"""Whether the residual is added before or after the last activation."""


@dataclass(frozen=True)
class Step:
    """A convolution by the names of its layers.

    Attributes:
        conv: path of the convolution in the block.
        norm: path of the batch norm, or None.
        act: path of the activation, or None; the batch norm's own if both are one layer.
    """

    conv: str
    norm: str | None = None
    act: str | None = None


@dataclass(frozen=True)
class Line:
    """How a block is computed.

    Attributes:
        steps: its convolutions, in order.
        add: where the residual is added.
        shortcut: what the residual is: its own convolutions, or the block's input if there are none.
    """

    steps: tuple[Step, ...]
    add: Add = "nothing"
    shortcut: tuple[Step, ...] = ()

    def run(self, block: nn.Module, x: Tensor, memory: Memory) -> Tensor | None:
        """Run the block as a chain.

        Args:
            block: the block in which the line was found.
            x: its input, (N, Ci, H, W).
            memory: what is kept for the backward pass.

        Returns:
            Its output, (N, Co, h, w), or None if a chain would not be exact now.
        """
        links, shortcut = _links(block, self.steps), _links(block, self.shortcut)
        if links is None or shortcut is None:
            return None
        if self.add == "nothing":
            return run(x, None, links, memory)
        residual = run(x, None, shortcut, memory) if shortcut else x
        if self.add == "before" and links[-1].act != "none":
            return run(x, residual, links, memory)
        return run(x, None, links, memory) + residual


def find_line(block: nn.Module, forward: Callable[[Tensor], object], shape: Sequence[int]) -> Line | None:
    """Find out whether a block is a line.

    Args:
        block: the block; batch norm in it must not be in training mode.
        forward: runs it, (N, Ci, H, W) to (N, Co, h, w).
        shape: shape of its input.

    Returns:
        The line, or None.
    """
    layers = [m for m in block.modules() if isinstance(m, FactoredLayer)]
    if len(shape) != 4 or not layers or not all(isinstance(m, SVFConv2d) for m in layers):
        return None
    value = layers[0].S
    x = pattern((1, *shape[1:]), value)
    # normal tensors even in inference mode, as their versions are read
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(value.device.type, enabled=False):
        try:
            with unmoved(block) as moved:
                entrance = pattern((1, *shape[1:]), value)
                events, outside, y = _watch(block, forward, entrance)
        except RuntimeError:  # such as a type without convolutions on this device
            return None
        if moved() or not isinstance(y, Tensor) or any(name not in _ADDS for name in outside) or len(outside) > 1:
            return None
        x = pattern((1, *shape[1:]), value)  # anew: layers may have worked in place
        adds: tuple[Add, ...] = ("before", "after") if outside else ("nothing",)
        return next((line for line in _guesses(events, entrance, adds) if _gives(line, block, x, y)), None)


def pattern(shape: Sequence[int], like: Tensor) -> Tensor:
    """Return values of both signs, none of them equal to its neighbours, in the type and on the device of a tensor."""
    count = int(torch.Size(shape).numel())
    values = torch.arange(count, device=like.device, dtype=torch.float64).mul_(0.731).sin_().mul_(2)
    return values.to(like.dtype).view(tuple(shape))


@dataclass(frozen=True)
class _Event:
    """A call of a layer; the tensors are kept, so that their identity tells who reads whose output."""

    name: str
    module: nn.Module
    reads: Tensor
    writes: Tensor
    idle: bool


class _Outside(TorchFunctionMode):
    """Names of the functions that a block calls between those of its layers, those that compute nothing left out."""

    def __init__(self) -> None:
        super().__init__()
        self.depth, self.names = 0, list[str]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", str(func))
        if self.depth == 0 and name not in _SILENT:
            self.names.append(name)
        return func(*args, **(kwargs or {}))


def _watch(block: nn.Module, forward: Callable[[Tensor], object], x: Tensor) -> tuple[list[_Event], list[str], object]:
    """Run a block; return the calls of its layers, what it calls besides, and its output."""
    events: list[_Event] = []
    outside = _Outside()
    versions: list[int] = []

    def enter(module: nn.Module, inputs: tuple[object, ...]) -> None:
        outside.depth += 1
        versions.append(inputs[0]._version if inputs and isinstance(inputs[0], Tensor) else 0)

    def leave(name: str, module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        outside.depth -= 1
        reads, before = inputs[0] if len(inputs) == 1 else None, versions.pop()
        if isinstance(reads, Tensor) and isinstance(output, Tensor):
            idle = reads is output and reads._version == before
            events.append(_Event(name, module, reads, output, idle))
        else:
            outside.names.append(name)

    with ExitStack() as stack:
        for name, module in _layers(block):
            stack.callback(module.register_forward_pre_hook(enter).remove)
            stack.callback(module.register_forward_hook(partial(leave, name)).remove)
        stack.enter_context(outside)
        y = forward(x)
    return events, outside.names, y


def _layers(block: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield what computes something: modules without children, factored layers, and batch norm with its activation."""
    inside: list[str] = []
    for name, module in block.named_modules():
        if module is block or any(name.startswith(f"{outer}.") for outer in inside):
            continue
        if isinstance(module, FactoredLayer | _BatchNorm) or not any(True for _ in module.children()):
            inside.append(name)
            yield name, module


def _guesses(events: Sequence[_Event], entrance: Tensor, adds: Sequence[Add]) -> Iterator[Line]:
    """Yield the lines that the calls may stand for: one path through the layers, or two whose ends are added."""
    paths: list[list[_Event]] = []
    loose: list[_Event] = []
    for event in events:
        if event.idle:
            continue  # identity, and dropout that is off
        path = next((p for p in paths if p[-1].writes is event.reads), None)
        if path is not None:
            path.append(event)
        elif event.reads is entrance:
            paths.append([event])
        else:
            loose.append(event)
    if not 1 <= len(paths) <= 2 or len(loose) > 1 or (len(paths) == 2 and "nothing" in adds):
        return
    for main, other in [(paths[0], paths[1:]), *([(paths[1], paths[:1])] if len(paths) == 2 else [])]:
        steps = _steps([*main, *loose])  # what reads a sum is the activation behind the addition
        shortcut = _steps(other[0]) if other else ()
        if steps is not None and shortcut is not None:
            yield from (Line(steps, add, shortcut) for add in adds)


def _steps(events: Sequence[_Event]) -> tuple[Step, ...] | None:
    """Group layers as convolutions with what belongs to them; None if there are others among them."""
    steps: list[Step] = []
    for event in events:
        last = steps[-1] if steps else None
        if isinstance(event.module, SVFConv2d):
            steps.append(Step(event.name))
        elif last is None:
            return None
        elif isinstance(event.module, _BatchNorm) and last.norm is None and last.act is None:
            act = "act" if isinstance(getattr(event.module, "act", None), nn.Module) else None
            steps[-1] = Step(last.conv, event.name, act and f"{event.name}.{act}")
        elif act_of(event.module) is not None and (last.act is None or last.act.startswith(f"{last.norm}.")):
            steps[-1] = Step(last.conv, last.norm, event.name)
        else:
            return None
    return tuple(steps)


def _links(block: nn.Module, steps: Sequence[Step]) -> list[Link] | None:
    """Look the layers up; None if one of them has become something else, or trains."""
    links: list[Link] = []
    for step in steps:
        conv = block.get_submodule(step.conv)
        norm = None if step.norm is None else block.get_submodule(step.norm)
        module = nn.Identity() if step.act is None else block.get_submodule(step.act)
        act = "none" if type(module) is nn.Identity else act_of(module)
        if act is None or not is_plain(conv, SVFConv2d) or not only_s_trains(conv):
            return None
        if isinstance(conv.geometry.padding, str):
            return None
        if norm is not None and not (isinstance(norm, _BatchNorm) and is_frozen(norm)):
            return None
        links.append(Link(conv, norm, act))
    return links


def _gives(line: Line, block: nn.Module, x: Tensor, y: Tensor) -> bool:
    """Tell whether a line gives the block's output."""
    try:
        found = line.run(block, x, "fast")
    except RuntimeError:  # a residual of another shape
        return False
    if found is None or found.shape != y.shape:
        return False
    off = float((found - y).abs().max())
    return off < _CLOSE * float(y.abs().max())  # false where all is zero, or NaN
