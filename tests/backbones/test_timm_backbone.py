"""Networks of timm as backbones: equal to timm's own features, in stages that strategies and checkpoints reach."""

from __future__ import annotations

import copy
import math
import pickle
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fss.backbones.staged import StagedModule
from fss.config.compose import composed
from fss.errors import FssError
from fss.finetune.svf import SVF
from fss.instantiate import make
from fss.model.build import build_model, build_strategy, empty_model
from fss.types import InputSpec, StagedBackbone

timm = pytest.importorskip("timm", reason="needs fss[timm]")

from fss.backbones.timm_backbone import TimmBackbone  # noqa: E402
from fss.backbones.timm_parts import equal_groups  # noqa: E402

VIT: dict[str, Any] = {"depth": 5, "embed_dim": 32, "num_heads": 2}
SMALL: dict[str, dict[str, Any]] = {  # reduced: name -> arguments
    "convnext_atto": {"depths": [1, 1, 2, 1], "dims": [8, 8, 16, 16]},
    "resnet18": {"layers": [1, 1, 2, 1], "stem_width": 8},
    "swin_tiny_patch4_window7_224": {"depths": [2, 1, 2, 1], "embed_dim": 16, "num_heads": [1, 2, 2, 4]},
    "efficientnet_b0": {},
    "tf_mobilenetv3_small_minimal_100": {},
    "regnetx_002": {},
    "vit_small_patch14_dinov2": VIT,
    "vit_small_patch16_dinov3": {**VIT, "embed_dim": 64},
    "vit_base_patch16_clip_224.openai": VIT,
    "samvit_base_patch16": {**VIT, "depth": 4, "global_attn_indexes": [3]},
    "sam2_hiera_tiny": {"embed_dim": 16, "num_heads": 1, "stages": [1, 1, 2, 1], "global_att_blocks": [3]},
    "xcit_nano_12_p8_224": {"depth": 4, "embed_dim": 32, "num_heads": 2},
    "mvitv2_tiny": {},
    "beit_base_patch16_224": VIT,
}
CHAINS = ("convnext_atto", "resnet18", "swin_tiny_patch4_window7_224", "efficientnet_b0",
          "tf_mobilenetv3_small_minimal_100", "regnetx_002")  # fmt: skip
WHOLE = tuple(name for name in SMALL if name not in CHAINS)


def build(name: str, **options: Any) -> TimmBackbone:
    torch.manual_seed(0)
    backbone = TimmBackbone(name, **{"arguments": SMALL.get(name, {}), **options})
    for module in backbone.modules():  # LayerScale starts near zero and would hide every branch
        for leaf in ("gamma", "gamma_1", "gamma_2", "gamma1", "gamma2"):
            if isinstance(getattr(module, leaf, None), nn.Parameter):
                nn.init.ones_(getattr(module, leaf))
    return backbone.eval()


@cache
def shared(name: str) -> TimmBackbone:
    return build(name)


def image(backbone: TimmBackbone, side: int | None = None) -> Tensor:
    torch.manual_seed(1)
    side = side or backbone.input.around(64)[1]
    return torch.randn(2, 3, side, side)


def theirs(name: str, backbone: TimmBackbone, **options: Any) -> nn.Module:
    """timm's own features with the values of a backbone."""
    more = {**SMALL.get(name, {}), **options}
    net = timm.create_model(name, pretrained=False, features_only=True, **more)
    state = {}
    for key, value in backbone.state_dict().items():
        own = key.split(".", 1)[1].removeprefix("model.")
        if backbone.stepwise:
            own = own.removeprefix("0.")  # the part that is channels last
            own = own if own in net.state_dict() else own.replace("_", ".", 1)
        else:
            own = f"model.{own if key.startswith('layer0.') else own.replace('_', '.', 1)}"
        state[own] = value
    net.load_state_dict(state, strict=True)
    return net.eval()


