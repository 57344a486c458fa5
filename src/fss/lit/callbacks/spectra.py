"""Record the singular values of every tuned convolution before, during and after training."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from fss.finetune.layers.factored import FactoredLayer
from fss.finetune.layers.geometry import ConvGeometry
from fss.finetune.layers.on_weight import tuned_weight
from fss.finetune.layers.surgery import LAST_STAGE, Site, find
from fss.finetune.layers.svd import decompose, full_rank, side_by_side
from fss.finetune.layers.tuned import TunedLayer
from fss.lit.callbacks.recording_folder import RecordingFolder
from fss.model.segmenter import FewShotSegmenter
from fss.types import StagedBackbone

log = logging.getLogger(__name__)

NAME = "spectra.npz"


@dataclass(frozen=True)
class Followed:
    """A tuned convolution, and the singular vectors that its values belong to.

    Attributes:
        site: its place in the backbone.
        kernel: its kernel size.
        groups: its number of groups.
        left: U of the pretrained weight, (Co, R); None if the layer has its own U and V, which do not train.
        right: V of the pretrained weight, (groups * R, fan in), or None.
    """

    site: Site
    kernel: int
    groups: int
    left: Tensor | None = None
    right: Tensor | None = None

    @torch.no_grad()
    def values(self) -> Tensor:
        """Return the diagonal of U^T W V in the pretrained order, (groups * R), float32 on the CPU."""
        layer = self.site.module
        if self.left is None or self.right is None:
            assert isinstance(layer, FactoredLayer)
            return layer.values.detach().float().cpu().clone()
        weight = plain_weight(layer).detach().double().cpu()
        blocks = weight.reshape(self.groups, weight.shape[0] // self.groups, -1)
        left = self.left.double().reshape(self.groups, -1, self.left.shape[1])
        right = self.right.double().reshape(self.groups, self.left.shape[1], -1)
        return ((left.mT @ blocks) * right).sum(dim=2).flatten().float()


class SpectrumRecorder(pl.Callback):
    """Writes ``spectra.npz``: ``epochs`` (T,), ``names`` (L,), ``kernels`` (L,), and one array (T, R) per name.

    Row 0 is before training, the last row after the last epoch. In all rows, column *i* belongs to singular value *i*
    of the pretrained weight, largest first. If a strategy trains S (and maybe S') between fixed U and V, the values are
    the trained diagonal, which need not stay sorted; for rotated strategies it is the diagonal between their rotated
    factors. Any other tuned weight W is projected on the pretrained singular vectors: the values are the diagonal of
    U^T W V, in row 0 the pretrained singular values; what W gained outside the diagonal is not recorded. A strategy
    that tunes no convolution writes no file.

    Args:
        folder: receives the file.
        every: epochs between two records.
    """

    def __init__(self, folder: RecordingFolder, every: int) -> None:
        self.folder = folder
        self.every = every
        self.epochs: list[int] = []
        self.rows: dict[str, list[Tensor]] = {}
        self._followed: list[Followed] = []
        self._done = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the recorded values."""
        return {"epochs": list(self.epochs), "values": {name: torch.stack(rows) for name, rows in self.rows.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the values recorded before an interruption.

        Args:
            state_dict: state from the checkpoint.
        """
        self.epochs = [int(epoch) for epoch in state_dict["epochs"]]
        self.rows = {name: list(values) for name, values in state_dict["values"].items()}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Record the values before training, after the strategy was injected and before a checkpoint is restored."""
        if stage != "fit" or not trainer.is_global_zero:
            return
        model = pl_module.model
        assert isinstance(model, FewShotSegmenter)
        self._followed = follow(model.backbone)
        self.epochs, self.rows = [], {one.site.name: [] for one in self._followed}
        self._take(0)
        if not self._followed:
            log.info("This strategy tunes no convolution: no singular values are recorded.")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record the values every ``every`` epochs."""
        self._done = trainer.current_epoch + 1
        if trainer.is_global_zero and self._done % self.every == 0:
            self._record()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record the final values."""
        if trainer.is_global_zero and self._done > self.epochs[-1]:
            self._record()

    def _record(self) -> None:
        self._take(self._done)
        if not self._followed:
            return
        arrays: dict[str, Any] = {
            "epochs": np.array(self.epochs),
            "names": np.array([one.site.name for one in self._followed]),
            "kernels": np.array([one.kernel for one in self._followed]),
            **{name: torch.stack(rows).numpy() for name, rows in self.rows.items()},
        }
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)
        self.folder.write(NAME, content.getvalue())

    def _take(self, epoch: int) -> None:
        self.epochs.append(epoch)
        for one in self._followed:
            self.rows[one.site.name].append(one.values())


def follow(backbone: StagedBackbone) -> list[Followed]:
    """List the convolutions whose weight trains, and decompose those that have no fixed factors.

    Args:
        backbone: after a strategy was injected, with the pretrained values.

    Returns:
        The convolutions, in module order.
    """
    sites = list(_tuned(backbone))
    device = torch.device("cpu")
    return side_by_side(_followed, sites, device)


def plain_weight(layer: nn.Module) -> Tensor:
    """Return the weight (Co, Ci / groups, k, k) that a convolution, plain or tuned, applies.

    Args:
        layer: a convolution.
    """
    plain = layer.merge() if isinstance(layer, TunedLayer) else layer
    assert isinstance(plain, nn.Conv2d)
    return plain.weight


def _tuned(backbone: StagedBackbone) -> Iterator[Site]:
    """Yield convolutions in which more than the bias trains."""
    for site in find(backbone, range(LAST_STAGE + 1), lambda m: isinstance(m, TunedLayer | nn.Conv2d)):
        layer = site.module
        is_convolution = isinstance(layer, nn.Conv2d) or isinstance(getattr(layer, "geometry", None), ConvGeometry)
        on_weight = tuned_weight(layer) is not None  # then the values that train are further inside
        trains = (n for n, p in layer.named_parameters(recurse=on_weight) if p.requires_grad)
        if is_convolution and any(name != "bias" for name in trains):
            yield site


def _followed(site: Site) -> Followed:
    layer = site.module
    fixed = isinstance(layer, FactoredLayer) and not (layer.U.requires_grad or layer.V.requires_grad)
    if isinstance(layer, FactoredLayer) and fixed:
        assert isinstance(layer.geometry, ConvGeometry)
        return Followed(site, layer.V.shape[-1], layer.geometry.groups)
    weight = plain_weight(layer).detach().double().cpu()
    groups = layer.groups if isinstance(layer, nn.Conv2d) else _geometry(layer).groups
    left, _, right = decompose(weight, full_rank(weight, groups), groups)
    return Followed(site, weight.shape[-1], groups, left.float(), right.flatten(1).float())


def _geometry(layer: nn.Module) -> ConvGeometry:
    geometry = layer.geometry
    assert isinstance(geometry, ConvGeometry)
    return geometry
