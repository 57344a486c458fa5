"""Several optimisers as one, so that everything that handles an optimiser handles them together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.optim import Optimizer


class JoinedOptimizer(Optimizer):
    """Steps several optimisers of different kinds; its groups and its state are theirs.

    Lightning's automatic optimisation, gradient scaling, accumulation and checkpoints know one optimiser, which this
    is: learning rates that a schedule sets in its groups are those of the parts.

    Attributes:
        parts: the optimisers, of disjoint parameters.
    """

    def __init__(self, parts: Sequence[Optimizer]) -> None:
        """Take over the groups of the parts, in their order.

        Args:
            parts: the optimisers.
        """
        self.parts = list(parts)
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step every part.

        Args:
            closure: computes loss and gradients, once for all parts.

        Returns:
            What the closure returns.
        """
        result = None
        if closure is not None:
            with torch.enable_grad():
                result = closure()
        for part in self.parts:
            part.step()
        return result

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load groups and state of all parts.

        Args:
            state_dict: what :meth:`state_dict` returned.
        """
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        """Give every part its groups, and the state of all."""
        start = 0
        for part in self.parts:
            end = start + len(part.param_groups)
            part.param_groups = self.param_groups[start:end]
            part.state = self.state
            start = end
