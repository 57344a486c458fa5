"""``full``: every weight of stages 2 to 4."""

from __future__ import annotations

from tests.contracts.closed_forms import Counts, Network, kernels

VARIANTS = {"full-norm": ("finetune.train_norm=true",), "full-all": ("finetune.stages=[0,1,2,3,4]",)}
BAD_OPTIONS = {"finetune.stages=[9]": "stages"}


def trained(network: Network) -> Counts:
    return kernels(network)
