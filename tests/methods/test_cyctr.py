"""CyCTR: against its plain form, cases made by hand, the draw of keys, and memory-lean attention."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import pytest
import torch
from tests.methods import plain_cyctr
from tests.methods.fakes import episode, inputs, tiny
from torch import Tensor, nn

from fss.errors import FssError
from fss.finetune.svf import SVF
from fss.methods.cyctr import CyCTR
from fss.methods.separable import EncodedEpisode, encodes
from fss.model.segmenter import FewShotSegmenter
from fss.nn.cycle_attention import CycleAttention, consistent, draw_keys
from fss.nn.deformable_attention import DeformableAttention
from fss.nn.sine_position import sine_codes, sine_grid
from fss.types import EpisodeFeatures, HeadOutput

CHANNELS = (4, 4, 6, 10, 12)


@pytest.fixture
def few_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """20 keys of a shot's 49 positions."""
    monkeypatch.setattr("fss.methods.cyctr.KEYS_PER_SHOT", 10)


def features(side: int = 7, shots: int = 1, batch: int = 2, seed: int = 0) -> EpisodeFeatures:
    g = torch.Generator().manual_seed(seed)

    def maps(*lead: int) -> dict[int, Tensor]:
        return {
            i: torch.randn(*lead, CHANNELS[i], side, side, generator=g, dtype=torch.float64).relu() for i in (2, 3, 4)
        }

    image = 8 * side - 7
    labels = torch.zeros(batch, shots, image, image, dtype=torch.uint8)
    for b in range(batch):
        for k in range(shots):
            labels[b, k, 5 + 2 * k : 5 + image // 2, 3 + 9 * b : image - 6 * k] = 1
            labels[b, k, :, image - 9 - k :] = 255
    return EpisodeFeatures(maps(batch), maps(batch, shots), labels)


def run(net: CyCTR, given: EpisodeFeatures, first: int = 0) -> HeadOutput:
    """Call a head with fresh generators, seeded by the number of the episode."""
    output: HeadOutput = net(replace(given, generators=seeded(range(first, first + len(given.support_labels)))))
    return output


def seeded(seeds: Iterable[int]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def head(seed: int = 0, **options: object) -> CyCTR:
    torch.manual_seed(seed)
    made = CyCTR(CHANNELS, **{"width": 16, **options}).double()  # type: ignore[arg-type]
    for module in made.modules():  # nothing at its neutral initial value
        if isinstance(module, DeformableAttention):
            nn.init.normal_(module.offsets.weight, std=0.3)
            nn.init.normal_(module.offsets.bias, std=2)
            nn.init.normal_(module.weights.weight)
        if isinstance(module, CycleAttention):
            nn.init.normal_(module.query.weight, std=0.5)
        if isinstance(module, nn.LayerNorm):
            nn.init.normal_(module.bias, std=0.2)
    return made.eval()


def shuffled(given: EpisodeFeatures, order: list[int]) -> EpisodeFeatures:
    support = {i: m[:, order] for i, m in given.support.items()}
    return replace(given, support=support, support_labels=given.support_labels[:, order])


@pytest.mark.parametrize("flags", ["own", "release"])
@pytest.mark.parametrize("shots", [1, 2])
def test_equals_its_plain_form(shots: int, flags: str) -> None:
    net, given = head(seed=shots, key_flags=flags), features(side=6, shots=shots, seed=shots)
    padding = torch.zeros(2, 41, 41, dtype=torch.uint8)
    padding[0, 30:] = 255
    padding[1, :, 25:] = 255
    given.extras = {"query_padding": padding}
    with torch.no_grad():
        found = run(net, given).logits
        for item in range(2):
            expected = plain_cyctr.logits(net, given, item, padding[item], flags == "release")
            assert float((found[item] - expected).abs().max()) < 1e-10 * float(expected.abs().max())


class TestAttention:
    """Cases whose outcome is known."""

    @staticmethod
    def identity(channels: int = 4, scale: float = 1.0, heads: int = 1) -> CycleAttention:
        attention = CycleAttention(channels, heads, 0.1).double().eval()
        for layer in (attention.query, attention.key, attention.value, attention.output):
            nn.init.eye_(layer.weight)
        with torch.no_grad():
            attention.query.weight.mul_(scale)
        return attention

    def test_a_query_that_equals_its_support_finds_itself(self) -> None:
        tokens = torch.eye(4, dtype=torch.float64)[None]
        inside, padded = torch.tensor([[True, True, False, False]]), torch.zeros(1, 4, dtype=torch.bool)
        found = self.identity(scale=200.0)(tokens, tokens, inside, padded)
        assert torch.allclose(found, tokens, atol=1e-12)

    def test_a_key_whose_match_leads_to_the_other_class_is_left_out(self) -> None:
        """Key 2 (background) is best matched by query 0, which prefers key 0 (object)."""
        query = torch.tensor([[[4.0, 0.0], [0.0, 1.0]]], dtype=torch.float64)
        keys = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.9, 0.0]]], dtype=torch.float64)
        inside, padded = torch.tensor([[True, False, False]]), torch.zeros(1, 3, dtype=torch.bool)
        kept = consistent([query[:, None]], keys[:, None], inside)
        assert kept.tolist() == [[[True, True, False]]]
        attention = self.identity(channels=2)
        without = attention(query, keys[:, :2], inside[:, :2], padded[:, :2])
        assert torch.equal(attention(query, keys, inside, padded), without)
        everyone = attention(query, keys, torch.zeros_like(inside), padded)
        assert not torch.allclose(everyone, without, atol=1e-3)

    def test_padded_keys_are_left_out_but_take_part_in_the_test(self) -> None:
        query, keys = torch.randn(1, 5, 2, dtype=torch.float64), torch.randn(1, 4, 2, dtype=torch.float64)
        same, padded = torch.ones(1, 4, dtype=torch.bool), torch.tensor([[False, True, False, False]])
        attention = self.identity(channels=2)
        rest = [0, 2, 3]
        without = attention(query, keys[:, rest], same[:, rest], padded[:, rest])
        assert torch.allclose(attention(query, keys, same, padded), without, atol=1e-12)

    def test_each_head_decides_for_itself(self) -> None:
        g = torch.Generator().manual_seed(3)
        q, k = (torch.randn(1, 2, n, 3, generator=g) for n in (6, 8))
        inside = torch.tensor([[True, False] * 4])
        both = consistent([q], k, inside)
        assert not torch.equal(both[:, 0], both[:, 1])
        for i in range(2):
            assert torch.equal(consistent([q[:, i : i + 1]], k[:, i : i + 1], inside)[:, 0], both[:, i])

    @pytest.mark.parametrize("chunk", [1, 3, 7])
    def test_the_verdict_does_not_depend_on_chunks(self, chunk: int) -> None:
        g = torch.Generator().manual_seed(5)
        q, k = (torch.randn(2, 2, n, 3, generator=g, dtype=torch.float64) for n in (11, 9))
        inside = torch.rand(2, 9, generator=g) > 0.5
        assert torch.equal(consistent(q.split(chunk, dim=2), k, inside), consistent([q], k, inside))


