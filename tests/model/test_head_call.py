"""Heads that draw random numbers, and heads that optimise something at test time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tests.lit.fabricate import CLASSES, Episodes, recipe, trainer
from tests.methods.fakes import episode, inputs, tiny
from torch import Tensor, nn

from fss.finetune.freeze import Freeze
from fss.lit.callbacks.feature_caching import FeatureCaching
from fss.lit.callbacks.finetuning import BackboneFinetune
from fss.lit.episodic import EpisodicModule
from fss.methods.base import FewShotHead
from fss.methods.separable import EncodedEpisode, Encoding, SeparableHead
from fss.model.segmenter import FewShotSegmenter
from fss.nn.prototype import support_mask
from fss.nn.resize import up
from fss.types import EpisodeFeatures, FeatureSpec, HeadOutput


class Fitted(FewShotHead):
    """Fits a linear classifier to the supports by gradient descent, as CWT does."""

    name = "fitted"
    needs_grad_in_eval = True

    def __init__(self, channels: int) -> None:
        super().__init__(FeatureSpec(stages=(2,)))
        self.scale = nn.Parameter(torch.ones(()))
        self.channels = channels

    def forward(self, features: EpisodeFeatures) -> HeadOutput:
        query, supports = features.query[2], features.support[2][:, 0]
        assert torch.is_grad_enabled()
        assert not query.requires_grad
        size = (query.shape[-2], query.shape[-1])
        target = (up(support_mask(features.support_labels[:, 0], query.dtype), size)[:, 0] > 0.5).long()
        rows = []
        for q, s, t in zip(query, supports, target, strict=True):
            weight = torch.zeros(2, self.channels, dtype=q.dtype, requires_grad=True)
            for _ in range(3):
                loss = F.cross_entropy(torch.einsum("oc,chw->ohw", weight, s)[None], t[None])
                (gradient,) = torch.autograd.grad(loss, weight)
                weight = (weight - 0.5 * gradient).detach().requires_grad_()
            rows.append(self.scale * torch.einsum("oc,chw->ohw", weight, q))
        return HeadOutput(torch.stack(rows))


def fitted() -> FewShotSegmenter:
    backbone = tiny()
    return FewShotSegmenter(backbone, Fitted(backbone.channels[2])).eval()


def test_gradients_where_nothing_is_recorded() -> None:
    net, batch = fitted(), episode()
    plain = net.run_episode(batch)
    assert not plain.logits.requires_grad, "nothing of the fit is left behind"
    assert float(plain.logits.abs().max()) > 0
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            assert torch.equal(net.run_episode(batch).logits, plain.logits)
            assert torch.equal(net(*inputs()), up(plain.logits, 33))
    with torch.inference_mode():
        net.cache_features(1 << 30)
        once, again = net.run_episode(batch).logits, net.run_episode(batch).logits
        assert torch.allclose(once, plain.logits, atol=1e-5)
        assert torch.equal(once, again)


def test_under_lightning_with_the_feature_cache(tmp_path: Path) -> None:
    """Lightning tests in inference mode, whose tensors take part in no gradient unless they are copied outside."""
    scores = []
    for megabytes in (0, 64):
        module = EpisodicModule(fitted(), recipe(), CLASSES, CLASSES, CLASSES)
        run = trainer(tmp_path, BackboneFinetune(Freeze()), FeatureCaching(megabytes))
        run.test(module, datamodule=Episodes(2), verbose=False)
        scores.append(module.test_scores.per_class)
        assert all(p.grad is None for p in module.parameters())
    assert scores[0] == pytest.approx(scores[1])


class Random(SeparableHead):
    """Adds a number from each episode's generator to the logits; two calls draw two numbers."""

    name = "random"

    def __init__(self) -> None:
        super().__init__(FeatureSpec(stages=(2,), draws=True))

    def forward(self, features: EpisodeFeatures) -> HeadOutput:
        return self._drawn(features.query[2].mean((1, 2, 3)), features.generators)

    def encode_query(self, maps) -> Encoding:  # type: ignore[no-untyped-def]
        return {"mean": maps[2].mean((1, 2, 3))[0]}

    def encode_support(self, maps, labels: Tensor) -> Encoding:  # type: ignore[no-untyped-def]
        return {}

    def forward_encoded(self, episode: EncodedEpisode) -> HeadOutput:
        return self._drawn(torch.stack([q["mean"] for q in episode.query]), episode.generators)

    def _drawn(self, mean: Tensor, generators) -> HeadOutput:  # type: ignore[no-untyped-def]
        drawn = torch.stack([torch.rand((), generator=g) for g in generators])
        score = (mean + drawn)[:, None, None, None].expand(-1, 1, 2, 2)
        return HeadOutput(torch.cat([-score, score], dim=1))


def test_every_episode_has_its_own_random_numbers() -> None:
    """They do not depend on the other episodes, their order or the cache; a second pass draws the same again."""
    net = FewShotSegmenter(tiny(), Random()).eval()
    batch = episode(2, 1, seeds=[7, 2**64 - 1])
    other = episode(2, 1, seeds=[8, 8])
    with torch.no_grad():
        logits = net.run_episode(batch).logits
        assert torch.equal(net.run_episode(batch).logits, logits)
        assert not torch.allclose(net.run_episode(other).logits, logits)
        turned = episode(2, 1, seeds=batch.seeds[::-1])
        for name in ("query", "support_images", "support_labels"):
            setattr(turned, name, getattr(batch, name).flip(0))
        assert torch.allclose(net.run_episode(turned).logits.flip(0), logits, atol=1e-6)
        net.cache_features(1 << 30)
        assert torch.allclose(net.run_episode(batch).logits, logits, atol=1e-6)
        one, two = net(*inputs()), net(*(x[:1] for x in inputs()))
        assert torch.allclose(one[:1], two, atol=1e-6), "a prediction does not depend on its place"


def test_a_head_that_declares_nothing_gets_no_generator() -> None:
    head = Random()
    head.spec = FeatureSpec(stages=(2,))
    with pytest.raises(RuntimeError, match="stack expects a non-empty"):
        FewShotSegmenter(tiny(), head).eval().run_episode(episode(2, 1, seeds=[1, 2]))
