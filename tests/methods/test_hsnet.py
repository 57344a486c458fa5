"""HSNet: against its plain form, cases made by hand, the lean learner, and gradients to the backbone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.lit.fabricate import CLASSES, Episodes, recipe, trainer
from tests.methods import plain_hsnet
from tests.methods.fakes import episode, tiny
from torch import Tensor, nn

from fss.backbones.resnet import ResNet
from fss.checkpoints.release_files import released_shapes
from fss.checkpoints.release_models import released_config
from fss.errors import FssError
from fss.finetune.freeze import Freeze
from fss.finetune.svf import SVF
from fss.lit.callbacks.finetuning import BackboneFinetune
from fss.lit.episodic import EpisodicModule
from fss.methods.hsnet import HSNet
from fss.methods.releases import Released
from fss.model.segmenter import FewShotSegmenter
from fss.nn.correlation import center_pivot
from fss.nn.correlation.center_pivot import PivotEncoder
from fss.nn.correlation.cosine import correlation, normalised
from fss.types import Episode, EpisodeFeatures

TAPS = (0, 0, 2, 3, 1)
CHANNELS = {2: 5, 3: 6, 4: 7}
Maps = dict[int, list[Tensor]]


def taps(sides: tuple[int, int, int], seed: int = 0, grad: bool = False) -> Maps:
    g = torch.Generator().manual_seed(seed)
    return {
        stage: [
            torch.randn(2, CHANNELS[stage], side, side, generator=g, dtype=torch.float64).requires_grad_(grad)
            for _ in range(TAPS[stage])
        ]
        for stage, side in zip((2, 3, 4), sides, strict=True)
    }


def features(query: Maps, support: Maps, labels: Tensor) -> EpisodeFeatures:
    supports = {stage: [t[:, None] for t in ts] for stage, ts in support.items()}
    return EpisodeFeatures({}, {}, labels[:, None], query_taps=query, support_taps=supports)


def masks(side: int = 33) -> Tensor:
    labels = torch.zeros(2, side, side, dtype=torch.uint8)
    labels[0, 4:20, 6:30] = 1
    labels[1, 10:, :13] = 1
    labels[:, 0] = 255
    return labels


def head(seed: int = 0, **options: object) -> HSNet:
    torch.manual_seed(seed)
    made = HSNet(TAPS, **{"width": 12, **options}).double()  # type: ignore[arg-type]
    for module in made.modules():
        if isinstance(module, nn.GroupNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
    return made.eval()


@pytest.mark.parametrize("sides", [(5, 3, 2), (9, 9, 9)], ids=["strides", "dilated"])
def test_equals_its_plain_form(sides: tuple[int, int, int]) -> None:
    """The dilated planes end with 3, 2 and 1 positions a side: the larger ones are averaged down."""
    net, query, support, labels = head(), taps(sides, 1), taps(sides, 2), masks()
    with torch.no_grad():
        found = net(features(query, support, labels)).logits
        assert found.shape == (2, 2, 2 * sides[0], 2 * sides[0])
        expected = plain_hsnet.logits(
            net,
            {s: [t[1] for t in ts] for s, ts in query.items()},
            {s: [t[1] for t in ts] for s, ts in support.items()},
            (labels[1] == 1).double(),
        )
    assert float((found[1] - expected).abs().max()) < 1e-12


def test_dropout_acts_in_training_alone() -> None:
    net, given = head(dropout=0.5), features(taps((5, 3, 2), 1), taps((5, 3, 2), 2), masks())
    seen: list[Tensor] = []
    net.decoder1.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    with torch.no_grad():
        assert torch.equal(net(given).logits, head()(given).logits)
        net.train()(given)
    kept = seen[1] / seen[0]
    assert set(kept.nan_to_num(0).unique().tolist()) == {0.0, 2.0}


def test_center_pivot_of_one_position_by_hand() -> None:
    """Only the position itself and its neighbours in either plane count, never both at once: 9 + 9 positions."""
    layer = center_pivot.CenterPivotConv4d(1, 1, 3, 1)
    for conv in (layer.query, layer.support):
        nn.init.ones_(conv.weight)
    with torch.no_grad():
        layer.query.bias.fill_(10)  # type: ignore[union-attr]
        layer.support.bias.fill_(100)  # type: ignore[union-attr]
        out = layer(torch.ones(1, 1, 3, 3, 3, 3))
        assert float(out[0, 0, 1, 1, 1, 1]) == 9 + 9 + 110
        assert float(out[0, 0, 0, 0, 1, 1]) == 4 + 9 + 110
        one = torch.zeros(1, 1, 3, 3, 3, 3)
        one[0, 0, 0, 0, 0, 0] = 1
        out = layer(one) - 110
        assert float(out[0, 0, 1, 1, 1, 1]) == 0, "moved in both planes"
        assert float(out[0, 0, 1, 1, 0, 0]) == 1
        assert float(out[0, 0, 0, 0, 1, 1]) == 1
        assert float(out[0, 0, 0, 0, 0, 0]) == 2


def test_stride_takes_every_other_support_position() -> None:
    layer = center_pivot.CenterPivotConv4d(2, 3, 3, 2)
    assert layer(torch.rand(1, 2, 4, 5, 7, 6)).shape == (1, 3, 4, 5, 4, 3)


def test_correlation_by_hand() -> None:
    """Cosines 1, 0 and -1, which becomes 0; a vector of zeros is like nothing."""
    query = torch.tensor([[1.0, 0.0], [0.0, 2.0]]).T.reshape(1, 2, 1, 2)
    support = torch.tensor([[3.0, 0.0], [0.0, -1.0], [0.0, 0.0]]).T.reshape(1, 2, 1, 3)
    found = correlation([normalised(query)], [normalised(support)])[0, 0, 0, :, 0]
    assert found.tolist() == [[pytest.approx(1, abs=2e-5), 0, 0], [0, 0, 0]]


def test_a_query_that_equals_its_support_finds_itself() -> None:
    """Every position inside the mask is most similar to itself; nothing is like what the mask hides."""
    caught: list[Tensor] = []
    net, maps, labels = head(), taps((9, 5, 3), 3), torch.zeros(2, 33, 33, dtype=torch.uint8)
    labels[:, :17] = 1  # the upper five of nine rows of stage 2
    net.encoders["2"].register_forward_pre_hook(lambda _, given: caught.append(given[0]))
    with torch.no_grad():
        net(features(maps, maps, labels))
    products = caught[0].flatten(4).flatten(2, 3)  # (B, taps, query, support)
    assert products.shape == (2, 2, 81, 81)
    inside = torch.arange(81) < 45
    own = products.diagonal(dim1=2, dim2=3)
    assert torch.equal(products.argmax(3)[..., inside], torch.arange(45).expand(2, 2, 45))
    assert float(own[..., inside].min()) > 0.9999
    assert float(products[..., ~inside].max()) == 0


def test_an_empty_mask_says_nothing_of_the_query() -> None:
    net, empty = head(), torch.zeros(2, 33, 33, dtype=torch.uint8)
    with torch.no_grad():
        one, other = (net(features(taps((9, 5, 3), seed), taps((9, 5, 3), 9), empty)).logits for seed in (1, 2))
        assert torch.equal(one, other)
        assert torch.equal(one[0], one[1])
        given = net(features(taps((9, 5, 3), 1), taps((9, 5, 3), 9), masks())).logits
    assert not torch.allclose(given, one)


def test_a_mask_of_one_pixel() -> None:
    """On a point of a map it selects one position there; maps of which it is between the points see nothing."""
    labels = torch.zeros(2, 33, 33, dtype=torch.uint8)
    labels[:, 4, 8] = 1  # stage 2 has a point at every fourth pixel, stage 3 at every eighth
    caught: dict[str, Tensor] = {}
    net = head()
    for name, encoder in net.encoders.items():
        encoder.register_forward_pre_hook(lambda _, given, name=name: caught.update({name: given[0]}))
    with torch.no_grad():
        logits = net(features(taps((9, 5, 3), 1), taps((9, 5, 3), 2), labels)).logits
    assert bool(logits.isfinite().all())
    touched = (caught["2"] > 0).flatten(0, 3).any(dim=0).nonzero().tolist()
    assert touched == [[1, 2]]
    assert float(caught["3"].max()) == float(caught["4"].max()) == 0


def build(strategy: Freeze | SVF | None = None, **options: object) -> FewShotSegmenter:
    torch.manual_seed(0)
    backbone = tiny()
    own = ResNet(18, dilation="none", width=4)
    own.load_state_dict(backbone.state_dict())
    own.norm_mode = "eval"
    blocks = [len(own.blocks(i)) for i in range(5)]
    net = FewShotSegmenter(own, HSNet(blocks, **{"width": 8, **options}))  # type: ignore[arg-type]
    if strategy is not None:
        strategy.apply(own)
    return net


def test_order_and_repetition_of_supports_do_not_matter() -> None:
    net = build().eval()
    batch = episode(2, 3, 65)
    with torch.no_grad():
        decided = net.run_episode(batch).logits.argmax(dim=1)
        alone = [net.run_episode(_chosen(batch, [k])).logits.argmax(dim=1) for k in range(3)]
        assert not torch.equal(alone[0], alone[1])
        assert torch.equal(net.run_episode(_chosen(batch, [2, 0, 1])).logits.argmax(dim=1), decided)
        assert torch.equal(net.run_episode(_chosen(batch, [0, 1, 2, 0, 1, 2])).logits.argmax(dim=1), decided)
        assert not torch.equal(net.run_episode(_chosen(batch, [0, 0, 1])).logits.argmax(dim=1), decided)
    assert decided.shape == (2, 65, 65), "votes are counted at the size of the image"


def _chosen(batch: Episode, shots: list[int]) -> Episode:
    return replace(batch, support_images=batch.support_images[:, shots], support_labels=batch.support_labels[:, shots])


@pytest.mark.parametrize("shots", [1, 3])
def test_the_feature_cache_changes_nothing(shots: int) -> None:
    net = build().eval().double()
    batch = episode(2, shots, 65)
    batch.query, batch.support_images = batch.query.double(), batch.support_images.double()
    with torch.inference_mode():
        plain = net.run_episode(batch).logits
        net.cache_features(1 << 30)
        for _ in range(2):
            assert torch.allclose(net.run_episode(batch).logits, plain, atol=1e-12)
    assert net._cache is not None
    assert len(net._cache.cache) == 2 * (1 + shots)


@contextmanager
def counted() -> Iterator[dict[int, int]]:
    """Bytes kept for the backward pass, by storage."""
    kept: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        yield kept


@pytest.mark.parametrize("at_once", [1, 700, 1 << 24], ids=["rows", "several", "all"])
def test_the_lean_learner_equals_the_plain_one(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fss.methods.hsnet.AT_ONCE", at_once)
    results = []
    for lean in (False, True):
        net, query, support = head(lean=lean), taps((9, 5, 3), 1, grad=True), taps((9, 5, 3), 2, grad=True)
        with counted() as kept:
            logits = net(features(query, support, masks())).logits
        logits.square().sum().backward()
        leaves = [*net.parameters(), *(t for maps in (query, support) for ts in maps.values() for t in ts)]
        gradients = [p.grad for p in leaves if p.grad is not None]
        assert len(gradients) == len(leaves)
        results.append((logits.detach(), gradients, sum(kept.values())))
    (plain, one, much), (lean_logits, other, little) = results
    assert float((plain - lean_logits).abs().max()) < 1e-10
    for a, b in zip(one, other, strict=True):
        assert float((a - b).abs().max()) < 1e-10 * max(1.0, float(a.abs().max()))
    assert little < 0.5 * much


def test_an_encoder_of_maps_never_holds_the_correlation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two maps of 8 x 8 against 12 x 12 positions are 18,432 products; with 600 at a time one row is the most."""
    largest = [0]

    def watched(query: list[Tensor], support: list[Tensor]) -> Tensor:
        found = correlation(query, support)
        largest[0] = max(largest[0], found.numel())
        return found

    monkeypatch.setattr(center_pivot, "correlation", watched)
    encoder = PivotEncoder((2, 4, 4, 4), (5, 5, 3), (4, 4, 2))
    maps = [torch.rand(1, 3, 8, 8)] * 2, [torch.rand(1, 3, 12, 12)] * 2
    with torch.no_grad():
        found = encoder.of_maps(*maps, values=600)
        assert torch.allclose(found, encoder(correlation(*maps)), atol=1e-5)
    assert largest[0] == 2 * 8 * 12 * 12