class TestDeformable:
    @staticmethod
    def still(shift: tuple[float, float] = (0.0, 0.0)) -> DeformableAttention:
        attention = DeformableAttention(8, 8, 9, 0.1).double().eval()
        with torch.no_grad():
            attention.offsets.bias.copy_(torch.tensor(shift).repeat(72))
        return attention

    def test_without_offsets_every_position_reads_itself(self) -> None:
        attention, x = self.still(), torch.randn(1, 20, 8, dtype=torch.float64)
        found = attention(x, x, torch.zeros(1, 4, 5, dtype=torch.bool))
        assert torch.allclose(found, attention.output(attention.value(x)), atol=1e-12)

    def test_an_offset_is_in_cells_to_the_right_and_down(self) -> None:
        attention, x = self.still((1.0, 2.0)), torch.randn(1, 20, 8, dtype=torch.float64)
        found = attention(x, x, torch.zeros(1, 4, 5, dtype=torch.bool)).reshape(4, 5, 8)
        values = attention.output(attention.value(x)).reshape(4, 5, 8)
        assert torch.allclose(found[:2, :4], values[2:, 1:], atol=1e-12)
        assert torch.allclose(found[2:], torch.zeros_like(found[2:]), atol=1e-12), "zero outside"

    def test_padded_cells_have_no_value(self) -> None:
        attention, x = self.still(), torch.randn(1, 20, 8, dtype=torch.float64)
        padded = torch.zeros(1, 4, 5, dtype=torch.bool)
        padded[:, :, 3:] = True
        found = attention(x, x, padded).reshape(4, 5, 8)
        assert not bool(found[:, 3:].any())
        assert bool((found[:, :3] != 0).all())

    def test_offsets_start_in_eight_directions(self) -> None:
        bias = DeformableAttention(16, 8, 9, 0.1).offsets.bias.reshape(8, 9, 2)
        assert torch.allclose(bias[:, 0], bias[:, 8] / 9, atol=1e-6)
        assert torch.allclose(bias[:3, 0], torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]), atol=1e-6)

    def test_codes_of_positions(self) -> None:
        codes = sine_codes(5, 4)
        assert codes[0].tolist() == [0, 1, 0, 1]
        assert codes[3].tolist() == pytest.approx([math.sin(3), math.cos(3), math.sin(0.03), math.cos(0.03)])
        padded = torch.zeros(1, 2, 4, dtype=torch.bool)
        padded[..., 2:] = True
        rows, columns = sine_grid(padded, 8)[0].chunk(2)
        assert columns[0, 0].tolist() == pytest.approx([math.sin(math.pi), *[math.sin(2 * math.pi)] * 3], abs=1e-5)
        assert rows[0, :, 0].tolist() == pytest.approx([math.sin(math.pi), math.sin(2 * math.pi)], abs=1e-5)
        assert torch.equal(columns[..., 1], columns[..., 3]), "the count stands still in the padding"


