"""The one place that decides how strategies change layers: by a stand-in, on the weight, or not at all.

- A layer that computes exactly what torch's own class does (:mod:`fss.finetune.layers.formula`) is replaced.
- Any other convolution or linear layer keeps its own forward, and the tuned values go on its weight
  (:mod:`fss.finetune.layers.on_weight`).
- What neither serves is refused by name, before anything is changed.

Whatever is changed is run once on a small input, before and after (:mod:`fss.finetune.layers.probe`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fss.errors import FssError, first_line
from fss.finetune.layers.attention import is_supported
from fss.finetune.layers.factored import FactoredLayer
from fss.finetune.layers.formula import KINDS, is_stock, plain_class
from fss.finetune.layers.on_weight import TunedWeight
from fss.finetune.layers.probe import ProbeError, added_to, difference, effect, evaluating, output, sample, untraced
from fss.finetune.layers.surgery import Site, Structure, plain_layers, root_of
from fss.finetune.layers.svd import side_by_side
from fss.finetune.layers.tuned import TunedLayer
from fss.types import StagedBackbone

Build = Callable[[str, Any], TunedLayer]
"""Path of a layer and the layer itself -> the tuned layer that stands in for it; of a layer that keeps its own forward,
one whose ``weight`` is right and which is never called."""

_SHOWN = 5


@dataclass(frozen=True)
class Swapped:
    """A layer that was changed.

    Attributes:
        name: its path in the backbone.
        layer: the tuned layer.
    """

    name: str
    layer: TunedLayer


@dataclass(frozen=True)
class Swap:
    """What was changed.

    Attributes:
        layers: the layers, in module order.
        notes: deviations to record with the result.
    """

    layers: list[Swapped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def swap_layers(
    backbone: StagedBackbone,
    stages: Sequence[int],
    build: Build,
    attention: bool = False,
    exact: Callable[[TunedLayer], bool] = lambda layer: True,
    parallel: bool = False,
) -> Swap:
    """Let tuned layers stand in for the convolutions and linear layers of some stages.

    A layer at several places is replaced once and stays shared.

    Args:
        backbone: changed in place; a second call does nothing.
        stages: stages to change.
        build: builds a tuned layer.
        attention: change :class:`torch.nn.MultiheadAttention` too; otherwise it keeps its plain weights.
        exact: whether a tuned layer equals the plain one; if not, it is compared with what it merges to.
        parallel: build several at a time; ``build`` must depend on its arguments only.

    Returns:
        The layers changed by this call, and notes.

    Raises:
        FssError: if a layer cannot be changed, or does not give the same afterwards; nothing is changed then.
    """
    sites = plain_layers(backbone, stages, lambda m: isinstance(m, KINDS))
    left = [site for site in sites if _keeps_plain(site.module, attention)]
    sites = [site for site in sites if site not in left]
    structure = Structure(backbone)
    try:
        with evaluating([site.module for site in sites]):
            _refuse(sites, [_obstacle(site.module) for site in sites])
            _refuse(sites, _sharers(backbone, sites))
            layers = _build(sites, build, parallel)
            _refuse(sites, [_served(s.module, x, exact(x)) for s, x in zip(sites, layers, strict=True)])
        for site, layer in zip(sites, layers, strict=True):
            if is_stock(site.module):
                site.put(layer.train(site.module.training))
            else:
                site.module.get_submodule("parametrizations").train(site.module.training)
    except BaseException:
        structure.restore()
        raise
    notes = [f"attention keeps its plain weights: {_named([site.name for site in left])}"] if left else []
    return Swap([Swapped(site.name, layer) for site, layer in zip(sites, layers, strict=True)], notes)


def _keeps_plain(layer: nn.Module, attention: bool) -> bool:
    """Tell whether a layer is attention that this swap leaves as it is."""
    if not isinstance(layer, nn.MultiheadAttention):
        return False
    return not attention or (plain_class(layer) is nn.MultiheadAttention and not is_supported(layer))


def _obstacle(layer: nn.Module) -> str:
    """Say why a layer can neither be replaced nor take tuned values on its weight; nothing if it can."""
    stock = is_stock(layer)
    if isinstance(layer, nn.MultiheadAttention):
        if not stock:
            return "it is not known to compute what torch.nn.MultiheadAttention does"
        return _unusable(layer.in_proj_weight) or _unusable(layer.out_proj.weight)
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    if not stock and parametrize.is_parametrized(layer):
        return "it applies its weight in a way of its own, and the weight is parametrized already"
    if not stock and not isinstance(layer._parameters.get("weight"), nn.Parameter):
        return "its weight is computed by a hook, as the older torch.nn.utils.weight_norm does it"
    return _unusable(layer.weight)


def _unusable(weight: Tensor) -> str:
    """Say what is wrong with the values of a weight."""
    if nn.parameter.is_lazy(weight):
        return "its weight has no shape yet; run the model once"
    if not weight.is_floating_point():
        return f"its weight is {str(weight.dtype).removeprefix('torch.')}"
    if not weight.is_meta and not bool(weight.isfinite().all()):
        return "its weight is not finite"
    return ""


def _sharers(backbone: StagedBackbone, sites: Sequence[Site]) -> list[str]:
    """Say of each layer which others share its weight, as factors of one would leave the others behind."""
    holders: dict[int, list[tuple[int, str]]] = {}
    for path, module in root_of(backbone).named_modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                holders.setdefault(id(parameter), []).append((id(module), path))
    found = []
    for site in sites:
        own = {id(module) for module in site.module.modules()}
        values = [p for name, p in site.module.named_parameters() if not name.endswith("bias")]
        others = sorted({path for p in values for key, path in holders[id(p)] if key not in own})
        found.append(f"it shares its weight with {_named(others)}" if others else "")
    return found


def _build(sites: Sequence[Site], build: Build, parallel: bool) -> list[TunedLayer]:
    """Build the tuned layers."""

    def built(site: Site) -> TunedLayer:
        try:
            return build(site.name, site.module)
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
            raise FssError(f"{site.name} cannot be decomposed: {first_line(error)}") from error

    device = next((p.device for site in sites for p in site.module.parameters()), torch.device("cpu"))
    return side_by_side(built, sites, device) if parallel else [built(site) for site in sites]


def _served(plain: nn.Module, tuned: TunedLayer, exact: bool) -> str:
    """Put a tuned layer on the weight of a layer that keeps its own forward, and compare; say what is wrong."""
    stock, device = is_stock(plain), next(plain.parameters()).device
    values = [tuned.S] if isinstance(tuned, FactoredLayer) else added_to(plain, tuned)
    on_weight = None if stock else TunedWeight(plain, tuned)
    tuned.eval()
    if device.type == "meta":
        if on_weight is not None:
            on_weight.attach()
        return ""
    arguments = sample(plain)
    try:
        with torch.no_grad(), untraced(device):
            expected = output(plain if exact or on_weight is not None else tuned.merge(), arguments)
        if on_weight is None:
            with torch.no_grad(), untraced(device):
                return difference(expected, output(tuned, arguments))
        on_weight.attach()
        if not exact:
            with torch.no_grad(), untraced(device):
                expected = output(on_weight.merge(), arguments)
        with torch.enable_grad(), untraced(device):
            got = output(plain, arguments)
            return difference(expected, got.detach()) or effect(got, values)
    except ProbeError as error:
        return str(error)


def _refuse(sites: Sequence[Site], reasons: Sequence[str]) -> None:
    """Raise if there is a reason against any layer."""
    against: dict[str, list[str]] = {}
    for site, reason in zip(sites, reasons, strict=True):
        if reason:
            against.setdefault(f"{plain_class(site.module).__name__}: {reason}", []).append(site.name)
    if against:
        listed = "; ".join(f"{_named(names)} ({reason})" for reason, names in list(against.items())[:_SHOWN])
        if len(against) > _SHOWN:
            listed += f"; and {sum(map(len, list(against.values())[_SHOWN:]))} more"
        raise FssError(
            f"This strategy cannot change all layers of the chosen stages: {listed}. Nothing was changed. Leave their "
            "stages out (finetune.stages), or choose a strategy that replaces no layers, as full, part, bias or bn."
        )


def _named(names: Sequence[str]) -> str:
    """List the first few names, and count the others."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(name or "the whole module" for name in names[:_SHOWN]) + more
