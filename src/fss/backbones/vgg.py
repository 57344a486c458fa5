"""VGG-16 with batch norm, split into five stages of output stride 2, 4, 8, 16 and 16."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import nn

from fss.backbones.staged import StagedModule
from fss.errors import FssError

CONVOLUTIONS = (2, 2, 3, 3, 3)
"""Convolutions per stage; every stage but the last ends with a pooling layer."""


class VGG(StagedModule):
    """VGG-16-BN of Simonyan and Zisserman (arXiv 1409.1556) as used in few-shot segmentation.

    Configuration D of torchvision with two changes of the releases: pooling rounds sizes up (``ceil_mode``), so that
    473 becomes 237, 119, 60 and 30, and the last pooling is removed. No dilation. Convolutions have a bias.
    """

    weight_files: ClassVar[str] = "VGG needs the weights with batch norm, vgg16_bn."

    def __init__(self, depth: int = 16, width: int = 64) -> None:
        """Build with PyTorch's default initialisation.

        Args:
            depth: 16.
            width: channels of the first stage; 64 in every published network.

        Raises:
            FssError: if the depth is not available.
        """
        if depth != 16:
            raise FssError(f"depth={depth!r} is not available for VGG; choose one of [16]")
        channels = (width, 2 * width, 4 * width, 8 * width, 8 * width)
        super().__init__(channels)
        ins = (3, *channels[:-1])
        for i, count in enumerate(CONVOLUTIONS):
            self.add_module(f"layer{i}", _stage(ins[i], channels[i], count, pool=i < len(CONVOLUTIONS) - 1))

    def blocks(self, index: int) -> Sequence[nn.Module]:
        """Return the activations of a stage: a convolution with its batch norm is no module of its own.

        Args:
            index: 0 to 4.
        """
        return [module for module in self.stage(index).children() if isinstance(module, nn.ReLU)]


def _stage(c_in: int, c_out: int, count: int, pool: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(count):
        conv = nn.Conv2d(c_in if i == 0 else c_out, c_out, 3, padding=1)
        layers += [conv, nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]
    if pool:
        layers.append(nn.MaxPool2d(2, 2, ceil_mode=True))
    return nn.Sequential(*layers)