class TestDraw:
    @staticmethod
    def flags(objects: int, others: int) -> tuple[Tensor, Tensor]:
        inside = torch.zeros(1, objects + others, dtype=torch.bool)
        inside[0, torch.randperm(objects + others, generator=torch.Generator().manual_seed(0))[:objects]] = True
        padded = torch.arange(objects + others)[None] % 7 == 0
        return inside, padded

    @pytest.mark.parametrize(
        ("objects", "others", "expected"),
        [
            (3, 4, (3, 4)),  # all
            (3, 30, (3, 17)),  # background fills up
            (30, 3, (17, 3)),  # object fills up
            (30, 40, (10, 10)),
            (0, 40, (0, 20)),
            (10, 10, (10, 10)),
            (12, 8, (12, 8)),
        ],
    )
    @pytest.mark.parametrize("misread", [False, True])
    def test_counts(self, objects: int, others: int, expected: tuple[int, int], misread: bool) -> None:
        inside, padded = self.flags(objects, others)
        keys = draw_keys(inside, padded, 10, [torch.Generator().manual_seed(1)], misread)
        own = inside[0, keys.position[0]]
        assert (int(own.sum()), int((~own).sum())) == expected
        assert len(set(keys.position[0].tolist())) == sum(expected)
        if not misread:
            assert torch.equal(keys.inside[0], own)
            assert torch.equal(keys.padded[0], padded[0, keys.position[0]])

    @pytest.mark.parametrize(
        ("objects", "others", "wrong"), [(3, 30, (1,)), (30, 3, (0,)), (30, 40, (0, 1)), (3, 4, (1,))]
    )
    def test_the_release_reads_drawn_keys_at_their_index_within_their_side(
        self, objects: int, others: int, wrong: tuple[int, ...]
    ) -> None:
        inside, padded = self.flags(objects, others)
        keys = draw_keys(inside, padded, 10, [torch.Generator().manual_seed(1)], misread=True)
        sides = [inside[0].nonzero().flatten().tolist(), (~inside[0]).nonzero().flatten().tolist()]
        for position, flag, pad in zip(
            *(x[0].tolist() for x in (keys.position, keys.inside, keys.padded)), strict=True
        ):
            side = 0 if position in sides[0] else 1
            read = sides[side].index(position) if side in wrong else position
            assert flag == inside[0, read]
            assert pad == padded[0, read]

    def test_every_token_is_drawn_sometimes(self) -> None:
        inside, padded = self.flags(30, 30)
        drawn = [draw_keys(inside, padded, 10, [torch.Generator().manual_seed(i)]).position for i in range(30)]
        assert torch.cat(drawn).unique().numel() == 60
        assert not torch.equal(drawn[0], drawn[1])

    @pytest.mark.usefixtures("few_keys")
    def test_an_answer_depends_on_its_episode_alone(self) -> None:
        """More positions than keys: the draw matters. It is the same alone, in any order, and at any time."""
        net, given = head(width=8), features(batch=3)
        before = torch.random.get_rng_state()
        with torch.no_grad():
            together = run(net, given).logits
            assert torch.equal(torch.random.get_rng_state(), before), "the global generator was used"
            torch.manual_seed(99)
            for b in (2, 0, 1):
                rows = slice(b, b + 1)
                one = EpisodeFeatures(
                    {i: m[rows] for i, m in given.query.items()},
                    {i: m[rows] for i, m in given.support.items()},
                    given.support_labels[rows],
                )
                assert torch.allclose(run(net, one, b).logits, together[rows], rtol=0, atol=1e-10)

    @pytest.mark.usefixtures("few_keys")
    def test_the_release_draws_from_the_global_generator(self) -> None:
        net, given = head(width=8, key_draw="global"), features(batch=1)
        with torch.no_grad():
            torch.manual_seed(1)
            first = run(net, given).logits
            again = run(net, given).logits
            torch.manual_seed(1)
            assert torch.equal(run(net, given).logits, first)
        assert not torch.allclose(first, again, atol=1e-6)

    def test_training_draws_anew_in_every_block_and_step(self) -> None:
        net = head(width=8).train()
        cells = features(side=30, shots=2).support_labels[..., ::8, ::8]
        sources = seeded((1, 2))
        one, two = net._keys(cells, sources)
        assert one.position.shape != two.position.shape, "the number is drawn, too"
        (again, _) = net._keys(cells, sources)
        assert again.position.shape != one.position.shape
        n = min(one.position.shape[1], two.position.shape[1])
        assert not torch.equal(one.position[:, :n], two.position[:, :n])
        for keys in (net._keys(cells, sources)[0] for _ in range(20)):
            assert 720 <= keys.position.shape[1] <= 1680
        net.eval()
        one, two = net._keys(cells, sources)
        assert torch.equal(one.position, two.position)
        assert one.position.shape == (2, 1200)