def test_gradients_reach_a_tuned_backbone_unless_they_are_stopped() -> None:
    batch = episode(2, 1, 65)
    net = build(SVF()).train()
    net.head.loss(net.run_episode(batch), {"query": batch.query_label})["total"].backward()
    tuned = {n: p.grad for n, p in net.backbone.named_parameters() if p.requires_grad}
    assert tuned
    assert all(g is not None and bool(g.isfinite().all()) for g in tuned.values())
    assert sum(bool((g != 0).any()) for g in tuned.values() if g is not None) > len(tuned) // 2
    stopped = build(SVF(), detach=True).train()
    with pytest.raises(FssError, match=r"method\.detach=true lets no gradient reach the backbone"):
        stopped.run_episode(batch)
    assert [len(build(detach=d).head.notes(tuned)) for d, tuned in ((False, True), (False, False), (True, True))] == [
        1,
        0,
        0,
    ]
    frozen = [build(Freeze(), detach=d).train() for d in (True, False)]
    losses = [float(n.head.loss(n.run_episode(batch), {"query": batch.query_label})["total"].detach()) for n in frozen]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("strategy", [Freeze, SVF])
def test_trains_and_tests(strategy: type[Freeze] | type[SVF], tmp_path: Path) -> None:
    net = build()
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    module = EpisodicModule(net, recipe(), CLASSES, CLASSES, CLASSES, card={"config": {"fold": 0}})
    run = trainer(tmp_path, BackboneFinetune(strategy()))
    run.fit(module, datamodule=Episodes(2))
    run.test(module, datamodule=Episodes(2), verbose=False)
    assert 0 <= module.test_scores.miou <= 1
    moved = {n for n, p in net.named_parameters() if n in before and not torch.equal(p, before[n])}
    assert any(n.startswith("head.encoders.2.") for n in moved)
    assert not any(n.startswith("backbone.") for n in moved)
    tuned = [n for n, p in net.backbone.named_parameters() if p.requires_grad]
    assert bool(tuned) == (strategy is SVF)


@pytest.mark.parametrize(
    ("backbone", "entries", "learner"),
    [("resnet50", 418, 2_573_794), ("resnet101", 724, 2_587_394), ("vgg16_plain", 130, 2_570_018)],
)
def test_size_of_the_released_network(backbone: str, entries: int, learner: int) -> None:
    released = Released("hsnet", "hsnet", backbone, "pascal", 1, "freeze", 0)
    shapes = released_shapes(released_config(released), released)
    assert len(shapes) == entries
    assert sum(torch.Size(s).numel() for k, s in shapes.items() if k.startswith("hpn_learner.")) == learner
    assert len([k for k in shapes if k.startswith("hpn_learner.")]) == 98


def test_widths_of_an_encoder() -> None:
    """An eighth and a half of the last, in multiples of 4."""
    for width, expected in ((128, [16, 64, 128]), (48, [8, 24, 48]), (8, [4, 4, 8])):
        convs = [m for m in HSNet(TAPS, width).encoders["3"].modules() if isinstance(m, center_pivot.CenterPivotConv4d)]
        assert [conv.query.out_channels for conv in convs] == expected
    with pytest.raises(FssError, match=r"method\.width=62: give a multiple of 4"):
        HSNet(TAPS, width=62)
