"""Batch norm with the statistics of the global batch, on any number of processes and any device."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fss.errors import FssError
from fss.nn.distributed import rank_and_world


class SharedBatchNorm(_BatchNorm):
    """Normalises by the batch of all processes together, as one process with the whole batch would.

    PyTorch's SyncBatchNorm does so on GPUs, where its kernels are called; it refuses CPUs. Layers become it by an
    exchange of their class and keep all of their values; see :func:`share_batch_norm`.
    """

    own: type[_BatchNorm]
    process_group: Any
    _check_input_dim = nn.SyncBatchNorm._check_input_dim
    _check_non_zero_input_channels = nn.SyncBatchNorm._check_non_zero_input_channels

    def forward(self, x: Tensor) -> Tensor:
        """Normalise.

        Args:
            x: (N, C, ...); N may differ between processes.

        Returns:
            The same shape.
        """
        if not self.training or rank_and_world()[1] == 1:
            return super().forward(x)
        if x.device.type == "cuda":
            return nn.SyncBatchNorm.forward(self, x)  # type: ignore[arg-type]
        axes, shape = [0, *range(2, x.dim())], (1, -1, *[1] * (x.dim() - 2))
        values = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        count = values.new_tensor(x.numel() / x.shape[1])
        distributed.all_reduce(count)
        if count < 2:
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {tuple(x.shape)}")
        mean = _Sum.apply(values.sum(axes)) / count
        centred = values - mean.view(shape)
        variance = _Sum.apply(centred.square().sum(axes)) / count
        self._follow(mean.detach(), variance.detach() * count / (count - 1))
        normalised = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        return cast(Tensor, normalised.to(x.dtype))

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


class _Sum(torch.autograd.Function):
    """The sum over all processes, and of gradients likewise."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        distributed.all_reduce(total)
        return total


def share_batch_norm(model: nn.Module) -> None:
    """Let every batch norm that is in training mode use the statistics of all processes together.

    Args:
        model: changed in place.

    Raises:
        FssError: if it holds a batch norm of another class, which may compute anything.
    """
    for name, module in model.named_modules():
        if not isinstance(module, _BatchNorm) or not module.training:
            continue
        if isinstance(module, SharedBatchNorm | nn.SyncBatchNorm):
            continue
        kind = type(module)
        if kind not in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
            raise FssError(
                f"{name} is a {kind.__name__}, which normalises by the batch of one process: the same training on "
                "another number of processes would give other results. Use one process (trainer.devices=1), "
                "finetune.norm_mode=eval, or torch.nn.BatchNorm2d."
            )
        module.__class__ = SharedBatchNorm
        assert isinstance(module, SharedBatchNorm)
        module.own, module.process_group = kind, None


def unshare_batch_norm(model: nn.Module) -> None:
    """Undo :func:`share_batch_norm`.

    Args:
        model: changed in place.
    """
    for module in model.modules():
        if isinstance(module, SharedBatchNorm):
            kind = module.own
            del module.own, module.process_group
            module.__class__ = kind  # type: ignore[assignment]
