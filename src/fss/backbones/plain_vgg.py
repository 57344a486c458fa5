"""VGG-16 without batch norm, as torchvision has it or with the padded pooling layers of PANet and SG-One."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from torch import Tensor, nn

from fss.backbones.staged import StagedModule
from fss.errors import FssError
from fss.types import InputSpec

Pool = Literal["2x2", "3x3"]

# Stage -> its layers: channels of a convolution relative to the first ones, or 0 for a pooling layer.
_STAGES = ((1, 1, 0, 2, 2, 0), (4, 4, 4, 0), (8, 8, 8), (0, 8, 8, 8), (0,))
_LAST = 3  # stage of the last convolutions


class PlainVGG(StagedModule):
    """VGG-16 of Simonyan and Zisserman (arXiv 1409.1556, configuration D) up to its last pooling.

    Stages have output stride 4, 8, 8, 16 and 32: a pooling layer opens the stage whose resolution it makes. Taps are
    convolutions before their ReLU, and the last pooling.

    SG-One and PMMs pool 3x3 windows with padding and stop at output stride 8. PANet also dilates the last three
    convolutions and ends with the last of them, without ReLU; stage 4 then passes on the map of stage 3. All forms
    have the same parameters, so a checkpoint loads silently into the wrong one.
    """

    weight_files: ClassVar[str] = "It needs the weights without batch norm, vgg16."
    input = InputSpec(step=1, offset=0)

    def __init__(
        self,
        width: int = 64,
        pool: Pool = "2x2",
        output_stride: int = 32,
        dilation: int = 1,
        last_relu: bool = True,
        last_pool: bool = True,
    ) -> None:
        """Build with PyTorch's default initialisation.

        Args:
            width: channels of the first convolution; 64 in the published network.
            pool: window of the pooling layers, all of stride 2: ``2x2``, or ``3x3`` with padding 1.
            output_stride: 32, or 8, where the 4th and the 5th pooling have stride 1.
            dilation: of the last three convolutions, in stage 3.
            last_relu: whether a ReLU follows the last convolution.
            last_pool: whether stage 4 pools; otherwise it passes on the map of stage 3.

        Raises:
            FssError: if an argument is not one of the allowed values, or a 2x2 pooling would have stride 1.
        """
        for name, value, allowed in (
            ("pool", pool, ["2x2", "3x3"]),
            ("output_stride", output_stride, [8, 32]),
            ("dilation", dilation, [1, 2, 4]),
            ("last_relu", last_relu, [True, False]),
            ("last_pool", last_pool, [True, False]),
        ):
            if value not in allowed:
                raise FssError(f"{name}={value!r} is not available for VGG; choose one of {allowed}")
        if output_stride == 8 and pool == "2x2":
            raise FssError(
                "output_stride=8 is not available with pool=2x2, which would shift the maps by half a position at "
                "stride 1: choose pool=3x3, or output_stride=32"
            )
        super().__init__(tuple(width * factor for factor in (2, 4, 8, 8, 8)))
        self.last_relu = last_relu
        c_in = 3
        for i, layers in enumerate(_STAGES):
            stage = nn.Sequential()
            for factor in layers:
                if factor:
                    spread = dilation if i == _LAST else 1
                    conv = nn.Conv2d(c_in, width * factor, 3, padding=spread, dilation=spread)
                    stage.extend([conv, nn.ReLU(inplace=True)])
                    c_in = width * factor
                else:
                    stride = 1 if output_stride == 8 and i >= _LAST else 2
                    stage.append(nn.MaxPool2d(3, stride, 1) if pool == "3x3" else nn.MaxPool2d(2, stride))
            if i == _LAST and not last_relu:
                del stage[-1]
            if i == _LAST + 1 and not last_pool:
                stage[0] = nn.Identity()
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
        activations: list[nn.Module] = [module for module in stage.children() if isinstance(module, nn.ReLU)]
        if activations and (self.last_relu or index != _LAST):
            return activations
        return [*activations, stage]  # its end, be it a pooling or a convolution without ReLU


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
