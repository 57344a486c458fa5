"""Apply strategies to any torch module, not only to this package's backbones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from fss.finetune.base import Strategy
from fss.finetune.layers.module_stages import ModuleStages
from fss.types import TuneReport

Stages = Mapping[int, Sequence[str]]


def apply(model: nn.Module, strategy: Strategy, stages: Stages | None = None) -> TuneReport:
    """Inject a strategy into any torch module, e.g. ``apply(torchvision.models.convnext_tiny(), SVF())``.

    Convolutions, linear layers and multi-head attention are decomposed. Batch norm then keeps its running
    statistics regardless of ``train()``. ``requires_grad`` is set only on the parameters that train.

    Args:
        model: changed in place; idempotent.
        strategy: the strategy to inject.
        stages: stage (0 to 4) -> paths of submodules, for strategies that tune some stages only; None makes the whole
            module stage 4.

    Returns:
        A report of the trainable parameters and the parameter counts.

    Raises:
        FssError: if a path does not exist, or the strategy needs one of this package's backbones.
    """
    return strategy.apply(ModuleStages(model, stages))


def merge(model: nn.Module, strategy: Strategy, stages: Stages | None = None) -> None:
    """Replace the tuned layers of a module by plain layers with equal output, in place.

    Args:
        model: after :func:`apply`; unchanged if it cannot be merged.
        strategy: the strategy that was injected.
        stages: as in :func:`apply`.

    Raises:
        FssError: if the strategy adds layers that no plain layer can replace.
    """
    view = ModuleStages(model, stages)
    strategy.merge(view)
    view.norm_mode = "train"
