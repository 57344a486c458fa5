"""Replace plain layers by factored ones, with any kind of factors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from fss.finetune.layers.attention import SVFAttention
from fss.finetune.layers.factored import FactoredLayer, SVFConv2d, SVFLinear
from fss.finetune.layers.factored_weight import FactoredWeight
from fss.finetune.layers.geometry import ConvGeometry, LinearGeometry, OwnGeometry, geometry_of
from fss.finetune.layers.surgery import find
from fss.finetune.layers.svd import decompose, full_rank
from fss.finetune.layers.swap import swap_layers
from fss.finetune.layers.tuned import TunedLayer
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
    """

    name: str
    layer: FactoredLayer


@dataclass(frozen=True)
class Factorisation:
    """What was replaced.

    Attributes:
        layers: the layers, in module order.
        notes: deviations to record with the result.
    """

    layers: list[Factored]
    notes: list[str]


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


def factorise(
    backbone: StagedBackbone,
    stages: Sequence[int],
    factors: Factors = singular,
    exact: bool = True,
    stacked: Collection[str] = (),
) -> Factorisation:
    """Replace convolutions, linear layers and attention by their factors.

    Args:
        backbone: changed in place.
        stages: stages to change.
        factors: computes the factors; the singular value decomposition by default.
        exact: whether the product of factors of full rank is the plain weight.
        stacked: paths of linear layers whose weight is three matrices, see :mod:`fss.finetune.layers.qkv`.

    Returns:
        The layers replaced by this call, none on a second one; and notes on what was left.

    Raises:
        FssError: if a layer cannot be factored, or does not give the same afterwards; nothing is changed then.
    """

    def build(name: str, plain: nn.Module) -> TunedLayer:
        return _factored(name, plain, factors, 3 if name in stacked else 1)

    def equals_plain(layer: TunedLayer) -> bool:
        return exact and all(one.S.numel() >= one.full_rank for _, one in _within("", layer))

    swap = swap_layers(backbone, stages, build, attention=True, exact=equals_plain, parallel=True)
    found = [Factored(name, layer) for one in swap.layers for name, layer in _within(one.name, one.layer)]
    return Factorisation(found, swap.notes)


def _within(name: str, layer: TunedLayer) -> Iterator[tuple[str, FactoredLayer]]:
    """Yield the factored layers of a replacement, with their paths; attention holds two."""
    for path, module in layer.named_modules(prefix=name):
        if isinstance(module, FactoredLayer):
            yield path, module


def _factored(name: str, plain: nn.Module, factors: Factors, matrices: int) -> TunedLayer:
    """Return the replacement of a layer; a linear one may stack several matrices."""
    if isinstance(plain, nn.MultiheadAttention):
        weight, bias, out = plain.in_proj_weight, plain.in_proj_bias, plain.out_proj
        stacked = SVFLinear(LinearGeometry(3), *factors(weight, 3, f"{name}.in_proj"), bias)
        last = SVFLinear(LinearGeometry(), *factors(out.weight, 1, f"{name}.out_proj"), out.bias)
        return SVFAttention(plain, stacked, last)
    assert isinstance(plain, nn.Conv2d | nn.Linear)
    geometry = geometry_of(plain)
    if isinstance(plain, nn.Linear):
        geometry = replace(geometry, groups=matrices)
    values = factors(plain.weight, geometry.groups, name)
    if isinstance(geometry, OwnGeometry):
        return FactoredWeight(geometry, *values, None)
    if isinstance(geometry, ConvGeometry):
        return SVFConv2d(geometry, *values, plain.bias)
    return SVFLinear(geometry, *values, plain.bias)


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
