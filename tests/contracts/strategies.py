"""Every strategy of conf/finetune, and small backbones to inject it into."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from torch import nn

from fss.backbones.resnet import ResNet
from fss.backbones.staged import StagedModule
from fss.backbones.vgg import VGG
from fss.config.compose import plain, prepare_hydra
from fss.finetune.base import Strategy
from fss.model.build import build_strategy

CONF = Path(__file__).resolve().parents[2] / "conf"
NAMES = sorted(p.stem for p in (CONF / "finetune").glob("*.yaml"))


@cache
def node(name: str, *overrides: str) -> dict[str, Any]:
    """The group as train.py composes it; composed once, as that takes longer than most tests."""
    prepare_hydra()
    with initialize_config_dir(str(CONF), version_base="1.3", job_name="test"):
        found: dict[str, Any] = plain(compose("config", overrides=[f"finetune={name}", *overrides]))["finetune"]
    return found


# Further forms of a strategy: id -> (yaml, overrides).
VARIANTS: dict[str, tuple[str, tuple[str, ...]]] = {n: (n, ()) for n in NAMES} | {
    "svf-usv": ("svf", ("finetune.factors=[U,S,V]",)),
    "svf-stem": ("svf", ("finetune.stages=[0,4]",)),
    "full-norm": ("full", ("finetune.train_norm=true",)),
    "full-all": ("full", ("finetune.stages=[0,1,2,3,4]",)),
    "part-3x3": ("part", ("finetune.stages=[3,4]", "finetune.kernel_sizes=[3]")),
    "bn-weight": ("bn", ("finetune.affine=[weight]", "finetune.stages=[1,2]")),
    "svf_bn-bias": ("svf_bn", ("finetune.stages=[4]", "finetune.affine=[bias]", "finetune.bn_stages=[0,3]")),
    "scale_in-channel": ("scale_in", ("finetune.per=channel", "finetune.stages=[0,3]")),
    "svf_residual-both": ("svf_residual", ("finetune.train_s=true",)),
    "svf_rotated-frozen": ("svf_rotated", ("finetune.train_s=false",)),
    "svf_bounded-svb": ("svf_bounded", ("finetune.rule=svb",)),
    "svf_bounded-clamp": ("svf_bounded", ("finetune.rule=clamp", "finetune.epsilon=0")),
    "lora-rank1": ("lora", ("finetune.rank=1", "finetune.alpha=0.5", "finetune.stages=[0,1]")),
    "adapter-wide": ("adapter", ("finetune.stages=[0,4]", "finetune.reduction=1")),
}
CHANGES_THE_NETWORK = {"svf_rotated"}  # its formula is not W at the start


def make(variant: str) -> Strategy:
    name, overrides = VARIANTS[variant]
    return build_strategy(node(name, *overrides))


BACKBONES: dict[str, Callable[[], StagedModule]] = {
    "resnet18": lambda: ResNet(18, width=8),
    "vgg16": lambda: VGG(width=4),  # its convolutions have a bias
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
    return backbone
