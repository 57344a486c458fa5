"""Cache feature maps during validation and test."""

from __future__ import annotations

from typing import Any, cast

import pytorch_lightning as pl

from fss.finetune.chains.merged_copy import merged_copy
from fss.model.cache_check import check_cache
from fss.model.segmenter import FewShotSegmenter
from fss.types import ImageBackbone


class FeatureCaching(pl.Callback):
    """Starts every pass with an empty feature cache, because the weights have changed since the last one.

    Every process has its own cache. As nothing trains meanwhile, images run through a copy of the backbone whose
    tuned layers are merged. On the first batch of every pass, the scores of one episode are compared with those of the
    model without cache and copy.

    Args:
        megabytes: limit of the maps on the model's device, in MiB; 0 disables the cache.
    """

    def __init__(self, megabytes: int) -> None:
        self.limit = megabytes * 2**20 if megabytes else None

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start an empty cache."""
        self._start(pl_module)

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Compare the first batch."""
        self._compare(trainer, pl_module, batch, batch_idx)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Free the cache."""
        _model(pl_module).cache_features(None)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start an empty cache."""
        self._start(pl_module)

    def on_test_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Compare the first batch."""
        self._compare(trainer, pl_module, batch, batch_idx)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Free the cache."""
        _model(pl_module).cache_features(None)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Free the cache."""
        _model(pl_module).cache_features(None)

    def _compare(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0 and self.limit is not None:
            with trainer.precision_plugin.forward_context():
                check_cache(_model(pl_module), batch)

    def _start(self, pl_module: pl.LightningModule) -> None:
        model = _model(pl_module)
        merged = None if self.limit is None else merged_copy(model.backbone)
        model.cache_features(self.limit, cast(ImageBackbone | None, merged))


def _model(module: pl.LightningModule) -> FewShotSegmenter:
    return cast(FewShotSegmenter, module.model)
