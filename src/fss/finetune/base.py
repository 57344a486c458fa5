"""The base class of fine-tuning strategies, and the state dict of the parameters they train."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fss.errors import FssError
from fss.finetune.applied import check_alone, forget, remember
from fss.finetune.chains.fuse import fuse
from fss.finetune.chains.memory import Memory
from fss.finetune.layers.nothing_to_train import nothing_to_train
from fss.finetune.layers.surgery import LAST_STAGE, Site, Structure, find, root_of
from fss.finetune.layers.tuned import TunedLayer
from fss.types import NormMode, StagedBackbone, TuneReport


class Strategy(ABC):
    """Decides which parts of a pretrained backbone train.

    A strategy freezes the backbone, swaps layers where its formula needs it, and then unfreezes the parameters it
    declares. ``apply`` is idempotent, so it can run in every Lightning stage and again after a restart. Another
    strategy on top of it is refused.

    Attributes:
        name: name of the Python file and the yaml, and key in tables.
        norm_mode: mode that the backbone's batch norm keeps regardless of ``train()``.
        mergeable: whether :meth:`merge` can produce a plain backbone with equal output.
        memory: what factored convolutions keep for the backward pass; does not affect results.
        wanted: what it trains, in words, for the message where there is none of it.
        trains_nothing: whether it freezes everything on purpose; other strategies refuse to train nothing.
        stages: stages that it searches, 0 (stem) to 4.
    """

    name: ClassVar[str]
    mergeable: ClassVar[bool] = True
    norm_mode: NormMode = "eval"
    memory: Memory = "plain"
    wanted: str = "layer"
    trains_nothing: bool = False
    stages: tuple[int, ...] = tuple(range(LAST_STAGE + 1))

    def apply(self, backbone: StagedBackbone) -> TuneReport:
        """Inject the strategy.

        Args:
            backbone: a backbone with its pretrained weights; changed in place.

        Returns:
            A report of the trainable parameters and the parameter counts.

        Raises:
            FssError: if another strategy was applied already, if a layer cannot be changed, or if there is nothing that
                the strategy trains; nothing is changed then.
        """
        check_alone(backbone, self)
        structure = Structure(backbone)
        try:
            notes = self.swap(backbone)
            found = self.found(backbone)
        except BaseException:
            structure.restore()
            raise
        for _, parameter in backbone.named_parameters():
            parameter.requires_grad_(False)
        for parameter in found:
            parameter.requires_grad_(True)
        backbone.norm_mode = self.norm_mode
        fuse(backbone, self.memory)
        remember(backbone, self)
        return report_trainable(self.name, backbone, notes)

    def swap(self, backbone: StagedBackbone) -> list[str]:
        """Replace layers if the strategy needs it; a second call must do nothing.

        Args:
            backbone: changed in place.

        Returns:
            Deviations to record with the result.
        """
        return []

    @abstractmethod
    def trainable(self, backbone: StagedBackbone) -> Iterator[nn.Parameter]:
        """Yield the parameters that train, after :meth:`swap`."""

    def found(self, backbone: StagedBackbone, name: str | None = None) -> list[nn.Parameter]:
        """List the parameters that train, after :meth:`swap`.

        Args:
            backbone: the backbone.
            name: strategy that the user chose, if this one is a part of it.

        Raises:
            FssError: if there are none: the run would pass a frozen backbone off as a tuned one.
        """
        found = list(self.trainable(backbone))
        if not found and not self.trains_nothing:
            raise nothing_to_train(name or self.name, self.wanted, backbone, self.stages)
        return found

    def merge(self, backbone: StagedBackbone) -> None:
        """Replace swapped layers by plain ones with equal output, in place.

        Args:
            backbone: after :meth:`apply`; unchanged if it cannot be merged.

        Raises:
            FssError: if the strategy adds layers that no plain layer can replace.
        """
        sites = _tuned(backbone)
        plain = []
        for site in sites:
            assert isinstance(site.module, TunedLayer)
            plain.append(site.module.merge())
        fuse(backbone, "plain")
        for site, layer in zip(sites, plain, strict=True):
            site.put(layer)
        forget(backbone)

    def before_step(self, backbone: StagedBackbone, first: bool) -> None:  # noqa: B027  # as for after_step
        """Prepare the backbone for a training step; called by BackboneFinetune.

        Args:
            backbone: after :meth:`apply`.
            first: whether the step is the first one of its epoch.
        """

    def after_step(self, backbone: StagedBackbone) -> None:  # noqa: B027  # most strategies do not need this hook
        """Change the tuned values after an optimiser step, e.g. project them; called by BackboneFinetune.

        Args:
            backbone: after :meth:`apply`.
        """


def _tuned(backbone: StagedBackbone) -> list[Site]:
    return find(backbone, range(LAST_STAGE + 1), lambda m: isinstance(m, TunedLayer))


def report_trainable(name: str, backbone: StagedBackbone, notes: list[str]) -> TuneReport:
    """Count the trainable values of every parameter.

    Args:
        name: the strategy's name.
        backbone: after injection.
        notes: deviations to record.

    Returns:
        The report.
    """
    trainable = {n: p.numel() for n, p in backbone.named_parameters() if p.requires_grad}
    total = sum(p.numel() for _, p in backbone.named_parameters())
    plain_total = total
    for site in _tuned(backbone):
        layer = site.module
        assert isinstance(layer, TunedLayer)
        plain_total += layer.plain_size - sum(p.numel() for p in layer.parameters())
    return TuneReport(name, trainable, total, plain_total, notes)


def trained_state(backbone: StagedBackbone) -> dict[str, Tensor]:
    """Copy only what training changes: for SVF the singular values, a few tens of kB.

    Args:
        backbone: after :meth:`Strategy.apply`.

    Returns:
        name -> tensor on the CPU, of the trainable parameters and of the running statistics that batch norm moves.
    """
    return {n: t.detach().cpu().clone() for n, t in _changing(backbone).items()}


def _changing(backbone: StagedBackbone) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {n: p for n, p in backbone.named_parameters() if p.requires_grad}
    if found and getattr(backbone, "norm_mode", "eval") != "eval":  # a module of any other kind has no such mode
        found |= {
            f"{name}.{n}": b
            for name, module in root_of(backbone).named_modules()
            if isinstance(module, _BatchNorm)
            for n, b in module.named_buffers(recurse=False)
        }
    return found


@torch.no_grad()
def load_trained_state(backbone: StagedBackbone, state: dict[str, Tensor]) -> None:
    """Restore the parameters that :func:`trained_state` copied.

    Args:
        backbone: the same pretrained backbone, after the same strategy's ``apply``.
        state: parameter name -> tensor.

    Raises:
        FssError: if names or shapes differ from what training changes; nothing is changed then.
    """
    own = _changing(backbone)
    wrong = sorted(own.keys() ^ state.keys()) + [
        f"{n}: {tuple(state[n].shape)} instead of {tuple(p.shape)}"
        for n, p in own.items()
        if n in state and state[n].shape != p.shape
    ]
    if wrong:
        raise FssError(
            f"the stored values do not belong to this backbone and strategy; {len(wrong)} differ: {wrong[:5]}"
        )
    for name, parameter in own.items():
        parameter.copy_(state[name])
