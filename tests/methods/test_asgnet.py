"""ASGNet: against its plain form, seeds and clusters made by hand, supports that matter or not, and gradients."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.lit.fabricate import CLASSES, Episodes, recipe, trainer
from tests.methods import plain_asgnet
from tests.methods.fakes import episode, tiny
from tests.methods.test_heads_on_backbones import OWN, plain, stream, trained
from tests.model.episodes import balance, module, rows
from torch import Tensor, nn

from fss.checkpoints.release_files import released_shapes
from fss.checkpoints.release_models import released_config
from fss.errors import FssError
from fss.finetune.base import Strategy, report_trainable
from fss.finetune.bias import Bias
from fss.finetune.bn import BN
from fss.finetune.chains.merged_copy import merged_copy
from fss.finetune.freeze import Freeze
from fss.finetune.full import Full
from fss.finetune.lora import LoRA
from fss.finetune.svf import SVF
from fss.lit.callbacks.finetuning import BackboneFinetune, leave_out_later_stages
from fss.lit.episodic import EpisodicModule
from fss.methods.asgnet import ASGNet, Decoder, allocated
from fss.methods.releases import Released
from fss.methods.separable import EncodedEpisode, encodes
from fss.methods.superpixels import cluster, full_cells, nearest_cells, place_seeds
from fss.model.segmenter import FewShotSegmenter
from fss.nn.resize import up
from fss.types import Episode, EpisodeFeatures

CHANNELS = (4, 5, 6, 10, 12)
SIDES = {1: 17, 2: 9, 3: 9}
FORMS: tuple[Decoder, ...] = ("pyramid", "aspp")


def features(shots: int = 1, batch: int = 2, seed: int = 0) -> EpisodeFeatures:
    """Objects of 5 x 6 to 7 x 7 of the 81 cells, so that with an area of 10 there are several prototypes."""
    g = torch.Generator().manual_seed(seed)

    def maps(*lead: int) -> dict[int, Tensor]:
        return {
            i: torch.randn(*lead, CHANNELS[i], n, n, generator=g, dtype=torch.float64).relu() for i, n in SIDES.items()
        }

    labels = torch.zeros(batch, shots, 65, 65, dtype=torch.uint8)
    for b in range(batch):
        for k in range(shots):
            labels[b, k, 7 + 2 * k : 60 - 9 * k, 3 + 9 * b : 58 - 5 * k] = 1
            labels[b, k, 30:36, 22 : 28 + 6 * k] = 0
            labels[b, k, :3] = 255
    return EpisodeFeatures(maps(batch), maps(batch, shots), labels)


def head(seed: int = 0, **options: object) -> ASGNet:
    torch.manual_seed(seed)
    options = {"width": 8, "prototype_area": 10, "bins": (6, 3), **options}
    made = ASGNet(CHANNELS, **options).double()  # type: ignore[arg-type]
    for layer in made.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.3)
            nn.init.normal_(layer.running_mean, std=0.3)  # type: ignore[arg-type]
            nn.init.uniform_(layer.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return made.eval()


def chosen(given: EpisodeFeatures, shots: list[int]) -> EpisodeFeatures:
    support = {i: m[:, shots] for i, m in given.support.items()}
    return replace(given, support=support, support_labels=given.support_labels[:, shots])


def calm(net: ASGNet) -> ASGNet:
    """Put a head into training mode without dropout or batch statistics."""
    net.train()
    for layer in net.modules():
        if isinstance(layer, nn.Dropout | nn.Dropout2d | nn.BatchNorm2d):
            layer.eval()
    return net


@pytest.mark.parametrize("decoder", FORMS)
@pytest.mark.parametrize("shots", [1, 3])
def test_equals_its_plain_form_down_to_gradients(decoder: Decoder, shots: int) -> None:
    net, given = calm(head(seed=shots, decoder=decoder)), features(shots, batch=1, seed=shots)
    for maps in given.query.values():
        maps.requires_grad_()
    leaves = [*net.parameters(), *(given.query[i] for i in net.spec.stages)]
    output = net(given)
    found = [output.logits[0], *(aux.logits[0] for aux in output.aux_logits)]
    main, others = plain_asgnet.logits(net, given, 0, rounds=10)
    for one, other in zip(found, [main, *others], strict=True):
        assert float((one - other).detach().abs().max()) < 1e-10 * float(other.detach().abs().max())
    weights = [torch.randn_like(one) for one in found]
    sums = [sum((w * x).sum() for w, x in zip(weights, part, strict=True)) for part in (found, [main, *others])]
    gradients = [torch.autograd.grad(total, leaves) for total in sums]  # type: ignore[arg-type]
    for one, other in zip(*gradients, strict=True):
        assert float((one - other).abs().max()) < 1e-9 * max(1.0, float(other.abs().max()))
    assert all(bool((g != 0).any()) for g in gradients[0])


def test_a_test_clusters_in_fewer_rounds_than_training() -> None:
    net, given = head(), features(batch=1)
    with torch.no_grad():
        for rounds, mode in ((5, net.eval()), (10, calm(head()))):
            expected, _ = plain_asgnet.logits(net, given, 0, rounds)
            assert float((mode(given).logits[0] - expected).abs().max()) < 1e-10
        differently = head(test_rounds=0)(given).logits
    assert not torch.allclose(differently, net.eval()(given).logits, atol=1e-6)


class TestSeeds:
    @pytest.mark.parametrize("seed", range(30))
    def test_those_of_scipy_on_random_masks(self, seed: int) -> None:
        g = torch.Generator().manual_seed(seed)
        height, width = (int(n) for n in torch.randint(5, 40, (2,), generator=g))
        size = int(torch.randint(3, height + 1, (), generator=g)), int(torch.randint(3, width + 1, (), generator=g))
        share = float(torch.rand((), generator=g))
        mask = torch.rand(height, width, generator=g) < share
        for area in (1, 4, 10):
            found = place_seeds(nearest_cells(mask, size), 5, area)
            assert list(map(tuple, found.tolist())) == plain_asgnet.seeds(mask, *size, 5, area)

    def test_a_full_mask_of_the_release(self) -> None:
        """Five seeds, two of them in the first row, two in the first column: counted as three."""
        assert place_seeds(torch.ones(60, 60, dtype=torch.bool), 5, 100).tolist() == [[59, 59], [0, 0], [0, 59]]

    @pytest.mark.parametrize(("side", "count"), [(7, 0), (9, 1), (12, 1), (15, 2), (16, 3), (40, 5)])
    def test_their_number_grows_with_the_area(self, side: int, count: int) -> None:
        cells = torch.zeros(50, 50, dtype=torch.bool)
        cells[5 : 5 + side, 5 : 5 + side] = True
        assert len(place_seeds(cells, 5, 100)) == count

    def test_halves_are_rounded_to_the_even_number(self) -> None:
        cells = torch.zeros(30, 30, dtype=torch.bool)
        for area, count in ((150, 2), (250, 2), (251, 3), (350, 4), (50, 0), (51, 1)):
            cells.fill_(False)
            cells[1:29, 1:29] = (torch.arange(784) < area).reshape(28, 28)
            assert len(place_seeds(cells, 5, 100)) == count

    def test_an_empty_mask_has_none(self) -> None:
        assert place_seeds(torch.zeros(9, 9, dtype=torch.bool), 5, 1).shape == (0, 2)

    def test_grids_look_at_different_pixels(self) -> None:
        """At 473 pixels cell 4 of the seeds looks at pixel 31, that of the clusters at pixel 32."""
        mask = torch.zeros(473, 473, dtype=torch.bool)
        mask[31, 31] = True
        assert nearest_cells(mask, (60, 60)).nonzero().tolist() == [[4, 4]]
        assert not bool(full_cells(mask, (60, 60)).any())
        assert full_cells(mask.roll((1, 1), (0, 1)), (60, 60)).nonzero().tolist() == [[4, 4]]

    @pytest.mark.parametrize("size", [(9, 9), (12, 7), (33, 33), (1, 5), (40, 50)])
    def test_full_cells_are_those_where_the_bilinear_mask_is_one(self, size: tuple[int, int]) -> None:
        g = torch.Generator().manual_seed(size[0])
        mask = up((torch.rand(1, 1, 6, 6, generator=g) > 0.4).double(), (33, 33))[0, 0] > 0.3
        exact = up(mask.double()[None, None], size)[0, 0] > 1 - 1e-9
        assert torch.equal(full_cells(mask, size), exact)
        assert 0 < int(exact.sum()) < exact.numel()


class TestClusters:
    def test_two_parts_far_apart_are_two_clusters(self) -> None:
        """Two halves whose features differ by far: each centre is the mean of one of them."""
        maps = torch.zeros(2, 4, 6, dtype=torch.float64)
        maps[0, :, :3], maps[0, :, 3:] = 1000.0, -1000.0
        maps[1] = torch.arange(24).reshape(4, 6) / 1e4
        region, seeds = torch.arange(24), torch.tensor([0, 23])
        found = cluster(maps, region, seeds, 20)
        weights_left = maps[:, :, :3].flatten(1)
        assert torch.allclose(found[:, 0], torch.tensor([1000.0, -1000.0], dtype=torch.float64))
        assert float((found[0] - weights_left.mean(dim=1)).abs().max()) < 1e-4

    def test_equal_features_are_the_prototype(self) -> None:
        maps = torch.tensor([3.0, -1.0, 2.0], dtype=torch.float64)[:, None, None].expand(3, 5, 5)
        found = cluster(maps, torch.tensor([6, 7, 8]), torch.tensor([0, 24]), 5)
        assert torch.allclose(found, maps[:, 0, 0].expand(2, 3), atol=1e-12)

    def test_one_round_by_hand(self) -> None:
        """Two positions, 1 apart in feature and 10 cells apart: exp(0) and exp(-sqrt 2)."""
        maps = torch.zeros(1, 1, 11, dtype=torch.float64)
        maps[0, 0, 10] = 1
        far = float(torch.tensor(-(2**0.5), dtype=torch.float64).exp())
        found = cluster(maps, torch.tensor([0, 10]), torch.tensor([0, 10]), 1)
        assert found.flatten().tolist() == pytest.approx([far / (1 + far), 1 / (1 + far)], rel=1e-12)

    def test_without_a_round_centres_are_the_seeds(self) -> None:
        maps = torch.randn(4, 3, 5)
        assert torch.equal(cluster(maps, torch.arange(15), torch.tensor([7, 2]), 0), maps.flatten(1)[:, [7, 2]].T)


class TestAllocation:
    def test_a_query_that_equals_its_prototypes_is_given_them(self) -> None:
        prototypes = torch.eye(4, dtype=torch.float64)[:3]
        query = torch.stack([prototypes[i] * (i + 2) for i in (2, 0, 1, 1)]).T.reshape(4, 2, 2)
        guide, similarity = allocated(query, prototypes)
        assert torch.equal(guide.flatten(1).T, prototypes[[2, 0, 1, 1]])
        assert torch.equal(similarity, torch.ones(1, 2, 2, dtype=torch.float64))

    def test_similarities_are_summed(self) -> None:
        query = torch.tensor([1.0, 0.0], dtype=torch.float64).reshape(2, 1, 1)
        prototypes = torch.tensor([[3.0, 4.0], [-1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
        guide, similarity = allocated(query, prototypes)
        assert guide.flatten().tolist() == [3, 4]
        assert similarity.item() == pytest.approx(0.6 - 1 + 0)


@pytest.mark.parametrize("decoder", FORMS)
class TestSupports:
    """Which changes of the supports change the answer."""

    def test_their_order_does_not_matter(self, decoder: Decoder) -> None:
        net, given = head(decoder=decoder), features(3)
        with torch.no_grad():
            assert torch.allclose(net(chosen(given, [2, 0, 1])).logits, net(given).logits, rtol=0, atol=1e-12)

    def test_repeating_them_does(self, decoder: Decoder) -> None:
        """The same prototypes are chosen, but every similarity counts twice."""
        net, given = head(decoder=decoder), features(2)
        caught: list[tuple[Tensor, ...]] = []
        net.decoder.register_forward_pre_hook(lambda _, x: caught.append(x))
        with torch.no_grad():
            once, twice = (net(chosen(given, shots)).logits for shots in ([0, 1], [0, 1, 0, 1]))
        assert not torch.allclose(once, twice, atol=1e-4)
        (_, guide, similarity, _), (_, again, double, _) = caught
        assert torch.allclose(again, guide, rtol=0, atol=1e-12)
        assert torch.allclose(double, 2 * similarity, rtol=0, atol=1e-12)

    def test_each_counts(self, decoder: Decoder) -> None:
        net, given = head(decoder=decoder), features(3)
        with torch.no_grad():
            answers = [net(chosen(given, shots)).logits for shots in ([0, 1, 2], [0, 1], [0, 1, 1])]
        for i, j in ((0, 1), (0, 2), (1, 2)):
            assert not torch.allclose(answers[i], answers[j], atol=1e-4)

    def test_an_empty_mask_says_nothing(self, decoder: Decoder) -> None:
        """Its prototype is zero, which resembles nothing: it is taken where all others are unlike the query."""
        net, given = head(decoder=decoder), features(2)
        given.support_labels[:, 1] = 0
        caught: list[tuple[Tensor, ...]] = []
        net.decoder.register_forward_pre_hook(lambda _, x: caught.append(x))
        with torch.no_grad():
            net(chosen(given, [0]))
            both = net(given).logits
            net(chosen(given, [1]))
            other = replace(given, support={i: torch.randn_like(m) for i, m in given.support.items()})
            other.support[2][:, 0], other.support[3][:, 0] = given.support[2][:, 0], given.support[3][:, 0]  # type: ignore[index]
            assert torch.equal(net(other).logits, both), "the image behind an empty mask"
        (query, guide, similarity, _), (_, own, same, _), (_, alone, zero, _) = caught[:3]
        unlike = (torch.cosine_similarity(query, guide, dim=1) < 0)[:, None]
        assert 0 < int(unlike.sum()) < unlike.numel()
        assert torch.allclose(own, guide * ~unlike, rtol=0, atol=1e-12)
        assert torch.allclose(same, similarity, rtol=0, atol=1e-12)
        assert not bool(alone.any())
        assert not bool(zero.any())

    def test_a_mask_of_one_pixel(self, decoder: Decoder) -> None:
        """On a position of the map its prototype is that position's feature, between them there is none."""
        net = head(decoder=decoder)
        maps, label = torch.randn(8, 9, 9).double(), torch.zeros(65, 65, dtype=torch.uint8)
        label[16, 40] = 1
        assert torch.allclose(net._prototypes(maps, label)[0], maps[:, 2, 5] / (1 + 5e-4), atol=1e-12)
        assert not bool(net._prototypes(maps, label.roll(3, 1)).any())
        given = features()
        given.support_labels.zero_()
        given.support_labels[..., 16, 40] = 1
        with torch.no_grad():
            assert bool(net(given).logits.isfinite().all())

    def test_stripes_that_fill_no_cell_have_the_masked_average(self, decoder: Decoder) -> None:
        """The grid of the seeds sees an object; at no position of the map is the mask wholly 1."""
        net = head(decoder=decoder)
        label = torch.zeros(65, 65, dtype=torch.uint8)
        label[[i * 65 // 9 for i in range(1, 9)]] = 1
        label[::8] = 0
        assert len(place_seeds(nearest_cells(label == 1, (9, 9)), 5, 10)) > 1
        assert net._prototypes(torch.randn(8, 9, 9).double(), label).shape == (1, 8)


def test_a_query_that_equals_its_support_is_most_similar_to_its_own_cluster() -> None:
    """An object of two parts with their own features: each part of the query is given the prototype of its own."""
    net = head(prototype_area=20)
    nn.init.eye_(net.down_conv[0].weight.data.flatten(1))  # type: ignore[union-attr, operator]
    three = torch.zeros(1, 10, 9, 9, dtype=torch.float64)
    three[:, 0, :, :4] = three[:, 1, :, 4:] = 50
    maps = {1: torch.zeros(1, 5, 17, 17).double(), 2: torch.zeros(1, 6, 9, 9).double(), 3: three}
    label = torch.zeros(1, 1, 65, 65, dtype=torch.uint8)
    label[..., 8:60, 4:60] = 1
    caught: list[tuple[Tensor, ...]] = []
    net.decoder.register_forward_pre_hook(lambda _, x: caught.append(x))
    with torch.no_grad():
        net(EpisodeFeatures(maps, {i: m[:, None] for i, m in maps.items()}, label))
    query, guide, _, _ = caught[0]
    cosine = torch.cosine_similarity(query, guide, dim=1)
    assert float(cosine.min()) > 0.99
    assert guide[0, 0, :, :4].unique().numel() == 1


@pytest.mark.parametrize("decoder", FORMS)
def test_encodings_equal_the_maps(decoder: Decoder) -> None:
    net, given = head(decoder=decoder), features(2)
    with torch.no_grad():
        queries = [net.encode_query({i: m[b : b + 1] for i, m in given.query.items()}) for b in range(2)]
        supports = [
            [
                net.encode_support(
                    {i: m[b : b + 1, k] for i, m in given.support.items()}, given.support_labels[b : b + 1, k]
                )
                for k in range(2)
            ]
            for b in range(2)
        ]
        found = net.forward_encoded(EncodedEpisode(queries, supports)).logits
        assert torch.allclose(found, net(given).logits, rtol=0, atol=1e-12)
    assert encodes(net)


def build(strategy: Strategy | None = None, **options: object) -> FewShotSegmenter:
    backbone = tiny()
    backbone.norm_mode = "eval"
    torch.manual_seed(0)
    options = {"width": 8, "prototype_area": 10, "bins": (6, 3), **options}
    net = FewShotSegmenter(backbone, ASGNet(backbone.channels, **options))  # type: ignore[arg-type]
    if strategy is not None:
        strategy.apply(backbone)
    return net


@pytest.mark.parametrize("decoder", FORMS)
def test_an_answer_depends_neither_on_the_cache_nor_on_the_batch(decoder: Decoder) -> None:
    net, batch = build(decoder=decoder).eval().double(), large(2, 3)
    with torch.inference_mode():
        plain = net.run_episode(batch).logits
        alone = net.head_output(batch.query[1:], batch.support_images[1:], batch.support_labels[1:]).logits
        assert torch.allclose(alone, plain[1:], rtol=0, atol=1e-12)
        net.cache_features(1 << 30)
        for _ in range(2):
            assert torch.allclose(net.run_episode(batch).logits, plain, rtol=0, atol=1e-12)


def large(batch: int, shots: int) -> Episode:
    """Supports whose object has several prototypes on the map of 9 x 9."""
    given = episode(batch, shots, 65)
    given.query, given.support_images = given.query.double(), given.support_images.double()
    for k in range(shots):
        given.support_labels[:, k, 5 : 60 - 9 * k, 3 + k : 58] = 1
    return given


@pytest.mark.parametrize("decoder", FORMS)
@pytest.mark.parametrize("strategy", [SVF, LoRA, Bias, BN, Full])
def test_gradients_reach_a_tuned_backbone_through_the_query_alone(strategy: type[Strategy], decoder: Decoder) -> None:
    batch = large(2, 2)
    net = build(strategy(), decoder=decoder).double().train()
    features = net._features(batch.query, batch.support_images, batch.support_labels, {})
    for i in (2, 3):
        assert features.support[i].requires_grad
        features.support[i].retain_grad()
    net.head.loss(net.head(features), {"query": batch.query_label})["total"].backward()
    assert all(features.support[i].grad is None for i in (2, 3))
    tuned = {n: p.grad for n, p in net.backbone.named_parameters() if p.requires_grad and "layer4" not in n}
    reached = [bool(g is not None and (g != 0).any()) for g in tuned.values()]
    assert sum(reached) >= 0.4 * len(tuned) > 0


@pytest.mark.parametrize("decoder", FORMS)
@pytest.mark.parametrize("name", [*OWN, "swin"])
def test_a_step_and_a_test_on_backbones_of_every_kind(name: str, decoder: Decoder) -> None:
    backbone = copy.deepcopy(plain(name))
    torch.manual_seed(2)
    made = ASGNet(backbone.channels, width=8, decoder=decoder, bins=(6, 3), prototype_area=6)
    net = FewShotSegmenter(backbone, made).double()
    SVF().apply(backbone)
    leave_out_later_stages(net, report_trainable("x", backbone, []))
    backbone.double()
    episodes = stream(name)
    gradients = trained(net, episodes.batches(2)[0])
    trains = {n for n, p in backbone.named_parameters() if p.requires_grad}
    assert gradients.keys() == trains
    assert trains
    tested = module(net.eval())
    balance(net, episodes)
    expected = rows(tested, episodes)
    assert len(set(expected[:, 2].tolist())) > 1, "the answers must differ for the comparison to mean something"
    net.cache_features(1 << 30, merged_copy(backbone))
    assert torch.equal(rows(tested, episodes, 2), expected)


def test_stopped_gradients_do_not_pass_in_silence() -> None:
    batch = large(2, 1)
    with pytest.raises(FssError, match=r"method\.detach=true lets no gradient reach the backbone"):
        build(SVF(), detach=True).double().train().run_episode(batch)
    nets = [build(Freeze(), detach=d).double().train() for d in (True, False)]
    losses = []
    for net in nets:
        torch.manual_seed(3)
        losses.append(float(net.head.loss(net.run_episode(batch), {"query": batch.query_label})["total"].detach()))
    assert losses[0] == losses[1]


def test_what_a_result_says() -> None:
    assert head(shot=5).notes(False, 5) == []
    assert "gradients reach the tuned backbone" in head(shot=5).notes(True, 5)[0]
    assert "trained with 1 support(s) and tested with 5" in head(detach=True).notes(True, 5)[0]


@pytest.mark.parametrize("strategy", [Freeze, SVF])
@pytest.mark.parametrize("decoder", FORMS)
def test_trains_and_tests(strategy: type[Freeze] | type[SVF], decoder: Decoder, tmp_path: Path) -> None:
    net = build(decoder=decoder)
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    trainee = EpisodicModule(net, recipe(), CLASSES, CLASSES, CLASSES, card={"config": {"fold": 0}})
    run = trainer(tmp_path, BackboneFinetune(strategy()))
    run.fit(trainee, datamodule=Episodes(2))
    run.test(trainee, datamodule=Episodes(2), verbose=False)
    assert 0 <= trainee.test_scores.miou <= 1
    moved = {n for n, p in net.named_parameters() if n in before and not torch.equal(p, before[n])}
    assert "head.down_conv.0.weight" in moved
    assert not any(n.startswith("backbone.") for n in moved)
    assert any(p.requires_grad for p in net.backbone.parameters()) == (strategy is SVF)


@pytest.mark.parametrize(
    ("source", "entries", "parameters", "own"),
    [("asgnet", 364, 34_055_626, 34), ("asgnet_aspp", 368, 32_910_660, 38)],
)
def test_size_of_the_released_network(source: str, entries: int, parameters: int, own: int) -> None:
    released = Released(source, "asgnet", "resnet50", "pascal", 1, "freeze", 0)
    shapes = released_shapes(released_config(released), released)
    assert len(shapes) == entries
    assert len([k for k in shapes if not k.startswith("layer")]) == own
    counted = {k: torch.Size(s).numel() for k, s in shapes.items() if not k.endswith(_STATISTICS)}
    assert sum(counted.values()) == parameters


_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def test_grids_on_coco_are_fractions() -> None:
    released = Released("asgnet", "asgnet", "resnet101", "coco", 1, "freeze", 0)
    assert released_config(released)["method"]["bins"] == [1.0, 0.5, 0.25, 0.125]


@pytest.mark.parametrize(
    "option",
    [
        {"decoder": "spp"}, {"width": 10}, {"bins": ()}, {"prototypes": 0}, {"prototype_area": 0},
        {"train_rounds": -1}, {"test_rounds": -1},
    ],
)  # fmt: skip
def test_bad_options(option: dict[str, object]) -> None:
    with pytest.raises(FssError, match=rf"method\.{next(iter(option))}="):
        head(**option)
