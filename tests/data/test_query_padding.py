"""Episodes tell where their query is padded, by the same random transform, and heads that read it are told."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.methods.fakes import Recorder, inputs, tiny

from fss.data.datamodule import FewShotDataModule
from fss.data.episodes.options import EpisodeOptions
from fss.data.eval_transform import resized_shape
from fss.data.options import LoaderOptions, TransformOptions
from fss.data.sources.shapes import ShapesSource
from fss.model.segmenter import FewShotSegmenter
from fss.predictor import Predictor
from fss.types import FeatureSpec, InputSpec


def module(voc: ShapesSource, padding: bool, base_labels: bool = False, size: int = 65) -> FewShotDataModule:
    data = FewShotDataModule(
        voc,
        InputSpec(),
        fold=1,
        transforms=TransformOptions(size=size),
        episodes=EpisodeOptions(test_episodes=6, padding=padding, base_labels=base_labels),
        loader=LoaderOptions(batch_size=4, test_batch_size=2, workers=0, progress=False),
    )
    data.setup()
    return data


@pytest.mark.parametrize("base_labels", [False, True])
def test_training_crops_know_their_padding(voc: ShapesSource, base_labels: bool) -> None:
    plain, more = (next(iter(module(voc, p, base_labels, 129).train_dataloader())) for p in (False, True))
    for name in ("query", "query_label", "support_images", "support_labels"):
        assert torch.equal(getattr(plain, name), getattr(more, name))
    padding = more.extras.pop("query_padding")
    assert padding.shape == more.query_label.shape
    assert more.extras.keys() == plain.extras.keys()
    assert set(padding.unique().tolist()) == {0, 255}
    assert bool((more.query_label[padding == 255] == 255).all())


def test_test_images_are_padded_at_the_bottom_and_right(voc: ShapesSource) -> None:
    batch = next(iter(module(voc, True).test_dataloader()))
    for padding, full in zip(batch.extras["query_padding"], batch.full_labels, strict=True):
        h, w = resized_shape(*full.shape, 65)
        assert not bool(padding[:h, :w].any())
        outside = torch.ones_like(padding)
        outside[:h, :w] = 0
        assert bool((padding[outside == 1] == 255).all())


def test_heads_that_read_it_are_told() -> None:
    def model() -> FewShotSegmenter:
        return FewShotSegmenter(tiny(), Recorder(FeatureSpec((2, 3), extras=frozenset({"query_padding"})))).eval()

    net = model()
    padding = torch.ones(2, 33, 33)
    net(*inputs(), padding)
    net(*inputs())
    first, second = net.head.calls
    assert first.extras["query_padding"] is padding
    assert second.extras == {}
    net = model()
    image, mask = np.zeros((40, 60, 3), np.uint8), np.ones((40, 60), np.uint8)
    Predictor(net, 33)(image, [(image, mask)])
    seen = net.head.calls[0].extras["query_padding"][0]
    h, w = resized_shape(40, 60, 33)
    assert not bool(seen[:h, :w].any())
    assert bool((seen[h:] == 255).all())


def test_other_heads_are_not() -> None:
    net = FewShotSegmenter(tiny(), Recorder()).eval()
    net(*inputs(), torch.ones(2, 33, 33))
    assert net.head.calls[0].extras == {}
