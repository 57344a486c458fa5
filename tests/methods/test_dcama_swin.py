"""DCAMA on Swin-B: tables of the official code by formula, its names and sizes, and a narrow Swin in its plain form."""

from __future__ import annotations

import math
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from tests.methods import plain_swin
from torch import Tensor

from fss.checkpoints.release_files import convert_file, export, released_shapes
from fss.checkpoints.release_guess import advice
from fss.checkpoints.release_models import released_config
from fss.checkpoints.state_dicts import from_release, ordered, to_release
from fss.config.compose import composed
from fss.errors import FssError
from fss.methods.dcama import DCAMA
from fss.methods.releases import KeyMap, Released
from fss.methods.swin_release import relative_positions, shift_mask, stored_tables, swin
from fss.model.build import build_model, build_strategy
from fss.model.segmenter import FewShotSegmenter

TIMM = "backbone=swin_base needs the extra fss[timm]"
RELEASED = Released("dcama", "dcama", "swin_base", "coco", 1, "freeze", 0)
DEPTHS, HEADS, SIDE, WINDOW = (2, 2, 3, 2), (1, 2, 2, 4), 16, 4
"""A narrow Swin for 64 pixels: layers of 16, 8, 4 and 2 positions, so that the first two shift their windows."""


def test_relative_positions_by_hand() -> None:
    """The second position of a window of two is one column further than the first, the third one row."""
    expected = [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]
    assert relative_positions(2).tolist() == expected
    assert relative_positions(12).dtype == torch.int64


