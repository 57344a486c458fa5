"""The frozen base learner of a few-shot model, and the stages that its backbone shares with the model's."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import chain
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from fss.methods.base_learner import LAST_STAGE, BaseLearner
from fss.model.multiclass_segmenter import MulticlassSegmenter
from fss.nn.dropout import SharedDropout2d
from fss.types import FeatureSpec, StagedBackbone

_State = tuple[tuple[int, ...], ...]
LOGITS, EMBEDDING = "base_logits", "base_embedding"
SUPPORT = "support_"
"""Prefix of what is provided of the supports."""


class BaseBranch(MulticlassSegmenter):
    """A frozen base learner: no gradient, and batch norm in evaluation mode regardless of ``train()``.

    Attributes:
        provides: names of its outputs in the extras of a head: of the query ``base_logits`` (B, classes, h, w) and
            ``base_embedding`` (B, C, h, w), what its classifier's ReLU is given; the same of the supports with
            ``support_`` before the name, (B, K, ...).
        dropout: whether its classifier drops channels in training.
    """

    provides: ClassVar[frozenset[str]] = frozenset({LOGITS, EMBEDDING, SUPPORT + LOGITS, SUPPORT + EMBEDDING})

    def __init__(self, backbone: nn.Module, head: BaseLearner, dropout: bool = True) -> None:
        """Freeze backbone and head.

        Args:
            backbone: a separate backbone, because fine-tuning changes the model's.
            head: the base learner's head.
            dropout: drop channels in training, as both releases do by putting the whole model into training mode.
        """
        super().__init__(backbone, head)
        self.dropout = dropout
        backbone.norm_mode = "eval"  # type: ignore[assignment]  # the base class checked that it is an ImageBackbone
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
            maps: images (B, 3, H, W), or the output of stage ``first - 1``.
            first: first stage to run.

        Returns:
            logits (B, classes, h, w), without a graph.
        """
        return self.scores(maps.detach(), first)

    @torch.no_grad()
    def outputs(self, names: Collection[str], maps: Tensor, first: int = 0) -> dict[str, Tensor]:
        """Compute what a head asked for.

        Args:
            names: of ``base_logits`` and ``base_embedding``.
            maps: images (B, 3, H, W), or the output of stage ``first - 1``.
            first: first stage to run.

        Returns:
            Name -> (B, ...), without a graph.
        """
        if EMBEDDING not in names:
            return {LOGITS: self.base_logits(maps, first)}
        embedding = self.head.embed(self.last_stage(maps.detach(), first))
        kept = {EMBEDDING: embedding.clone()}
        return {**kept, LOGITS: self.head.classify(embedding)} if LOGITS in names else kept


def asked_of(spec: FeatureSpec, supports: bool) -> frozenset[str]:
    """Return what a head wants of a companion.

    Args:
        spec: the head's declaration.
        supports: of the supports, not of the query.

    Returns:
        Names without prefix.
    """
    wanted = spec.extras & BaseBranch.provides
    if supports:
        return frozenset(name.removeprefix(SUPPORT) for name in wanted if name.startswith(SUPPORT))
    return frozenset(name for name in wanted if not name.startswith(SUPPORT))


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
            Number of stages, 0 to 5; 0 while batch norm uses batch statistics, and for backbones whose stages cannot be
            called one by one.
        """
        if not (tuned.stepwise and frozen.stepwise) or (tuned.norm_mode != "eval" and tuned.training):
            return 0
        state = tuple(_fingerprint(m) for b in (tuned, frozen) for m in _modules(b))
        if state != self._state or not all(_equal_values(*pair) for pair in _pairs(tuned, frozen, self._stages)):
            self._state, self._stages = state, _count(tuned, frozen)
        return self._stages


def _pairs(tuned: StagedBackbone, frozen: StagedBackbone, stages: int) -> list[tuple[nn.Module, nn.Module]]:
    return [(tuned.stage(i), frozen.stage(i)) for i in range(stages)]


def _modules(backbone: StagedBackbone) -> Iterator[nn.Module]:
    for index in range(LAST_STAGE + 1):
        yield from backbone.stage(index).modules()


def _fingerprint(module: nn.Module) -> tuple[int, ...]:
    """Identify a module by its mode, hooks and tensors, and how often each was written; of what trains never mind."""
    found = [id(module), module.training, _hooked(module)]
    for tensor in (*module._parameters.values(), *module._buffers.values()):
        if tensor is not None:
            fixed = not tensor.requires_grad and not tensor.is_inference()
            found += [id(tensor), tensor.requires_grad, tensor._version if fixed else -1]
    return tuple(found)


def _count(tuned: StagedBackbone, frozen: StagedBackbone) -> int:
    for index, (one, other) in enumerate(_pairs(tuned, frozen, LAST_STAGE + 1)):
        if not _equal(one, other) or not _equal_values(one, other):
            return index
    return LAST_STAGE + 1


def _equal(one: nn.Module, other: nn.Module) -> bool:
    """Compare layers: repr includes stride and dilation. Neither may listen, or drop anything at random."""
    if any(p.requires_grad for p in one.parameters()) or repr(one) != repr(other):
        return False
    if any(_hooked(m) for stage in (one, other) for m in stage.modules()):
        return False
    return not any(m.training and _drops(m) for stage in (one, other) for m in stage.modules())


def _equal_values(one: nn.Module, other: nn.Module) -> bool:
    """Compare values themselves: a write through ``.data`` changes neither version nor identity of a tensor."""
    a, b = _values(one), _values(other)
    if a.keys() != b.keys() or any(a[k].shape != b[k].shape or a[k].device != b[k].device for k in a):
        return False
    different = [(a[k] != b[k]).any() for k in a]
    return not different or not bool(torch.stack(different).any())  # one wait for the device, not one per tensor


def _values(stage: nn.Module) -> dict[str, Tensor]:
    named = chain(stage.named_parameters(), stage.named_buffers())
    return {name: value.detach() for name, value in named if not name.endswith("num_batches_tracked")}


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _drops(module: nn.Module) -> bool:
    """Tell whether a layer is random in training: torch's dropouts, and what other libraries call so."""
    name = type(module).__name__.lower()
    return "drop" in name or "stochastic" in name or isinstance(module, nn.RReLU | nn.FractionalMaxPool2d)
