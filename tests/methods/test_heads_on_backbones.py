"""The heads of the paper on backbones of every kind: they train, and a test with cached features scores the same."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest
import torch
from tests.methods.fakes import tiny
from tests.model.episodes import Stream, balance, module, rows
from tests.model.tokens import tokens
from torch import Tensor

from fss.backbones.efficientnet_lite import EfficientNetLite
from fss.backbones.staged import StagedModule
from fss.backbones.vgg import VGG
from fss.errors import FssError
from fss.finetune.base import Strategy
from fss.finetune.chains.merged_copy import merged_copy
from fss.finetune.freeze import Freeze
from fss.finetune.full import Full
from fss.finetune.lora import LoRA
from fss.finetune.svf import SVF
from fss.lit.optim import Recipe, parameter_groups
from fss.methods.bam import BAM
from fss.methods.base import FewShotHead
from fss.methods.base_learner import BaseLearner
from fss.methods.baseline import Baseline
from fss.methods.masked_view import MaskedView
from fss.methods.pfenet import PFENet
from fss.model.companion import BaseBranch, SharedPrefix
from fss.model.segmenter import FewShotSegmenter
from fss.types import Episode

TIMM = {
    "convnext": ("convnext_atto", 8, {"dims": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}),
    "swin": ("swin_tiny_patch4_window7_224", None, {"embed_dim": 8, "depths": [1, 1, 2, 1], "num_heads": [1, 1, 2, 2]}),
    "dinov2": ("vit_small_patch14_dinov2", None, {"embed_dim": 16, "depth": 4, "num_heads": 2}),
    "dinov3": ("vit_small_patch16_dinov3", None, {"embed_dim": 16, "depth": 4, "num_heads": 2}),
}
"""Narrow or shallow forms of networks of timm: name, output stride, other arguments."""
OWN: dict[str, Callable[[], StagedModule]] = {
    "resnet18": partial(tiny, 8),
    "vgg16": partial(VGG, width=4),
    "efficientnet_lite0": partial(EfficientNetLite, width=4),
    "tokens": tokens,
}
STRIDES = {  # input pixels per position of stages 2, 3 and 4
    "resnet18": (8, 8, 8), "vgg16": (8, 16, 16), "efficientnet_lite0": (8, 8, 8), "tokens": (7, 7, 7),
    "convnext": (8, 8, 8), "swin": (8, 16, 32), "dinov2": (14, 14, 14), "dinov3": (16, 16, 16),
}  # fmt: skip
STRATEGIES: dict[str, Callable[[], Strategy]] = {"freeze": Freeze, "svf": SVF, "lora": LoRA, "full": Full}
HEADS = ("baseline", "pfenet", "bam")


@cache
def plain(name: str) -> StagedModule:
    """Return a backbone whose every branch counts: norm and scale weights are near one, not at their first values."""
    torch.manual_seed(0)
    if name in OWN:
        backbone = OWN[name]()
    else:
        pytest.importorskip("timm", reason="backbones of timm need the extra fss[timm]")
        from fss.backbones.timm_backbone import TimmBackbone

        model, stride, arguments = TIMM[name]
        backbone = TimmBackbone(model, output_stride=stride, arguments=arguments)
    generator = torch.Generator().manual_seed(1)
    for parameter in backbone.parameters():
        if parameter.dim() == 1 and bool((parameter == parameter[0]).all()):
            noise = torch.rand(parameter.shape, generator=generator)
            parameter.data = 0.5 + noise if float(parameter.detach()[0]) else noise - 0.5
    backbone.norm_mode = "eval"
    return backbone.double().eval()


def build(head: str, name: str) -> FewShotSegmenter:
    backbone = copy.deepcopy(plain(name))
    view: MaskedView = "masked_before_stage4" if backbone.stepwise else "masked_image"
    torch.manual_seed(2)
    companion, made = None, None
    if head == "bam":
        made = BAM(backbone.channels, width=8, support_view=view)
        companion = BaseBranch(copy.deepcopy(plain(name)), BaseLearner(backbone.channels, 5, width=8))
    elif head == "pfenet":
        made = PFENet(backbone.channels, width=8, bins=(6, 3), support_view=view)
    else:
        made = Baseline(backbone.channels, width=8, support_view=view)
    assert isinstance(made, FewShotHead)
    return FewShotSegmenter(backbone, made, companion).double()


def side(name: str) -> int:
    """Return a side that leaves several positions to stage 4."""
    return plain(name).input.nearest(97 if name == "swin" else 65)


def stream(name: str) -> Stream:
    return Stream(1, count=3, dtype=torch.float64, size=side(name))


def trained(model: FewShotSegmenter, batch: Episode) -> dict[str, Tensor]:
    """Take one step as training does, and return the gradients of the backbone."""
    base = torch.zeros_like(batch.query_label)
    batch.extras |= {"base_label": base, "base_index": torch.zeros(len(batch), dtype=torch.int64)}
    labels = {"query": batch.query_label, "support": batch.support_labels.flatten(0, 1), "base": base}
    groups = [{"params": g["params"]} for g in parameter_groups(model, Recipe(optimizer=torch.optim.SGD))]
    optimizer = torch.optim.SGD(groups, lr=0.01)
    total = model.train().head.loss(model.run_episode(batch), labels)["total"]
    total.backward()
    assert bool(total.isfinite())
    for parameter in model.head.parameters():
        assert parameter.grad is None or bool(parameter.grad.isfinite().all())
    optimizer.step()
    return {n: p.grad for n, p in model.backbone.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", STRIDES)
@pytest.mark.parametrize("head", HEADS)
def test_a_step_and_a_test_with_and_without_cached_features(head: str, name: str, strategy: str) -> None:
    model, tuning = build(head, name), STRATEGIES[strategy]()
    tuning.apply(model.backbone)
    model.backbone.double()  # type: ignore[operator]
    before = {n: v.clone() for n, v in model.backbone.state_dict().items()}  # type: ignore[operator]
    episodes = stream(name)
    gradients = trained(model, episodes.batches(2)[0])
    tuning.after_step(model.backbone)
    trains = {n for n, p in model.backbone.named_parameters() if p.requires_grad}
    assert bool(trains) is (strategy != "freeze")
    assert gradients.keys() <= trains
    learned = [g for g in gradients.values() if bool((g != 0).any())]
    assert len(learned) >= 0.3 * len(trains), "of LoRA the first factor has no gradient yet; full trains unused layers"
    after = model.backbone.state_dict()  # type: ignore[operator]
    moved = {n for n, v in after.items() if not torch.equal(v, before[n])}
    assert moved <= trains, "statistics of batch norm, or frozen values"
    tested = module(model.eval())
    balance(model, episodes)
    expected = rows(tested, episodes)
    assert len(set(expected[:, 2].tolist())) > 1, "the answers must differ for the comparison to mean something"
    model.cache_features(1 << 30, merged_copy(model.backbone))  # type: ignore[arg-type]
    assert torch.equal(rows(tested, episodes, 2), expected)
    if strategy == "freeze":  # nothing is merged, and nothing fits into the cache
        model.cache_features(1, None)
        assert torch.equal(rows(tested, episodes, 3), expected)


@pytest.mark.parametrize("name", STRIDES)
def test_stages_have_the_strides_that_this_file_claims(name: str) -> None:
    size, images = side(name), plain(name).input
    with torch.no_grad():
        maps = plain(name)(torch.randn(1, 3, size, size, dtype=torch.float64))
    edges = images.offset  # of sides 8n + 1 the first and the last position lie in the border pixels
    assert tuple((size - edges) // (m.shape[-1] - edges) for m in maps[2:]) == STRIDES[name]


@pytest.mark.parametrize("name", STRIDES)
def test_a_base_learner_shares_the_stages_that_can_be_called_one_by_one(name: str) -> None:
    model = build("bam", name)
    Freeze().apply(model.backbone)
    assert model.companion is not None
    shared = SharedPrefix()(model.backbone, model.companion.backbone)
    assert shared == (5 if plain(name).stepwise else 0)


def test_a_base_learner_that_expects_other_images_is_refused() -> None:
    own = tokens()
    learner = BaseBranch(tiny(8), BaseLearner((8, 8, 16, 32, 64), 5, width=8))
    with pytest.raises(FssError, match=r"both see the same ones.*checkpoint out"):
        FewShotSegmenter(own, BAM(own.channels, width=8, support_view="masked_image"), learner)


@pytest.mark.parametrize("head", [Baseline, PFENet, BAM])
def test_a_transformer_and_a_mask_before_stage_4_exclude_each_other(head: Any) -> None:
    with pytest.raises(FssError, match=r"Tokens cannot be run one by one.*: method\.support_view=masked_image"):
        FewShotSegmenter(tokens(), head((8,) * 5, width=8))
    with pytest.raises(FssError, match=r"method\.support_view=plain: choose masked_before_stage4 or masked_image"):
        head((8,) * 5, width=8, support_view="plain")
