"""Base class of all backbones: five named stages and a batch-norm mode that ``train()`` does not change."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import ClassVar, Self

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fss.backbones.stage_keys import to_stage_keys
from fss.errors import FssError
from fss.types import InputSpec, NormMode


class StagedModule(nn.Module):
    """Base of all backbones; stages are the attributes ``layer0`` (the stem) to ``layer4``.

    Attributes:
        channels: output channels of stages 0 to 4.
        input: normalisation and sides of the images; ImageNet's statistics and sides of 8m + 1 pixels by default.
        stepwise: whether each stage can be called on the map of the one before; see :meth:`maps`.
        notes: what the result of a run must say about this backbone.
        weight_files: which weight files fit, for the message about one that does not.
        norm_mode: ``eval`` keeps batch norm in evaluation mode even after ``train()``; fine-tuning freezes the
            statistics this way by default (released option ``fix_bn``). ``train`` is PFENet's original behaviour,
            ``train_late`` PPNet's: only stages 3 and 4 follow ``train()``.
    """

    STAGES: ClassVar[int] = 5
    weight_files: ClassVar[str] = (
        "Give a file that was saved from this backbone with the same options: torch.save(backbone.state_dict(), path)."
    )

    channels: tuple[int, ...]
    input: InputSpec = InputSpec()
    stepwise: bool = True
    notes: tuple[str, ...] = ()

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.channels = channels
        self.norm_mode: NormMode = "train"

    def stage(self, index: int) -> nn.Module:
        """Return stage ``index``.

        Args:
            index: 0 (the stem) to 4.

        Returns:
            The module that maps the previous stage's output to this stage's.

        Raises:
            FssError: if the stage does not exist.
        """
        if not 0 <= index < self.STAGES:
            raise FssError(f"stage {index} does not exist; a backbone has stages 0 (stem) to {self.STAGES - 1}")
        module: nn.Module = getattr(self, f"layer{index}")
        return module

    def stage_keys(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename the tensors of a weight file to the names of this backbone.

        Args:
            state: name -> tensor as stored in the file of ``backbone.weights``, or already under stage names.

        Returns:
            The same tensors, possibly with some that this backbone does not have. Handles the published names of
            ResNet and VGG; other backbones override this.
        """
        return to_stage_keys(state)

    def published(self, weights: str) -> Mapping[str, Tensor] | None:
        """Read the weights that an option names, in backbones that know by themselves where they are.

        Args:
            weights: value of ``backbone.weights``, never ``none``.

        Returns:
            Stage name -> tensor; None: the records of :mod:`fss.backbones.weight_files` tell, and files are read as
            :meth:`stage_keys` says.
        """
        return None

    def blocks(self, index: int) -> Sequence[nn.Module]:
        """Return the modules of a stage that run in sequence and whose outputs are its taps, e.g. residual blocks.

        Args:
            index: 0 (the stem) to 4.
        """
        return list(self.stage(index).children())

    def as_map(self, output: Tensor) -> Tensor:
        """Return what a block of :meth:`blocks` gives as a map.

        Args:
            output: of a block.

        Returns:
            (N, C, h, w).
        """
        return output

    def maps(
        self, image: Tensor, stages: Collection[int], taps: Collection[int] = ()
    ) -> tuple[dict[int, Tensor], dict[int, list[Tensor]]]:
        """Run a backbone that is not ``stepwise`` once, for all wanted stages.

        Args:
            image: normalised RGB, (N, 3, H, W).
            stages: stages whose output is wanted.
            taps: stages of which the output of every block is wanted.

        Returns:
            Stage -> (N, C, h, w), and stage -> one (N, C, h, w) per block.

        Raises:
            NotImplementedError: in a stepwise backbone, whose stages are called one by one.
        """
        raise NotImplementedError(f"{type(self).__name__} is stepwise: its stages are called one by one")

    def forward(self, image: Tensor) -> list[Tensor]:
        """Run all stages.

        Args:
            image: normalised RGB, (N, 3, H, W).

        Returns:
            Outputs of stages 0 to 4, each (N, C, h, w).
        """
        if not self.stepwise:
            found, _ = self.maps(image, range(self.STAGES))
            return [found[index] for index in range(self.STAGES)]
        outputs: list[Tensor] = []
        for index in range(self.STAGES):
            image = self.stage(index)(image)
            outputs.append(image)
        return outputs

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; batch norm follows ``norm_mode``.

        Args:
            mode: training (True) or evaluation.

        Returns:
            The module itself.
        """
        super().train(mode)
        if self.norm_mode != "train":
            held = self.modules() if self.norm_mode == "eval" else self._early()
            for module in held:
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _early(self) -> Iterator[nn.Module]:
        for index in range(3):
            yield from self.stage(index).modules()
