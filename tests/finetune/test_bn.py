"""``bn``: weights and biases of batch norm."""

from __future__ import annotations

from tests.contracts.closed_forms import Counts, Network, norms

VARIANTS = {"bn-weight": ("finetune.affine=[weight]", "finetune.stages=[1,2]")}
BAD_OPTIONS = {"finetune.affine=[scale]": "affine.*weight, bias"}


def trained(network: Network) -> Counts:
    return norms(network)
