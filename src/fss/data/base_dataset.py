"""Dataset of the base learner: images with labels of all base classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fss.data.base_labels import BaseLabels
from fss.data.episode_dataset import read_pair
from fss.data.episodes.stateless import RandomStream, augment_seed
from fss.data.eval_transform import Transform
from fss.data.sources.base import SegmentationSource
from fss.data.sources.shared_ids import Names
from fss.types import Split

_ORDER = 3  # purpose of the random stream, see fss.data.episodes.stateless


@dataclass
class LabelledImage:
    """One image before collation.

    Attributes:
        image: normalised RGB, (3, H, W).
        label: (H, W), uint8.
        index: position in the epoch.
    """

    image: Tensor
    label: Tensor
    index: int


@dataclass
class LabelledImages:
    """A batch of B images.

    Attributes:
        images: normalised RGB, (B, 3, H, W), float32.
        labels: 0 background and novel classes, 1.. base classes, 255 ignored, (B, H, W), uint8.
        index: positions in the epoch, (B,), int64.
    """

    images: Tensor
    labels: Tensor
    index: Tensor

    def __len__(self) -> int:
        """Return the number of images B."""
        return int(self.images.shape[0])

    def pin_memory(self) -> LabelledImages:
        """Return a copy in page-locked memory (called by the data loader)."""
        return LabelledImages(self.images.pin_memory(), self.labels.pin_memory(), self.index.pin_memory())


class BaseImages(Dataset[LabelledImage]):
    """All images of one list, addressed by (epoch, i); an item depends only on these and the seed.

    Training permutes the list in every epoch. As in the releases, the random crop is redrawn while it holds too little
    of label 1, which here is the first base class.

    Args:
        source: images and masks.
        ids: images in list order.
        labels: converts masks to base-class labels.
        transform: transform of image and label.
        seed: seed of the image order and augmentation.
        split: ``train`` permutes; other splits keep the order.
    """

    def __init__(
        self,
        source: SegmentationSource,
        ids: Sequence[str],
        labels: BaseLabels,
        transform: Transform,
        seed: int,
        split: Split,
    ) -> None:
        self.source, self.ids, self.labels, self.transform = source, Names.of(ids), labels, transform
        self.seed, self.split = seed, split

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.ids)

    def __getitem__(self, key: tuple[int, int] | int) -> LabelledImage:
        """Return one image.

        Args:
            key: (epoch, i), or i alone for epoch 0.

        Raises:
            DataError: if the image or its mask is missing or damaged, or their sizes differ.
        """
        epoch, i = (0, key) if isinstance(key, int) else key
        row = int(_order(len(self.ids), self.seed, epoch)[i]) if self.split == "train" else i
        image, mask = read_pair(self.source, self.ids[row])
        pixels, label = self.transform(image, self.labels(mask), augment_seed(self.seed, epoch, self.split, i, 0))
        return LabelledImage(pixels, label, i)


def collate_images(items: list[LabelledImage]) -> LabelledImages:
    """Stack B images.

    Args:
        items: the images.

    Returns:
        The batch.
    """
    return LabelledImages(
        torch.stack([p.image for p in items]),
        torch.stack([p.label for p in items]),
        torch.tensor([p.index for p in items]),
    )


@lru_cache(maxsize=4)
def _order(n: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    return RandomStream(_ORDER, seed, epoch).permutation(n)
