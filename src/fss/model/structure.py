"""The structure of a model, read from the code itself: stages, convolutions, factors, and which of them train."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fss.backbones.staged import StagedModule
from fss.finetune.layers.factored import SVFConv2d
from fss.instantiate import Node, make
from fss.model.build import build_head, build_strategy


def structure(configs: Mapping[str, Node], example: str) -> dict[str, Any]:
    """Build a model on torch's meta device once per strategy and describe its structure.

    Args:
        configs: name of a strategy -> resolved configuration; all with the same backbone and method.
        example: path of a convolution in the backbone.

    Returns:
        Plain values: ``backbone``, ``method`` and ``layer`` (the example); ``head``, the number of values of the head
        that train; and per strategy ``stages``, a list of dictionaries with ``plain`` (values of the plain stage),
        ``convolutions``, ``factored`` (how many of them are kept as factors), and ``values`` and ``trainable`` by kind
        of parameter; and ``example``, kind of parameter -> ``shape`` and ``trains``.

    Raises:
        FssError: if an option is wrong.
    """
    described: dict[str, Any] = {"layer": example, "strategies": {}}
    for name, config in configs.items():
        described |= {"backbone": config["backbone"]["name"], "method": config["method"]["name"]}
        with torch.device("meta"):
            network, tuning = make("backbone", config["backbone"], StagedModule), build_strategy(config["finetune"])
            assert isinstance(network, StagedModule)
            plain = [sum(p.numel() for p in network.stage(i).parameters()) for i in range(StagedModule.STAGES)]
            tuning.apply(network)
            head = build_head(config["method"], network)
        assert isinstance(head, nn.Module)
        described["head"] = sum(p.numel() for p in head.parameters() if p.requires_grad)
        described["strategies"][name] = {
            "stages": [_stage(network, i, values) for i, values in enumerate(plain)],
            "example": {
                kind: {"shape": list(p.shape), "trains": p.requires_grad}
                for kind, p in network.get_submodule(example).named_parameters()
            },
        }
    return described


def _stage(backbone: StagedModule, index: int, plain: int) -> dict[str, Any]:
    """Count the values of a stage after injection, by kind of parameter."""
    stage = backbone.stage(index)
    modules = list(stage.modules())
    factored = sum(isinstance(m, SVFConv2d) for m in modules)
    values: dict[str, int] = {}
    trainable: dict[str, int] = {}
    for name, parameter in stage.named_parameters():
        kind = name.rpartition(".")[2]
        values[kind] = values.get(kind, 0) + parameter.numel()
        trainable[kind] = trainable.get(kind, 0) + parameter.numel() * parameter.requires_grad
    return {
        "stage": index,
        "plain": plain,
        "convolutions": factored + sum(isinstance(m, nn.Conv2d) for m in modules),
        "factored": factored,
        "values": values,
        "trainable": trainable,
    }
