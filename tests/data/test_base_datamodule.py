"""Images and labels of the base learner, and the base labels that episodes bring."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fss.data.base_datamodule import BaseDataModule
from fss.data.base_dataset import BaseImages
from fss.data.base_labels import BaseLabels
from fss.data.datamodule import FewShotDataModule
from fss.data.episodes.options import EpisodeOptions
from fss.data.options import LoaderOptions, TransformOptions
from fss.data.sources.shapes import ShapesSource
from fss.data.train_transform import train_transform
from fss.types import InputSpec

OPTIONS = TransformOptions(size=65, scale_min=0.5, scale_max=2.0)


def module(source: ShapesSource, batch: int = 12, **more: object) -> BaseDataModule:
    loader = LoaderOptions(batch_size=batch, test_batch_size=4, workers=0, progress=False)
    return BaseDataModule(source, InputSpec(), fold=1, transforms=OPTIONS, loader=loader, **more)  # type: ignore[arg-type]


def test_labels_by_hand() -> None:
    labels = BaseLabels((7, 2, 9))
    mask = np.array([[0, 2, 7, 9, 3, 255]], np.uint8)
    assert labels(mask).tolist() == [[0, 1, 2, 3, 0, 255]]
    assert [labels.index(c) for c in (2, 7, 9, 3)] == [0, 1, 2, -1]


def test_lists_are_whole_and_every_image_comes_once(voc: ShapesSource) -> None:
    data = module(voc)
    data.setup()
    assert list(data.base_classes) == [c for c in range(1, 21) if c not in range(6, 11)]
    assert (data.train_batches, data.test_images) == (6, 80)
    loader = data.val_dataloader()
    batches = list(loader)
    assert [int(i) for b in batches for i in b.index] == list(range(80))
    assert batches[0].images.shape == (4, 3, 65, 65)
    assert batches[0].labels.dtype == torch.uint8
    seen = set(torch.cat([b.labels.flatten() for b in batches]).tolist())
    assert seen == {0, 255, *range(1, 16)}, "images with novel classes stay, and show them as background"


def test_training_is_a_function_of_seed_epoch_and_number(voc: ShapesSource) -> None:
    labels = BaseLabels(voc.fold(1).base)

    def images(seed: int) -> BaseImages:
        return BaseImages(voc, voc.ids("train"), labels, train_transform(OPTIONS, InputSpec()), seed, "train")

    one, again, other = images(3)[2, 7], images(3)[2, 7], images(4)[2, 7]
    assert torch.equal(one.image, again.image)
    assert torch.equal(one.label, again.label)
    assert not torch.equal(one.image, other.image)
    assert not torch.equal(one.image, images(3)[3, 7].image)


def test_an_epoch_is_a_permutation(voc: ShapesSource, monkeypatch: pytest.MonkeyPatch) -> None:
    data, read = module(voc), []
    monkeypatch.setattr(ShapesSource, "image", lambda self, i: read.append(i) or np.zeros((96, 128, 3), np.uint8))
    loader = data.train_dataloader()
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        list(loader)
    first, second = read[:72], read[72:]  # six batches of twelve
    assert len(set(first)) == len(first) == len(second)
    assert set(first) <= set(voc.ids("train"))
    assert first != second
    assert first != sorted(first)


def test_episodes_bring_base_labels_by_the_same_draw(voc: ShapesSource) -> None:
    def episodes(wanted: bool) -> FewShotDataModule:
        options = EpisodeOptions(test_episodes=6, base_labels=wanted)
        loader = LoaderOptions(batch_size=4, test_batch_size=2, workers=0, progress=False)
        data = FewShotDataModule(voc, InputSpec(), fold=1, transforms=OPTIONS, episodes=options, loader=loader)
        data.setup()
        return data

    plain, more = next(iter(episodes(False).train_dataloader())), next(iter(episodes(True).train_dataloader()))
    assert torch.equal(plain.query, more.query)
    assert torch.equal(plain.query_label, more.query_label)
    assert torch.equal(plain.support_images, more.support_images)
    assert (plain.extras, plain.full_base_labels) == ({}, [])
    label, index = more.extras["base_label"], more.extras["base_index"]
    assert torch.equal(index, more.class_index)
    own = label == (index + 1)[:, None, None]
    assert torch.equal(own, more.query_label == 1), (
        "the class of the episode is one of the base classes, pixel by pixel"
    )
    assert torch.equal(label == 255, more.query_label == 255)
    test = next(iter(episodes(True).test_dataloader()))
    assert test.extras["base_index"].tolist() == [-1, -1]
    assert [t.shape for t in test.full_base_labels] == [t.shape for t in test.full_labels]
    for base, novel in zip(test.full_base_labels, test.full_labels, strict=True):
        assert not bool(base[novel == 1].any()), "novel classes are background"
