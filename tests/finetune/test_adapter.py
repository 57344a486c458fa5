"""``adapter``: bottlenecks behind the last block of a stage."""

from __future__ import annotations

from tests.contracts.closed_forms import Counts, Network, blocks

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
