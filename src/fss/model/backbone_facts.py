"""What a backbone gives and takes, and which heads it can serve, without a single value."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fss.backbones.staged import StagedModule
from fss.errors import FssError
from fss.instantiate import Node
from fss.methods.base import FewShotHead
from fss.model.build import build_backbone, build_head, build_strategy
from fss.model.features import run_stages
from fss.model.segmenter import FewShotSegmenter
from fss.types import InputSpec

_TRIED = 128
"""Side of the image from which strides are told, or the nearest one above that is allowed."""


@dataclass(frozen=True)
class StageFacts:
    """One stage.

    Attributes:
        channels: of its map.
        stride: input pixels per position.
        blocks: number of its taps.
        parameters: number of its values.
    """

    channels: int
    stride: int
    blocks: int
    parameters: int


@dataclass(frozen=True)
class BackboneFacts:
    """A backbone.

    Attributes:
        stages: stages 0 to 4.
        input: normalisation and sides of the images.
        stepwise: whether stages are called one by one.
        notes: what the result of a run says about it.
    """

    stages: tuple[StageFacts, ...]
    input: InputSpec
    stepwise: bool
    notes: tuple[str, ...]

    @property
    def parameters(self) -> int:
        """Number of values."""
        return sum(stage.parameters for stage in self.stages)


def empty_backbone(node: Node) -> StagedModule:
    """Build a backbone on torch's meta device.

    Args:
        node: the backbone group of a configuration.
    """
    with torch.device("meta"):
        return build_backbone(node, pretrained=False).eval()


def facts_of(backbone: StagedModule) -> BackboneFacts:
    """Describe a backbone.

    Args:
        backbone: without values.
    """
    spec = backbone.input
    side = spec.around(_TRIED)[1]
    with torch.no_grad():
        maps = backbone(torch.empty(1, 3, side, side, device="meta"))
    stages = tuple(
        StageFacts(
            channels,
            round((side - spec.offset) / max(maps[index].shape[-1] - spec.offset, 1)),
            len(backbone.blocks(index)),
            sum(p.numel() for p in backbone.stage(index).parameters()),
        )
        for index, channels in enumerate(backbone.channels)
    )
    return BackboneFacts(stages, spec, backbone.stepwise, backbone.notes)


def trained_by(node: Node, strategy: Node) -> int:
    """Return how many values of a backbone a strategy trains.

    Args:
        node: the backbone group of a configuration.
        strategy: the finetune group.

    Raises:
        FssError: if the strategy refuses the backbone.
    """
    backbone = empty_backbone(node)
    with torch.device("meta"):
        return build_strategy(strategy).apply(backbone).trainable_total


def why_not(backbone: StagedModule, method: Node) -> str:
    """Say why a head cannot work on a backbone.

    Args:
        backbone: without values.
        method: the method group of a configuration.

    Returns:
        The reason; empty if the head can be built on it and gets the stages and taps that it declares.
    """
    side = backbone.input.around(_TRIED)[1]
    try:
        with torch.device("meta"), torch.no_grad():
            head = build_head(method, backbone)
            FewShotSegmenter(backbone, head)
            _run(backbone, head, torch.empty(1, 3, side, side))
    except FssError as error:
        return str(error)
    return ""


def _run(backbone: StagedModule, head: FewShotHead, image: torch.Tensor) -> None:
    last = max((*head.spec.stages, *head.spec.taps))
    run_stages(backbone, [image], range(last + 1), head.spec.stages, head.spec.taps)
