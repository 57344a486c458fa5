"""The frozen base learner of a few-shot model, and the stages that its backbone shares with the model's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from fss.methods.base_learner import LAST_STAGE, BaseLearner
from fss.model.base_segmenter import ManyWaySegmenter
from fss.nn.dropout import SharedDropout2d
from fss.types import StagedBackbone

_State = tuple[tuple[int, int, bool], ...]


class BaseBranch(ManyWaySegmenter):
    """A frozen base learner: no gradient, and batch norm in evaluation mode regardless of ``train()``.

    Attributes:
        provides: name of its logits in the extras of a head.
        dropout: whether its classifier drops channels in training.
    """

    provides: ClassVar[str] = "base_logits"

    def __init__(self, backbone: nn.Module, head: BaseLearner, dropout: bool = True) -> None:
        """Freeze backbone and head.

        Args:
            backbone: a separate backbone, because fine-tuning changes the model's.
            head: the base learner's head.
            dropout: drop channels in training, as both releases do by putting the whole model into training mode.
        """
        super().__init__(backbone, head)
        self.dropout = dropout
        backbone.norm_mode = "eval"  # type: ignore[assignment]  # the base class checked that it is a StagedBackbone
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, except for the classifier's dropout.

        Args:
            mode: training (True) or evaluation.

        Returns:
            The module itself.
        """
        super().train(False)
        for module in self.head.modules():
            if isinstance(module, SharedDropout2d):
                module.train(mode and self.dropout)
        return self

    @torch.no_grad()
    def base_logits(self, maps: Tensor, first: int = 0) -> Tensor:
        """Score background and base classes.

        Args:
            maps: the query (B, 3, H, W), or the output of stage ``first - 1``.
            first: first stage to run.

        Returns:
            logits (B, classes, h, w), without a graph.
        """
        return self.scores(maps.detach(), first)


class SharedPrefix:
    """Counts the leading stages that two backbones share, and caches the count until one of them changes.

    A stage is shared if nothing in it trains and its layers and values are equal in both backbones.
    """

    def __init__(self) -> None:
        self._state: _State | None = None
        self._stages = 0

    def __call__(self, tuned: StagedBackbone, frozen: StagedBackbone) -> int:
        """Count the shared stages.

        Args:
            tuned: the backbone that a strategy may have changed.
            frozen: the backbone of the base branch.

        Returns:
            Number of stages, 0 to 5; 0 while batch norm uses batch statistics.
        """
        if tuned.norm_mode != "eval" and tuned.training:
            return 0
        state = tuple(_fingerprint(t) for b in (tuned, frozen) for t in _tensors(b))
        if state != self._state:
            self._state, self._stages = state, _count(tuned, frozen)
        return self._stages


def _tensors(backbone: StagedBackbone) -> Iterator[Tensor]:
    for index in range(LAST_STAGE + 1):
        stage = backbone.stage(index)
        yield from stage.parameters()
        yield from stage.buffers()


def _fingerprint(tensor: Tensor) -> tuple[int, int, bool]:
    """Identify the value of a tensor: changes in place increase its version, a replaced tensor has another id.

    Parameters that train are never shared, so their version is ignored.
    """
    if tensor.requires_grad:
        return id(tensor), 0, True
    version = -1 if tensor.is_inference() else tensor._version
    return id(tensor), version, tensor.requires_grad


def _count(tuned: StagedBackbone, frozen: StagedBackbone) -> int:
    for index in range(LAST_STAGE + 1):
        if not _equal(tuned.stage(index), frozen.stage(index)):
            return index
    return LAST_STAGE + 1


def _equal(one: nn.Module, other: nn.Module) -> bool:
    if any(p.requires_grad for p in one.parameters()) or repr(one) != repr(other):  # repr includes stride and dilation
        return False
    a, b = one.state_dict(), other.state_dict()
    counted = [k for k in a if not k.endswith("num_batches_tracked")]
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in counted)
