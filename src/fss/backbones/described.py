"""Build a backbone without values, to ask which images it takes and whether its stages run one by one."""

from __future__ import annotations

import torch

from fss.backbones.staged import StagedModule
from fss.instantiate import Node, make


def described(node: Node) -> StagedModule:
    """Build a backbone on torch's meta device: structure and shapes alone, no weights, no random numbers.

    Args:
        node: the backbone group of the configuration.

    Returns:
        The backbone.

    Raises:
        FssError: if its class or an argument is wrong.
    """
    with torch.device("meta"):
        return make("backbone", node, StagedModule)
