"""Outputs of the blocks of a stage, as heads of HSNet's kind compare them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def tapping(blocks: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Collect what every block of a stage returns, before its last ReLU if it ends in one, while the stage runs once.

    Which ReLU that is, if any, shows when it runs: the one whose output the block returns.

    Args:
        blocks: the blocks, see :meth:`fss.backbones.staged.StagedModule.blocks`.

    Yields:
        A list that is filled at the end of the context, one entry per block.

    Raises:
        ValueError: if a block is a single layer, whose output nobody calls a feature of its own.
    """
    caught: list[Tensor] = []
    watched = [_Block(block) for block in blocks]
    try:
        for block in watched:
            block.listen()
        yield caught
        caught.extend(block.tap() for block in watched)
    finally:
        for block in watched:
            block.leave()


class _Block:
    """Listens to a block: to its output, and to the input of the ReLU that computes it, if one does."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.relus = [m for m in module.modules() if isinstance(m, nn.ReLU)]
        if not self.relus and not any(True for _ in module.children()):
            raise ValueError(
                f"taps need residual blocks or other modules of several layers; stage holds {type(module).__name__}"
            )
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._before: Tensor | None = None
        self._after: Tensor | None = None
        self._tap: Tensor | None = None

    def listen(self) -> None:
        for relu in self.relus:
            self._handles.append(relu.register_forward_pre_hook(self._enter))
            self._handles.append(relu.register_forward_hook(self._exit))
        self._handles.append(self.module.register_forward_hook(self._end))

    def leave(self) -> None:
        for handle in self._handles:
            handle.remove()

    def tap(self) -> Tensor:
        assert self._tap is not None, f"{type(self.module).__name__} was not called"
        return self._tap

    def _enter(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._before = inputs[0].clone()  # the ReLU works in place; the block's last call wins

    def _exit(self, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._after = output

    def _end(self, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if self.relus and self._before is None:
            raise RuntimeError(f"{type(self.module).__name__} ran without calling its ReLU: its tap cannot be told")
        ends_in_relu = output is self._after
        self._tap = self._before if ends_in_relu else output.clone()  # the next block may work in place
        self._before = self._after = None
