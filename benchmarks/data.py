"""Episodes per second and core at 473 x 473 against a float32 pipeline: ``python -m benchmarks.data``."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from benchmarks.rows import Row
from fss.data.episode_dataset import EpisodeDataset, binary_label
from fss.data.episodes.stateless import Draw
from fss.data.eval_transform import eval_transform, resized_shape
from fss.data.options import TransformOptions
from fss.data.sources.voc import VocSource
from fss.data.train_transform import train_transform
from fss.types import InputSpec

Array = npt.NDArray[Any]

IMAGES, EPISODES = 32, 32
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)


def float32_pipeline(
    image: Array, label: Array, random: Random, size: int, options: TransformOptions
) -> tuple[Tensor, Tensor]:
    """Augment an image in float32, step by step as protocol B.1 of the releases has it.

    Args:
        image: RGB, (H, W, 3), uint8.
        label: 0, 1, 255, (H, W), uint8.
        random: of all draws.
        size: side S of the crop.
        options: ranges.

    Returns:
        Normalised image, (3, S, S), float32, and label, (S, S), int64.
    """
    image, constant = image.astype(np.float32), cv2.BORDER_CONSTANT
    f = options.scale_min + (options.scale_max - options.scale_min) * random.random()
    image = cv2.resize(image, None, fx=f, fy=f, interpolation=cv2.INTER_LINEAR)
    label = cv2.resize(label, None, fx=f, fy=f, interpolation=cv2.INTER_NEAREST)
    h, w = label.shape
    if random.random() < 0.5:
        turn = cv2.getRotationMatrix2D((w / 2, h / 2), options.rotate * (2 * random.random() - 1), 1)
        image = cv2.warpAffine(image, turn, (w, h), flags=cv2.INTER_LINEAR, borderMode=constant, borderValue=MEAN)
        label = cv2.warpAffine(label, turn, (w, h), flags=cv2.INTER_NEAREST, borderMode=constant, borderValue=(255,))
    if random.random() < 0.5:
        image = cv2.GaussianBlur(image, (5, 5), 0)
    if random.random() < 0.5:
        image, label = cv2.flip(image, 1), cv2.flip(label, 1)
    high, wide = max(size - h, 0), max(size - w, 0)
    pads = (high // 2, high - high // 2, wide // 2, wide - wide // 2)
    image = cv2.copyMakeBorder(image, *pads, constant, value=MEAN)
    label = cv2.copyMakeBorder(label, *pads, constant, value=(255,))
    total = (label == 1).sum()
    for _ in range(32):
        y, x = random.randint(0, label.shape[0] - size), random.randint(0, label.shape[1] - size)
        cut = label[y : y + size, x : x + size]
        if (cut == 1).sum() >= 0.85 * total:
            break
    return normalise(image[y : y + size, x : x + size]), torch.from_numpy(cut.astype(np.int64))


def float32_resize(image: Array, label: Array, size: int) -> tuple[Tensor, Tensor]:
    """Resize an image and its label for the test, as protocol B.2 of the releases has it.

    Args:
        image: RGB, (H, W, 3), uint8.
        label: 0, 1, 255, (H, W), uint8.
        size: side S of the canvas.

    Returns:
        Normalised image, (3, S, S), float32, and label, (S, S), int64.
    """
    h, w = resized_shape(*label.shape, size)
    canvas, classes = np.zeros((size, size, 3), np.float32), np.full((size, size), 255, np.int64)
    canvas[:h, :w] = cv2.resize(image.astype(np.float32), (w, h), interpolation=cv2.INTER_LINEAR)
    classes[:h, :w] = cv2.resize(label, (w, h), interpolation=cv2.INTER_NEAREST)
    return normalise(canvas), torch.from_numpy(classes)


def normalise(image: Array) -> Tensor:
    """Put channels first and normalise them one by one."""
    tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    for channel, mean, std in zip(tensor, MEAN, STD, strict=True):
        channel.sub_(mean).div_(std)
    return tensor


class Draws:
    """Episodes of one support, one after the other."""

    sampler = "fixed"
    class_ids = (1,)

    def __len__(self) -> int:
        return EPISODES

    def draw(self, epoch: int, i: int) -> Draw:
        """Return episode ``i``."""
        return Draw(1, str(i % IMAGES), (str((i + 1) % IMAGES),))


def write_images(root: Path, photographs: Sequence[Path]) -> VocSource:
    """Write a data set of the usual size in the VOC layout.

    Args:
        root: folder to fill.
        photographs: images to take, resized to 500 x 375; none: coloured noise of several scales.
    """
    source = VocSource(root)
    for folder in (source.images, source.masks):
        folder.mkdir(parents=True)
    noise = np.random.default_rng(0)
    for i in range(IMAGES):
        if photographs:
            image = cv2.resize(cv2.imread(str(photographs[i % len(photographs)])), (500, 375), None, 0, 0, 3)
        else:
            layers = [(2**k, noise.normal(0, 12 * 2 ** (k / 2), (375 >> k, 500 >> k, 3))) for k in range(7)]
            image = 128 + sum(cv2.resize(layer, (500, 375), interpolation=cv2.INTER_CUBIC) for _, layer in layers)
            image = np.clip(image, 0, 255).astype(np.uint8)
        cv2.imwrite(str(source.image_path(str(i))), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
        mask = np.zeros((375, 500), np.uint8)
        cv2.circle(mask, (200 + i, 180), 90, (1,), -1)
        cv2.circle(mask, (200 + i, 180), 90, (255,), 3)
        Image.fromarray(mask).save(source.mask_path(str(i)))
    return source


def plain_episode(source: VocSource, i: int, change: Callable[[Array, Array], tuple[Tensor, Tensor]]) -> list[Tensor]:
    """Load an episode without any of our code but the list of its images."""
    made, draw = [], Draws().draw(0, i)
    for name in (draw.query, *draw.supports):
        image = cv2.cvtColor(cv2.imread(str(source.image_path(name))), cv2.COLOR_BGR2RGB)
        mask = np.array(Image.open(source.mask_path(name)))
        made.append(change(image, binary_label(mask, draw.class_id)))
    return [torch.stack(tensors) for tensors in zip(*made, strict=True)]


def pace(load: Callable[[int], object]) -> float:
    """Return episodes per second of processor time."""
    begun = time.process_time()
    for i in range(EPISODES):
        load(i)
    return EPISODES / (time.process_time() - begun)


def compare(name: str, ours: Callable[[int], object], other: Callable[[int], object], target: float | None) -> Row:
    """Measure two loaders in turns, so that a busy machine slows both."""
    pairs = [(pace(ours), pace(other)) for _ in range(6)][1:]  # the first round warms up
    ratio = median(a / b for a, b in pairs)
    mine, plain = (median(p[k] for p in pairs) for k in (0, 1))
    text = "" if target is None else f">= {target:g}"
    return Row(name, f"{mine:.0f} / s", f"{plain:.0f} / s", ratio, text, target is None or ratio >= target)


def rows(photographs: Path | None = None) -> list[Row]:
    """Measure 1-shot episodes on one core, from files to tensors.

    Args:
        photographs: folder of JPEG files to measure with; None makes images.

    Returns:
        The lines of the table.
    """
    cv2.setNumThreads(0)
    threads, options, images, random = torch.get_num_threads(), TransformOptions(), InputSpec(), Random(0)
    torch.set_num_threads(1)
    found = [] if photographs is None else sorted(photographs.rglob("*.jpg"))
    with tempfile.TemporaryDirectory() as folder:
        source = write_images(Path(folder) / "data", found)
        train = EpisodeDataset(source, Draws(), train_transform(options, images), 0, "train", (1,))
        test = EpisodeDataset(source, Draws(), eval_transform(options, images), 0, "test", (1,))

        def augment(image: Array, label: Array) -> tuple[Tensor, Tensor]:
            return float32_pipeline(image, label, random, options.size, options)

        def resize(image: Array, label: Array) -> tuple[Tensor, Tensor]:
            return float32_resize(image, label, options.size)

        cached = VocSource(source.root)
        cached.keep_images(1 << 30)
        kept = EpisodeDataset(cached, Draws(), train_transform(options, images), 0, "train", (1,))

        def plain(i: int) -> object:
            return plain_episode(source, i, augment)

        made = [
            compare("training episodes per core", train.__getitem__, plain, 2),
            compare("training episodes per core, data.image_cache_mb", kept.__getitem__, plain, 2),
            compare("test episodes per core", test.__getitem__, lambda i: plain_episode(source, i, resize), None),
        ]
    torch.set_num_threads(threads)
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photographs", type=Path, help="folder of JPEG files to measure with")
    for row in rows(parser.parse_args().photographs):
        print(f"{row.name:45s} {row.ours:>9s} {row.reference:>9s} {row.ratio:6.2f}  {row.target}")
