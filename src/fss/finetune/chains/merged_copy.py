"""A plain copy of a tuned backbone for a pass in which nothing trains."""

from __future__ import annotations

import copy

from torch import nn

from fss.errors import FssError
from fss.finetune.chains.fuse import fuse
from fss.finetune.layers.surgery import LAST_STAGE, Site, find
from fss.finetune.layers.tuned import TunedLayer
from fss.types import StagedBackbone


def merged_copy(backbone: StagedBackbone) -> StagedBackbone | None:
    """Copy a backbone with plain layers in the place of tuned ones, whose weights are composed once, not per image.

    Layers that no plain one equals, as adapters, are copied as they are. Outputs are equal up to rounding.

    Args:
        backbone: after a strategy's ``apply``; unchanged.

    Returns:
        The copy, in evaluation mode and without gradients; None if there is nothing to merge.
    """
    if not _tuned(backbone):
        return None
    made = copy.deepcopy(backbone)
    fuse(made, "plain")
    merged = 0
    for site in _tuned(made):
        assert isinstance(site.module, TunedLayer)
        try:
            site.put(site.module.merge())
        except FssError:  # it says which layer and why; here it simply stays
            continue
        merged += 1
    if merged == 0:
        return None
    assert isinstance(made, nn.Module)
    made.eval().requires_grad_(False)
    return made


def _tuned(backbone: StagedBackbone) -> list[Site]:
    return find(backbone, range(LAST_STAGE + 1), lambda m: isinstance(m, TunedLayer))
