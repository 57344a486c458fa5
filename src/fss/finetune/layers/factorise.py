"""Replace plain layers by factored ones, with any kind of factors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fss.finetune.layers.attention import SVFAttention, is_supported
from fss.finetune.layers.factored import FactoredLayer, SVFConv2d, SVFLinear
from fss.finetune.layers.geometry import ConvGeometry, LinearGeometry
from fss.finetune.layers.surgery import Site, find, plain_layers
from fss.finetune.layers.svd import decompose, full_rank, side_by_side
from fss.types import StagedBackbone

Factors = Callable[[Tensor, int, str], tuple[Tensor, Tensor, Tensor]]
"""Weight (Co, ...), groups and the layer's name -> U (Co, R), S (groups * R), V (groups * R, ...).

It must depend on nothing else, so that several layers can be factored in parallel."""


@dataclass(frozen=True)
class Factored:
    """A layer that was replaced.

    Attributes:
        name: its path in the backbone.
        layer: the factored layer.
        full_rank: exact rank of the plain weight, over all groups.
    """

    name: str
    layer: FactoredLayer
    full_rank: int


def singular(weight: Tensor, groups: int, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Decompose a weight exactly: W = U diag(S) V.

    Args:
        weight: (Co, ...).
        groups: number of groups.
        name: name of the layer; unused.

    Returns:
        U, S and V.
    """
    return decompose(weight, full_rank(weight, groups), groups)


def factorise(backbone: StagedBackbone, stages: Sequence[int], factors: Factors = singular) -> list[Factored]:
    """Replace convolutions, linear layers and attention by their factors.

    Args:
        backbone: changed in place.
        stages: stages to change.
        factors: computes the factors; the singular value decomposition by default.

    Returns:
        The layers replaced by this call; none on a second call.
    """
    sites = plain_layers(backbone, stages, _can_factorise)
    device = next((p.device for site in sites for p in site.module.parameters()), torch.device("cpu"))
    swapped: list[Factored] = []
    for site, (module, factored) in zip(
        sites, side_by_side(lambda s: _factored(s, factors), sites, device), strict=True
    ):
        site.put(module)
        swapped += factored
    return swapped


def _factored(site: Site, factors: Factors) -> tuple[nn.Module, list[Factored]]:
    """Return the replacement of a layer, and the factored layers in it."""
    plain = site.module
    if isinstance(plain, nn.MultiheadAttention):
        projections = [_linear(f"{site.name}.in_proj", plain.in_proj_weight, plain.in_proj_bias, 3, factors)]
        out = plain.out_proj
        projections.append(_linear(f"{site.name}.out_proj", out.weight, out.bias, 1, factors))
        layers = [p.layer for p in projections]
        assert isinstance(layers[0], SVFLinear)
        assert isinstance(layers[1], SVFLinear)
        return SVFAttention(plain, layers[0], layers[1]).train(plain.training), projections
    if isinstance(plain, nn.Conv2d):
        geometry, groups = ConvGeometry.of(plain), plain.groups
        layer = SVFConv2d(geometry, *factors(plain.weight, groups, site.name), plain.bias)
        return layer, [Factored(site.name, layer, groups * full_rank(plain.weight, groups))]
    assert isinstance(plain, nn.Linear)
    one = _linear(site.name, plain.weight, plain.bias, 1, factors)
    return one.layer, [one]


def _can_factorise(module: nn.Module) -> bool:
    if isinstance(module, nn.MultiheadAttention):
        return is_supported(module)
    # attention reads this layer's weight directly, bypassing its forward, so only the attention can be replaced
    inner = isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear)
    return isinstance(module, nn.Conv2d | nn.Linear) and not inner


def _linear(name: str, weight: Tensor, bias: Tensor | None, groups: int, factors: Factors) -> Factored:
    layer = SVFLinear(LinearGeometry(groups), *factors(weight, groups, name), bias)
    return Factored(name, layer, groups * full_rank(weight, groups))


def factored_layers(backbone: StagedBackbone, stages: Sequence[int]) -> Iterator[FactoredLayer]:
    """Yield the factored layers of some stages.

    Args:
        backbone: after :func:`factorise`.
        stages: stages to search.

    Yields:
        The layers, in module order.
    """
    for site in find(backbone, stages, lambda m: isinstance(m, FactoredLayer)):
        assert isinstance(site.module, FactoredLayer)
        yield site.module