@torch.no_grad()
@pytest.mark.parametrize("name", CHAINS)
def test_chains_equal_timms_features(name: str) -> None:
    backbone = shared(name)
    dilating = {"dynamic_img_size": True} if "swin" in name else {"output_stride": 8}
    expected = theirs(name, backbone, **dilating)(image(backbone))[-4:]
    if "swin" in name:
        expected = [m.permute(0, 3, 1, 2) for m in expected]
    found = backbone(image(backbone))
    assert len(found) == 5
    assert all(torch.equal(e, f) for e, f in zip(expected, found[1:], strict=True))
    assert tuple(m.shape[1] for m in found) == backbone.channels


@torch.no_grad()
@pytest.mark.parametrize("name", WHOLE)
def test_networks_in_one_call_equal_timms_features(name: str) -> None:
    backbone = shared(name)
    known = {"samvit": {}, "sam2": {}, "xcit": {}, "mvit": {}, "beit": {}}
    options = next((o for begin, o in known.items() if name.startswith(begin)), {"dynamic_img_size": True})
    ends = {4: (0, 1, 2, 3), 5: (0, 1, 2, 4)}[SMALL[name].get("depth", 4)]
    expected = theirs(name, backbone, out_indices=ends, **options)(image(backbone))
    found = backbone(image(backbone))
    assert all(torch.equal(e, f) for e, f in zip(expected, found[1:], strict=True))
    assert tuple(m.shape[1] for m in found) == backbone.channels


@pytest.mark.parametrize(
    ("count", "ends"), [(4, (0, 1, 2, 3)), (12, (2, 5, 8, 11)), (24, (5, 11, 17, 23)), (14, (2, 5, 9, 13))]
)
def test_groups_are_equal_and_the_last_ones_take_the_rest(count: int, ends: tuple[int, ...]) -> None:
    assert equal_groups(count) == ends


def test_stages_of_a_plain_transformer() -> None:
    backbone = shared("vit_small_patch14_dinov2")
    assert [sorted(dict(backbone.stage(i).named_children())) for i in range(5)] == [
        ["model"], ["blocks_0"], ["blocks_1"], ["blocks_2"], ["blocks_3", "blocks_4"],
    ]  # fmt: skip
    held = {k.split(".")[2] for k in backbone.state_dict() if k.startswith("layer0.")}
    assert held == {"cls_token", "pos_embed", "patch_embed"}
    assert not backbone.stepwise
    assert isinstance(backbone, StagedBackbone)


@torch.no_grad()
def test_stage_0_is_the_patch_embedding() -> None:
    for name in ("vit_small_patch14_dinov2", "vit_small_patch16_dinov3", "samvit_base_patch16"):
        backbone = shared(name)
        pixels = image(backbone)
        projection: Any = backbone.get_submodule("layer0.model.patch_embed.proj")
        assert torch.allclose(backbone(pixels)[0], projection(pixels), atol=1e-5), name


def test_stage_0_of_a_resnet_ends_with_its_pooling() -> None:
    backbone = shared("resnet18")
    assert isinstance(list(backbone.stage(0))[-1], nn.MaxPool2d)  # type: ignore[call-overload]
    assert backbone.strides == (4, 4, 8, 8, 8)


@torch.no_grad()
def test_taps_are_the_outputs_of_blocks() -> None:
    backbone = shared("vit_small_patch14_dinov2")
    pixels = image(backbone)
    maps, taps = backbone.maps(pixels, [1, 4], [1, 4])
    assert [len(taps[1]), len(taps[4])] == [1, 2]
    assert torch.equal(taps[4][-1], maps[4])
    assert torch.equal(taps[1][0], maps[1])
    assert not torch.equal(taps[4][0], maps[4])
    swin = shared("swin_tiny_patch4_window7_224")
    caught: list[Tensor] = []
    handles = [
        b.register_forward_hook(lambda _, __, output: caught.append(swin.as_map(output))) for b in swin.blocks(3)
    ]
    outputs = swin(image(swin))
    for handle in handles:
        handle.remove()
    assert len(caught) == 2
    assert torch.equal(caught[-1], outputs[3])


def test_taps_that_a_network_does_not_give_are_refused() -> None:
    backbone = shared("sam2_hiera_tiny")
    with pytest.raises(FssError, match=r"ends of its stages: use a head that needs no taps"):
        backbone.maps(image(backbone), [4], [2])