class TestSupports:
    """Which changes of the supports change the answer."""

    @pytest.fixture(params=[([2, 0, 1], "order"), ([0, 1, 2] * 2, "repetition")], ids=lambda p: p[1])
    def order(self, request: pytest.FixtureRequest) -> list[int]:
        return list(request.param[0])

    def test_invariant_while_all_positions_are_keys(self, order: list[int]) -> None:
        net, given = head(), features(shots=3)
        with torch.no_grad():
            assert torch.allclose(run(net, shuffled(given, order)).logits, run(net, given).logits, rtol=0, atol=1e-10)

    @pytest.mark.usefixtures("few_keys")
    def test_not_so_when_keys_are_drawn(self, order: list[int]) -> None:
        net, given = head(width=8), features(shots=3, batch=1)
        with torch.no_grad():
            assert not torch.allclose(run(net, shuffled(given, order)).logits, run(net, given).logits, atol=1e-6)

    def test_not_so_as_released(self) -> None:
        net, given = head(key_flags="release"), features(shots=3)
        with torch.no_grad():
            assert not torch.allclose(run(net, shuffled(given, [2, 0, 1])).logits, run(net, given).logits, atol=1e-6)

    def test_an_empty_mask_gives_its_centre_to_the_object(self) -> None:
        net, given = head(), features()
        given.support_labels.zero_()
        merged: list[Tensor] = []
        net.merge_query.register_forward_pre_hook(lambda _, x: merged.append(x[0]))
        with torch.no_grad():
            assert bool(run(net, given).logits.isfinite().all())
        assert float(merged[0][:, 16:].abs().max()) == 0, "prototype and prior mask"
        keys = net._keys(given.support_labels[..., ::8, ::8], seeded(range(2)))[0]
        assert sorted(keys.position[0, keys.inside[0]].tolist()) == [16, 17, 23, 24]

    def test_a_full_mask_gives_its_corners_to_the_background(self) -> None:
        keys = head()._keys(torch.ones(1, 1, 7, 7, dtype=torch.uint8), seeded((0,)))[0]
        assert sorted(keys.position[0, ~keys.inside[0]].tolist()) == [0, 6, 42, 48]

    def test_a_mask_of_one_pixel(self) -> None:
        """At a position of the grid it is one key, between them the centre stands in for it."""
        net, given = head(), features(batch=1)
        given.support_labels.zero_()
        given.support_labels[..., 16, 8] = 1
        with torch.no_grad():
            hit = run(net, given).logits
        keys = net._keys(given.support_labels[..., ::8, ::8], seeded((0,)))[0]
        assert keys.position[0, keys.inside[0]].tolist() == [2 * 7 + 1]
        moved = replace(given, support_labels=given.support_labels.roll(3, dims=-1))
        with torch.no_grad():
            assert not torch.allclose(run(net, moved).logits, hit, atol=1e-6)


