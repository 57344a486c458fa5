"""A view of any torch module as a staged backbone, so that strategies work on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Self

from torch import nn

from fss.errors import FssError
from fss.types import NormMode

LAST = 4


class _Frozen(nn.Module):
    """Batch norm that stays in evaluation mode regardless of ``train()``."""

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(False)


class FrozenBatchNorm1d(_Frozen, nn.BatchNorm1d):
    """Batch norm over vectors with fixed statistics."""


class FrozenBatchNorm2d(_Frozen, nn.BatchNorm2d):
    """Batch norm over maps with fixed statistics."""


class FrozenBatchNorm3d(_Frozen, nn.BatchNorm3d):
    """Batch norm over volumes with fixed statistics."""


_FROZEN: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: FrozenBatchNorm1d,
    nn.BatchNorm2d: FrozenBatchNorm2d,
    nn.BatchNorm3d: FrozenBatchNorm3d,
}
_PLAIN = {frozen: plain for plain, frozen in _FROZEN.items()}


class ModuleStages:
    """A view of a torch module as a :class:`fss.types.StagedBackbone`; holds no parameters of its own.

    Attributes:
        model: the module.
        channels: empty, because the module's widths are unknown.
        stepwise: False, as nobody knows how the submodules follow each other.
    """

    def __init__(self, model: nn.Module, stages: Mapping[int, Sequence[str]] | None = None) -> None:
        """Assign submodules to stages.

        Args:
            model: any module.
            stages: stage (0 to 4) -> paths of submodules; None makes the whole module stage 4, which every strategy
                tunes by default.

        Raises:
            FssError: if a stage or a path does not exist, or the module is a single layer.
        """
        if not any(True for _ in model.children()):
            raise FssError(
                f"{type(model).__name__} has no submodules, so that none of its layers can be replaced. Give a model, "
                "or nn.Sequential(layer)."
            )
        submodules = dict(model.named_modules())
        given = {LAST: [""]} if stages is None else {k: list(v) for k, v in stages.items()}
        wrong = [s for s in given if s not in range(LAST + 1)]
        if wrong:
            raise FssError(f"stages {wrong} do not exist: give a mapping from 0 to {LAST} to names of submodules.")
        for name in (n for names in given.values() for n in names):
            if name not in submodules:
                children = ", ".join(n for n, _ in model.named_children())
                raise FssError(f"{type(model).__name__} has no submodule {name!r}. Its children: {children}.")
        self.model = model
        self.channels: tuple[int, ...] = ()
        self.stepwise = False
        self._stages = given

    @property
    def training(self) -> bool:
        """Whether the module is in training mode."""
        return self.model.training

    @training.setter
    def training(self, mode: bool) -> None:
        self.model.train(mode)

    @property
    def norm_mode(self) -> NormMode:
        """Mode of batch norm in training: ``eval`` while it is frozen."""
        return "eval" if any(type(m) in _PLAIN for m in self.model.modules()) else "train"

    @norm_mode.setter
    def norm_mode(self, mode: NormMode) -> None:
        change = _FROZEN if mode == "eval" else _PLAIN
        for module in self.model.modules():
            if type(module) in change:
                module.__class__ = change[type(module)]
                module.train(self.model.training)

    def roots(self, index: int) -> Iterator[tuple[str, nn.Module, str]]:
        """Yield path, parent and name of each submodule of a stage; path and name are empty for the whole model.

        Args:
            index: 0 to 4.

        Yields:
            The submodules, in the given order.
        """
        for name in self._stages.get(index, []):
            parent, _, attribute = name.rpartition(".")
            yield name, self.model.get_submodule(parent), attribute

    def stage(self, index: int) -> nn.Module:
        """Return the submodules of a stage in a list; replacing items of the list does not change the model.

        Args:
            index: 0 to 4.

        Returns:
            The submodules.
        """
        return nn.ModuleList(parent.get_submodule(attribute) for _, parent, attribute in self.roots(index))

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Iterate over all parameters of the module by name."""
        return self.model.named_parameters()
