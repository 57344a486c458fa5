"""Images kept in memory: the same values, never more bytes than allowed, nothing sent to other processes."""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from fss.config.source import build_source
from fss.data.episode_dataset import EpisodeDataset
from fss.data.episodes.stateless import Draw
from fss.data.options import TransformOptions
from fss.data.reading.image_cache import ImageCache
from fss.data.sources.voc import VocSource
from fss.data.train_transform import train_transform
from fss.errors import DataError
from fss.types import InputSpec


def array(size: int) -> np.ndarray:
    return np.full((1, size), size % 251, np.uint8)


def test_the_limit_holds_and_the_oldest_goes_first() -> None:
    cache, reads = ImageCache(100), []

    def get(name: str, size: int) -> np.ndarray:
        return cache.get("image", name, lambda: reads.append(name) or array(size))

    for name, size in (("a", 40), ("b", 50), ("a", 40), ("c", 30), ("a", 40), ("b", 50)):
        assert np.array_equal(get(name, size), array(size))
        assert cache.size <= 100
    assert reads == ["a", "b", "c", "b"]  # c pushed b out, which was read before a
    get("large", 101)
    assert reads[-1] == "large"
    assert cache.size <= 100
    get("a", 40)
    assert len(cache) == 2  # what is too large alone pushes nobody out
    with pytest.raises(ValueError, match="read-only"):
        get("a", 40)[0, 0] = 1


def test_a_image_and_its_mask_are_told_apart() -> None:
    cache = ImageCache(100)
    assert cache.get("image", "a", lambda: array(3)).size == 3
    assert cache.get("mask", "a", lambda: array(4)).size == 4
    assert cache.get("image", "a", lambda: array(5)).size == 3


def test_another_process_gets_none_of_it() -> None:
    cache = ImageCache(1 << 20)
    cache.get("image", "a", lambda: array(100_000))
    sent = pickle.dumps(cache)
    assert len(sent) < 1000
    again = pickle.loads(sent)
    assert (len(again), again.size, again._kept.maxsize) == (0, 0, 1 << 20)


class Draws:
    sampler, class_ids = "fixed", (1,)

    def __len__(self) -> int:
        return 4

    def draw(self, epoch: int, i: int) -> Draw:
        return Draw(1, str(i % 3), (str((i + 1) % 3),))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    source, noise = VocSource(tmp_path), np.random.default_rng(0)
    for folder in (source.images, source.masks):
        folder.mkdir()
    (tmp_path / "classes.txt").write_text("disc\nring\n")
    for i in range(3):
        cv2.imwrite(str(source.image_path(str(i))), noise.integers(0, 256, (60, 80, 3)).astype(np.uint8))
        Image.fromarray(noise.integers(0, 3, (60, 80)).astype(np.uint8)).save(source.mask_path(str(i)))
    return tmp_path


@pytest.mark.parametrize("limit", [0, 20_000, 1 << 20])  # none, one image, all
def test_episodes_are_the_same(root: Path, limit: int) -> None:
    transform = train_transform(TransformOptions(size=65), InputSpec())
    plain = EpisodeDataset(VocSource(root), Draws(), transform, 0, "train", (1,))
    source = VocSource(root)
    source.keep_images(limit)
    assert (source.cache is None) == (limit == 0)
    kept = EpisodeDataset(source, Draws(), transform, 0, "train", (1,))
    for epoch in (0, 1):
        for i in range(4):
            ours, expected = kept[epoch, i], plain[epoch, i]
            for name in ("query", "query_label", "support_images", "support_labels"):
                assert torch.equal(getattr(ours, name), getattr(expected, name))
    if source.cache is not None:
        assert 0 < source.cache.size <= limit


def test_the_option_reaches_the_reader_and_spares_it_the_files(root: Path) -> None:
    node = {"source": {"_target_": "fss.data.sources.voc.VocSource", "root": str(root)}, "image_cache_mb": 1}
    source = build_source(node)
    assert isinstance(source, VocSource)
    first = source.image("0").copy()
    source.image_path("0").unlink()
    assert np.array_equal(source.image("0"), first)
    source.image_path("1").write_bytes(b"nothing")
    for _ in range(2):  # an error is not kept as an image
        with pytest.raises(DataError, match="damaged"):
            source.image("1")
    assert build_source({"source": node["source"]}).cache is None  # type: ignore[attr-defined]