def gradients(net: CyCTR, given: EpisodeFeatures) -> list[Tensor]:
    net.zero_grad()
    label = given.support_labels[:, 0]
    net.loss(run(net, given), {"query": label, "support": given.support_labels.flatten(0, 1)})["total"].backward()
    return [p.grad.clone() for p in net.parameters() if p.grad is not None]


def without_dropout(net: CyCTR) -> CyCTR:
    for module in net.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0
    return net


class TestChunks:
    @pytest.mark.parametrize("chunk", [5, 49, 100])
    def test_equal_outputs_and_gradients(self, chunk: int) -> None:
        plain, lean, given = head(), head(query_chunk=chunk), features(shots=2)
        given.query_label = given.support_labels[:, 0]
        with torch.no_grad():
            assert torch.allclose(run(lean, given).logits, run(plain, given).logits, rtol=0, atol=1e-10)
        one_by_one = (gradients(without_dropout(net).train(), given) for net in (plain, lean))
        for one, other in zip(*one_by_one, strict=True):
            assert torch.allclose(one, other, rtol=0, atol=1e-10)

    def test_the_backward_pass_repeats_the_dropout(self) -> None:
        """The derivative along a random direction is that of finite differences with the same seed."""
        net, given = head(query_chunk=5).train(), features(side=4)
        weight = net.transformer.cross_attention[0].value.weight
        direction = torch.randn_like(weight)

        def loss() -> Tensor:
            torch.manual_seed(4)
            return run(net, given).logits.square().mean()

        def moved(step: float) -> float:
            with torch.no_grad():
                weight.add_(direction, alpha=step)
                value = float(loss())
                weight.sub_(direction, alpha=step)
            return value

        loss().backward()
        assert weight.grad is not None
        numeric = (moved(1e-6) - moved(-1e-6)) / 2e-6
        assert float((weight.grad * direction).sum()) == pytest.approx(numeric, rel=1e-5)

    def test_less_is_kept_for_the_backward_pass(self) -> None:
        def kept(chunk: int) -> int:
            net, given, total = head(width=8, query_chunk=chunk).train(), features(side=20, batch=1), 0

            def pack(tensor: Tensor) -> Tensor:
                nonlocal total
                total += tensor.numel()
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
                run(net, given)
            return total

        assert kept(50) < 0.5 * kept(0)


def test_dice_by_hand() -> None:
    net = head()
    scores = torch.tensor([[0.2, 0.5, 0.9, 0.4], [0.7, 0.1, 0.3, 0.6]], dtype=torch.float64)
    logits = (scores / (1 - scores)).log().reshape(1, 2, 2, 2)
    label = torch.tensor([[[0, 1], [1, 255]]], dtype=torch.uint8)
    background = 1 - 2 * 0.2 / (0.04 + 0.25 + 0.81 + 0.16 + 1)
    objects = 1 - 2 * (0.1 + 0.3) / (0.49 + 0.01 + 0.09 + 0.36 + 2)
    assert float(net.criterion(logits, label)) == pytest.approx(background + objects, rel=1e-12)
    twice = net.criterion(logits.repeat(2, 1, 1, 1), label.repeat(2, 1, 1))
    assert float(twice) == pytest.approx(background + objects, rel=1e-12)


