"""Strategies that are put together of others."""

from __future__ import annotations

import torch
from torch import nn

from fss.finetune import apply
from fss.finetune.bn import BN
from fss.finetune.composed import Composed
from fss.finetune.layers.module_stages import ModuleStages
from fss.finetune.svf_bn import SVFBN
from fss.finetune.svf_bounded import SVFBounded


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), nn.Conv2d(6, 3, 1))


def test_parts_are_composed_in_order() -> None:
    class Both(Composed):
        name = "both"
        parts = (SVFBounded(epsilon=0), BN(affine=("bias",)))

    module = model()
    report = apply(module, Both())
    assert report.strategy == "both"
    assert report.trainable == {"0.S": 6, "1.bias": 6, "2.S": 3}
    with torch.no_grad():
        module[0].S.add_(1)  # type: ignore[operator]
    before = module[0].S.detach().clone()
    Both().after_step(ModuleStages(module))
    assert not torch.equal(module[0].S, before)
    assert apply(model(), SVFBN(affine=("weight",))).trainable == {"0.S": 6, "1.weight": 6, "2.S": 3}
