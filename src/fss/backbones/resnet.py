"""Dilated ResNets (output stride 8) with the stems, dilations, strides and last activations of the releases."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from fss.backbones.staged import StagedModule
from fss.errors import FssError
from fss.types import InputSpec

Stem = Literal["deep", "torchvision"]
Dilation = Literal["uniform", "torchvision", "none"]
StrideOn = Literal["3x3", "1x1"]
Pool = Literal["floor", "ceil"]
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

    Blocks are torchvision's. Stages 3 and 4 use dilation instead of stride: ``uniform`` (PFENet, BAM: every 3x3 has
    dilation 2 / 4) or ``torchvision`` (the SVF release's baseline and PFENet: the first block of a stage keeps the
    previous stage's dilation, 1 / 2). ``none`` keeps the strides, for pre-training on classification.

    Releases differ in three more respects, by default torchvision's: CANet and PMMs have the stride on the first 1x1
    convolution of a bottleneck and a pooling that rounds up, PPNet has no ReLU at the end of stage 4. All forms with
    the same stem share all parameter shapes, so a checkpoint loads silently into the wrong one.
    """

    weight_files: ClassVar[str] = (
        "The usual cause is the stem: files named *_v2.pth need backbone.stem=deep, torchvision's need "
        "backbone.stem=torchvision."
    )

    def __init__(
        self,
        depth: int = 50,
        stem: Stem = "torchvision",
        dilation: Dilation = "torchvision",
        width: int = 64,
        stride_on: StrideOn = "3x3",
        pool: Pool = "floor",
        last_relu: bool = True,
    ) -> None:
        """Build with PyTorch's default initialisation.

        Args:
            depth: 18, 50, 101 or 152.
            stem: ``torchvision`` (one 7x7) or ``deep`` (three 3x3, as in PSPNet's ``resnet50_v2``).
            dilation: variant of the dilated stages.
            width: channels of the first stage before expansion; 64 in every published network.
            stride_on: convolution of a bottleneck that has the stride: the ``3x3``, or the first ``1x1`` as in He et
                al. and in CANet.
            pool: whether the stem's pooling rounds sizes down (``floor``) or up (``ceil``), as in CANet; the same where
                the side of the input is 8n + 1.
            last_relu: whether stage 4 ends in a ReLU; without one in PPNet.

        Raises:
            FssError: if an argument is not one of the allowed values, or the blocks have no 1x1 convolution.
        """
        for name, value, allowed in (
            ("depth", depth, list(_DEPTHS)),
            ("stem", stem, ["deep", "torchvision"]),
            ("dilation", dilation, list(_DILATIONS)),
            ("stride_on", stride_on, ["3x3", "1x1"]),
            ("pool", pool, ["floor", "ceil"]),
            ("last_relu", last_relu, [True, False]),
        ):
            if value not in allowed:
                raise FssError(f"{name}={value!r} is not available for ResNet; choose one of {allowed}")
        block, counts = _DEPTHS[depth]
        if stride_on == "1x1" and block is BasicBlock:
            raise FssError(
                f"stride_on=1x1 is not available for depth={depth}, whose blocks have 3x3 convolutions only: choose "
                "stride_on=3x3, or one of the depths 50, 101 and 152"
            )
        stem_out = 2 * width if stem == "deep" else width
        outs = tuple(width * 2**i * block.expansion for i in range(4))
        super().__init__((stem_out, *outs))
        if dilation == "none":
            self.input = InputSpec(step=1, offset=0)  # nothing has to end at a position of the coarsest map
        convolutions = _deep_stem(width) if stem == "deep" else _torchvision_stem(width)
        self.layer0 = nn.Sequential(*convolutions, nn.MaxPool2d(3, 2, 1, ceil_mode=pool == "ceil"))
        ins = (stem_out, *outs[:-1])
        for i in range(4):
            last = block if last_relu or i < 3 else _WITHOUT_LAST_RELU[block]
            stage = _stage(block, ins[i], width * 2**i, counts[i], stride=1 if i == 0 else 2, last=last)
            if stride_on == "1x1":
                _stride_first(stage)
            if i + 1 in _DILATIONS[dilation]:
                _dilate(stage, *_DILATIONS[dilation][i + 1])
            self.add_module(f"layer{i + 1}", stage)


class BottleneckWithoutLastReLU(Bottleneck):  # type: ignore[misc]  # torchvision has no types
    """A bottleneck block whose sum is its output."""

    def forward(self, x: Tensor) -> Tensor:
        """Run the block, (N, Ci, H, W) to (N, Co, h, w)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return _sum(self.bn3(self.conv3(y)), self, x)


class BasicBlockWithoutLastReLU(BasicBlock):  # type: ignore[misc]
    """A basic block whose sum is its output."""

    def forward(self, x: Tensor) -> Tensor:
        """Run the block, (N, Ci, H, W) to (N, Co, h, w)."""
        y = self.relu(self.bn1(self.conv1(x)))
        return _sum(self.bn2(self.conv2(y)), self, x)


_WITHOUT_LAST_RELU: dict[_Block, _Block] = {
    Bottleneck: BottleneckWithoutLastReLU,
    BasicBlock: BasicBlockWithoutLastReLU,
}


def _sum(y: Tensor, block: Bottleneck | BasicBlock, x: Tensor) -> Tensor:
    shortcut: Tensor = x if block.downsample is None else block.downsample(x)
    return y + shortcut


def _deep_stem(width: int) -> list[nn.Module]:
    def conv(c_in: int, c_out: int, stride: int) -> list[nn.Module]:
        return [nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]

    return conv(3, width, 2) + conv(width, width, 1) + conv(width, 2 * width, 1)


def _torchvision_stem(width: int) -> list[nn.Module]:
    conv = nn.Conv2d(3, width, 7, 2, 3, bias=False)
    return [conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]


def _stage(block: _Block, c_in: int, planes: int, count: int, stride: int, last: _Block) -> nn.Sequential:
    c_out = planes * block.expansion
    downsample = None
    if stride != 1 or c_in != c_out:
        downsample = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))
    blocks = [block(c_in, planes, stride, downsample)]
    blocks += [block(c_out, planes) for _ in range(count - 2)]
    return nn.Sequential(*blocks, last(c_out, planes))


def _stride_first(stage: nn.Sequential) -> None:
    """Move the stride of a stage's first bottleneck from its second convolution to its first."""
    block = stage[0]
    assert isinstance(block, Bottleneck)
    block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride


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
