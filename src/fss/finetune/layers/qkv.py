"""Linear layers that stack query, key and value in one weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast, get_args

from torch import nn

from fss.errors import FssError
from fss.finetune.layers.attention import SVFAttention
from fss.finetune.layers.factored import FactoredLayer
from fss.finetune.layers.surgery import Site, find, plain_layers
from fss.types import StagedBackbone

Qkv = Literal["one", "three"]
"""Whether the weight of a linear layer named ``qkv`` is one matrix, or those of query, key and value by themselves."""

_NAME = "qkv"


def check_qkv(qkv: str) -> Qkv:
    """Validate the option.

    Args:
        qkv: ``one`` or ``three``.

    Returns:
        The same.

    Raises:
        FssError: if it is neither.
    """
    if qkv in get_args(Qkv):
        return cast(Qkv, qkv)
    raise FssError(f"finetune.qkv={qkv} is not known: choose one of {', '.join(get_args(Qkv))}.")


def stacked_layers(backbone: StagedBackbone, stages: Sequence[int]) -> frozenset[str]:
    """List the plain linear layers whose weight holds query, key and value, one below the other.

    Args:
        backbone: before or after injection.
        stages: stages to search.

    Returns:
        Their paths.

    Raises:
        FssError: if there is no attention of stacked projections at all, or a layer of that name mixes the rows of
            the three, so that thirds of it are no projections.
    """
    attention = nn.MultiheadAttention | SVFAttention
    there = find(backbone, stages, lambda m: isinstance(m, nn.Linear | FactoredLayer | attention))
    if not any(isinstance(site.module, attention) or site.attribute == _NAME for site in there):
        raise FssError(
            f"finetune.qkv=three: stages {', '.join(map(str, stages))} of this backbone have no linear layer named "
            f"{_NAME} and no torch.nn.MultiheadAttention. Leave the option away, or choose stages with attention."
        )
    sites = [s for s in plain_layers(backbone, stages, lambda m: isinstance(m, nn.Linear)) if s.attribute == _NAME]
    mixed = [site.name for site in sites if _is_mixed(site)]
    if mixed:
        more = f" and {len(mixed) - 1} more" if len(mixed) > 1 else ""
        raise FssError(
            f"finetune.qkv=three: {mixed[0]}{more} does not hold query, key and value one below the other (it stacks "
            "them head by head, or fewer than three of them). Use finetune.qkv=one."
        )
    return frozenset(site.name for site in sites)


def _is_mixed(site: Site) -> bool:
    """Tell by their attributes the blocks of timm that stack otherwise: MaxViT and CoAtNet, TinyViT, GCViT."""
    parent, layer = site.parent, site.module
    assert isinstance(layer, nn.Linear)
    other = bool(getattr(parent, "head_first", False) or getattr(parent, "use_global", False))
    return other or hasattr(parent, "val_dim") or layer.weight.shape[0] % 3 != 0
