"""What a protocol makes of ignored pixels, and where predictions are scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.lit.fabricate import CLASSES, Episodes, recipe, trainer
from tests.methods.fakes import Recorder, episode, tiny
from torch import Tensor

from fss.finetune.freeze import Freeze
from fss.lit.callbacks.finetuning import BackboneFinetune
from fss.lit.episodic import EpisodicModule, counted_as
from fss.metrics.geometry import Scoring
from fss.model.segmenter import FewShotSegmenter
from fss.types import FeatureSpec


def test_ignored_pixels() -> None:
    label = torch.tensor([[0, 1, 255]], dtype=torch.uint8)
    assert counted_as(label, "ignore").tolist() == [[0, 1, 255]]
    assert counted_as(label, "background").tolist() == [[0, 1, 0]]
    assert counted_as(label, "foreground").tolist() == [[0, 1, 1]]


def test_where_predictions_are_scored() -> None:
    """A square of 4 whose right half is foreground, of an image of 2 x 6."""
    logits = torch.zeros(2, 4, 4)
    logits[1, :, 2:] = 1
    logits[1, :, :2] = -1
    full, small = torch.zeros(2, 6, dtype=torch.uint8), torch.ones(4, 4, dtype=torch.uint8)
    found, target = Scoring("network")(logits, full, small)
    assert found is logits
    assert target is small
    found, target = Scoring("original", "square")(logits, full, small)
    assert found.shape == (2, 2, 6)
    assert target is full
    assert found.argmax(dim=0).tolist() == [[0, 0, 0, 1, 1, 1]] * 2
    found, target = Scoring()(logits, full, small)
    assert found.shape == (2, 6, 6)
    assert target[2:].eq(255).all()
    assert target[:2].eq(0).all()


def module(**options: Any) -> EpisodicModule:
    head = Recorder(FeatureSpec(stages=(2,), needs_query_label=True))
    return EpisodicModule(FewShotSegmenter(tiny(), head), recipe(), CLASSES, CLASSES, CLASSES, **options)


def test_the_loss_and_the_head_see_what_ignored_pixels_count_for() -> None:
    losses = {}
    for ignored in ("ignore", "background"):
        one = module(ignored=ignored)
        one.log = lambda *_, **__: None  # type: ignore[method-assign]
        batch = episode()
        assert bool((batch.query_label == 255).any())
        losses[ignored] = float(one.train().training_step(batch, 0).detach())
        seen = one.model.head.calls[0].query_label  # type: ignore[union-attr]
        assert bool((seen == 255).any()) == (ignored == "ignore")
        assert bool((batch.query_label == 255).any()), "the batch itself is left alone"
    assert losses["ignore"] != losses["background"]


@pytest.mark.parametrize(("at", "ignored"), [("original", [3 * 33 + 30, 13 * 33]), ("network", [33, 33])])
def test_scores_of_a_test(at: Any, ignored: list[int], tmp_path: Path) -> None:
    """Labels of 30 x 33 and 33 x 20 pixels of images of 33 x 33, whose last column is ignored."""
    one, seen = module(scoring=Scoring(at)), []
    update = one._metric("test").update

    def watched(predicted: Tensor, target: Tensor, *more: Any) -> None:
        seen.append(int((target == 255).sum()))
        update(predicted, target, *more)

    one._metric("test").update = watched  # type: ignore[method-assign]
    trainer(tmp_path, BackboneFinetune(Freeze())).test(one, datamodule=Episodes(1), verbose=False)
    assert seen == ignored
    assert one.test_scores.episodes == 2
    counted = (30 * 32, 33 * 20) if at == "original" else (33 * 32, 33 * 32)
    expected = 100 * sum(20 * 10 / pixels for pixels in counted) / 2  # the object has 20 x 10 pixels in either image
    assert one.result_scores()["miou_all_foreground"] == pytest.approx(expected)