@torch.no_grad()
def test_final_norm() -> None:
    pixels = image(shared("vit_small_patch14_dinov2"))
    plain = build("vit_small_patch14_dinov2")
    outputs = plain(pixels)
    for rule in ("last", "all"):
        normed = build("vit_small_patch14_dinov2", final_norm=rule)
        assert {k for k in normed.state_dict() if k not in plain.state_dict()} == {
            "layer4.norm.weight", "layer4.norm.bias",
        }  # fmt: skip
        normed.load_state_dict(plain.state_dict(), strict=False)
        norm: Any = normed.get_submodule("layer4.norm")
        expected = [norm(m.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) for m in outputs]
        found = normed(pixels)
        for stage in range(5):
            changed = stage == 4 or (rule == "all" and stage > 0)
            assert torch.equal(found[stage], expected[stage] if changed else outputs[stage]), (rule, stage)
        assert len(normed.blocks(4)) == 2
    with pytest.raises(FssError, match="runs stage by stage"):
        build("convnext_atto", final_norm="last")
    with pytest.raises(FssError, match="choose one of none, last, all"):
        build("vit_small_patch14_dinov2", final_norm="first")


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
SPECS = {
    "convnext_atto": InputSpec(*IMAGENET, 8, 0),
    "resnet18": InputSpec(*IMAGENET, 8, 1),
    "swin_tiny_patch4_window7_224": InputSpec(*IMAGENET, 32, 0),
    "tf_mobilenetv3_small_minimal_100": InputSpec((0.5,) * 3, (0.5,) * 3, 8, 1),
    "vit_small_patch14_dinov2": InputSpec(*IMAGENET, 14, 0),
    "vit_small_patch16_dinov3": InputSpec(*IMAGENET, 16, 0),
    "vit_base_patch16_clip_224.openai": InputSpec(*CLIP, 16, 0),
    "sam2_hiera_tiny": InputSpec(*IMAGENET, 32, 0),
    "beit_base_patch16_224": InputSpec((0.5,) * 3, (0.5,) * 3, 224, 0, 224),
}


