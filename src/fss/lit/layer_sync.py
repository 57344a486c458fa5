"""Lightning's hook for layers that need all processes of a training."""

from __future__ import annotations

from pytorch_lightning.plugins.layer_sync import TorchSyncBatchNorm
from torch import nn

from fss.nn.shared_norm import share_batch_norm, unshare_batch_norm


class SharedNorms(TorchSyncBatchNorm):
    """Lets batch norm that trains see the global batch, so that results do not depend on the number of processes."""

    def apply(self, model: nn.Module) -> nn.Module:
        """Share statistics; called once callbacks have set the mode of every layer, with several processes only.

        Args:
            model: Lightning's module.

        Returns:
            The same.
        """
        share_batch_norm(model)
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Undo it after the training.

        Args:
            model: Lightning's module.

        Returns:
            The same.
        """
        unshare_batch_norm(model)
        return model
