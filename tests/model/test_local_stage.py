"""A stage run only where it counts gives there what it gives as a whole."""

from __future__ import annotations

import pytest
import torch
from tests.methods.fakes import tiny
from torch import Tensor, nn

from fss.backbones.resnet import ResNet
from fss.backbones.vgg import VGG
from fss.finetune.adapter import Adapter
from fss.finetune.svf import SVF
from fss.model.local_stage import LARGEST, Box, LocalStage

SIDE = 45


def backbone(kind: str) -> nn.Module:
    torch.manual_seed(0)
    if kind == "vgg":
        net: ResNet | VGG = VGG(16, width=4)
    elif kind == "resnet18":
        net = tiny(4)
    else:
        net = ResNet(50, width=4, dilation="uniform" if kind == "uniform" else "torchvision")
    net.norm_mode = "eval"
    if kind == "svf":
        SVF().apply(net)
    if kind == "adapter":
        Adapter().apply(net)
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.normal_(norm.bias)
        nn.init.uniform_(norm.running_var, 0.5, 1.5)
    return net.double().eval()


def mask(*boxes: tuple[int, int, int, int]) -> Tensor:
    made = torch.zeros(SIDE, SIDE, dtype=torch.float64)
    for top, bottom, left, right in boxes:
        made[top:bottom, left:right] = 0.5
    return made


MASKS = {
    "middle": mask((20, 26, 18, 21)),
    "corner": mask((0, 3, 40, 45)),
    "two": mask((3, 6, 3, 6), (14, 15, 20, 22)),
    "one": mask((44, 45, 0, 1)),
    "all": mask((0, 45, 0, 45)),
    "none": mask(),
}


@pytest.mark.parametrize("kind", ["resnet18", "torchvision", "uniform", "svf", "adapter", "vgg"])
@torch.inference_mode()
def test_inside_the_mask_nothing_differs(kind: str) -> None:
    net = backbone(kind)
    x = torch.randn(1, net.channels[3], SIDE, SIDE, dtype=torch.float64)
    stage, whole = net.stage(4), net.stage(4)(x)
    seen: list[int] = []
    inside = LocalStage(stage, x)
    assert inside.blocks is not None
    inside.blocks[0][0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0, 0].numel()))
    for name, wanted in MASKS.items():
        seen.clear()
        got = inside(x * wanted, wanted)
        expected = stage(x * wanted)
        where = wanted > 0
        assert got.shape == whole.shape
        torch.testing.assert_close(got[..., where], expected[..., where], rtol=0, atol=1e-12)
        if name in ("corner", "one"):
            assert seen[0] < SIDE * SIDE / 2, "a part of the map was enough"


@torch.inference_mode()
def test_the_reach_is_that_of_the_dilated_kernels() -> None:
    x = torch.randn(1, 64, SIDE, SIDE, dtype=torch.float64)
    for kind, reaches in (("torchvision", [2, 4, 4]), ("uniform", [4, 4, 4])):
        blocks = LocalStage(backbone(kind).stage(4), x).blocks
        assert blocks is not None
        assert [reach for _, reach in blocks] == reaches
    basic = LocalStage(backbone("resnet18").stage(4), x[:, :16]).blocks
    assert basic is not None
    assert [reach for _, reach in basic] == [2 + 2, 4 + 4]


class Pooled(nn.Module):
    """Adds the mean of all positions."""

    def forward(self, x: Tensor) -> Tensor:
        return x + x.mean(dim=(2, 3), keepdim=True)


class Windows(nn.Module):
    """Adds the mean of its window to every position: what belongs together depends on where the map begins."""

    def __init__(self, side: int = 3) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        pad = [(-s) % self.side for s in x.shape[-2:]]
        padded = nn.functional.pad(x, (0, pad[1], 0, pad[0]))
        means = nn.functional.avg_pool2d(padded, self.side)
        return x + nn.functional.interpolate(means, scale_factor=self.side)[..., : x.shape[-2], : x.shape[-1]]


class Positions(nn.Module):
    """Adds the row number to every value."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.arange(x.shape[-2], dtype=x.dtype)[:, None]


class Attention(nn.Module):
    """Self-attention over all positions."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        return self.attention(tokens, tokens, tokens)[0].transpose(1, 2).view_as(x)


class Sized(nn.Module):
    """Takes maps of one size alone."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("position", torch.randn(4, SIDE, SIDE))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.position


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of every position, as ConvNeXt has it: (N, C, h, w) becomes NHWC and back."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return out


@torch.inference_mode()
def test_a_norm_over_channels_reaches_no_further() -> None:
    torch.manual_seed(0)
    stage = nn.Sequential(nn.Conv2d(4, 4, 7, padding=3, groups=4), ChannelNorm(), nn.Conv2d(4, 4, 1), nn.GELU())
    x = torch.randn(1, 4, SIDE, SIDE)
    inside = LocalStage(stage, x)
    assert inside.blocks is not None
    assert [reach for _, reach in inside.blocks] == [3, 0, 0, 0]
    where = MASKS["middle"] > 0
    torch.testing.assert_close(inside(x, MASKS["middle"])[..., where], stage(x)[..., where], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "last",
    [
        Pooled(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, padding=LARGEST, dilation=LARGEST), Windows(), Windows(2),
        Positions(), Attention(), Sized(),
    ],
    ids=["all", "size", "far", "windows", "even windows", "positions", "attention", "one size"],
)  # fmt: skip
@torch.inference_mode()
def test_a_stage_that_cannot_be_cut_runs_as_a_whole(last: nn.Module) -> None:
    stage = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), last)
    x = torch.randn(1, 4, SIDE, SIDE)
    inside = LocalStage(stage, x)
    assert inside.blocks is None
    assert torch.equal(inside(x, MASKS["middle"]), stage(x))


@pytest.mark.parametrize("path", ["", "0", "1.inner", "1.inner.0"])
@pytest.mark.parametrize("kind", ["register_forward_hook", "register_forward_pre_hook"])
@torch.inference_mode()
def test_who_listens_within_a_stage_hears_every_image_once_and_whole(kind: str, path: str) -> None:
    """Wherever the hook is: it never sees the strips of NaN, nor a part of a map; and it may change what it sees."""
    inner = nn.Module()
    inner.inner = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1))
    inner.forward = lambda x: inner.inner(x)  # type: ignore[method-assign,assignment]
    stage, seen = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), inner), []
    x = torch.randn(1, 4, SIDE, SIDE)
    plain = stage(x)
    getattr(stage.get_submodule(path), kind)(lambda _, inputs, *__: seen.append(inputs[0]))
    inside = LocalStage(stage, x)
    assert not seen, "measuring is no image"
    assert torch.equal(inside(x, MASKS["middle"]), plain)
    (heard,) = seen
    assert heard.shape == x.shape
    assert bool(heard.isfinite().all())


def test_a_box_holds_the_mask_and_stays_on_the_map() -> None:
    assert Box.around(MASKS["two"]) == Box(3, 15, 3, 22)
    assert Box.around(MASKS["none"]) is None
    assert Box(3, 15, 3, 22).grown(5, (17, 45)) == Box(0, 17, 0, 27)
