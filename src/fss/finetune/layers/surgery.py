"""Find modules by stage, type and kernel size, and replace them in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from fss.errors import FssError
from fss.finetune.layers.module_stages import ModuleStages
from fss.finetune.layers.on_weight import TunedWeight, tuned_weight
from fss.finetune.layers.tuned import TunedLayer
from fss.types import StagedBackbone

LAST_STAGE = 4

_HOOKS = (
    *("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called"),
    *("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs"),
    *("_backward_hooks", "_backward_pre_hooks", "_is_full_backward_hook"),
)


@dataclass(frozen=True)
class Site:
    """A module within a backbone.

    Attributes:
        stage: its stage, 0 (stem) to 4.
        name: its path in the backbone, e.g. ``layer3.0.conv2``.
        parent: the module that holds it.
        attribute: its name in the parent.
        others: parent and name at the other places of the same module, if it has several.
    """

    stage: int
    name: str
    parent: nn.Module
    attribute: str
    others: tuple[tuple[nn.Module, str], ...] = ()

    @property
    def module(self) -> nn.Module:
        """The module that is currently there."""
        return self.parent.get_submodule(self.attribute)

    def put(self, module: nn.Module) -> None:
        """Replace the module, everywhere where it stands; its hooks go over to the new one.

        Tuned values on the weight of a layer are no module that could be replaced: that layer receives the weight.
        """
        old = self.module
        if isinstance(old, TunedWeight):
            old.detach_from_owner(getattr(module, "weight").detach())  # noqa: B009
            return
        for name in _HOOKS:
            if getattr(old, name):  # the very same dictionary, so that handles still remove their hooks
                setattr(module, name, getattr(old, name))
        for parent, attribute in ((self.parent, self.attribute), *self.others):
            setattr(parent, attribute, module)


def check_stages(stages: Sequence[int]) -> tuple[int, ...]:
    """Validate a list of stages.

    Args:
        stages: stage numbers.

    Returns:
        The same, ascending and without duplicates.

    Raises:
        FssError: if one is outside 0 to 4.
    """
    wrong = [s for s in stages if not 0 <= s <= LAST_STAGE]
    if wrong:
        raise FssError(f"finetune.stages={list(stages)}: {wrong} do not exist; stages are 0 (stem) to {LAST_STAGE}")
    return tuple(sorted(set(stages)))


def find(backbone: StagedBackbone, stages: Sequence[int], wanted: Callable[[nn.Module], bool]) -> list[Site]:
    """List the modules of some stages that a predicate accepts; children of a match are not searched.

    A module that stands at several places is listed once. The stages of our backbones are not candidates themselves;
    those of other modules (:class:`ModuleStages`) are.

    Args:
        backbone: the backbone.
        stages: stages to search, in this order.
        wanted: predicate on a module.

    Returns:
        The sites, in module order; they stay valid while modules are replaced.
    """
    found: dict[int, Site] = {}
    for site in _sites(backbone, stages, wanted):
        found.setdefault(id(site.module), site)
    places = _places(backbone) if found else {}
    return [_everywhere(site, places.get(key, [])) for key, site in found.items()]


def _sites(backbone: StagedBackbone, stages: Sequence[int], wanted: Callable[[nn.Module], bool]) -> Iterator[Site]:
    for stage in stages:
        if not isinstance(backbone, ModuleStages):
            yield from _walk(stage, f"layer{stage}", backbone.stage(stage), wanted)
            continue
        for name, parent, attribute in backbone.roots(stage):
            root = parent.get_submodule(attribute)
            if attribute and wanted(root):
                yield Site(stage, name, parent, attribute)
            else:
                yield from _walk(stage, name, root, wanted)


def _walk(stage: int, prefix: str, parent: nn.Module, wanted: Callable[[nn.Module], bool]) -> Iterator[Site]:
    for attribute, child in parent.named_children():
        name = f"{prefix}.{attribute}" if prefix else attribute
        if wanted(child):
            yield Site(stage, name, parent, attribute)
        else:
            yield from _walk(stage, name, child, wanted)


def _places(backbone: StagedBackbone) -> dict[int, list[tuple[nn.Module, str]]]:
    """Return id of a module -> parent and name at every place where it stands."""
    found: dict[int, list[tuple[nn.Module, str]]] = {}
    for parent in root_of(backbone).modules():
        for attribute, child in parent._modules.items():
            found.setdefault(id(child), []).append((parent, attribute))
    return found


def _everywhere(site: Site, places: Sequence[tuple[nn.Module, str]]) -> Site:
    others = tuple((p, a) for p, a in places if p is not site.parent or a != site.attribute)
    return replace(site, others=others) if others else site


def root_of(backbone: StagedBackbone) -> nn.Module:
    """Return a module that holds all modules of a backbone.

    Args:
        backbone: the backbone, or a view of a module.
    """
    if isinstance(backbone, ModuleStages):
        return backbone.model
    if isinstance(backbone, nn.Module):
        return backbone
    return nn.ModuleList(backbone.stage(index) for index in range(LAST_STAGE + 1))


class Structure:
    """The modules and parameters of a backbone as they are, to be put back if a change fails halfway."""

    def __init__(self, backbone: StagedBackbone) -> None:
        """Look at a backbone.

        Args:
            backbone: not changed, and nothing of it is copied.
        """
        self._modules: list[tuple[nn.Module, type[nn.Module], dict[str, Any], dict[str, Any]]] = [
            (module, type(module), dict(module._modules), dict(module._parameters))
            for module in root_of(backbone).modules()
        ]

    def restore(self) -> None:
        """Put back every module, parameter and class."""
        for module, kind, modules, parameters in self._modules:
            module.__class__ = kind
            for held, before in ((module._modules, modules), (module._parameters, parameters)):
                held.clear()
                held.update(before)


def convolutions(
    backbone: StagedBackbone, stages: Sequence[int], kernel_sizes: Sequence[int] | None = None
) -> list[Site]:
    """List the plain convolutions of some stages.

    Args:
        backbone: the backbone.
        stages: stages to search.
        kernel_sizes: keep only these (square) kernel sizes; None keeps all.

    Returns:
        The sites, in module order.
    """
    sizes = None if kernel_sizes is None else {(k, k) for k in kernel_sizes}

    def wanted(module: nn.Module) -> bool:
        return isinstance(module, nn.Conv2d) and (sizes is None or tuple(module.kernel_size) in sizes)

    return plain_layers(backbone, stages, wanted)


def plain_layers(backbone: StagedBackbone, stages: Sequence[int], wanted: Callable[[nn.Module], bool]) -> list[Site]:
    """List the modules of some stages that a predicate accepts and that no strategy has replaced.

    A tuned layer may contain plain layers; replacing those would change it a second time. A layer with tuned values on
    its weight is not plain either.

    Args:
        backbone: the backbone.
        stages: stages to search.
        wanted: predicate on a module.

    Returns:
        The sites, in module order.
    """
    sites = find(backbone, stages, lambda m: is_tuned(m) or wanted(m))
    return [site for site in sites if not is_tuned(site.module)]


def is_tuned(module: nn.Module) -> bool:
    """Tell whether a module is a tuned layer, or a layer with tuned values on its weight.

    Args:
        module: any module.
    """
    return isinstance(module, TunedLayer) or tuned_weight(module) is not None


def stage_modules(backbone: StagedBackbone, stages: Sequence[int]) -> Iterator[nn.Module]:
    """Yield every module of some stages, including the stages themselves.

    Args:
        backbone: the backbone.
        stages: stages to search.

    Yields:
        Modules, parents before children.
    """
    for stage in stages:
        yield from backbone.stage(stage).modules()
