"""Apply strategies to any torch module, not only to this package's backbones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from fss.finetune.base import Strategy
from fss.finetune.layers.module_stages import ModuleStages
from fss.types import TuneReport

Stages = Mapping[int, Sequence[str]]
_CLASSIFIERS = ("fc", "classifier", "head", "heads")  # in torchvision, and by custom


def apply(model: nn.Module, strategy: Strategy, stages: Stages | None = None) -> TuneReport:
    """Inject a strategy into any torch module, e.g. ``apply(torchvision.models.convnext_tiny(), SVF())``.

    Convolutions, linear layers and multi-head attention are decomposed; see :mod:`fss.finetune.layers.swap` for
    layers that compute something else than torch's own. Batch norm of any class then keeps its running statistics
    regardless of ``train()``. ``requires_grad`` is set only on the parameters that train.

    Args:
        model: changed in place; idempotent.
        strategy: the strategy to inject.
        stages: stage (0 to 4) -> paths of submodules, for strategies that tune some stages only; None makes the whole
            module stage 4.

    Returns:
        A report of the trainable parameters and the parameter counts. Without ``stages``, it notes how many of the
        values belong to a classifier.

    Raises:
        FssError: if a path does not exist, the strategy needs one of this package's backbones or cannot change a layer,
            or another one was applied already; the model is unchanged then.
    """
    report = strategy.apply(ModuleStages(model, stages))
    if stages is None:
        report.notes += [_classifier_note(model, name, report) for name in _classifiers(model, report)]
    return report


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


def _classifiers(model: nn.Module, report: TuneReport) -> list[str]:
    """Return the paths of a model's classifiers in which something trains."""
    named = getattr(model, "get_classifier", None)  # as timm's models have it
    given = named() if callable(named) else [getattr(model, name, None) for name in _CLASSIFIERS]
    wanted = {id(one) for one in (given if isinstance(given, list | tuple) else [given])}
    paths = [path for path, module in model.named_modules() if path and id(module) in wanted]
    return [path for path in paths if _count(report, path)]


def _count(report: TuneReport, path: str) -> int:
    return sum(size for name, size in report.trainable.items() if name.startswith(f"{path}."))


def _classifier_note(model: nn.Module, path: str, report: TuneReport) -> str:
    return (
        f"no stages were given, so the classifier {path} of {type(model).__name__} trains too: "
        f"{_count(report, path):,} of {report.trainable_total:,} values; build the model without it (timm: "
        "num_classes=0), or give stages"
    )
