"""Let a model cache feature maps while it is validated or tested."""

from __future__ import annotations

from typing import cast

import pytorch_lightning as pl

from fss.finetune.chains.merged_copy import merged_copy
from fss.model.segmenter import FewShotSegmenter
from fss.types import StagedBackbone


class FeatureCaching(pl.Callback):
    """Starts an empty feature cache with every pass, because the weights have changed since the last one.

    Every process has its own. As nothing trains meanwhile, images go through a copy of the backbone with
    plain layers in the place of tuned ones.

    Args:
        megabytes: limit of the maps on the model's device, in MiB; 0: every episode is computed by itself.
    """

    def __init__(self, megabytes: int) -> None:
        self.limit = megabytes * 2**20 if megabytes else None

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start an empty cache."""
        self._start(pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Free it."""
        _model(pl_module).cache_features(None)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start an empty cache."""
        self._start(pl_module)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Free it."""
        _model(pl_module).cache_features(None)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Free it."""
        _model(pl_module).cache_features(None)

    def _start(self, pl_module: pl.LightningModule) -> None:
        model = _model(pl_module)
        backbone = cast(StagedBackbone, model.backbone)
        model.cache_features(self.limit, None if self.limit is None else merged_copy(backbone))


def _model(module: pl.LightningModule) -> FewShotSegmenter:
    return cast(FewShotSegmenter, module.model)
