"""A view of any torch module as a staged backbone, so that strategies work on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fss.errors import FssError
from fss.types import NormMode

LAST = 4


def _stay(norm: nn.Module, mode: bool = True) -> nn.Module:
    """Stay in evaluation mode, whatever is asked for."""
    return type(norm).train(norm, False)


def keeps_statistics(module: nn.Module) -> bool:
    """Tell whether a layer follows the statistics of its batches: batch norm of any class, and what has its buffers.

    Args:
        module: any module.
    """
    return isinstance(module, _BatchNorm) or not {"running_mean", "running_var"}.isdisjoint(module._buffers)


def _is_held(module: nn.Module) -> bool:
    own = vars(module).get("train")
    return isinstance(own, partial) and own.func is _stay


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
    def stages(self) -> dict[int, tuple[str, ...]]:
        """Stage -> paths of its submodules, as given."""
        return {index: tuple(names) for index, names in self._stages.items()}

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
        return "eval" if any(_is_held(m) for m in self.model.modules()) else "train"

    @norm_mode.setter
    def norm_mode(self, mode: NormMode) -> None:
        if mode == "train_late":
            raise FssError(
                "norm_mode=train_late needs one of this package's backbones, whose stages follow each other: choose "
                "eval or train."
            )
        for module in self.model.modules():
            # only train() of the instance changes: its class, its forward and its state stay, and copies keep it
            if mode == "train" and _is_held(module):
                del vars(module)["train"]
                module.train(self.model.training)
            elif mode == "eval" and keeps_statistics(module):
                vars(module)["train"] = partial(_stay, module)
                module.eval()

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
