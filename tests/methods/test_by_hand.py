"""Every head on episodes whose guidance can be told by hand: equal images, uniform and empty masks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.methods.fakes import Affine, inputs, tiny
from torch import Tensor, nn

from fss.backbones.vgg import VGG
from fss.finetune.svf import SVF
from fss.methods.bam import BAM
from fss.methods.base import FewShotHead
from fss.methods.base_learner import BaseLearner
from fss.methods.baseline import Baseline
from fss.methods.pfenet import PFENet
from fss.model.companion import BaseBranch
from fss.model.segmenter import FewShotSegmenter
from fss.nn.prototype import AREA_EPS
from fss.nn.resize import up

WIDTH, CLASSES = 8, 6
HEADS: dict[str, Callable[[tuple[int, ...], int], FewShotHead]] = {
    "baseline": lambda channels, shot: Baseline(channels, WIDTH),
    "pfenet": lambda channels, shot: PFENet(channels, WIDTH, bins=(1.0, 0.5)),
    "bam": lambda channels, shot: BAM(channels, WIDTH, shot=shot),
}


def small_vgg() -> nn.Module:
    torch.manual_seed(0)
    backbone = VGG(width=4)
    backbone.norm_mode = "eval"
    return backbone


BACKBONES: dict[str, Callable[[], nn.Module]] = {"affine": Affine, "resnet": tiny, "vgg": small_vgg}


def model(head: str, shot: int, backbone: str) -> FewShotSegmenter:
    own, frozen = BACKBONES[backbone](), tiny()  # any base learner will do: it takes no part in the guidance
    torch.manual_seed(1)
    built = HEADS[head](own.channels, shot)  # type: ignore[arg-type]
    companion = BaseBranch(frozen, BaseLearner(frozen.channels, CLASSES, width=8)) if head == "bam" else None  # type: ignore[arg-type]
    return FewShotSegmenter(own, built, companion).eval()


def guided(net: FewShotSegmenter, *given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return prototype and prior as they are joined with the query, and the reduced support features."""
    merge = net.head.enrich.init_merge[0] if isinstance(net.head, PFENet) else net.head.init_merge
    joined: list[Tensor] = []
    reduced: list[Tensor] = []
    handles = [
        merge.register_forward_pre_hook(lambda _, x: joined.append(x[0])),
        net.head.down_supp.register_forward_hook(lambda *args: reduced.append(args[2])),
    ]
    with torch.no_grad():
        net.head_output(*given)
    for handle in handles:
        handle.remove()
    assert joined[0].shape[1] == 2 * WIDTH + 1  # query, prototype, prior
    return joined[0][:, WIDTH : 2 * WIDTH], joined[0][:, -1], reduced[0]


@pytest.mark.parametrize("shot", [1, 5])
@pytest.mark.parametrize("head", HEADS)
def test_prior_is_one_where_the_query_equals_its_support(head: str, shot: int) -> None:
    """Without convolutions every position has its own features, and finds itself if it lies within the mask."""
    net = model(head, shot, "affine")
    query, _, labels = inputs(2, shot, size=32)
    labels[:] = 0
    labels[:, :, :20] = 1
    _, prior, _ = guided(net, query, query[:, None].expand(-1, shot, -1, -1, -1), labels)
    inside = up(labels[:, 0, None].float(), prior.shape[-1])[:, 0] == 1
    assert 0 < int(inside.sum()) < inside.numel()
    assert torch.allclose(prior[inside], torch.ones(()), atol=1e-3)
    assert float(prior[~inside].mean()) < 0.99
    assert float(prior.min()) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("backbone", ["resnet", "vgg"])
@pytest.mark.parametrize("head", HEADS)
def test_prototype_of_a_uniform_mask_is_the_mean(head: str, backbone: str) -> None:
    net = model(head, 1, backbone)
    query, supports, labels = inputs(2, 1)
    prototype, _, reduced = guided(net, query, supports, torch.ones_like(labels))
    area = reduced[0, 0].numel()
    mean = reduced.mean(dim=(2, 3), keepdim=True) * area / (area + AREA_EPS)
    assert float(mean.abs().max()) > 0
    assert torch.allclose(prototype, mean.expand_as(prototype), atol=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_prototype_is_the_mean_under_the_mask(head: str) -> None:
    """Stages of this backbone only halve the size twice, so a mask of whole cells stays hard but at its border."""
    net = model(head, 1, "affine")
    query, supports, labels = inputs(2, 1, size=32)
    labels[:] = 0
    labels[:, :, 8:24, 8:24] = 1
    prototype, _, reduced = guided(net, query, supports, labels)
    mask = up(labels.float(), reduced.shape[-1])
    expected = (reduced * mask).sum(dim=(2, 3)) / (mask.sum(dim=(2, 3)) + AREA_EPS)
    assert torch.allclose(prototype[:, :, 0, 0], expected, atol=1e-5)
    assert not torch.allclose(prototype[:, :, 0, 0], reduced.mean(dim=(2, 3)), atol=1e-3)


@pytest.mark.parametrize("shot", [1, 5])
@pytest.mark.parametrize("backbone", ["resnet", "vgg"])
@pytest.mark.parametrize("head", HEADS)
def test_empty_masks_are_finite_with_gradients(head: str, backbone: str, shot: int) -> None:
    net = model(head, shot, backbone)
    SVF().apply(net.backbone)
    query, supports, labels = inputs(2, shot)
    empty = torch.zeros_like(labels)
    prototype, prior, _ = guided(net, query, supports, empty)
    assert torch.equal(prototype, torch.zeros_like(prototype))
    assert torch.equal(prior, torch.zeros_like(prior))
    net.train()
    output = net.head_output(query, supports, empty, extras={"base_index": torch.tensor([0, 1])})
    loss = net.head.loss(output, {"query": labels[:, 0].long(), "base": torch.zeros_like(labels[:, 0]).long()})["total"]
    assert bool(loss.isfinite())
    loss.backward()
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    assert gradients
    assert all(bool(g.isfinite().all()) for g in gradients)


@pytest.mark.parametrize("head", HEADS)
def test_one_empty_support_among_five_does_no_harm(head: str) -> None:
    net = model(head, 5, "resnet")
    query, supports, labels = inputs(2, 5)
    full = guided(net, query, supports, labels)[1]
    labels[:, 2] = 0
    with torch.no_grad():
        assert bool(net.head_output(query, supports, labels).logits.isfinite().all())
    prototype, prior, _ = guided(net, query, supports, labels)
    assert float(prototype.abs().max()) > 0
    assert 0 < float(prior.max()) < float(full.max())


def test_style_factor_of_equal_images_is_zero() -> None:
    net = model("bam", 5, "vgg")
    query, _, labels = inputs(2, 5)
    with torch.no_grad():
        features = net._features(query, query[:, None].expand(-1, 5, -1, -1, -1), labels, {})
        other = net._features(query, query[:, None].flip(0).expand(-1, 5, -1, -1, -1), labels, {})
    assert isinstance(net.head, BAM)
    assert float(net.head._style_distance(features).abs().max()) < 1e-6
    assert float(net.head._style_distance(other).min()) > 1e-3
