"""Images of single objects with class labels, for pre-training the demo's small backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from fss.commands import shell
from fss.data.reading.images import read_image
from fss.data.reading.masks import UInt8
from fss.errors import DataError
from fss.types import InputSpec


def classification_loader(
    root: Path, split: Literal["train", "val"], batch_size: int, workers: int, seed: int, images: InputSpec
) -> tuple[DataLoader[tuple[Tensor, Tensor]], list[str]]:
    """Return a data loader of images sorted into one folder per class.

    Args:
        root: holds ``train/NAME/*.jpg`` and ``val/NAME/*.jpg``.
        split: which of the two; training images are cropped and flipped at random.
        batch_size: images per step.
        workers: data loader workers.
        seed: seed of the order of the training images.
        images: normalisation of the backbone.

    Returns:
        The loader of (images (N, 3, H, W), labels (N)), and the class names.

    Raises:
        DataError: if the folder is missing or empty, or has fewer training images than a batch. Iterating raises it
            for a damaged image.
    """
    size = 64
    augment = [v2.RandomResizedCrop(size, scale=(0.5, 1.0), antialias=True), v2.RandomHorizontalFlip()]
    steps = [
        v2.ToImage(),
        *(augment if split == "train" else [v2.Resize((size, size), antialias=True)]),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(images.mean, images.std),
    ]
    try:
        folder = ImageFolder(root / split, transform=v2.Compose(steps), loader=_read)
    except (FileNotFoundError, OSError) as error:
        raise DataError(
            f"There are no classes of images in {root / split}. The drawn data set brings them: "
            f"fss data shapes --root {shell(root.parent)}"
        ) from error
    if split == "train" and len(folder) < batch_size:
        raise DataError(
            f"batch_size={batch_size} is larger than the {len(folder)} images in {root / split}: give at most "
            f"--batch-size {len(folder)}, or draw more with: fss data shapes --root DIR --pretrain-per-class N"
        )
    loader = DataLoader(
        folder,
        batch_size,
        shuffle=split == "train",
        num_workers=workers,
        drop_last=split == "train",
        persistent_workers=workers > 0,
        generator=torch.Generator().manual_seed(seed),
    )
    return loader, list(folder.classes)


def _read(path: str) -> UInt8:
    return read_image(Path(path))
