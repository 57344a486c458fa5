"""Models whose values come from a checkpoint: built without drawing or decomposing anything."""

from __future__ import annotations

import torch
from torch import nn

from fss.cli.build import build_backbone, build_model, build_strategy
from fss.cli.instantiate import Node, make
from fss.finetune.base import Strategy
from fss.methods.base_learner import BaseLearner, ManyWaySegmenter
from fss.methods.segmenter import FewShotSegmenter


def meta_model(config: Node, classes: int = 0) -> tuple[nn.Module, Strategy]:
    """Build a model of shapes alone, with its fine-tune strategy injected.

    Args:
        config: the whole configuration.
        classes: of a base learner, background included.

    Returns:
        The model on torch's meta device, and the strategy.
    """
    strategy = build_strategy(config["finetune"])
    with torch.device("meta"):
        model: ManyWaySegmenter | FewShotSegmenter
        if config["method"]["name"] == BaseLearner.name:
            backbone = build_backbone(config["backbone"], pretrained=False)
            head = make("method", config["method"], channels=list(backbone.channels), classes=classes)
            model = ManyWaySegmenter(backbone, head)
        else:
            model = build_model(config, pretrained=False)
        strategy.apply(model.backbone)
    return model, strategy


def empty_model(config: Node, dtype: torch.dtype, classes: int = 0) -> tuple[nn.Module, Strategy]:
    """Build a model whose values are still to be loaded: nothing is drawn, and SVF decomposes nothing.

    Args:
        config: the whole configuration.
        dtype: type of its values.
        classes: of a base learner, background included.

    Returns:
        The model on the CPU, and its fine-tune strategy, injected.
    """
    model, strategy = meta_model(config, classes)
    stored = model.state_dict().keys()
    hidden = [name for name, _ in model.named_buffers() if name not in stored]
    if hidden:  # no checkpoint holds them, so they must be computed
        raise NotImplementedError(f"{type(model).__name__} has buffers outside of its state dict: {hidden}")
    return model.to(dtype).to_empty(device="cpu"), strategy
