"""A plain copy of a tuned backbone for inference."""

from __future__ import annotations

import copy

from torch import nn

from fss.errors import FssError
from fss.finetune.chains.fuse import fuse
from fss.finetune.layers.surgery import LAST_STAGE, Site, find
from fss.finetune.layers.tuned import TunedLayer
from fss.types import StagedBackbone


def merged_copy(backbone: StagedBackbone) -> StagedBackbone | None:
    """Copy a backbone with its tuned layers merged, so that weights are composed once instead of per image.

    Layers that cannot be merged, such as adapters, are copied unchanged. Outputs are equal up to rounding.

    Args:
        backbone: after a strategy's ``apply``; unchanged.

    Returns:
        The copy, in evaluation mode and without gradients; None if there is nothing to merge.
    """
    if not _tuned(backbone):
        return None
    plain = copy.deepcopy(backbone)
    _share_hooks(backbone, plain)
    fuse(plain, "plain")
    merged = 0
    for site in _tuned(plain):
        assert isinstance(site.module, TunedLayer)
        if site.module._forward_hooks or site.module._forward_pre_hooks:  # a plain layer would not call them
            continue
        try:
            site.put(site.module.merge())
        except FssError:  # this layer cannot be merged and stays
            continue
        merged += 1
    if merged == 0:
        return None
    assert isinstance(plain, nn.Module)
    plain.eval().requires_grad_(False)
    return plain


def _share_hooks(backbone: StagedBackbone, made: StagedBackbone) -> None:
    """Let the copy call the very hooks of the backbone: copied with it, a bound method would act on a copy, too."""
    assert isinstance(backbone, nn.Module)
    assert isinstance(made, nn.Module)
    for one, other in zip(backbone.modules(), made.modules(), strict=True):
        other._forward_hooks, other._forward_pre_hooks = one._forward_hooks, one._forward_pre_hooks


def _tuned(backbone: StagedBackbone) -> list[Site]:
    return find(backbone, range(LAST_STAGE + 1), lambda m: isinstance(m, TunedLayer))
