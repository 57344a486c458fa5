"""One contract over every few-shot head in conf/method, on small backbones with random values."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from tests.contracts.strategies import CONF
from tests.methods.fakes import episode
from torch import Tensor

from fss.config.compose import choices, plain, prepare_hydra
from fss.methods.base_learner import BaseLearner
from fss.model.build import build_model
from fss.model.segmenter import FewShotSegmenter
from fss.types import Episode

NAMES = [name for name in choices("method") if name != BaseLearner.name]  # that one is no few-shot head
BACKBONES = ("resnet18", "vgg16")
SIZE, BASE_CLASSES = 33, 4


@cache
def composed(method: str, backbone: str) -> dict[str, Any]:
    prepare_hydra()
    options = [f"method={method}", f"backbone={backbone}", "backbone.width=4", "shot=2"]
    with initialize_config_dir(str(CONF), version_base="1.3", job_name="test"):
        return plain(compose("config", overrides=options))


def model(method: str, backbone: str) -> FewShotSegmenter:
    config = dict(composed(method, backbone))
    if "width" in config["method"]:
        config["method"] = config["method"] | {"width": 8}
    if "base_learner" in config["method"]:  # a head that asks for base_logits
        learner = {"_target_": "fss.methods.base_learner.BaseLearner", "width": 8}
        built = {"classes": BASE_CLASSES + 1, "method": learner, "backbone": config["backbone"]}
        config["method"] = config["method"] | {"base_learner": {"built": built}}
    torch.manual_seed(0)
    net = build_model(config, pretrained=False)
    net.backbone.norm_mode = "eval"
    return net


@pytest.fixture(params=[(n, b) for n in NAMES for b in BACKBONES], ids="-".join)
def net(request: pytest.FixtureRequest) -> FewShotSegmenter:
    return model(*request.param)


def batch() -> Episode:
    labels = {"base_label": torch.zeros(2, SIZE, SIZE, dtype=torch.uint8), "base_index": torch.tensor([0, 1])}
    return episode(2, 2, SIZE, extras=labels)


def targets(given: Episode) -> dict[str, Tensor]:
    supports = given.support_labels.flatten(0, 1)
    return {"query": given.query_label, "support": supports, "base": given.extras["base_label"]}


def test_scores_of_background_and_foreground(net: FewShotSegmenter) -> None:
    given = batch()
    with torch.no_grad():
        output = net.eval().run_episode(given)
        again = net.run_episode(given)
        logits = net(given.query, given.support_images, given.support_labels)
    assert output.logits.shape[:2] == (2, 2)
    assert logits.shape == (2, 2, SIZE, SIZE)
    assert bool(logits.isfinite().all())
    assert torch.equal(output.logits, again.logits), "two calls in evaluation mode differ"


def test_the_supports_matter(net: FewShotSegmenter) -> None:
    """Of a head that is called for each of them, before they vote: few decisions of an untrained one ever change."""
    given = batch()
    other = replace(given, support_labels=(given.support_labels != 1).to(torch.uint8))
    with torch.no_grad():
        outputs = [net.eval().run_episode(episode) for episode in (given, other)]
    one, two = (torch.stack([shot.logits for shot in output.shots or [output]]) for output in outputs)
    assert not torch.allclose(one, two)


def test_each_episode_of_a_batch_stands_alone(net: FewShotSegmenter) -> None:
    given = batch()
    with torch.no_grad():
        both = net.eval()(given.query, given.support_images, given.support_labels)
        alone = net(given.query[1:], given.support_images[1:], given.support_labels[1:])
    assert torch.allclose(both[1:], alone, atol=1e-4)


@pytest.mark.parametrize("empty", [False, True])
def test_the_loss_has_finite_gradients(net: FewShotSegmenter, empty: bool) -> None:
    given = batch()
    if empty:
        given.support_labels.zero_()
    terms = net.train().head.loss(net.run_episode(given), targets(given))
    assert all(value.ndim == 0 and bool(value.isfinite()) for value in terms.values())
    terms["total"].backward()
    gradients = {n: p.grad for n, p in net.head.named_parameters() if p.grad is not None}
    assert gradients, "nothing of the head learns"
    assert all(bool(g.isfinite().all()) for g in gradients.values())
    assert any(bool((g != 0).any()) for g in gradients.values()) or empty


def test_the_groups_hold_every_trained_value_once(net: FewShotSegmenter) -> None:
    grouped = [id(p) for group in net.head.param_groups() for p in group.parameters]
    assert len(set(grouped)) == len(grouped)
    assert set(grouped) == {id(p) for p in net.head.parameters() if p.requires_grad}


def test_a_checkpoint_holds_all_of_it(net: FewShotSegmenter) -> None:
    assert not {n for n, _ in net.head.named_buffers()} - net.head.state_dict().keys()
    assert all(name in net.head.state_dict() for name, _ in net.head.named_parameters())
