"""The contract of every fine-tune strategy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn

from fss.errors import FssError
from fss.finetune.chains.fuse import Memory, fuse
from fss.finetune.layers.surgery import LAST_STAGE, Site, find
from fss.finetune.layers.tuned import TunedLayer
from fss.types import NormMode, StagedBackbone, TuneReport


class Strategy(ABC):
    """Decides what of a finished backbone trains.

    A strategy freezes everything, swaps layers where its formula needs it, and then marks what it declares as
    trainable. ``apply`` is idempotent, so it can run at every stage of a run and again after a restart.

    Attributes:
        name: the file, the yaml and the table key.
        norm_mode: mode in which the backbone's batch norm stays, whatever ``train()`` says.
        mergeable: whether :meth:`merge` can give a plain backbone with equal output.
        memory: what factored convolutions keep for the backward pass; results do not depend on it.
    """

    name: ClassVar[str]
    mergeable: ClassVar[bool] = True
    norm_mode: NormMode = "eval"
    memory: Memory = "plain"

    def apply(self, backbone: StagedBackbone) -> TuneReport:
        """Inject the strategy.

        Args:
            backbone: a finished backbone with its pretrained weights; changed in place.

        Returns:
            What is trainable now, and the sizes.
        """
        notes = self.swap(backbone)
        for _, parameter in backbone.named_parameters():
            parameter.requires_grad_(False)
        for parameter in self.trainable(backbone):
            parameter.requires_grad_(True)
        backbone.norm_mode = self.norm_mode
        fuse(backbone, self.memory)
        return report_trainable(self.name, backbone, notes)

    def swap(self, backbone: StagedBackbone) -> list[str]:
        """Replace layers, if the strategy needs it; must do nothing the second time.

        Args:
            backbone: changed in place.

        Returns:
            Departures worth recording with the result.
        """
        return []

    @abstractmethod
    def trainable(self, backbone: StagedBackbone) -> Iterator[nn.Parameter]:
        """Yield the parameters that train, after :meth:`swap`."""

    def merge(self, backbone: StagedBackbone) -> None:
        """Turn swapped layers back into plain ones with equal output, in place.

        Args:
            backbone: after :meth:`apply`; unchanged if it cannot be merged.

        Raises:
            FssError: if the strategy adds what no plain layer equals.
        """
        sites = _tuned(backbone)
        plain = []
        for site in sites:
            assert isinstance(site.module, TunedLayer)
            plain.append(site.module.merge())
        fuse(backbone, "plain")
        for site, layer in zip(sites, plain, strict=True):
            site.put(layer)

    def after_step(self, backbone: StagedBackbone) -> None:  # noqa: B027  # a hook that most strategies leave empty
        """Change the tuned values after a step of the optimiser, e.g. project them; called by BackboneFinetune.

        Args:
            backbone: after :meth:`apply`.
        """


def _tuned(backbone: StagedBackbone) -> list[Site]:
    return find(backbone, range(LAST_STAGE + 1), lambda m: isinstance(m, TunedLayer))


def report_trainable(name: str, backbone: StagedBackbone, notes: list[str]) -> TuneReport:
    """Count what trains, parameter by parameter.

    Args:
        name: the strategy's name.
        backbone: after injection.
        notes: departures worth recording.

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
    """Copy only what trains: for SVF the singular values, some tens of kB.

    Args:
        backbone: after :meth:`Strategy.apply`.

    Returns:
        parameter name -> tensor on the CPU.
    """
    return {n: p.detach().cpu().clone() for n, p in backbone.named_parameters() if p.requires_grad}


@torch.no_grad()
def load_trained_state(backbone: StagedBackbone, state: dict[str, Tensor]) -> None:
    """Put back what :func:`trained_state` copied.

    Args:
        backbone: the same pretrained backbone, after the same strategy's ``apply``.
        state: parameter name -> tensor.

    Raises:
        FssError: if names or shapes differ from what trains here; nothing is changed then.
    """
    own = {n: p for n, p in backbone.named_parameters() if p.requires_grad}
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
