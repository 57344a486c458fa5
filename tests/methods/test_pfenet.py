"""PFENet: grids, prior, prototype, several supports and auxiliary losses. Its numbers: tests/golden."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from tests.methods.fakes import Affine, inputs, tiny
from torch import Tensor

from fss.backbones.vgg import VGG
from fss.errors import FssError
from fss.finetune.svf import SVF
from fss.methods.pfenet import PFENet
from fss.model.segmenter import FewShotSegmenter
from fss.nn.enrichment import side
from fss.nn.resize import up

BINS = (1.0, 0.5, 0.25)


def model(bins: Sequence[float] = BINS, vgg: bool = False, seed: int = 0) -> FewShotSegmenter:
    torch.manual_seed(seed)
    backbone = VGG(width=4) if vgg else tiny()
    backbone.norm_mode = "eval"
    torch.manual_seed(seed)
    return FewShotSegmenter(backbone, PFENet(backbone.channels, width=8, bins=bins)).eval()


def merged(net: FewShotSegmenter, scale: int, *given: Tensor) -> Tensor:
    """What enters the first convolution of one grid: query 8, prototype 8, prior 1, in this order."""
    seen: list[Tensor] = []
    handle = net.head.enrich.init_merge[scale].register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    with torch.no_grad():
        net(*given)
    handle.remove()
    assert seen[0].shape[1] == 17
    return seen[0]


@pytest.mark.parametrize(
    ("bins", "height", "sides"),
    [
        ((60, 30, 15, 8), 60, [60, 30, 15, 8]),  # PASCAL at 473
        ((60, 30, 15, 8), 30, [60, 30, 15, 8]),  # the same with VGG: finer than its map
        ((60, 30, 15, 8), 81, [60, 30, 15, 8]),  # COCO in the SVF release
        ((1.0, 0.5, 0.25, 0.125), 81, [81, 40, 20, 10]),  # COCO in the original
        ((1.0, 0.5, 0.25, 0.125), 41, [41, 20, 10, 5]),  # the same with VGG
        ((1.0, 0.5, 0.25, 0.125), 3, [3, 1, 1, 1]),
    ],
)
def test_sides_of_the_grids(bins: tuple[float, ...], height: int, sides: list[int]) -> None:
    """methods.md 5.1."""
    assert [side(b, height) for b in bins] == sides


@pytest.mark.parametrize("vgg", [False, True])
@pytest.mark.parametrize("size", [33, 97])
@pytest.mark.parametrize("bins", [BINS, (60, 8)])
def test_any_size_and_both_backbones(bins: tuple[float, ...], size: int, vgg: bool) -> None:
    net = model(bins, vgg)
    query, supports, labels = inputs(2, 2, size)
    with torch.no_grad():
        output = net.head_output(query, supports, labels)
        assert net(query, supports, labels).shape == (2, 2, size, size)
    own = output.logits.shape[-1]
    assert own == ((size - 1) // 16 + 1 if vgg else (size - 1) // 8 + 1)
    assert [a.logits.shape[-1] for a in output.aux_logits] == [side(b, own) for b in bins]


def test_prior_is_one_where_the_query_equals_its_support() -> None:
    """Without convolutions every position has its own features, and finds itself if it lies within the mask."""
    torch.manual_seed(0)
    net = FewShotSegmenter(Affine(), PFENet(Affine.channels, width=8, bins=(1.0,))).eval()
    query, _, labels = inputs(2, 1, size=32)
    labels[:] = 0
    labels[:, :, :20] = 1
    prior = merged(net, 0, query, query[:, None], labels)[:, 16]
    inside = up(labels[:, 0, None].float(), prior.shape[-1])[:, 0] == 1
    assert 0 < int(inside.sum()) < inside.numel()
    assert torch.allclose(prior[inside], torch.ones(()), atol=1e-3)
    assert float(prior[~inside].mean()) < 0.99
    assert float(prior.min()) == 0.0  # scaled to [0, 1]


def test_prototype_of_a_uniform_mask_is_the_mean() -> None:
    net = model((1.0,))
    query, supports, labels = inputs(2, 1)
    everything = torch.ones_like(labels)
    reduced: list[Tensor] = []
    handle = net.head.down_supp.register_forward_hook(lambda *args: reduced.append(args[2]))
    given = merged(net, 0, query, supports, everything)
    handle.remove()
    mean = reduced[0].mean(dim=(2, 3), keepdim=True)
    area = reduced[0][0, 0].numel()
    assert torch.allclose(given[:, 8:16], (mean * area / (area + 0.0005)).expand_as(given[:, 8:16]), atol=1e-5)


def test_several_supports_are_averaged() -> None:
    net = model((1.0,))
    query, supports, labels = inputs(2, 3)
    labels[:, 1, :8] = 1
    ones = [merged(net, 0, query, supports[:, k : k + 1], labels[:, k : k + 1]) for k in range(3)]
    three = merged(net, 0, query, supports, labels)
    assert not torch.allclose(ones[0][:, 8:], ones[1][:, 8:], atol=1e-3)
    assert torch.allclose(three, torch.stack(ones).mean(dim=0), atol=1e-5)


def test_coarser_grids_hear_of_finer_ones() -> None:
    net = model(BINS)
    query, supports, labels = inputs(2, 1)
    with torch.no_grad():
        before = [a.logits for a in net.head_output(query, supports, labels).aux_logits]
        net.head.enrich.beta_conv[1][2].weight.mul_(2)
        after = [a.logits for a in net.head_output(query, supports, labels).aux_logits]
    assert torch.equal(before[0], after[0])
    assert not torch.allclose(before[1], after[1])
    assert not torch.allclose(before[2], after[2])


def test_auxiliary_losses_are_averaged_and_weighted() -> None:
    net = model(BINS)
    net.head.aux_weight = 0.5
    query, supports, labels = inputs(2, 1)
    output = net.head_output(query, supports, labels)
    terms = net.head.loss(output, {"query": labels[:, 0]})
    assert set(terms) == {"main", "aux1", "aux2", "aux3", "total"}
    expected = terms["main"] + 0.5 * (terms["aux1"] + terms["aux2"] + terms["aux3"]) / 3
    assert torch.allclose(terms["total"], expected)
    assert not torch.allclose(terms["total"], terms["main"])


@pytest.mark.parametrize("vgg", [False, True])
def test_empty_support_mask_is_finite_with_gradients(vgg: bool) -> None:
    net = model(vgg=vgg)
    SVF().apply(net.backbone)
    net.train()
    query, supports, labels = inputs(2, 1)
    empty = torch.zeros_like(labels)
    given = merged(net, 0, query, supports, empty)
    assert torch.equal(given[:, 8:], torch.zeros_like(given[:, 8:]))  # prototype and prior
    output = net.head_output(query, supports, empty)
    loss = net.head.loss(output, {"query": labels[:, 0]})["total"]
    assert bool(loss.isfinite())
    loss.backward()
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    assert gradients
    assert all(bool(g.isfinite().all()) for g in gradients)


@pytest.mark.parametrize("vgg", [False, True])
def test_svf_reaches_every_singular_value(vgg: bool) -> None:
    """Stage 4 is reached through the prior alone."""
    net = model(vgg=vgg)
    report = SVF().apply(net.backbone)
    net.head_output(*inputs(2, 1)).logits.square().mean().backward()
    for name in report.trainable:
        gradient = net.backbone.get_parameter(name).grad
        assert gradient is not None
        assert float(gradient.abs().max()) > 0, name


def test_every_parameter_of_the_head_trains() -> None:
    net = model()
    output = net.head_output(*inputs(2, 1))
    net.head.loss(output, {"query": inputs(2, 1)[2][:, 0]})["total"].backward()
    assert not [n for n, p in net.head.named_parameters() if p.grad is None]
    assert len(net.head.param_groups()[0].parameters) == len(list(net.head.parameters()))


def test_sizes_in_the_paper() -> None:
    """methods.md 7.4 and 8.5: 10,817,034 trainable values with ResNet-50; head of 25,146,954 - 14,723,136 with VGG."""
    with torch.device("meta"):
        assert sum(p.numel() for p in PFENet((128, 256, 512, 1024, 2048)).parameters()) == 10_817_034
        assert sum(p.numel() for p in PFENet((64, 128, 256, 512, 512)).parameters()) == 10_423_818


@pytest.mark.parametrize("bins", [(), (0,), (60, -1), (2.5,)])
def test_bad_bins(bins: tuple[float, ...]) -> None:
    with pytest.raises(FssError, match=r"method\.bins=.*method\.bins=\[60,30,15,8\]"):
        model(bins)
