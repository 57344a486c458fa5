"""``svf_bn``: the singular values and batch norm."""

from __future__ import annotations

from tests.contracts.closed_forms import DEEP, Counts, Network, convs, norms

VARIANTS = {"svf_bn-bias": ("finetune.stages=[4]", "finetune.affine=[bias]", "finetune.bn_stages=[0,3]")}
BAD_OPTIONS = {"finetune.bn_stages=[6]": "stages"}


def trained(network: Network) -> Counts:
    return {f"{c.name}.S": c.rank for c in convs(network, DEEP)} | norms(network)
