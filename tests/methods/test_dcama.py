"""DCAMA: against its plain form, cases made by hand, and memory-lean attention."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.methods import plain_dcama
from tests.methods.fakes import episode, inputs, tiny
from torch import Tensor, nn

from fss.errors import FssError
from fss.finetune.svf import SVF
from fss.methods.dcama import DCAMA, MaskAggregation
from fss.model.segmenter import FewShotSegmenter
from fss.nn.resize import up
from fss.types import EpisodeFeatures

CHANNELS = (4, 6, 8, 16, 24)
BLOCKS = (1, 2, 2, 1, 3)
SIDES = {1: 12, 2: 6, 3: 4, 4: 3}


def features(shots: int = 1, batch: int = 2, seed: int = 0) -> EpisodeFeatures:
    g = torch.Generator().manual_seed(seed)

    def taps(*lead: int) -> dict[int, list[Tensor]]:
        return {
            i: [torch.randn(*lead, CHANNELS[i], n, n, generator=g, dtype=torch.float64) for _ in range(BLOCKS[i])]
            for i, n in SIDES.items()
        }

    labels = torch.zeros(batch, shots, 48, 48, dtype=torch.uint8)
    for b in range(batch):
        for k in range(shots):
            labels[b, k, 5 + 2 * k : 30, 3 + 9 * b : 41 - 6 * k] = 1
            labels[b, k, :, 44 - k :] = 255
    return EpisodeFeatures({}, {}, labels, taps(batch), taps(batch, shots))


def head(seed: int = 0, **options: float) -> DCAMA:
    torch.manual_seed(seed)
    made = DCAMA(CHANNELS, BLOCKS, **{"width": 32, **options}).double()  # type: ignore[arg-type]
    for module in made.modules():
        if isinstance(module, MaskAggregation):
            nn.init.normal_(module.query.weight, std=0.7)
            nn.init.normal_(module.key.weight, std=0.7)
        if isinstance(module, nn.GroupNorm):
            nn.init.normal_(module.bias, std=0.2)
    return made.eval()


def reordered(given: EpisodeFeatures, order: list[int]) -> EpisodeFeatures:
    taps = {i: [m[:, order] for m in maps] for i, maps in given.support_taps.items()}
    return replace(given, support_taps=taps, support_labels=given.support_labels[:, order])


@pytest.mark.parametrize("shots", [1, 3])
def test_equals_its_plain_form(shots: int) -> None:
    net, given = head(seed=shots), features(shots, seed=shots)
    with torch.no_grad():
        found = net(given).logits
        assert found.shape == (2, 2, 48, 48)
        for item in range(2):
            expected = plain_dcama.logits(net, given, item)
            assert float((found[item] - expected).abs().max()) < 1e-10 * float(expected.abs().max())


class TestAttention:
    """Cases whose outcome is known."""

    @staticmethod
    def identity(scale: float, heads: int = 2) -> MaskAggregation:
        attention = MaskAggregation(8, heads, 0.5).double().eval()
        with torch.no_grad():
            for layer in (attention.query, attention.key):
                nn.init.eye_(layer.weight)
                nn.init.zeros_(layer.bias)
            attention.query.weight.mul_(scale)
        return attention

    def test_a_query_that_equals_its_support_takes_over_its_mask(self) -> None:
        tokens = torch.randn(2, 12, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        tokens = torch.cat([nn.functional.normalize(part, dim=2) for part in tokens.chunk(2, dim=2)], dim=2)
        mask = torch.rand(2, 12, dtype=torch.float64)
        assert torch.allclose(self.identity(1e4)(tokens, tokens, mask), mask, atol=1e-9)

    def test_without_preference_every_position_gets_the_mean_of_the_mask(self) -> None:
        mask = torch.rand(1, 7, dtype=torch.float64)
        found = self.identity(0.0)(torch.randn(1, 5, 8).double(), torch.randn(1, 7, 8).double(), mask)
        assert torch.allclose(found, mask.mean().expand(1, 5), atol=1e-12)

    def test_one_position_gives_the_weights_on_it(self) -> None:
        """The mean over the heads of one column of the attention."""
        attention, mask = self.identity(1.0), torch.zeros(1, 6, dtype=torch.float64)
        query, key = torch.randn(1, 5, 8).double(), torch.randn(1, 6, 8).double()
        mask[0, 4] = 0.5
        scores = [q @ k.mT / 2 for q, k in zip(query.chunk(2, dim=2), key.chunk(2, dim=2), strict=True)]
        expected = sum(s.softmax(dim=2)[..., 4] for s in scores) / 2 * 0.5
        assert torch.allclose(attention(query, key, mask), expected, atol=1e-12)

    def test_the_bias_of_the_keys_has_no_effect(self) -> None:
        attention = MaskAggregation(8, 2, 0.5).double().eval()
        query, key, mask = torch.randn(1, 5, 8).double(), torch.randn(1, 6, 8).double(), torch.rand(1, 6).double()
        before = attention(query, key, mask)
        with torch.no_grad():
            attention.key.bias.add_(3.0)
        assert torch.allclose(attention(query, key, mask), before, atol=1e-12)


class TestSupports:
    """Changes of the supports and of their masks."""

    @pytest.mark.parametrize("order", [[2, 0, 1], [0, 1, 2] * 2], ids=["order", "repetition"])
    def test_invariant(self, order: list[int]) -> None:
        net, given = head(), features(3)
        with torch.no_grad():
            assert torch.allclose(net(reordered(given, order)).logits, net(given).logits, rtol=0, atol=1e-12)

    def test_each_support_counts(self) -> None:
        net, given = head(), features(3)
        with torch.no_grad():
            assert not torch.allclose(net(reordered(given, [0, 1])).logits, net(given).logits, atol=1e-6)
            assert not torch.allclose(net(reordered(given, [0, 1, 1])).logits, net(given).logits, atol=1e-6)

    @pytest.mark.parametrize(("value", "expected"), [(0, 0.0), (255, 0.0), (1, 1.0)])
    def test_a_mask_of_one_value_is_all_that_is_aggregated(self, value: int, expected: float) -> None:
        net, given = head(), features(2)
        given.support_labels.fill_(value)
        for stage in (2, 3, 4):
            masks = net._coarse_masks(given, stage)
            assert masks.shape == (2, BLOCKS[stage], SIDES[stage], SIDES[stage])
            assert torch.allclose(masks, torch.full_like(masks, expected), atol=1e-12)
        assert bool(net(given).logits.isfinite().all())

    def test_a_mask_of_one_pixel_counts_where_a_grid_meets_it(self) -> None:
        """The first pixel lies on every grid, the second one between the positions of stages 3 and 4."""
        net, given = head(), features(batch=1)
        for pixel, stages in ((0, (2, 3, 4)), (10, (2,))):
            given.support_labels.zero_()
            given.support_labels[..., pixel, pixel] = 1
            for stage in (2, 3, 4):
                masks = net._coarse_masks(given, stage)
                assert bool((masks > 0).all()) == (stage in stages)
                assert float(masks.detach().max()) < 1

    def test_a_query_that_equals_its_support(self) -> None:
        """With sharp attention of every position to itself, a coarse mask is the resized mask of the support."""
        net, given = head(), features(batch=1)
        with torch.no_grad():
            for attention in net.attention.values():
                nn.init.eye_(attention.query.weight).mul_(1e6)
                nn.init.eye_(attention.key.weight)
                nn.init.zeros_(attention.query.bias)
        same = {
            i: [nn.functional.normalize(m.unflatten(1, (8, -1)), dim=2).flatten(1, 2) for m in maps] if i > 1 else maps
            for i, maps in given.query_taps.items()
        }
        given = replace(given, query_taps=same, support_taps={i: [m[:, None] for m in t] for i, t in same.items()})
        for module in net.positions.values():
            module.register_forward_hook(lambda _, x, out: torch.zeros_like(out))
        mask = (given.support_labels == 1).double()
        for stage in (3, 4):
            for coarse in net._coarse_masks(given, stage).unbind(1):
                assert torch.allclose(coarse, up(mask, SIDES[stage])[:, 0], atol=1e-6)


class TestPositions:
    def test_each_shot_has_the_same_codes(self) -> None:
        net = head()
        zero = torch.zeros(1, 3, 8, 4, 5, dtype=torch.float64)
        tokens = net._tokens(zero, 2)
        assert tokens.shape == (1, 60, 8)
        assert torch.equal(tokens[:, :20], tokens[:, 40:])
        assert torch.allclose(tokens[0, :20], plain_dcama.code(20, 8), atol=1e-12)

    def test_a_stored_table_is_used(self) -> None:
        net, given = head(position_table=40), features()
        assert {n for n, _ in net.named_buffers()} == {f"positions.{i}.table" for i in (2, 3, 4)}
        computed = head()
        with torch.no_grad():
            assert torch.allclose(net(given).logits, computed(given).logits, atol=1e-5)
            net.positions["3"].table.add_(1.0)
            assert not torch.allclose(net(given).logits, computed(given).logits, atol=1e-5)

    def test_a_table_that_is_too_short_is_refused(self) -> None:
        with pytest.raises(FssError, match=r"36 positions, but method\.position_table=30"):
            head(position_table=30)(features())


def gradients(net: DCAMA, given: EpisodeFeatures) -> list[Tensor]:
    net.zero_grad()
    net.loss(net(given), {"query": given.support_labels[:, 0]})["total"].backward()
    return [p.grad.clone() for p in net.parameters() if p.grad is not None]


class TestChunks:
    @pytest.mark.parametrize("chunk", [2, 5, 100])
    def test_equal_outputs_and_gradients(self, chunk: int) -> None:
        given, nets = features(2), [head(dropout=0), head(dropout=0, query_chunk=chunk)]
        with torch.no_grad():
            one, other = (net(given).logits for net in nets)
            assert torch.allclose(one, other, rtol=0, atol=1e-10)
        for one, other in zip(*(gradients(net.train(), given) for net in nets), strict=True):
            assert torch.allclose(one, other, rtol=0, atol=1e-10)

    def test_the_backward_pass_repeats_the_dropout(self) -> None:
        """The derivative along a random direction is that of finite differences with the same seed."""
        net, given = head(query_chunk=5).train(), features()
        weight = net.attention["2"].query.weight
        direction = torch.randn_like(weight)

        def loss() -> Tensor:
            torch.manual_seed(4)
            return net(given).logits.square().mean()

        def moved(step: float) -> float:
            with torch.no_grad():
                weight.add_(direction, alpha=step)
                value = float(loss())
                weight.sub_(direction, alpha=step)
            return value

        loss().backward()
        assert weight.grad is not None
        numeric = (moved(1e-6) - moved(-1e-6)) / 2e-6
        assert float((weight.grad * direction).sum()) == pytest.approx(numeric, rel=1e-4)


def test_svf_reaches_every_singular_value() -> None:
    """All stages, through queries and supports, though stage 0 has no taps."""
    torch.manual_seed(0)
    backbone = tiny()
    net = FewShotSegmenter(backbone, DCAMA(backbone.channels, (1, 2, 2, 2, 2))).eval()
    report = SVF().apply(net.backbone)
    net.head_output(*inputs(2, 1)).logits.square().mean().backward()
    for name in report.trainable:
        gradient = net.backbone.get_parameter(name).grad
        assert gradient is not None
        assert float(gradient.abs().max()) > 0, name


def test_blocks_with_fewer_channels_are_filled_up_with_zeros() -> None:
    """EfficientNet's stages hold blocks of two widths."""
    net, narrow = head(), features()
    wide = features()
    for given in (narrow.query_taps, narrow.support_taps, wide.query_taps, wide.support_taps):
        given[4][0].narrow(-3, 16, 8).zero_()
    for given in (narrow.query_taps, narrow.support_taps):
        given[4][0] = given[4][0].narrow(-3, 0, 16)
    with torch.no_grad():
        assert torch.allclose(net(narrow).logits, net(wide).logits, rtol=0, atol=1e-12)
    narrow.query_taps[4][0] = torch.zeros(2, 32, 3, 3, dtype=torch.float64)
    with pytest.raises(FssError, match="stage 4 has 32 channels, more than the 24"):
        net(narrow)


