"""Lightning data module of the base learner: images with labels of all base classes."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any

import cv2
import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from fss.data.base_dataset import BaseImages, collate_images
from fss.data.base_labels import BaseLabels
from fss.data.episodes.options import check_least
from fss.data.epoch_sampler import EpisodeIndexSampler
from fss.data.eval_transform import eval_transform
from fss.data.lazy_loader import EpisodeLoader
from fss.data.options import LoaderOptions, TransformOptions, check_side
from fss.data.sources.base import Facts, ListSplit, SegmentationSource
from fss.data.sources.folds import name_classes
from fss.data.sources.seen import facts_of
from fss.data.train_transform import train_transform
from fss.types import InputSpec, Split


class BaseDataModule(LightningDataModule):
    """All images of both lists, as in BAM's first stage: images with novel classes are kept.

    Novel classes are background. Validation and test both use the validation list, at network input size.

    Args:
        source: the data set.
        images: normalisation and sides of the backbone.
        fold: 0..3.
        seed: seed of the image order and augmentation.
        transforms: sizes and ranges of the transforms.
        loader: batch sizes and workers.

    Raises:
        DataError: if fold or seed is not allowed, or the side of the input for this backbone.
    """

    def __init__(
        self,
        source: SegmentationSource,
        images: InputSpec,
        fold: int,
        seed: int = 321,
        transforms: TransformOptions | None = None,
        loader: LoaderOptions | None = None,
    ) -> None:
        super().__init__()
        check_least("seed", seed, 0)
        self.source, self.fold, self.seed = source, fold, seed
        self.images, self.transforms = images, transforms or TransformOptions()
        check_side(self.transforms.size, images)
        self.loading = loader or LoaderOptions()
        self.labels = BaseLabels(source.fold(fold).base)

    @property
    def base_classes(self) -> dict[int, str]:
        """Id -> name of the base classes, ascending; label 1 is the first one."""
        return name_classes(self.labels.base, self.source.class_names)

    @property
    def train_batches(self) -> int:
        """Number of optimiser steps per epoch, independent of the number of devices."""
        return len(self._ids("train")) // self.loading.batch_size

    @cached_property
    def test_images(self) -> int:
        """Number of test images."""
        return len(self._ids("val"))

    @cached_property
    def test_episodes_hash(self) -> str:
        """SHA-256 of the list of test images."""
        return hashlib.sha256("\n".join(self._ids("val")).encode()).hexdigest()

    @property
    def data_facts(self) -> Facts:
        """Facts of the data set for the result file."""
        return facts_of(self.source)

    def prepare_data(self) -> None:
        """Derive and cache masks, in one process per machine.

        Raises:
            DataError: if the data set is missing or damaged.
        """
        for split in self._lists(None):
            self.source.prepare(split)

    def setup(self, stage: str | None = None) -> None:
        """Check and prepare the image lists of a stage.

        Args:
            stage: ``fit``, ``validate``, ``test``; None for all.

        Raises:
            DataError: if the data set is missing or damaged.
        """
        for split in self._lists(stage):
            self.source.check(split)
            self.source.prepare(split)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return batches of training images; Lightning sets the epoch on the sampler."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Any]:
        """Return batches of validation images."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """Return batches of test images."""
        return self._loader("test")

    def _ids(self, split: ListSplit) -> list[str]:
        return self.source.ids(split)

    @staticmethod
    def _lists(stage: str | None) -> tuple[ListSplit, ...]:
        return ("train", "val") if stage in ("fit", None) else ("val",)

    def _loader(self, split: Split) -> DataLoader[Any]:
        training, options = split == "train", self.loading
        build_transform = train_transform if training else eval_transform
        ids = self._ids("train" if training else "val")
        dataset = BaseImages(
            self.source, ids, self.labels, build_transform(self.transforms, self.images), self.seed, split
        )
        trainer = self.trainer
        rank, world = (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)
        size = options.batch_size if training else options.test_batch_size * world
        return EpisodeLoader(
            dataset,
            batch_size=size // world,
            sampler=EpisodeIndexSampler(len(ids), size, rank, world, training),
            num_workers=options.workers,
            collate_fn=collate_images,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=options.workers > 0,
            worker_init_fn=_single_thread if options.workers else None,
        )


def _single_thread(worker: int) -> None:
    cv2.setNumThreads(0)  # one thread per worker; OpenCV's pool does not survive the fork
