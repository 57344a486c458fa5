"""End a run whose loss or weights are not finite, before anything is written that would pass for a result."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, distributed
from torch.nn.modules.batchnorm import _BatchNorm

from fss.errors import FssError
from fss.lit.scoring import ScoringModule

EVERY = 50
"""Steps between two looks at the losses: a look waits for the device."""
NONE = 1 << 62
"""Step of the first loss that is not finite, while all are."""


class DivergenceGuard(pl.Callback):
    """Ends a run as failed where a loss, a weight or a value of the optimiser is infinite or not a number.

    Losses are noted at every step, without waiting for the device, and looked at every ``EVERY`` steps. Weights are
    looked at before a validation, a checkpoint and a test, the scores of images after a validation and a test. All
    processes end together. It must be the first callback: others write what they find at the end of a pass.

    Args:
        folder: of the run's checkpoints; None: there are none.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._step: Tensor | None = None  # of the first loss that is not finite, on the loss's device
        self._sound = -1  # step whose weights were found finite

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the weights that the training starts from."""
        self._step, self._sound = None, -1
        self._look(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the loss, and look at all of them now and then."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, Tensor):
            step = torch.where(loss.detach().isfinite().all(), NONE, trainer.global_step)
            self._step = step if self._step is None else torch.minimum(self._step, step)
        if trainer.global_step % EVERY == 0:
            self._look(trainer, None)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at losses and weights."""
        self._look(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the loss of the episodes, and at what the predictions were read off."""
        self._judge(trainer, pl_module, "val")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at losses and weights."""
        self._look(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Look at losses and weights before a good checkpoint is replaced."""
        self._look(trainer, pl_module)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the weights that are tested."""
        self._step, self._sound = None, -1
        self._look(trainer, pl_module)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the loss of the episodes, and at what the predictions were read off."""
        self._judge(trainer, pl_module, "test")

    def _look(self, trainer: pl.Trainer, module: pl.LightningModule | None) -> None:
        """Raise in all processes if one has found something; without a module at losses alone."""
        names: list[str] = []
        if module is not None and self._sound != trainer.global_step:
            names = _broken(trainer, module)
        found = torch.tensor([NONE if self._step is None else int(self._step), -bool(names)])
        if trainer.world_size > 1:
            found = found.to(trainer.strategy.root_device)
            distributed.all_reduce(found, distributed.ReduceOp.MIN)
        step, broken = found.tolist()
        if step < NONE:
            raise FssError(self._text(f"the loss of step {step} is not finite"))
        if broken:
            where = f", {names[0]} first" if names else ""
            if trainer.state.fn != "fit":
                raise FssError(
                    f"The weights under test are not finite{where}: their training diverged. Give another checkpoint, "
                    "or train again with a smaller recipe.optimizer.lr."
                )
            if trainer.global_step == 0:
                raise FssError(
                    f"The weights that the training starts from are not finite{where}. Give another file or checkpoint "
                    "(backbone.weights, method.base_learner.checkpoint)."
                )
            raise FssError(self._text(f"after step {trainer.global_step} the weights are not finite{where}"))
        if module is not None:
            self._sound = trainer.global_step

    def _judge(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        """Raise in all processes if an image of a pass was not decided, or its loss is not finite."""
        bad, every = module.take_undecided(stage) if isinstance(module, ScoringModule) else (0, 0)
        loss = trainer.callback_metrics.get(f"{stage}/loss")
        infinite = loss is not None and not bool(loss.isfinite())
        if not bad and not infinite:
            return
        what = f"the scores of {bad} of {every} images are" if bad else f"the loss of the images ({stage}/loss) is"
        if trainer.state.fn == "fit":
            raise FssError(self._text(f"after step {trainer.global_step} {what} not finite"))
        raise FssError(
            f"{what[0].upper()}{what[1:]} not finite (inf or nan), though the weights are: no result is written. Give "
            "trainer.precision=32-true where it is below; else the head computes something infinite."
        )

    def _text(self, what: str) -> str:
        return (
            f"The training diverged: {what} (inf or nan). {self._last_good()}Lower recipe.optimizer.lr, or raise "
            "trainer.precision where it is below 32: the same command diverges again."
        )

    def _last_good(self) -> str:
        """Name the checkpoint before; none was written since the values are not finite."""
        for name in ("last.ckpt", "best.ckpt"):
            path = None if self.folder is None else self.folder / name
            if path is not None and path.is_file():
                step = torch.load(path, map_location="meta", weights_only=True, mmap=True).get("global_step")
                return f"The last good checkpoint is {path}, of step {step}. "
        return "" if self.folder is None else "No checkpoint was written before. "


def _broken(trainer: pl.Trainer, module: pl.LightningModule) -> list[str]:
    """Name the weights, running statistics and values of the optimiser that are not finite."""
    named = list(_values(trainer, module))
    if not named:
        return []
    device = named[0][1].device
    finite = torch.stack([value.detach().isfinite().all().to(device) for _, value in named])
    return [] if bool(finite.all()) else [n for (n, _), good in zip(named, finite.tolist(), strict=True) if not good]


def _values(trainer: pl.Trainer, module: pl.LightningModule) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    for path, norm in module.named_modules():
        if isinstance(norm, _BatchNorm):
            yield from ((f"{path}.{name}", b) for name, b in norm.named_buffers() if b.is_floating_point())
    for optimizer in trainer.optimizers if trainer.state.fn == "fit" else ():
        for state in optimizer.state.values():
            values = state.items()
            yield from (
                (f"the optimiser's {n}", v) for n, v in values if isinstance(v, Tensor) and v.is_floating_point()
            )
