"""``bias``: biases of convolutions and of batch norm."""

from __future__ import annotations

from tests.contracts.closed_forms import ALL, Counts, Network, convs, norms


def trained(network: Network) -> Counts:
    return norms(network, ("bias",)) | {f"{c.name}.bias": c.out for c in convs(network, ALL) if c.biased}