@pytest.mark.parametrize("name", SPECS)
@torch.no_grad()
def test_every_allowed_side_runs_and_is_covered(name: str) -> None:
    backbone = shared(name)
    spec = backbone.input
    assert spec == SPECS[name]
    sides = [s for s in (*range(1, 120), 224, 225, 256, 257) if spec.allows(s)]
    for side in {sides[0], sides[1 % len(sides)], sides[len(sides) // 2], sides[-1]}:
        maps = backbone(image(backbone, side))
        expected = [(side - spec.offset) // stride + spec.offset for stride in backbone.strides]
        assert [m.shape[-1] for m in maps] == expected
    assert not spec.allows(sides[0] + 1)


def test_a_fixed_side_can_be_chosen() -> None:
    backbone = build("beit_base_patch16_224", img_size=96)
    assert (backbone.input.step, backbone.input.most, backbone.input.rule) == (96, 96, "96 alone")
    assert (backbone.input.allows(96), backbone.input.allows(192), backbone.input.around(300)) == (
        True,
        False,
        (96, 96),
    )
    assert backbone(image(backbone, 96))[4].shape[-1] == 6


def test_what_dilation_does_is_noted() -> None:
    assert build("resnet18").notes == ()
    assert build("convnext_atto", output_stride=32).notes == ()
    (note,) = build("convnext_atto").notes
    assert note.endswith("in pixels of the image: stage 3 by 4, stage 4 by 4")
    (note,) = build("swin_tiny_patch4_window7_224").notes
    assert note.startswith("backbone.output_stride=8: swin_tiny_patch4_window7_224.ms_in1k cannot dilate to it")
    assert build("swin_tiny_patch4_window7_224", output_stride=None).notes == ()


@torch.no_grad()
def test_dilated_convnext_looks_where_the_note_says() -> None:
    """The middle of what a position sees, from squared gradients; expected for patches: stride * (i + 1/2) - 1/2."""
    backbone = build("convnext_atto").double()
    middle = {2: 0.0, 3: 0.0, 4: 0.0}
    draws = 4
    for _ in range(draws):
        pixels = torch.randn(1, 3, 128, 128, dtype=torch.float64, requires_grad=True)
        with torch.enable_grad():
            maps = backbone(pixels)
            for stage in middle:
                at = maps[stage][0, :, 7, 7]
                (gradient,) = torch.autograd.grad((at * torch.randn_like(at)).sum(), pixels, retain_graph=True)
                weight = gradient[0].square().sum(dim=(0, 1))
                middle[stage] += float((weight * torch.arange(128)).sum() / weight.sum()) / draws
    shift = {stage: place - (8 * 7.5 - 0.5) for stage, place in middle.items()}
    assert abs(shift[2]) < 1.5
    assert abs(shift[3] - 4) < 1.5
    assert abs(shift[4] - 4) < 2.5


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "vit_small_patch14_dinov2", "samvit_base_patch16"])
@torch.no_grad()
def test_values_are_reached_through_copies_and_files(name: str) -> None:
    """A network that runs in one call looks its blocks up where the stages hold them, in copies as well."""
    backbone = build(name)
    pixels = image(backbone)
    before = backbone(pixels)
    other = copy.deepcopy(backbone)
    read = pickle.loads(pickle.dumps(backbone))
    for parameter in backbone.parameters():
        parameter.mul_(1.5)
    after = backbone(pixels)
    assert not torch.equal(after[1], before[1])
    assert all(torch.equal(b, o) for one in (other, read) for b, o in zip(before, one(pixels), strict=True))
    other.load_state_dict(backbone.state_dict())
    assert all(torch.equal(a, o) for a, o in zip(after, other(pixels), strict=True))
    names = [n for n, _ in backbone.named_parameters()]
    assert len({id(p) for p in backbone.parameters()}) == len(names)
    assert all(n.startswith(tuple(f"layer{i}." for i in range(5))) for n in names)


def test_every_value_gets_a_gradient() -> None:
    for name in ("vit_small_patch14_dinov2", "vit_small_patch16_dinov3", "swin_tiny_patch4_window7_224"):
        backbone = build(name).train()
        sum(m.square().mean() for m in backbone(image(backbone))).backward()  # type: ignore[union-attr]
        assert not [n for n, p in backbone.named_parameters() if p.grad is None], name


@torch.no_grad()
def test_modules_that_a_stage_holds_can_be_replaced() -> None:
    backbone = build("vit_small_patch14_dinov2", final_norm="last")
    pixels = image(backbone)
    before = backbone(pixels)

    class Zero(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros_like(x)

    setattr(backbone.stage(4), "norm", Zero())  # noqa: B010
    assert backbone(pixels)[4].abs().max() == 0
    setattr(backbone.stage(3), "blocks_2", Zero())  # noqa: B010
    after = backbone(pixels)
    assert torch.equal(after[2], before[2])
    assert after[3].abs().max() == 0


@pytest.mark.parametrize("name", ["vit_small_patch16_dinov3", "swin_tiny_patch4_window7_224", "convnext_atto"])
def test_svf_finds_the_layers_of_stages_and_what_it_puts_there_runs(name: str) -> None:
    backbone = build(name)
    pixels = image(backbone)
    with torch.no_grad():
        before = backbone(pixels)
        report = SVF((3,)).apply(backbone)
        injected = backbone(pixels)
    assert all(torch.allclose(b, i, rtol=1e-4, atol=1e-4) for b, i in zip(before, injected, strict=True))
    assert report.trainable
    assert all(n.startswith("layer3.") for n in report.trainable)
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.requires_grad:
                parameter.mul_(2)
        changed = backbone(pixels)
    assert torch.equal(changed[2], injected[2])
    assert not torch.allclose(changed[3], injected[3], rtol=1e-2)


def config(name: str) -> dict[str, Any]:
    view = "masked_before_stage4" if name in CHAINS else "masked_image"
    return {
        "backbone": {
            "_target_": "fss.backbones.timm_backbone.TimmBackbone", "name": "timm", "model": name, "weights": "none",
            "arguments": SMALL[name], "sizes": None,
        },
        "method": {"_target_": "fss.methods.baseline.Baseline", "name": "baseline", "width": 8, "support_view": view},
        "finetune": {"_target_": "fss.finetune.svf.SVF", "name": "svf", "stages": [3, 4]},
        "data": {"name": "shapes", "size": 64}, "recipe": {}, "trainer": {}, "fold": 0, "shot": 1,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["vit_small_patch16_dinov3", "swin_tiny_patch4_window7_224", "sam2_hiera_tiny"])
def test_a_model_is_rebuilt_from_its_state_dict(name: str) -> None:
    """Without values at first, and with buffers that no file holds: window indices, masks, rotary tables."""
    torch.manual_seed(0)
    model = build_model(config(name)).eval()
    build_strategy(config(name)["finetune"]).apply(model.backbone)
    again, _ = empty_model(config(name), torch.float32)
    again.load_state_dict(model.state_dict(), strict=True)
    side = config(name)["data"]["size"]
    query, support = torch.randn(1, 3, side, side), torch.randn(1, 1, 3, side, side)
    mask = torch.ones(1, 1, side, side, dtype=torch.uint8)
    with torch.no_grad():
        expected, found = (m.eval()(query, support, mask) for m in (model, again))
    assert torch.equal(expected, found)
    assert math.isfinite(float(found.abs().sum()))


def test_equal_seeds_give_equal_networks() -> None:
    """Looking at a network first, without values, draws no random numbers."""
    from fss.backbones import timm_backbone

    timm_backbone._described.cache_clear()
    torch.manual_seed(3)
    first = TimmBackbone("resnet18", arguments={"layers": [1, 1, 1, 1]}).state_dict()
    torch.manual_seed(3)
    second = TimmBackbone("resnet18", arguments={"layers": [1, 1, 1, 1]}).state_dict()
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_stochastic_depth_is_off_unless_asked_for() -> None:
    def rates(**more: float) -> set[float]:
        arguments = {**SMALL["swin_tiny_patch4_window7_224"], **more}
        backbone = build("swin_tiny_patch4_window7_224", arguments=arguments)
        return {m.drop_prob for m in backbone.modules() if type(m).__name__ == "DropPath"}

    assert rates() <= {0.0}
    assert max(rates(drop_path_rate=0.2)) > 0.1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"model": "convnext_tinny"}, r"convnext_tinny is no network of timm .* Do you mean convnext_tiny"),
        ({"model": "zzzz"}, r"zzzz is no network of timm \S+ All names: python -c"),
        ({"model": "hf-hub:timm/resnet18.a1_in1k"}, "is no network of timm"),
        ({"model": "resnet18.a9_in1k"}, r"knows no weights 'a9_in1k' of resnet18\. Known: .*resnet18\.a1_in1k"),
        ({"model": "resnet18", "arguments": {"depht": 2}}, r"cannot be built with \{\"depht\": 2\}.*depht"),
        ({"model": "resnet18", "arguments": {"checkpoint_path": "x"}}, r"checkpoint_path, which the backbone gives"),
        ({"model": "hrnet_w18_small"}, r"HighResolutionNetFeatures of timm is neither a chain"),
        ({"model": "levit_128s"}, r"cannot be parted into four stages: it gives 3 features"),
        ({"model": "vgg11"}, r"not four that part it into five stages"),
        ({"model": "inception_v3"}, r"inception_v3\S* cannot serve as a backbone: its maps at 299 pixels"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(FssError, match=text):
        TimmBackbone(**options)


@pytest.mark.parametrize(
    "group",
    ["convnext_tiny", "swin_tiny", "swin_base", "dinov2_small", "dinov3_small", "clip_base", "sam_base", "resnet50_a1"],
)
def test_ready_groups_have_a_narrow_form_for_the_toy_size(group: str) -> None:
    node = composed([f"backbone={group}", "+size=smoke"])["backbone"]
    backbone = make("backbone", node, StagedModule)
    assert sum(p.numel() for p in backbone.parameters()) < 400_000
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, *2 * [backbone.input.nearest(64)]))
    assert [m.shape[1] for m in maps] == list(backbone.channels)


def test_a_family_without_a_narrow_form_is_told_so() -> None:
    with pytest.raises(FssError, match="No narrow form of regnety_002"):
        TimmBackbone("regnety_002", width=8)
    with pytest.raises(FssError, match="multiple of 4"):
        TimmBackbone("convnext_tiny", width=6)
