"""VGG-16 without batch norm, as torchvision has it: output stride 32, split where HSNet and VAT take its maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor, nn

from fss.backbones.staged import StagedModule
from fss.types import InputSpec

# Stage -> its layers: channels of a convolution relative to the first ones, or 0 for a pooling layer.
_STAGES = ((1, 1, 0, 2, 2, 0), (4, 4, 4, 0), (8, 8, 8), (0, 8, 8, 8), (0,))


class PlainVGG(StagedModule):
    """VGG-16 of Simonyan and Zisserman (arXiv 1409.1556, configuration D) up to its last pooling.

    Stages have output stride 4, 8, 8, 16 and 32: a pooling layer opens the stage whose resolution it makes. Taps are
    convolutions before their ReLU, and the last pooling.
    """

    weight_files: ClassVar[str] = "It needs the weights without batch norm, vgg16."
    input = InputSpec(step=1, offset=0)

    def __init__(self, width: int = 64) -> None:
        """Build with PyTorch's default initialisation.

        Args:
            width: channels of the first convolution; 64 in the published network.
        """
        super().__init__(tuple(width * factor for factor in (2, 4, 8, 8, 8)))
        c_in = 3
        for i, layers in enumerate(_STAGES):
            stage = nn.Sequential()
            for factor in layers:
                if factor:
                    stage.extend([nn.Conv2d(c_in, width * factor, 3, padding=1), nn.ReLU(inplace=True)])
                    c_in = width * factor
                else:
                    stage.append(nn.MaxPool2d(2, 2))
            self.add_module(f"layer{i}", stage)

    def stage_keys(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename torchvision's tensors, which are numbered across stages.

        Args:
            state: name -> tensor.

        Returns:
            The same tensors under stage names; the classifier keeps its names.
        """
        names, renamed = _names(), {}
        for key, value in state.items():
            layer, dot, leaf = key.rpartition(".")
            renamed[names.get(layer, layer) + dot + leaf] = value
        return renamed

    def blocks(self, index: int) -> Sequence[nn.Module]:
        """Return the activations of a stage, or the stage itself if it is a pooling layer alone.

        Args:
            index: 0 to 4.
        """
        stage = self.stage(index)
        return [module for module in stage.children() if isinstance(module, nn.ReLU)] or [stage]


def _names() -> dict[str, str]:
    """Return torchvision's name of every convolution -> this backbone's."""
    names, number = {}, 0
    for i, layers in enumerate(_STAGES):
        place = 0
        for factor in layers:
            if factor:
                names[f"features.{number}"] = f"layer{i}.{place}"
            number, place = number + 1 + bool(factor), place + 1 + bool(factor)
    return names
