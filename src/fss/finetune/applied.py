"""Which strategy was applied to a backbone: one at a time, as a second one would freeze what the first one trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fss.errors import FssError
from fss.finetune.layers.module_stages import ModuleStages
from fss.finetune.layers.surgery import root_of
from fss.finetune.layers.tuned import TunedLayer
from fss.types import StagedBackbone

_HERE = "_fss_applied"  # attribute of a backbone; in no state dict, but in copies
_SIGNED = "_fss_signature"  # attribute of a strategy
_NO_EFFECT = {"memory", "wanted", "trains_nothing", _SIGNED}  # no options, or without effect on results


@dataclass(frozen=True)
class Applied:
    """A strategy with its options, and where it was applied.

    Attributes:
        name: name of the strategy.
        options: its class and options, in words.
        stages: stages of a module that is no backbone of ours, in words.
        trains_nothing: whether it only freezes, so that any other strategy may follow.
    """

    name: str
    options: str
    stages: str
    trains_nothing: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        """Say it in a message."""
        return f"finetune={self.name} ({self.options}{self.stages})"


def check_alone(backbone: StagedBackbone, strategy: Any) -> None:
    """Refuse a strategy on top of another one; the same one with the same options may be applied again.

    Args:
        backbone: the backbone.
        strategy: the strategy.

    Raises:
        FssError: if another strategy, or the same one with other options or stages, was applied already.
    """
    earlier: Applied | None = vars(_holder(backbone)).get(_HERE)
    now = _applied(backbone, strategy)
    held = [name for name, module in root_of(backbone).named_modules() if isinstance(module, TunedLayer)]
    if earlier is None or (earlier.trains_nothing and not held):
        if held:
            raise FssError(
                f"finetune={now.name} cannot be applied: a strategy was applied to a part of this module already, "
                f"which has tuned layers, as {held[0]}; they would be frozen. Merge it first (fss.finetune.merge on "
                "that part), or start from the plain module."
            )
    elif earlier != now:
        raise FssError(
            f"{now} cannot be applied on top of {earlier}, whose values it would freeze. Merge the first one "
            "(fss.finetune.merge, or its merge method), or start from the plain module. To train both, write a "
            "strategy that joins them, as fss.finetune.svf_bn does."
        )


def remember(backbone: StagedBackbone, strategy: Any) -> None:
    """Note that a strategy was applied.

    Args:
        backbone: the backbone.
        strategy: the strategy.
    """
    vars(_holder(backbone))[_HERE] = _applied(backbone, strategy)


def forget(backbone: StagedBackbone) -> None:
    """Allow another strategy, once no tuned layer is left.

    Args:
        backbone: after a strategy was merged.
    """
    if not any(isinstance(module, TunedLayer) for module in root_of(backbone).modules()):
        vars(_holder(backbone)).pop(_HERE, None)


def _holder(backbone: StagedBackbone) -> Any:
    return backbone.model if isinstance(backbone, ModuleStages) else backbone


def _applied(backbone: StagedBackbone, strategy: Any) -> Applied:
    # once per strategy: one that keeps a state besides its options is still the same strategy
    options: str = vars(strategy).setdefault(_SIGNED, _options(strategy))
    stages = f"; stages {backbone.stages}" if isinstance(backbone, ModuleStages) else ""
    return Applied(strategy.name, options, stages, strategy.trains_nothing)


def _options(value: Any) -> str:
    """Write a value, or a strategy with its attributes, so that equal ones are written equally."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_options(value[key])}" for key in sorted(value, key=str)) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_options, value)) + "]"
    if not hasattr(value, "trainable"):
        return repr(value)
    attributes = {key: _options(one) for key, one in sorted(vars(value).items()) if key not in _NO_EFFECT}
    return f"{type(value).__qualname__}: " + ", ".join(f"{key}={one}" for key, one in attributes.items())