def test_gradients_of_a_tuned_backbone_are_not_stopped_in_silence() -> None:
    net, given = head(detach=True), features()
    found = gradients(net.train(), given)
    assert len(found) == len(list(net.parameters()))
    given.support_taps[3][0].requires_grad_()
    with pytest.raises(FssError, match=r"method\.detach=true .* finetune=freeze"):
        net(given)


def test_tests_with_the_cache_equal_those_without() -> None:
    torch.manual_seed(0)
    backbone = tiny()
    net = FewShotSegmenter(backbone, DCAMA(backbone.channels, (1, 2, 2, 2, 2))).eval()
    given = episode(2, 2, 65)
    with torch.no_grad():
        plain = net.run_episode(given).logits
        net.cache_features(1 << 30)
        assert torch.allclose(net.run_episode(given).logits, plain, atol=1e-5)


def test_every_parameter_trains() -> None:
    """But for the bias of the keys, whose gradient is zero up to rounding."""
    net, given = head(width=64).train(), features(2)
    gradients(net, given)
    for name, p in net.named_parameters():
        assert p.grad is not None
        assert (float(p.grad.abs().max()) > 1e-9) == (not name.endswith("key.bias")), name


def test_sizes_of_the_release() -> None:
    resnet, swin = (64, 256, 512, 1024, 2048), (128, 128, 256, 512, 1024)
    counts = {
        (resnet, (1, 3, 4, 6, 3)): 14_215_394,
        (resnet, (1, 3, 4, 23, 3)): 14_222_194,
        (swin, (1, 2, 2, 18, 2)): 5_073_394,
    }
    with torch.device("meta"):
        for (channels, blocks), count in counts.items():
            assert sum(p.numel() for p in DCAMA(channels, blocks).parameters()) == count


def test_channels_must_fit_the_heads() -> None:
    with pytest.raises(FssError, match=r"method\.width=20"):
        DCAMA(CHANNELS, BLOCKS, width=20)
    with pytest.raises(FssError, match="stage 3 of this backbone has 12"):
        DCAMA((4, 4, 8, 12, 16), BLOCKS)
