"""Strategies on any torch module, not only on backbones of this package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from fss.finetune.base import Strategy
from fss.finetune.layers.module_stages import ModuleStages
from fss.types import TuneReport

Stages = Mapping[int, Sequence[str]]


def apply(model: nn.Module, strategy: Strategy, stages: Stages | None = None) -> TuneReport:
    """Inject a strategy into any torch module, e.g. ``apply(torchvision.models.convnext_tiny(), SVF())``.

    Convolutions, linear layers and multi-head attention are decomposed. Batch norm keeps its statistics afterwards,
    whatever ``train()`` says. Parameters that train are those whose ``requires_grad`` is set.

    Args:
        model: changed in place; idempotent.
        strategy: what is injected.
        stages: stage, 0 to 4, -> paths of submodules, for strategies that tune some stages; None counts the whole
            module as stage 4.

    Returns:
        What is trainable now, and the sizes.

    Raises:
        FssError: if a path does not exist, or the strategy needs a backbone of this package.
    """
    return strategy.apply(ModuleStages(model, stages))


def merge(model: nn.Module, strategy: Strategy, stages: Stages | None = None) -> None:
    """Turn a module back into one of plain layers with equal output, in place.

    Args:
        model: after :func:`apply`; unchanged if it cannot be merged.
        strategy: what was injected.
        stages: as there.

    Raises:
        FssError: if the strategy adds what no plain layer equals.
    """
    view = ModuleStages(model, stages)
    strategy.merge(view)
    view.norm_mode = "train"