def test_the_supports_are_segmented_by_the_query_in_training_alone() -> None:
    net, given = head(aux_weight=0.5), features(shots=2)
    given.query_label = given.support_labels[:, 0]
    assert run(net, given).aux_logits == []
    output = run(net.train(), given)
    assert output.aux_logits[0].logits.shape == (4, 2, 7, 7)
    labels = {"query": given.query_label, "support": given.support_labels.flatten(0, 1)}
    terms = net.loss(output, labels)
    assert set(terms) == {"main", "support", "total"}
    assert torch.allclose(terms["total"], terms["main"] + 0.5 * terms["support"])
    assert len(gradients(net, given)) == len(list(net.parameters()))


def test_encodings_equal_the_maps() -> None:
    net, given = head(), features(shots=2)
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
        found = net.forward_encoded(EncodedEpisode(queries, supports, generators=seeded((0, 1)))).logits
        assert torch.allclose(found, run(net, given).logits, rtol=0, atol=1e-12)
    assert encodes(net)


def test_svf_reaches_every_singular_value() -> None:
    torch.manual_seed(0)
    backbone = tiny()
    net = FewShotSegmenter(backbone, CyCTR(backbone.channels, width=8)).eval()
    report = SVF().apply(net.backbone)
    net.head_output(*inputs(2, 1)).logits.square().mean().backward()
    for name in report.trainable:
        gradient = net.backbone.get_parameter(name).grad
        assert gradient is not None
        assert float(gradient.abs().max()) > 0, name


@pytest.mark.usefixtures("few_keys")
def test_a_test_depends_on_the_seed_of_the_episode_but_not_on_cache_or_batch() -> None:
    torch.manual_seed(0)
    backbone = tiny()
    net = FewShotSegmenter(backbone, CyCTR(backbone.channels, width=8)).double().eval()
    given = episode(2, 2, 65, seeds=[7, 8])
    given.query, given.support_images = given.query.double(), given.support_images.double()
    with torch.no_grad():
        plain = net.run_episode(given).logits
        assert not torch.allclose(net.run_episode(replace(given, seeds=[7, 9])).logits[1], plain[1], atol=1e-6)
        last = net.head_output(given.query[1:], given.support_images[1:], given.support_labels[1:], seeds=[8])
        assert torch.allclose(last.logits, plain[1:], rtol=0, atol=1e-12)
        net.cache_features(1 << 30)
        for _ in range(2):
            assert torch.allclose(net.run_episode(given).logits, plain, rtol=0, atol=1e-12)


def test_biases_of_the_transformer_do_not_decay() -> None:
    net = head()
    names = {id(p): name for name, p in net.named_parameters()}
    groups = {g.name: g for g in net.param_groups()}
    found = {name: {names[id(p)] for p in g.parameters} for name, g in groups.items()}
    assert {(g.name, g.optimizer, g.weight_decay) for g in groups.values()} == {
        ("head", "", None), ("transformer", "transformer", None), ("transformer_bias", "transformer", 0.0),
    }  # fmt: skip
    assert len(found["transformer_bias"]) == 2 * 2 + 8, "offsets and weights of two layers, and eight norms"
    assert {"transformer.level", "transformer.norms.3.weight"} <= found["transformer"]
    assert "cls.3.bias" in found["head"]


def test_sizes_of_the_release() -> None:
    """Less the projection that it never calls: 7,456,692 - 131,072; at 384 channels 16,183,180 - 294,912."""
    with torch.device("meta"):
        for width, count in ((256, 7_325_620), (384, 15_888_268)):
            assert sum(p.numel() for p in CyCTR((128, 256, 512, 1024, 2048), width=width).parameters()) == count


@pytest.mark.parametrize("option", [{"key_draw": "own"}, {"key_flags": "global"}, {"width": 20}])
def test_bad_options(option: dict[str, object]) -> None:
    with pytest.raises(FssError, match=rf"method\.{next(iter(option))}="):
        CyCTR(CHANNELS, **option)  # type: ignore[arg-type]
