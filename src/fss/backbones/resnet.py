"""Dilated ResNets (output stride 8) with both stems and both dilation variants of the releases."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from fss.backbones.staged import StagedModule
from fss.errors import FssError
from fss.types import InputSpec

Stem = Literal["deep", "torchvision"]
Dilation = Literal["uniform", "torchvision", "none"]
_Block = type[BasicBlock] | type[Bottleneck]

_DEPTHS: dict[int, tuple[_Block, tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}
# (dilation of the first block, of the others) in stages 3 and 4.
_DILATIONS: dict[Dilation, dict[int, tuple[int, int]]] = {
    "uniform": {3: (2, 2), 4: (4, 4)},
    "torchvision": {3: (1, 2), 4: (2, 4)},
    "none": {},
}


class ResNet(StagedModule):
    """ResNet of He et al. (arXiv 1512.03385) as used in few-shot segmentation.

    Blocks are torchvision's (stride on the 3x3 convolution). Stages 3 and 4 use dilation instead of stride. Two
    variants are in use and share all parameter shapes, so a checkpoint loads silently into the wrong one:
    ``uniform`` (PFENet, BAM: every 3x3 has dilation 2 / 4) and ``torchvision`` (the SVF release's baseline and
    PFENet: the first block of a stage keeps the previous stage's dilation, 1 / 2). ``none`` keeps the strides, for
    pre-training on classification.
    """

    weight_files: ClassVar[str] = (
        "The usual cause is the stem: files named *_v2.pth need backbone.stem=deep, torchvision's need "
        "backbone.stem=torchvision."
    )

    def __init__(
        self, depth: int = 50, stem: Stem = "torchvision", dilation: Dilation = "torchvision", width: int = 64
    ) -> None:
        """Build with PyTorch's default initialisation.

        Args:
            depth: 18, 50, 101 or 152.
            stem: ``torchvision`` (one 7x7) or ``deep`` (three 3x3, as in PSPNet's ``resnet50_v2``).
            dilation: variant of the dilated stages.
            width: channels of the first stage before expansion; 64 in every published network.

        Raises:
            FssError: if an argument is not one of the allowed values.
        """
        for name, value, allowed in (
            ("depth", depth, list(_DEPTHS)),
            ("stem", stem, ["deep", "torchvision"]),
            ("dilation", dilation, list(_DILATIONS)),
        ):
            if value not in allowed:
                raise FssError(f"{name}={value!r} is not available for ResNet; choose one of {allowed}")
        block, counts = _DEPTHS[depth]
        stem_out = 2 * width if stem == "deep" else width
        outs = tuple(width * 2**i * block.expansion for i in range(4))
        super().__init__((stem_out, *outs))
        if dilation == "none":
            self.input = InputSpec(step=1, offset=0)  # nothing has to end at a position of the coarsest map
        self.layer0 = _deep_stem(width) if stem == "deep" else _torchvision_stem(width)
        ins = (stem_out, *outs[:-1])
        for i in range(4):
            stage = _stage(block, ins[i], width * 2**i, counts[i], stride=1 if i == 0 else 2)
            if i + 1 in _DILATIONS[dilation]:
                _dilate(stage, *_DILATIONS[dilation][i + 1])
            self.add_module(f"layer{i + 1}", stage)


def _deep_stem(width: int) -> nn.Sequential:
    def conv(c_in: int, c_out: int, stride: int) -> list[nn.Module]:
        return [nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]

    layers = conv(3, width, 2) + conv(width, width, 1) + conv(width, 2 * width, 1)
    return nn.Sequential(*layers, nn.MaxPool2d(3, 2, 1))


def _torchvision_stem(width: int) -> nn.Sequential:
    conv = nn.Conv2d(3, width, 7, 2, 3, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1))


def _stage(block: _Block, c_in: int, planes: int, count: int, stride: int) -> nn.Sequential:
    c_out = planes * block.expansion
    downsample = None
    if stride != 1 or c_in != c_out:
        downsample = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))
    blocks = [block(c_in, planes, stride, downsample)]
    blocks += [block(c_out, planes) for _ in range(count - 1)]
    return nn.Sequential(*blocks)


def _dilate(stage: nn.Sequential, first: int, rest: int) -> None:
    """Replace stride with dilation in place, as torchvision's BasicBlock cannot be built with dilation."""
    for index, block in enumerate(stage):
        for module in block.modules():
            if not isinstance(module, nn.Conv2d):
                continue
            module.stride = (1, 1)
            if module.kernel_size == (3, 3):
                d = first if index == 0 else rest
                module.dilation = module.padding = (d, d)
