"""HDMNet: against its plain form, cases made by hand, what order and number of supports change, and its groups."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from tests.methods import plain_hdmnet
from tests.methods.fakes import tiny
from tests.model.episodes import Stream
from tests.model.tokens import tokens
from torch import Tensor, nn

from fss.backbones.efficientnet_lite import EfficientNetLite
from fss.backbones.resnet import ResNet
from fss.backbones.staged import StagedModule
from fss.backbones.vgg import VGG
from fss.checkpoints.release_files import released_shapes
from fss.checkpoints.release_models import released_config
from fss.errors import FssError
from fss.finetune.base import Strategy
from fss.finetune.chains.merged_copy import merged_copy
from fss.finetune.freeze import Freeze
from fss.finetune.svf import SVF
from fss.lit.optim import Recipe, build_optimizer
from fss.methods.base_learner import BaseLearner
from fss.methods.hdmnet import HDMNet
from fss.methods.releases import Released
from fss.model.companion import BaseBranch
from fss.model.segmenter import FewShotSegmenter
from fss.nn.matching.cross import ObjectAttention, distillation
from fss.nn.matching.encoder import SelfAttention
from fss.nn.matching.pyramid import StillBatchNorm2d
from fss.types import EpisodeFeatures

CHANNELS, CLASSES, EMBEDDED = (4, 4, 6, 10, 12), 5, 7
SAME, GROWING = (9, 9, 9), (17, 9, 5)
"""Sides of stages 2, 3 and 4: as in the release on ResNets, and of a backbone that keeps halving."""


def head(seed: int = 0, **options: object) -> HDMNet:
    torch.manual_seed(seed)
    made = HDMNet(CHANNELS, **{"width": 12, "tokens": 8, **options}).double()  # type: ignore[arg-type]
    for module in made.modules():  # nothing at its neutral initial value
        if isinstance(module, nn.LayerNorm | StillBatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
        if isinstance(module, StillBatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.5)
    with torch.no_grad():
        made.gram_merge.weight.copy_(torch.tensor([0.9, 0.4]).view(1, 2, 1, 1))
        made.cls_merge.weight.copy_(torch.tensor([1.2, 0.3]).view(1, 2, 1, 1))
        if made.kshot_rw is not None:
            made.kshot_rw[0].weight.mul_(20)
            made.kshot_rw[0].bias.fill_(1)
            made.kshot_rw[2].weight.normal_(std=3)
    return made.eval()


def features(shots: int = 1, sides: tuple[int, int, int] = SAME, seed: int = 0) -> EpisodeFeatures:
    g = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    def maps(*lead: int) -> dict[int, Tensor]:
        return {i: drawn(*lead, CHANNELS[i], side, side).relu() for i, side in zip((2, 3, 4), sides, strict=True)}

    labels = torch.zeros(2, shots, 41, 41, dtype=torch.uint8)
    for b in range(2):
        for k in range(shots):
            labels[b, k, 5 + 2 * k : 25, 3 + 9 * b : 38 - 6 * k] = 1
            labels[b, k, :2] = 255
    extras = {
        "base_logits": drawn(2, CLASSES, sides[2], sides[2]),
        "base_embedding": drawn(2, EMBEDDED, sides[2], sides[2]),
        "support_base_embedding": drawn(2, shots, EMBEDDED, sides[2], sides[2]),
    }
    return EpisodeFeatures(maps(2), maps(2, shots), labels, extras=extras)


def reordered(given: EpisodeFeatures, order: list[int]) -> EpisodeFeatures:
    extras = {k: v[:, order] if k.startswith("support") else v for k, v in given.extras.items()}
    support = {i: m[:, order] for i, m in given.support.items()}
    return replace(given, support=support, support_labels=given.support_labels[:, order], extras=extras)


def without_dropout(net: HDMNet) -> HDMNet:
    for module in net.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0
    return net


@pytest.mark.parametrize("order", ["own", "release"])
@pytest.mark.parametrize(("shots", "sides"), [(1, SAME), (1, GROWING), (3, SAME)])
def test_equals_its_plain_form(shots: int, sides: tuple[int, int, int], order: str) -> None:
    net, given = head(shots, shot=shots, shot_order=order), features(shots, sides, shots)
    with torch.no_grad():
        output = net(given)
        for item in range(2):
            expected = plain_hdmnet.scores(net, given, item, release=order == "release")
            for found, wanted in ((output.logits, expected.final), (output.branch_logits["meta"], expected.meta)):
                assert float((found[item] - wanted).abs().max()) < 1e-10 * float(wanted.abs().max())
            assert torch.allclose(net._style_distance(given)[item], expected.psi, rtol=1e-12)
            assert expected.psi.tolist() != sorted(expected.psi.tolist()) or shots == 1, "the order must matter"


def test_losses_and_gradients_equal_those_of_the_plain_form() -> None:
    net, given = without_dropout(head(3, shot=2, distillation_weight=0.5)).train(), features(2, seed=3)
    given.query_label = torch.zeros(2, 41, 41, dtype=torch.uint8)
    given.query_label[:, 10:30, 5:28] = 1
    given.query_label[:, :3] = 255
    given.extras = {**given.extras, "base_index": torch.tensor([2, 0])}
    base = torch.randint(0, CLASSES, (2, 41, 41), generator=torch.Generator().manual_seed(4))
    terms = net.loss(net(given), {"query": given.query_label, "base": base})
    names = dict(net.named_parameters())
    found = torch.autograd.grad(terms["total"], list(names.values()))
    items = [plain_hdmnet.scores(net, given, b, own) for b, own in enumerate((2, 0))]
    taught = [plain_hdmnet.divergence(i.levels, label) for i, label in zip(items, given.query_label, strict=True)]
    wanted = {
        "main": plain_hdmnet.cross_entropy(torch.stack([i.final for i in items]), given.query_label),
        "meta": plain_hdmnet.cross_entropy(torch.stack([i.meta for i in items]), given.query_label),
        "base": plain_hdmnet.cross_entropy(given.extras["base_logits"], base),
        "distillation": torch.stack(taught).mean(),
    }
    for name, value in wanted.items():
        assert torch.allclose(terms[name], value, rtol=1e-10), name
    total = wanted["main"] + wanted["meta"] + wanted["base"] + 0.5 * wanted["distillation"]
    assert torch.allclose(terms["total"], total, rtol=1e-10)
    expected = torch.autograd.grad(total, list(names.values()))
    for name, one, other in zip(names, found, expected, strict=True):
        assert float((one - other).abs().max()) < 1e-9 * max(float(other.abs().max()), 1e-3), name
        assert float(other.abs().max()) > 0, name


class TestSupports:
    """Which changes of the supports change the answer."""

    def test_their_order_does_not_matter(self) -> None:
        net, given = head(shot=3), features(3)
        with torch.no_grad():
            moved, plain = net(reordered(given, [2, 0, 1])), net(given)
        assert torch.allclose(moved.logits, plain.logits, rtol=0, atol=1e-10)

    def test_as_released_it_does(self) -> None:
        net, given = head(shot=3, shot_order="release"), features(3)
        with torch.no_grad():
            moved, plain = net(reordered(given, [2, 0, 1])), net(given)
        assert torch.allclose(moved.branch_logits["meta"], plain.branch_logits["meta"], rtol=0, atol=1e-10)
        assert not torch.allclose(moved.logits, plain.logits, atol=1e-6)

    def test_repeating_all_of_them_does(self) -> None:
        """What a query position is given grows with their number; a model is built for one number of them only."""
        one, two, given = head(shot=1), head(shot=2), features(1)
        own = one.state_dict()
        two.load_state_dict({k: own.get(k, v) for k, v in two.state_dict().items()})
        twice = reordered(given, [0, 0])
        with torch.no_grad():
            meta = [net(g).branch_logits["meta"] for net, g in ((one, given), (two, twice))]
            attention, mask = one.transformer.match[0].attention, torch.tensor([[1.0, 0.0, 1.0]]).double()
            assert isinstance(attention, ObjectAttention)
            q, s = torch.randn(1, 5, 8).double(), torch.randn(1, 3, 8).double()
            single = attention(q, s, mask)
            double = attention(q, s.repeat(1, 2, 1), mask.repeat(1, 2))
        assert not torch.allclose(*meta, atol=1e-3)
        assert torch.allclose(double[0], 2 * single[0], atol=1e-12)
        assert torch.allclose(double[1], single[1], atol=1e-12), "a mean"
        with pytest.raises(FssError, match=r"HDMNet weighs 1 support.* was given 2.*method=hdmnet shot=2"):
            one(twice)

    def test_an_empty_mask(self) -> None:
        net, given = head(), features()
        given.support_labels[0] = 0
        merged: list[Tensor] = []
        net.merge_query.register_forward_pre_hook(lambda _, x: merged.append(x[0]))
        levels: list[Tensor] = []
        net.transformer.register_forward_hook(lambda _, __, out: levels.extend(out[1]))
        with torch.no_grad():
            assert bool(net(given).logits.isfinite().all())
        assert float(merged[0][0, 12:].abs().max()) == 0, "prototype and similarities"
        assert all(float(level[0].abs().max()) == 0 for level in levels)
        assert all(float(level[1].abs().min()) > 0 for level in levels), "the other episode"

    def test_a_mask_of_one_pixel(self) -> None:
        """A pixel that a cell of the grid looks at is one key; any other is none, though the prototype knows it."""
        net, given = head(), features()
        levels: list[Tensor] = []
        net.transformer.register_forward_hook(lambda _, __, out: levels.append(out[1][-1]))
        for row in (4 * 41 // 9, 4 * 41 // 9 + 1):
            given.support_labels.zero_()
            given.support_labels[..., row, 2 * 41 // 9] = 1
            with torch.no_grad():
                assert bool(net(given).logits.isfinite().all())
        assert float(levels[0].abs().min()) > 0
        assert float(levels[1].abs().max()) == 0

    def test_a_query_that_equals_its_support(self) -> None:
        """No style distance, and positions of the object have a similarity of 1, which none exceeds."""
        net, given = head(), features()
        given.query = {i: m[:, 0] for i, m in given.support.items()}
        given.extras = {**given.extras, "base_embedding": given.extras["support_base_embedding"][:, 0]}
        merged: list[Tensor] = []
        net.merge_query.register_forward_pre_hook(lambda _, x: merged.append(x[0]))
        with torch.no_grad():
            net(given)
            assert torch.allclose(net._style_distance(given), torch.zeros(2, 1).double(), atol=1e-12)
        similarity = merged[0][:, -2:] / 10
        cells = [i * 41 // 9 for i in range(9)]
        inside = (given.support_labels[:, 0][:, cells][:, :, cells] == 1)[:, None].expand_as(similarity)
        assert torch.allclose(similarity[inside], torch.ones(()).double(), atol=1e-6)
        assert float(similarity.max()) <= 1
        assert float(similarity[~inside].max()) < 0.999


class TestAttention:
    @staticmethod
    def identity(channels: int = 4) -> ObjectAttention:
        attention = ObjectAttention(channels, 1).double()
        for layer in (attention.query, attention.key, attention.value, attention.output):
            nn.init.eye_(layer.weight)
        return attention

    def test_by_hand(self) -> None:
        """Key 0 resembles the first query alone; key 1, of the background, gives nothing."""
        query = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]], dtype=torch.float64)
        support = torch.tensor([[[5.0, 0.0], [0.0, 3.0]]], dtype=torch.float64)
        given, similarity = self.identity(2)(query, support, torch.tensor([[1.0, 0.0]]).double())
        share = torch.softmax(torch.tensor([10.0, 0.0]).double(), dim=0)
        assert torch.allclose(given, torch.stack([5 * share, torch.zeros(2).double()], dim=1)[None], atol=1e-12)
        assert torch.allclose(similarity, torch.tensor([[10.0, 0.0]]).double(), atol=1e-12)

    def test_a_support_position_gives_itself_away_once(self) -> None:
        g = torch.Generator().manual_seed(0)
        query, support = (torch.randn(2, n, 4, generator=g, dtype=torch.float64) for n in (7, 5))
        mask = torch.tensor([[1, 1, 0, 1, 0], [0, 1, 0, 0, 0]]).double()
        given, _ = self.identity()(query, support, mask)
        assert torch.allclose(given.sum(dim=1), (support * mask[..., None]).sum(dim=1), atol=1e-12)

    def test_maps_smaller_than_a_key_are_completed_by_zeros(self) -> None:
        torch.manual_seed(0)
        attention = SelfAttention(8, 2, 4).double()
        x = torch.randn(1, 8, 3, 6, dtype=torch.float64)
        padded = torch.cat([x, torch.zeros(1, 8, 1, 6, dtype=torch.float64)], dim=2)
        with torch.no_grad():
            assert torch.allclose(attention(x), attention(padded)[:, :, :3], atol=1e-12)


def test_nothing_is_taught_by_an_equal_teacher() -> None:
    """Levels that are the resized label, up to a constant: only the coarsest has anything to learn."""
    level = torch.randn(2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    label = torch.ones(2, 8, 8, dtype=torch.uint8)
    flat = torch.full((2, 4, 4), 3.0, dtype=torch.float64)
    assert float(distillation([flat], label)) == pytest.approx(0, abs=1e-12)
    apart = float(distillation([level], label))
    assert apart > 0.1
    assert float(distillation([level, level + 5], label)) == pytest.approx(apart / 2, rel=1e-12)
    one = torch.zeros(1, 2, 2, dtype=torch.uint8)
    one[0, 0, 1] = 1
    by_hand = -float(torch.log_softmax(level[0, :2, :2].flatten(), dim=0)[1])
    assert float(distillation([level[:1, :2, :2]], one)) == pytest.approx(by_hand, rel=1e-12)
    for value in (0, 255):
        assert bool(distillation([level], torch.full_like(label, value)).isfinite())


def test_the_distillation_is_a_term_of_training_alone() -> None:
    net, given = head(distillation_weight=2.0), features()
    given.query_label = given.support_labels[:, 0]
    assert net(given).aux_losses == {}
    given.extras = {**given.extras, "base_index": torch.tensor([0, 1])}
    value, weight = net.train()(given).aux_losses["distillation"]
    assert weight == 2.0
    assert float(value.detach()) > 0


def test_batch_norms_of_the_decoder_never_move() -> None:
    net = head().train()
    layers = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(layers) == 3 + 3 * 3 + 2
    assert not any(m.training for m in layers)
    before = [(m.running_mean.clone(), m.running_var.clone()) for m in layers if m.running_mean is not None]
    given = features()
    given.extras = {**given.extras, "base_index": torch.tensor([0, 1])}
    net(given).logits.sum().backward()
    assert all(
        torch.equal(m.running_mean, mean) and torch.equal(m.running_var, var)  # type: ignore[arg-type]
        for m, (mean, var) in zip(layers, before, strict=True)
    )
    assert all(float(m.weight.grad.abs().max()) > 0 for m in layers if m.weight.grad is not None)


def test_groups() -> None:
    net = head(shot=2, transformer_lr=0.1)
    names = {id(p): name for name, p in net.named_parameters()}
    groups = {g.name: g for g in net.param_groups()}
    assert {name: g.lr_factor for name, g in groups.items()} == {"head": 1.0, "transformer": 0.1}
    assert {names[id(p)].split(".")[0] for p in groups["transformer"].parameters} == {"transformer"}
    own = {names[id(p)].split(".")[0] for p in groups["head"].parameters}
    assert own == {"down_supp", "down_query", "merge_query", "merge_support", "gram_merge", "cls_merge", "kshot_rw"}


BACKBONES: dict[str, Callable[[], StagedModule]] = {
    "resnet18": partial(tiny, 8),
    "resnet50": partial(ResNet, 50, width=4),
    "vgg16": partial(VGG, width=4),
    "efficientnet_lite0": partial(EfficientNetLite, width=4),
    "tokens": tokens,  # of a plain transformer
}


def model(name: str = "resnet18", shot: int = 1, **options: object) -> FewShotSegmenter:
    torch.manual_seed(0)
    backbone = BACKBONES[name]()
    backbone.norm_mode = "eval"
    companion = BaseBranch(copy.deepcopy(backbone), BaseLearner(backbone.channels, CLASSES, width=6))
    made = HDMNet(backbone.channels, width=8, tokens=8, shot=shot, **options)  # type: ignore[arg-type]
    return FewShotSegmenter(backbone, made, companion).double()


@pytest.mark.parametrize("strategy", [Freeze, SVF])
@pytest.mark.parametrize(("name", "shot"), [*((name, 1) for name in BACKBONES), ("resnet18", 5)])
def test_a_step_and_a_test_with_and_without_cached_features(
    name: str, strategy: Callable[[], Strategy], shot: int
) -> None:
    net = model(name, shot)
    strategy().apply(net.backbone)
    net.double()
    episodes = Stream(shot, count=4, dtype=torch.float64, size=net.input.nearest(65))
    batch = episodes.batches(2)[0]
    base = torch.zeros_like(batch.query_label)
    batch.extras = {"base_label": base, "base_index": torch.tensor([0, 1])}
    optimizer, _ = build_optimizer(net, Recipe(optimizer=partial(torch.optim.AdamW, lr=1e-3)), 3)
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    terms = net.train().head.loss(net.run_episode(batch), {"query": batch.query_label, "base": base})
    assert set(terms) == {"main", "meta", "base", "distillation", "total"}
    terms["total"].backward()
    optimizer.step()
    moved = {n.split(".")[0] for n, p in net.named_parameters() if not torch.equal(p, before[n])}
    assert moved == ({"head"} if strategy is Freeze else {"head", "backbone"})
    net.eval()
    with torch.no_grad():
        expected = [net.run_episode(b).logits for b in episodes.batches(2)]
        net.cache_features(1 << 30, merged_copy(net.backbone))  # type: ignore[arg-type]
        for size in (2, 1):
            found = torch.cat([net.run_episode(b).logits for b in episodes.batches(size)])
            assert torch.allclose(found, torch.cat(expected), rtol=0, atol=1e-10)


def test_gradients_stop_where_the_release_stops_them() -> None:
    batch = Stream(1, count=1, dtype=torch.float64).batches(1)[0]
    for strategy in (Freeze, SVF):
        net = model(detach=True).eval()
        strategy().apply(net.backbone)
        net.double()
        if strategy is SVF:
            with pytest.raises(FssError, match=r"method\.detach=true.*finetune=freeze"):
                net.run_episode(batch)
        else:
            net.run_episode(batch).logits.sum().backward()
    assert head().notes(tuned=True) == [
        "method.detach=false: gradients reach the tuned backbone through the head; its release stops them"
    ]
    assert head().notes(tuned=False) == head(detach=True).notes(tuned=False) == []


def test_every_singular_value_gets_a_gradient() -> None:
    net = model().eval()
    report = SVF().apply(net.backbone)
    net.double()
    net.run_episode(Stream(1, count=1, dtype=torch.float64).batches(1)[0]).branch_logits[
        "meta"
    ].square().mean().backward()
    for name in report.trainable:
        gradient = net.backbone.get_parameter(name).grad
        assert gradient is not None
        assert float(gradient.abs().max()) > 0, name


def family(backbone_width: tuple[int, int], shot: int) -> dict[str, tuple[int, ...]]:
    """The tensors of the release besides those of its backbone, by its fact sheet."""
    middle, high = backbone_width
    found: dict[str, tuple[int, ...]] = {}

    def norm(name: str, channels: int, batch: bool) -> None:
        found.update({f"{name}.weight": (channels,), f"{name}.bias": (channels,)})
        if batch:
            found.update({f"{name}.running_mean": (channels,), f"{name}.running_var": (channels,)})
            found[f"{name}.num_batches_tracked"] = ()

    def conv(name: str, *shape: int, bias: bool = True) -> None:
        found[f"{name}.weight"] = shape
        if bias:
            found[f"{name}.bias"] = shape[:1]

    for i in range(4):
        conv(f"ppm.features.{i}.1", high // 4, high, 1, 1, bias=False)
        norm(f"ppm.features.{i}.2", high // 4, True)
    conv("cls.0", 512, 2 * high, 3, 3, bias=False)
    norm("cls.1", 512, True)
    conv("base_learnear.2", 16, 512, 1, 1)
    for name in ("down_supp.0", "down_query.0"):
        conv(name, 256, middle, 1, 1, bias=False)
    conv("query_merge.0", 64, 514, 1, 1, bias=False)
    conv("supp_merge.0", 64, 512, 1, 1, bias=False)
    for name in ("gram_merge", "cls_merge"):
        conv(name, 1, 2, 1, 1, bias=False)
    if shot > 1:
        conv("kshot_rw.0", 2, shot, 1, 1)
        conv("kshot_rw.2", shot, 2, 1, 1)
    top = "transformer.mix_transformer"

    def layer(name: str, keys: int) -> None:
        for part in ("norm1", "norm2"):
            norm(f"{name}.{part}", 64, False)
        for part in "qkvo":
            conv(f"{name}.attn.attn.linear_{part}", 64, 64, bias=False)
        if keys > 1:
            conv(f"{name}.attn.sr", 64, 64, keys, keys)
            norm(f"{name}.attn.norm", 64, False)
        conv(f"{name}.ffn.layers.0", 256, 64, 1, 1)
        conv(f"{name}.ffn.layers.1", 256, 1, 3, 3)
        conv(f"{name}.ffn.layers.4", 64, 256, 1, 1)

    def decoder(name: str, out: int, places: tuple[int, ...], last: bool) -> None:
        shapes = ((256, 64, 1, 1), (256, 256, 3, 3), (out, 256, 1, 1))
        for place, shape in zip(places, shapes, strict=True):
            conv(f"{name}.{place}", *shape)
            if last or place != places[-1]:
                norm(f"{name}.{place + 1}", shape[0], True)

    for level, keys in enumerate((4, 2, 1)):
        down, size = f"{top}.down_sample_layers.{level}", 3 if level else 1
        conv(f"{down}.0.projection", 64, 64, size, size)
        norm(f"{down}.0.norm", 64, False)
        norm(f"{down}.3", 64, False)
        for i in (1, 2):
            layer(f"{down}.{i}", keys)
        layer(f"{top}.match_layers.{level}.0", 1)
        conv(f"{top}.match_layers.{level}.1.conv", 64, 66, 3, 3, bias=False)
        norm(f"{top}.match_layers.{level}.1.bn", 64, True)
        decoder(f"{top}.parse_layers.{level}", 64, (0, 2, 4), True)
    decoder(f"{top}.cls", 2, (0, 2, 4), False)
    return found


@pytest.mark.parametrize(
    ("backbone", "widths", "shot", "entries", "trained"),
    [
        ("resnet50", (1536, 2048), 1, 625, 4_161_734),
        ("resnet50", (1536, 2048), 5, 629, 4_161_761),
        ("vgg16", (768, 512), 1, 386, 3_768_518),
        ("vgg16", (768, 512), 5, 390, 3_768_545),
    ],
)
def test_tensors_of_the_released_network(
    backbone: str, widths: tuple[int, int], shot: int, entries: int, trained: int
) -> None:
    released = Released("hdmnet", "hdmnet", backbone, "pascal", shot, "freeze", 0)
    shapes = released_shapes(released_config(released), released)
    assert len(shapes) == entries
    own = {k: v for k, v in shapes.items() if not k.startswith("layer")}
    expected = family(widths, shot)
    assert own == expected
    with torch.device("meta"):
        made = HDMNet((0, 0, widths[0] // 3, widths[0] - widths[0] // 3, widths[1]), shot=shot)
    assert sum(p.numel() for p in made.parameters()) == trained


@pytest.mark.parametrize("option", [{"shot_order": "ascending"}, {"tokens": 20}])
def test_bad_options(option: dict[str, object]) -> None:
    with pytest.raises(FssError, match=rf"method\.{next(iter(option))}="):
        HDMNet(CHANNELS, **option)  # type: ignore[arg-type]
