"""What heads may ask of a base learner: logits and embeddings of query and supports, computed and cached alike."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.methods.fakes import Recorder, episode, tiny
from torch import Tensor

from fss.finetune.svf import SVF
from fss.methods.base_learner import BaseLearner
from fss.model.companion import BaseBranch
from fss.model.segmenter import FewShotSegmenter
from fss.types import Episode, FeatureSpec, SupportView

ALL = frozenset({"base_logits", "base_embedding", "support_base_logits", "support_base_embedding"})
CLASSES, WIDTH = 5, 6


def model(view: SupportView, extras: frozenset[str] = ALL, tuned: bool = False) -> tuple[FewShotSegmenter, Recorder]:
    torch.manual_seed(0)
    backbone = tiny()
    branch = BaseBranch(copy.deepcopy(backbone), BaseLearner(backbone.channels, CLASSES, WIDTH))
    if tuned:
        SVF(stages=[3, 4]).apply(backbone)
        with torch.no_grad():
            for parameter in backbone.parameters():
                if parameter.requires_grad:
                    parameter.mul_(1.1)
    head = Recorder(FeatureSpec(stages=(2, 4), extras=extras, support_view=view))
    return FewShotSegmenter(backbone, head, branch).eval().double(), head


def batch(shots: int = 2) -> Episode:
    given = episode(2, shots)
    given.query, given.support_images = given.query.double(), given.support_images.double()
    return given


def alone(net: FewShotSegmenter, images: Tensor) -> tuple[Tensor, Tensor]:
    """Embedding and logits of the base learner by itself."""
    assert net.companion is not None
    with torch.no_grad():
        stage4 = net.companion.backbone(images)[4]  # type: ignore[operator]
        head = net.companion.head
        embedding = head.cls[1](head.cls[0](head.ppm(stage4)))
        return embedding, head.cls[4](embedding.relu())


@pytest.mark.parametrize("tuned", [False, True], ids=["frozen", "tuned"])
@pytest.mark.parametrize("view", ["plain", "masked_image", "masked_before_stage4"])
def test_what_the_base_learner_says_by_itself(view: SupportView, tuned: bool) -> None:
    net, head = model(view, tuned=tuned)
    given = batch()
    with torch.no_grad():
        net.run_episode(given)
    found = head.calls[0].extras
    embedding, logits = alone(net, given.query)
    assert torch.allclose(found["base_embedding"], embedding, atol=1e-10)
    assert torch.allclose(found["base_logits"], logits, atol=1e-10)
    assert bool((embedding < 0).any()), "before the ReLU"
    images = given.support_images
    if view == "masked_image":
        images = images * (given.support_labels == 1).double()[:, :, None]
    embedding, logits = alone(net, images.flatten(0, 1))
    assert found["support_base_logits"].shape == (2, 2, CLASSES, *logits.shape[-2:])
    assert torch.allclose(found["support_base_embedding"].flatten(0, 1), embedding, atol=1e-10)
    assert torch.allclose(found["support_base_logits"].flatten(0, 1), logits, atol=1e-10)


@pytest.mark.parametrize("tuned", [False, True], ids=["frozen", "tuned"])
@pytest.mark.parametrize("view", ["plain", "masked_image", "masked_before_stage4"])
def test_the_cache_changes_nothing(view: SupportView, tuned: bool) -> None:
    """Also where an image is a support of two classes, and the query of another episode."""
    net, head = model(view, tuned=tuned)
    given = batch()
    given.support_ids[1][0] = given.support_ids[0][1]  # ids are in sampling order, images in stacking order
    given.support_images[1, 1] = given.support_images[0, 0]
    given.support_ids[0][0], given.support_images[0, 1] = "q1", given.query[1]
    given.support_labels[1, 1, :10] = 1
    with torch.no_grad():
        net.run_episode(given)
        net.cache_features(1 << 30)
        for _ in range(2):
            net.run_episode(given)
    plain, *cached = (call.extras for call in head.calls)
    for extras in cached:
        assert extras.keys() == plain.keys() == ALL
        assert all(torch.allclose(extras[name], plain[name], atol=1e-10) for name in ALL)


def test_only_what_is_asked_for() -> None:
    net, head = model("plain", frozenset({"support_base_embedding"}))
    with torch.no_grad():
        net.run_episode(batch())
        net.cache_features(1 << 30)
        net.run_episode(batch())
    assert [set(call.extras) for call in head.calls] == [{"support_base_embedding"}] * 2


def test_nothing_reaches_the_base_learner() -> None:
    net, head = model("plain", tuned=True)
    net.train().run_episode(batch())
    assert not any(value.requires_grad for value in head.calls[0].extras.values())
