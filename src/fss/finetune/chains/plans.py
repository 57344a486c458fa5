"""What a block keeps for being computed again: chosen by cost, and proven by comparing gradients once.

Whatever a plan does not keep is NaN in the comparison, so that a gradient that depends on it shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from fss.finetune.chains.line import pattern
from fss.finetune.chains.memory import CHEAP, Memory
from fss.finetune.chains.replay import Arguments, Forward, Plan, gradients, stand_in, unseen
from fss.finetune.chains.surroundings import Surroundings, unmoved
from fss.finetune.chains.tape import Call, Recording, Replay, Survey, running, storage

_CLOSE, _CLOSE_IN_HALF = 1e-3, 5e-2
"""Greatest difference, relative to the largest value, between gradients of a block and of its second run."""


def find_plan(
    block: nn.Module, forward: Forward, memory: Memory, x: Tensor, rest: Arguments, trained: Sequence[Tensor]
) -> Plan | None:
    """Choose what a block keeps, on a fixed pattern of the input's shape.

    Args:
        block: the block.
        forward: its own forward.
        memory: what is kept for the backward pass.
        x: an input.
        rest: other arguments, :attr:`Arguments.simple`.
        trained: parameters in the block that need a gradient.

    Returns:
        The plan; None if the block cannot be computed again.
    """
    then, sample = Surroundings.now(x.device), pattern(x.shape, x.detach())
    leaf, survey = sample.clone().requires_grad_(x.requires_grad), Survey()
    with unseen(), then.again(), torch.enable_grad():
        try:
            with running(survey), unmoved(block) as moved:
                y = forward(leaf, *rest.given, **rest.named)
        except RuntimeError:  # such as an operation in place on the input
            return None
        if moved() or not survey.seen or not isinstance(y, Tensor) or not y.requires_grad:
            return None
        if storage(y) == storage(leaf):
            return None
        g = pattern(y.shape, y.detach())
        wanted = [*([leaf] if leaf.requires_grad else []), *trained]
        expected = torch.autograd.grad(y, wanted, g, allow_unused=True)
        candidates = _candidates(survey.seen, storage(leaf), memory)
        return next((p for p in candidates if _proven(p, forward, leaf, rest, trained, g, expected, then)), None)


def _candidates(calls: Sequence[Call], entrance: int, memory: Memory) -> Iterator[Plan]:
    """Yield plans, the leanest first.

    Layers that read the block's input keep V * x if that spares the input. What is cheap to compute is not kept.
    """
    limit = CHEAP * sum(call.right + call.left for call in calls)
    dear = tuple(memory == "balanced" and call.right > limit for call in calls)
    last = len(calls) - 1
    if any(call.reads == entrance for call in calls):
        instead = tuple(d or call.reads == entrance for d, call in zip(dear, calls, strict=True))
        yield from (Plan(instead, False, skip) for skip in ([last, None] if instead[last] else [None]))
    yield from (Plan(dear, True, skip) for skip in ([last, None] if dear[last] else [None]))


def _proven(
    plan: Plan,
    forward: Forward,
    x: Tensor,
    rest: Arguments,
    trained: Sequence[Tensor],
    g: Tensor,
    expected: Sequence[Tensor | None],
    then: Surroundings,
) -> bool:
    """Compare the gradients of a plan with those of the block itself."""
    if not any(e is not None and bool(e.any()) for e in expected) and not (plan.needs_input and plan.skip is None):
        return False  # no gradient arrives, which shows nothing
    recording = Recording(plan.chosen)
    then.rewind()
    with torch.no_grad(), running(recording), then.autocast():
        forward(x.detach(), *rest.given, **rest.named)
    again = x.detach() if plan.needs_input else stand_in(x.shape, x.dtype, x.device, torch.nan)
    again.requires_grad_(x.requires_grad)
    wanted = [*([again] if x.requires_grad else []), *trained]
    then.rewind()
    try:
        with then.autocast():
            found = gradients(
                forward, Replay(plan.chosen, recording.kept, plan.skip, torch.nan), again, rest, wanted, g
            )
    except RuntimeError:
        return False
    half = then.dtype is not None or x.dtype in (torch.float16, torch.bfloat16)
    close = _CLOSE_IN_HALF if half else _CLOSE
    return all(_same(f, e, close) for f, e in zip(found, expected, strict=True))


def _same(found: Tensor | None, expected: Tensor | None, close: float) -> bool:
    if found is None or expected is None:
        return found is expected
    return bool((found - expected).abs().max() <= close * expected.abs().max())  # false where NaN
