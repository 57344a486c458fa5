"""Blocks that are computed again in the backward pass, from V * x of some of their layers.

Attention, GELU and LayerNorm need their inputs for the backward pass. These follow from V * x of the layers before them
at the price of one multiplication by U. So a block keeps V * x of its expensive layers, runs its own forward a second
time when the gradient arrives, and gives those layers what they kept. The block's input is kept too, unless only layers
that keep V * x read its values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from fss.finetune.chains.surroundings import Surroundings
from fss.finetune.chains.tape import Recording, Replay, running

Forward = Callable[..., Any]


@dataclass(frozen=True)
class Plan:
    """What a block keeps for its backward pass.

    Attributes:
        chosen: whether V * x is kept, one entry per call of a factored layer.
        needs_input: whether the block's input is kept.
        skip: number of the call whose output no gradient depends on, or None.
    """

    chosen: tuple[bool, ...]
    needs_input: bool
    skip: int | None


@dataclass(frozen=True)
class Arguments:
    """What a block is called with besides its input.

    Attributes:
        given: positional arguments.
        named: keyword arguments.
    """

    given: tuple[Any, ...]
    named: Mapping[str, Any]

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors among them."""
        return [v for v in (*self.given, *self.named.values()) if isinstance(v, Tensor)]

    @property
    def simple(self) -> bool:
        """Whether all are constants: numbers, words, lists of them, and tensors that need no gradient."""
        values = (*self.given, *self.named.values())
        return all(_is_constant(v) for v in values)

    @property
    def kinds(self) -> tuple[str, ...]:
        """What the arguments are: constants themselves, of tensors only that they are tensors."""
        named = (f"{k}={_kind(v)}" for k, v in sorted(self.named.items()))
        return (*(_kind(v) for v in self.given), *named)

    def put(self, tensors: Sequence[Tensor | None]) -> Arguments:
        """Return the same with other tensors."""
        rest = list(tensors)
        given = tuple(rest.pop(0) if isinstance(v, Tensor) else v for v in self.given)
        return Arguments(given, {k: rest.pop(0) if isinstance(v, Tensor) else v for k, v in self.named.items()})


def _kind(value: object) -> str:
    return "tensor" if isinstance(value, Tensor) else repr(value)


def _is_constant(value: object) -> bool:
    if isinstance(value, tuple | list):
        return not any(isinstance(v, Tensor) for v in value) and all(_is_constant(v) for v in value)
    if isinstance(value, Tensor):
        return not value.requires_grad
    return isinstance(value, bool | int | float | str | torch.dtype | torch.device | None)


def replayed(forward: Forward, plan: Plan, x: Tensor, rest: Arguments, trained: Sequence[Tensor]) -> Tensor:
    """Run a block and keep what its plan says.

    Args:
        forward: the block's own forward.
        plan: found by :func:`fss.finetune.chains.plans.find_plan`.
        x: the block's input.
        rest: its other arguments, :attr:`Arguments.simple`.
        trained: parameters in the block that need a gradient.

    Returns:
        The block's output.
    """
    return cast(Tensor, _Replayed.apply(forward, plan, rest, x, *trained))


class _Replayed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, forward: Forward, plan: Plan, rest: Arguments, x: Tensor, *trained: Tensor) -> Tensor:
        then, tape = Surroundings.now(x.device), Recording(plan.chosen)
        with running(tape), then.autocast():
            y = cast(Tensor, forward(x, *rest.given, **rest.named))
        tape.finish()
        ctx.forward, ctx.plan, ctx.trained = forward, plan, trained
        ctx.then, ctx.drawn = then, then.drawn()
        ctx.shape, ctx.dtype, ctx.device = x.shape, x.dtype, x.device
        # parameters are saved so that a change of them before the backward pass is noticed
        ctx.save_for_backward(*([x] if plan.needs_input else []), *tape.kept, *rest.tensors, *trained)
        ctx.rest, ctx.kept = rest.put([_TENSOR] * len(rest.tensors)), len(tape.kept)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        saved, plan, needs = list(ctx.saved_tensors), ctx.plan, ctx.needs_input_grad[3:]
        x = saved.pop(0).detach() if plan.needs_input else stand_in(ctx.shape, ctx.dtype, ctx.device)
        x.requires_grad_(needs[0])
        kept, rest = saved[: ctx.kept], ctx.rest.put(saved[ctx.kept :])
        wanted = [t for t, need in zip((x, *ctx.trained), needs, strict=True) if need]
        with ctx.then.again(ctx.drawn):
            found = iter(gradients(ctx.forward, Replay(plan.chosen, kept, plan.skip), x, rest, wanted, g))
        return None, None, None, *(next(found) if need else None for need in needs)


def gradients(
    forward: Forward, tape: Replay, x: Tensor, rest: Arguments, wanted: Sequence[Tensor], g: Tensor
) -> tuple[Tensor | None, ...]:
    """Run a block again and return the gradients of some of what it depends on.

    Args:
        forward: the block's own forward.
        tape: what its layers kept.
        x: its input, or what stands for it.
        rest: its other arguments.
        wanted: ``x`` and parameters whose gradient is wanted.
        g: gradient of the output.

    Returns:
        One gradient for each of ``wanted``, None where the output does not depend on it.
    """
    with unseen(), torch.enable_grad(), running(tape):
        y = forward(x, *rest.given, **rest.named)
    tape.finish()
    return torch.autograd.grad(y, wanted, g, allow_unused=True)


def stand_in(shape: torch.Size, dtype: torch.dtype, device: torch.device, value: float = 0.0) -> Tensor:
    """Return a tensor of which nobody reads the values; it occupies no memory."""
    return torch.full((), value, dtype=dtype, device=device).expand(shape)


@contextmanager
def unseen() -> Iterator[None]:
    """Hide what is saved meanwhile from hooks that count, or move, what a forward pass saves."""
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
        yield


_TENSOR = torch.empty(0)
