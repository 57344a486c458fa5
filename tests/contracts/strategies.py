"""Every strategy of conf/finetune, and small backbones to inject it into."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from tests.contracts.layer_norms import LayerNorms
from torch import nn

from fss.backbones.resnet import ResNet
from fss.backbones.staged import StagedModule
from fss.backbones.vgg import VGG
from fss.config.compose import plain, prepare_hydra

CONF = Path(__file__).resolve().parents[2] / "conf"
NAMES = sorted(p.stem for p in (CONF / "finetune").glob("*.yaml") if not p.stem.startswith("_"))


@cache
def node(name: str, *overrides: str) -> dict[str, Any]:
    """The group as train.py composes it; composed once, as that takes longer than most tests."""
    prepare_hydra()
    with initialize_config_dir(str(CONF), version_base="1.3", job_name="test"):
        found: dict[str, Any] = plain(compose("config", overrides=[f"finetune={name}", *overrides]))["finetune"]
    return found


BACKBONES: dict[str, Callable[[], StagedModule]] = {
    "resnet18": lambda: ResNet(18, width=8),
    "vgg16": lambda: VGG(width=4),  # its convolutions have a bias
    "layer_norms": LayerNorms,  # for strategies that name it, as BACKBONES of their test file
}


def tiny(seed: int = 0, kind: str = "resnet18") -> StagedModule:
    """A small backbone with non-trivial batch-norm statistics and affine values, as after pre-training."""
    torch.manual_seed(seed)
    backbone = BACKBONES[kind]()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        if isinstance(module, nn.LayerNorm | nn.GroupNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    return backbone
