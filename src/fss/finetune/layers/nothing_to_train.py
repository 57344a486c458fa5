"""The refusal of a strategy that finds nothing to train."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from torch import nn

from fss.errors import FssError
from fss.finetune.layers.surgery import LAST_STAGE
from fss.types import StagedBackbone


class NothingToTrainError(FssError):
    """A strategy finds nothing that it trains: the run would have a frozen backbone under another name."""


def nothing_to_train(name: str, wanted: str, backbone: StagedBackbone, stages: Sequence[int]) -> NothingToTrainError:
    """Say what a strategy looked for, where, and what is there instead.

    Args:
        name: the strategy's name.
        wanted: what it trains, in words.
        backbone: where it looked.
        stages: stages that it searched.

    Returns:
        The error, to be raised.
    """
    where = f"stages {', '.join(map(str, stages))} of this backbone" if stages else "no stages at all"
    there = Counter(
        type(module).__name__
        for stage in range(LAST_STAGE + 1)
        for module in backbone.stage(stage).modules()
        if any(True for _ in module.parameters(recurse=False)) and not isinstance(module, nn.ParameterList)
    )
    listed = ", ".join(f"{count} {kind}" for kind, count in sorted(there.items())) or "no parameters"
    return NothingToTrainError(
        f"finetune={name} finds no {wanted} to train in {where}, which has {listed} in all its stages. Choose a "
        "strategy that fits (fss strategies lists what each trains), other stages, or finetune=freeze."
    )
