"""``adapter``: bottlenecks behind the last block of a stage."""

from __future__ import annotations

import pytest
from tests.contracts.closed_forms import Counts, Network, blocks

from fss.backbones.resnet import ResNet
from fss.errors import FssError
from fss.finetune.adapter import Adapter, Bottleneck

VARIANTS = {"adapter-wide": ("finetune.stages=[0,4]", "finetune.reduction=1")}
BAD_OPTIONS = {"finetune.reduction=0": "reduction=0.*from 1 up"}


def trained(network: Network) -> Counts:
    counts: Counts = {}
    for stage in (1, 2, 3, 4):
        c = max(conv.out for conv in network[stage])
        h = max(1, c // 4)
        sizes = {"down.weight": c * h, "down.bias": h, "up.weight": h * c, "up.bias": c}
        counts |= {f"layer{stage}.{blocks(network, stage)}.{name}": size for name, size in sizes.items()}
    return counts


def test_stages_that_do_not_run_one_by_one_are_refused() -> None:
    """A bottleneck after a part of a transformer would see tokens, not a map."""
    backbone = ResNet(18, width=2)
    backbone.stepwise = False
    with pytest.raises(FssError, match=r"run one by one.*stage 1 of this one does not.*use svf"):
        Adapter().apply(backbone)
    assert not [m for m in backbone.modules() if isinstance(m, Bottleneck)]