@pytest.mark.parametrize(("side", "window", "shift"), [(8, 4, 2), (6, 3, 1), (24, 12, 6)])
def test_a_shifted_window_keeps_pairs_that_were_neighbours(side: int, window: int, shift: int) -> None:
    """Positions that a roll brings into one window belong together if they lie less than a window apart without it."""
    mask = shift_mask(side, window, shift)
    assert mask.dtype == torch.float32
    rolled = [[(r + shift) % side, (c + shift) % side] for r in range(side) for c in range(side)]
    places = torch.tensor(rolled).reshape(side, side, 2)
    for number, found in enumerate(mask):
        top, left = (window * n for n in divmod(number, side // window))
        inside = places[top : top + window, left : left + window].reshape(-1, 2)
        apart = (inside[:, None] - inside[None]).abs()
        expected = torch.where((apart < window).all(dim=-1), 0.0, -100.0)
        assert torch.equal(found, expected), number
    assert bool((mask[-1] == -100).any())
    assert not bool(mask[0].any())


def test_tables_are_those_that_timm_computes() -> None:
    timm = pytest.importorskip("timm", reason=TIMM)
    options = {"window_size": WINDOW, "embed_dim": 8, "depths": DEPTHS, "num_heads": HEADS, "img_size": 4 * SIDE}
    net = timm.create_model("swin_base_patch4_window12_384", pretrained=False, **options)
    kinds = ("attn.relative_position_index", "attn_mask")
    theirs = {name: tensor for name, tensor in net.named_buffers() if name.endswith(kinds)}
    ours = stored_tables("", DEPTHS, SIDE, WINDOW)
    assert ours.keys() == theirs.keys()
    assert sum(name.endswith("attn_mask") for name in ours) == 2
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


class TestNarrow:
    """A Swin of 64 pixels in the names of the official code."""

    table = KeyMap(swin("x."), computed=lambda: stored_tables("x.", DEPTHS, SIDE, WINDOW))

    @staticmethod
    def node(**more: Any) -> dict[str, Any]:
        pytest.importorskip("timm", reason=TIMM)
        node = composed(["method=dcama", "backbone=swin_base", "backbone.weights=none", "method.width=32"])
        options = {"window_size": WINDOW, "embed_dim": 16, "depths": list(DEPTHS), "num_heads": list(HEADS)}
        node["backbone"] |= {"img_size": 4 * SIDE, "arguments": options, **more}
        return node

    def build(self) -> tuple[FewShotSegmenter, dict[str, Tensor]]:
        """Return the model and its backbone in the official names, with values that let every tensor count."""
        model = build_model(self.node(), pretrained=False).double().eval()
        own = {f"backbone.{k}": v for k, v in model.backbone.state_dict().items()}  # type: ignore[operator]
        theirs = to_release(own, self.table)
        g = torch.Generator().manual_seed(0)
        for name, tensor in theirs.items():
            if tensor.dtype == torch.float64:
                noise = torch.randn(tensor.shape, generator=g, dtype=torch.float64)
                scale = 1.0 if name.endswith("table") else tensor[0].numel() ** -0.5 if tensor.dim() > 1 else 0.2
                theirs[name] = scale * noise + (1.0 if ".norm" in name and name.endswith("weight") else 0.0)
        renamed = {k.removeprefix("backbone."): v for k, v in from_release(theirs, self.table).items()}
        model.backbone.load_state_dict(renamed, strict=True)  # type: ignore[operator]
        return model, theirs

    def test_taps_are_the_outputs_of_blocks_before_patch_merging(self) -> None:
        model, theirs = self.build()
        g = torch.Generator().manual_seed(1)
        query = torch.randn(1, 3, 4 * SIDE, 4 * SIDE, generator=g, dtype=torch.float64)
        state = {k.removeprefix("x."): v for k, v in theirs.items()}
        expected = plain_swin.block_outputs(state, query, DEPTHS, HEADS, WINDOW)
        labels = torch.ones(1, 1, 4 * SIDE, 4 * SIDE, dtype=torch.uint8)
        with torch.no_grad():
            features = model._features(query, 0.5 * query[:, None], labels, {})
        assert [len(features.query_taps[stage]) for stage in (1, 2, 3, 4)] == list(DEPTHS)
        for stage, maps in enumerate(expected, start=1):
            for found, plain in zip(features.query_taps[stage], maps, strict=True):
                assert found.shape == plain.shape == (1, 16 * 2 ** (stage - 1), *[SIDE // 2 ** (stage - 1)] * 2)
                assert float((found - plain).abs().max()) < 1e-10 * float(plain.abs().max())

    def test_the_round_trip_and_tables_of_other_values(self) -> None:
        model, theirs = self.build()
        own = {f"backbone.{k}": v for k, v in model.backbone.state_dict().items()}  # type: ignore[operator]
        back = to_release(own, self.table)
        assert back.keys() == theirs.keys()
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in back.items())
        for name in ("x.layers.0.blocks.1.attn_mask", "x.layers.3.blocks.0.attn.relative_position_index"):
            changed = {**theirs, name: theirs[name].roll(1)}
            with pytest.raises(FssError, match=f"{name} must hold the values that follow from the architecture"):
                from_release(changed, self.table)

    @pytest.mark.parametrize("detach", [False, True])
    def test_gradients_reach_the_backbone_unless_they_are_stopped(self, detach: bool) -> None:
        node = self.node()
        node["method"]["detach"] = detach
        model = build_model(node, pretrained=False)
        report = build_strategy({**node["finetune"]}).apply(model.backbone)
        image = torch.randn(1, 3, 4 * SIDE, 4 * SIDE)
        labels = torch.zeros(1, 1, 4 * SIDE, 4 * SIDE, dtype=torch.uint8)
        labels[..., :40, :50] = 1  # stage 4 has four positions, in the corners
        if detach:
            with pytest.raises(FssError, match=r"method\.detach=true .* finetune=freeze"):
                model.head_output(image, image[:, None].flip(-1), labels)
            return
        model.head_output(image, image[:, None].flip(-1), labels).logits.square().mean().backward()
        assert len(report.trainable) == 4 * sum(DEPTHS[1:]) + 3, (
            "four layers per block of stages 2 to 4, three mergings"
        )
        for name in report.trainable:
            gradient = model.backbone.get_parameter(name).grad  # type: ignore[operator]
            assert gradient is not None, name
            assert bool((gradient != 0).any()), name


def test_detach_with_a_frozen_swin() -> None:
    node = TestNarrow.node()
    node["method"]["detach"] = True
    model = build_model(node, pretrained=False)
    build_strategy(composed(["finetune=freeze"])["finetune"]).apply(model.backbone)
    image = torch.randn(1, 3, 4 * SIDE, 4 * SIDE)
    labels = torch.ones(1, 1, 4 * SIDE, 4 * SIDE, dtype=torch.uint8)
    model.head_output(image, image[:, None], labels).logits.square().mean().backward()
    assert all(p.grad is None for p in model.backbone.parameters())
    assert all(p.grad is not None for p in model.head.parameters())


def test_the_form_for_smoke_tests() -> None:
    """Narrow and shallow, and on images of another size."""
    pytest.importorskip("timm", reason=TIMM)
    node = composed(["method=dcama", "backbone=swin_base", "+size=smoke"])
    model = build_model(node, pretrained=False)
    image = torch.randn(1, 3, 96, 96)
    labels = torch.ones(1, 1, 96, 96, dtype=torch.uint8)
    with torch.no_grad():
        assert model(image, image[:, None], labels).shape == (1, 2, 96, 96)


def test_counts_and_round_trip_of_the_release(tmp_path: Path) -> None:
    """Entries and parameters as counted in the official model; tensors of a value each come back under their names."""
    pytest.importorskip("timm", reason=TIMM)
    shapes = released_shapes(released_config(RELEASED), RELEASED)
    buffers = {k for k in shapes if k.endswith(("attn.relative_position_index", "attn_mask"))}
    counted = {k: math.prod(v) for k, v in shapes.items() if k not in buffers and not k.startswith("model.pe.")}
    backbone = {k for k in shapes if k.startswith("feature_extractor.")}
    assert (len(shapes), len(backbone), len(buffers)) == (451, 364, 35)
    assert sum(counted.values()) == 92_976_978
    assert sum(v for k, v in counted.items() if k in backbone) == 87_903_584
    assert sum(v for k, v in counted.items() if k not in backbone) == 5_073_394
    said = advice({k: torch.zeros(1) for k in shapes}, replace(RELEASED, backbone="resnet50"))
    assert said == "By its names it needs --backbone swin_base."
    table = DCAMA.releases[0].keys("swin_base")
    state = {k: torch.tensor(zlib.crc32(k.encode()) / 2**32).expand(v) for k, v in shapes.items()}
    state |= table.computed()
    theirs, ours, back = tmp_path / "theirs.pth", tmp_path / "ours.ckpt", tmp_path / "back.pth"
    torch.save({f"module.{k}": v for k, v in state.items()}, theirs)
    assert "451 tensors" in convert_file(theirs, RELEASED, ours)
    assert "451 tensors" in export(ours, back, None, False)
    written = torch.load(back, weights_only=True)
    assert list(written) == [f"module.{k}" for k in state]
    for name, tensor in state.items():
        found = written[f"module.{name}"]
        assert found.dtype == tensor.dtype
        assert torch.equal(found, tensor), name
    trained = torch.load(ours, weights_only=True)
    del trained["fss_release"]
    torch.save(trained, ours)
    export(ours, back, "dcama", False)
    assert list(torch.load(back, weights_only=True)) == [f"module.{k}" for k in ordered(state, table)]


def in_the_order_of_the_release(backbone: list[str]) -> list[str]:
    """Return all names, given those of the feature extractor, which comes first."""
    layers = [f"DCAMA_blocks.{i}.linears.{n}" for i in range(3) for n in range(2)]
    stacks = [f"conv{i}.{n}" for i in range(1, 6) for n in (0, 1, 3, 4, 6, 7)]
    mixers = [f"mixer{i}.{n}" for i in (1, 2, 3) for n in (0, 2)]
    valued = {name: [f"model.{name}.weight", f"model.{name}.bias"] for name in (*layers, *stacks, *mixers)}
    head = [n for layer in layers for n in valued[layer]] + [f"model.pe.{i}.pe" for i in range(3)]
    head += [n for layer in (*stacks, *mixers) for n in valued[layer]]
    return [f"feature_extractor.{name}" for name in backbone] + head


def written_names(backbone: str) -> list[str]:
    """Return the names in a file written from a checkpoint that was trained here."""
    released = replace(RELEASED, backbone=backbone)
    return ordered(released_shapes(released_config(released), released), DCAMA.releases[0].keys(backbone))


def test_swin_is_written_in_the_order_by_which_the_release_reads() -> None:
    pytest.importorskip("timm", reason=TIMM)
    names = [f"patch_embed.{name}.{kind}" for name in ("proj", "norm") for kind in ("weight", "bias")]
    for layer, depth in enumerate((2, 2, 18, 2)):
        for block in range(depth):
            within = ["attn_mask"] if block % 2 and layer < 3 else []
            within += ["norm1.weight", "norm1.bias", "attn.relative_position_bias_table"]
            within += ["attn.relative_position_index", "attn.qkv.weight", "attn.qkv.bias"]
            within += ["attn.proj.weight", "attn.proj.bias", "norm2.weight", "norm2.bias"]
            within += ["mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight", "mlp.fc2.bias"]
            names += [f"layers.{layer}.blocks.{block}.{name}" for name in within]
        if layer < 3:
            names += [f"layers.{layer}.downsample.{name}" for name in ("reduction.weight", "norm.weight", "norm.bias")]
    names += ["norm.weight", "norm.bias", "head.weight", "head.bias"]
    assert written_names("swin_base") == in_the_order_of_the_release(names)


def test_resnet_is_written_in_the_order_by_which_the_release_reads() -> None:
    with torch.device("meta"):
        names = list(torchvision.models.resnet50().state_dict())
    assert written_names("resnet50") == in_the_order_of_the_release(names)
