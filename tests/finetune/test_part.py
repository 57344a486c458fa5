"""``part``: kernels of chosen sizes; all of stages 2 to 4 are 1x1 or 3x3."""

from __future__ import annotations

from tests.contracts.closed_forms import Counts, Network, kernels

VARIANTS = {"part-3x3": ("finetune.stages=[3,4]", "finetune.kernel_sizes=[3]")}
BAD_OPTIONS = {
    "finetune.kernel_sizes=[]": "kernel_sizes.*finetune.kernel_sizes=",
    "finetune.kernel_sizes=[0]": "kernel_sizes=.0. is not allowed",
    "finetune.kernel_sizes=[7]": "fits no convolution.*3x3",
}


def trained(network: Network) -> Counts:
    return kernels(network)
