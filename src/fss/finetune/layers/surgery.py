"""Find modules by stage, type and kernel size, and replace them in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from fss.errors import FssError
from fss.finetune.layers.module_stages import ModuleStages
from fss.finetune.layers.tuned import TunedLayer
from fss.types import StagedBackbone

LAST_STAGE = 4


@dataclass(frozen=True)
class Site:
    """A module within a backbone.

    Attributes:
        stage: its stage, 0 (stem) to 4.
        name: its path in the backbone, e.g. ``layer3.0.conv2``.
        parent: the module that holds it.
        attribute: its name in the parent.
    """

    stage: int
    name: str
    parent: nn.Module
    attribute: str

    @property
    def module(self) -> nn.Module:
        """The module that is currently there."""
        return self.parent.get_submodule(self.attribute)

    def put(self, module: nn.Module) -> None:
        """Replace the module."""
        setattr(self.parent, self.attribute, module)


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

    The stages of our backbones are not candidates themselves; those of other modules (:class:`ModuleStages`) are.

    Args:
        backbone: the backbone.
        stages: stages to search, in this order.
        wanted: predicate on a module.

    Returns:
        The sites, in module order; they stay valid while modules are replaced.
    """
    if not isinstance(backbone, ModuleStages):
        return [site for stage in stages for site in _walk(stage, f"layer{stage}", backbone.stage(stage), wanted)]
    found: list[Site] = []
    for stage in stages:
        for name, parent, attribute in backbone.roots(stage):
            root = parent.get_submodule(attribute)
            if attribute and wanted(root):
                found.append(Site(stage, name, parent, attribute))
            else:
                found.extend(_walk(stage, name, root, wanted))
    return found


def _walk(stage: int, prefix: str, parent: nn.Module, wanted: Callable[[nn.Module], bool]) -> Iterator[Site]:
    for attribute, child in parent.named_children():
        name = f"{prefix}.{attribute}" if prefix else attribute
        if wanted(child):
            yield Site(stage, name, parent, attribute)
        else:
            yield from _walk(stage, name, child, wanted)


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

    A tuned layer may contain plain layers; replacing those would change it a second time.

    Args:
        backbone: the backbone.
        stages: stages to search.
        wanted: predicate on a module.

    Returns:
        The sites, in module order.
    """
    sites = find(backbone, stages, lambda m: isinstance(m, TunedLayer) or wanted(m))
    return [site for site in sites if not isinstance(site.module, TunedLayer)]


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
