"""Dataset of episodes: reads and transforms the images of each draw and collates them into ``fss.types.Episode``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fss.data.base_labels import BaseLabels
from fss.data.episodes.stateless import Draw, DrawSource, augment_seed, head_seed
from fss.data.eval_transform import Transform
from fss.data.reading.arrays import is_pair
from fss.data.reading.masks import UInt8
from fss.data.sources.base import SegmentationSource
from fss.errors import DataError
from fss.types import IGNORE, Episode, Split


@dataclass
class EpisodeItem:
    """One episode before collation.

    Attributes:
        query: normalised image, (3, H, W).
        query_label: (H, W), uint8.
        support_images: (K, 3, H, W), last sampled first.
        support_labels: (K, H, W), uint8, in the same order.
        draw: class and image ids.
        class_index: position of the class in the split's ascending class list.
        index: number i of the episode.
        full_label: query label at original size, uint8; None in training.
        seed: seed of the random numbers that a head draws.
        base: base-class labels of the query, if requested.
    """

    query: Tensor
    query_label: Tensor
    support_images: Tensor
    support_labels: Tensor
    draw: Draw
    class_index: int
    index: int
    full_label: Tensor | None
    seed: int
    base: BaseItem | None = None
    query_padding: Tensor | None = None


@dataclass
class BaseItem:
    """Base-class labels of a query.

    Attributes:
        label: after the query's transform, (H, W), uint8.
        full_label: at original size, uint8; None in training.
        index: position of the episode's class among the base classes; -1 for a novel one.
    """

    label: Tensor
    full_label: Tensor | None
    index: int


class EpisodeDataset(Dataset[EpisodeItem]):
    """Episodes addressed by (epoch, i), as yielded by :class:`fss.data.epoch_sampler.EpisodeIndexSampler`.

    Args:
        source: images and masks.
        draws: class and images of every episode.
        transform: transform of the query.
        seed: seed of the random transforms.
        split: random stream of the transforms; ``train`` keeps no full-size labels.
        class_ids: classes of the split; ``class_index`` is a class's position in their ascending order.
        base_labels: adds the base-class labels of the query; None for methods that do not need them.
        padding: adds ``query_padding``, 255 where the transform pads the query and 0 elsewhere.
        head_seed: seed of the random numbers that heads draw; None: ``seed``.
        support_transform: transform of the supports; None: that of the query.

    Raises:
        DataError: if an episode has a class that is not in ``class_ids``.
    """

    def __init__(
        self,
        source: SegmentationSource,
        draws: DrawSource,
        transform: Transform,
        seed: int,
        split: Split,
        class_ids: Sequence[int],
        base_labels: BaseLabels | None = None,
        padding: bool = False,
        head_seed: int | None = None,
        support_transform: Transform | None = None,
    ) -> None:
        unknown = set(draws.class_ids) - set(class_ids)
        if unknown:
            raise DataError(f"The episodes hold classes {sorted(unknown)}; allowed here are {sorted(class_ids)}.")
        self.source, self.draws, self.transform = source, draws, transform
        self.support_transform = support_transform or transform
        self.seed, self.split = seed, split
        self.head_seed = seed if head_seed is None else head_seed
        self.class_index = {c: k for k, c in enumerate(sorted(class_ids))}
        self.base_labels, self.padding = base_labels, padding

    def __len__(self) -> int:
        """Return the number of episodes per epoch."""
        return len(self.draws)

    def __getitem__(self, key: tuple[int, int] | int) -> EpisodeItem:
        """Return one episode.

        Args:
            key: (epoch, i), or i alone for epoch 0, as used by Lightning's ``overfit_batches``.

        Raises:
            DataError: if an image or mask is missing or damaged, or their sizes differ.
        """
        epoch, i = (0, key) if isinstance(key, int) else key
        draw = self.draws.draw(epoch, i)
        seeds = [augment_seed(self.seed, epoch, self.split, i, slot) for slot in range(1 + len(draw.supports))]
        image, mask = read_pair(self.source, draw.query)
        label, base, padding = binary_label(mask, draw.class_id), None, None
        if self.padding:
            query, query_label, padding = self.transform.with_more(image, label, np.zeros_like(label), seeds[0])
        elif self.base_labels is None:
            query, query_label = self.transform(image, label, seeds[0])
        if self.base_labels is not None:
            full_base = self.base_labels(mask)
            query, query_label, base_label = self.transform.with_more(image, label, full_base, seeds[0])
            kept_full_base = None if self.split == "train" else torch.from_numpy(full_base)
            base = BaseItem(base_label, kept_full_base, self.base_labels.index(draw.class_id))
        supports = [self._support(*pair, draw.class_id) for pair in zip(draw.supports, seeds[1:], strict=True)]
        supports.reverse()  # last sampled first
        return EpisodeItem(
            query=query,
            query_label=query_label,
            support_images=_stacked([image for image, _ in supports]),
            support_labels=_stacked([label for _, label in supports]),
            draw=draw,
            class_index=self.class_index[draw.class_id],
            index=i,
            full_label=None if self.split == "train" else torch.from_numpy(label),
            seed=head_seed(self.head_seed, epoch, self.split, i),
            base=base,
            query_padding=padding,
        )

    def _support(self, image_id: str, seed: int, class_id: int) -> tuple[Tensor, Tensor]:
        image, mask = read_pair(self.source, image_id)
        return self.support_transform(image, binary_label(mask, class_id), seed)


def read_pair(source: SegmentationSource, image_id: str) -> tuple[UInt8, UInt8]:
    """Read an image and its mask.

    Args:
        source: the data set.
        image_id: image id.

    Returns:
        RGB (H, W, 3) and class indices (H, W), uint8.

    Raises:
        DataError: if one is missing or damaged, or their sizes differ.
    """
    image, mask = source.image(image_id), source.mask(image_id)
    if not is_pair(image, mask):
        raise DataError(
            f"{type(source).__name__} returned an image {_kind(image)} and a mask {_kind(mask)} of {image_id}; allowed "
            "are RGB (H, W, 3) and class indices (H, W), both uint8. Correct its methods image and mask."
        )
    if image.shape[:2] != mask.shape:
        raise DataError(
            f"The image {source.image_path(image_id)} has {image.shape[0]} x {image.shape[1]} pixels, its mask "
            f"{source.mask_path(image_id)} has {mask.shape[0]} x {mask.shape[1]}. They must be equal: unpack or "
            "prepare the data set again."
        )
    return image, mask


def _kind(array: Any) -> str:
    return f"{getattr(array, 'shape', type(array).__name__)} {getattr(array, 'dtype', '')}".strip()


def binary_label(mask: UInt8, class_id: int) -> UInt8:
    """Return 1 on a class, 255 where the mask is ignored, 0 elsewhere.

    Args:
        mask: class indices, (H, W).
        class_id: the class.

    Returns:
        label: (H, W), uint8.
    """
    label: UInt8 = (mask == class_id).astype(np.uint8)
    label[mask == IGNORE] = IGNORE
    return label


def collate(items: list[EpisodeItem]) -> Episode:
    """Stack B episodes of equal shot.

    Args:
        items: the episodes.

    Returns:
        The batch; see :class:`fss.types.Episode` for the shapes.
    """
    base_items = [e.base for e in items if e.base is not None]
    extras = {}
    if base_items:
        extras = {
            "base_label": _stacked([b.label for b in base_items]),
            "base_index": torch.tensor([b.index for b in base_items]),
        }
    paddings = [e.query_padding for e in items if e.query_padding is not None]
    if paddings:
        extras["query_padding"] = _stacked(paddings)
    return Episode(
        query=_stacked([e.query for e in items]),
        query_label=_stacked([e.query_label for e in items]),
        support_images=_stacked([e.support_images for e in items]),
        support_labels=_stacked([e.support_labels for e in items]),
        class_id=torch.tensor([e.draw.class_id for e in items]),
        class_index=torch.tensor([e.class_index for e in items]),
        index=torch.tensor([e.index for e in items]),
        query_ids=[e.draw.query for e in items],
        support_ids=[list(e.draw.supports) for e in items],
        full_labels=[e.full_label for e in items if e.full_label is not None],
        full_base_labels=[b.full_label for b in base_items if b.full_label is not None],
        extras=extras,
        seeds=[e.seed for e in items],
    )


def _stacked(tensors: list[Tensor]) -> Tensor:
    """Stack tensors without copying a single one, as images are large."""
    return tensors[0][None] if len(tensors) == 1 else torch.stack(tensors)
