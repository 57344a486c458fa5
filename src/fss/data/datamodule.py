"""Lightning data module of training, validation and test episodes."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import cv2
import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from fss.data.base_labels import BaseLabels
from fss.data.episode_dataset import EpisodeDataset, EpisodeItem, collate
from fss.data.episodes.lists import episodes_hash, record
from fss.data.episodes.options import EpisodeOptions, IndexOptions
from fss.data.episodes.stateless import DrawSource
from fss.data.episodes.streams import EpisodeStreams
from fss.data.epoch_sampler import EpisodeIndexSampler
from fss.data.eval_transform import Transform
from fss.data.lazy_loader import EpisodeLoader
from fss.data.named_transforms import fixed_transform, named_transform
from fss.data.options import LoaderOptions, TransformOptions, check_side
from fss.data.sources.base import Facts, ListSplit, SegmentationSource
from fss.data.sources.seen import facts_of
from fss.episode_protocol import EpisodeProtocol
from fss.types import InputSpec, Split


class FewShotDataModule(LightningDataModule):
    """Episodes of one fold: base classes in training, novel classes in the test.

    An episode depends only on the arguments, the epoch and its number, not on the number of workers or devices or on
    restarts. Use ``Trainer(use_distributed_sampler=False)``: the sampler itself splits the episodes among processes.

    Args:
        source: the data set.
        images: normalisation and sides of the backbone.
        fold: 0..3.
        shot: supports per episode.
        seed: seed of episodes and augmentation.
        transforms: sizes and ranges of the transforms.
        index: which images are used.
        episodes: options of the validation and test episodes.
        loader: batch sizes and workers.
        protocol: names the transforms.

    Attributes:
        protocol: see the arguments.
        test_transform: transform of validation and test.

    Raises:
        DataError: if fold, shot or seed is not allowed, or the side of the input for this backbone.
    """

    def __init__(
        self,
        source: SegmentationSource,
        images: InputSpec,
        fold: int,
        shot: int = 1,
        seed: int = 321,
        transforms: TransformOptions | None = None,
        index: IndexOptions | None = None,
        episodes: EpisodeOptions | None = None,
        loader: LoaderOptions | None = None,
        protocol: EpisodeProtocol | None = None,
    ) -> None:
        super().__init__()
        self.loading = loader or LoaderOptions()
        self.images, self.transforms = images, transforms or TransformOptions()
        check_side(self.transforms.size, images)
        self.protocol = protocol or EpisodeProtocol()
        self.test_transform = fixed_transform(self.protocol.test, self.transforms, images)
        self.streams = EpisodeStreams(source, fold, shot, seed, index, episodes, self.loading.progress)
        self.source, self.fold, self.shot, self.seed = source, fold, shot, seed

    @property
    def base_classes(self) -> dict[int, str]:
        """Id -> name of the training classes, ascending; ``class_index`` of training episodes refers to these."""
        return self.streams.named("train")

    @property
    def novel_classes(self) -> dict[int, str]:
        """Id -> name of the test classes, ascending; ``class_index`` of test episodes refers to these."""
        return self.streams.named("test")

    @property
    def val_classes(self) -> dict[int, str]:
        """Id -> name of the validation classes, ascending; ``class_index`` of validation episodes refers to these."""
        return self.streams.named("val")

    def left_out(self, *splits: Literal["val", "test"]) -> dict[str, dict[str, int]] | None:
        """List the classes that means over classes leave out, see :meth:`EpisodeStreams.too_small`.

        Args:
            splits: ``val`` or ``test``.

        Returns:
            Split -> class name -> number of its images; None without ``data.min_test_images``.

        Raises:
            DataError: if no class is left.
        """
        if self.streams.episodes.min_test_images is None:
            return None
        return {split: self.streams.too_small(split) for split in splits}

    @property
    def train_length(self) -> int:
        """Number of training episodes per epoch, including those of an incomplete last batch."""
        return len(self.streams.train)

    @property
    def train_batches(self) -> int:
        """Number of optimiser steps per epoch, independent of the number of devices."""
        return self.train_length // self.loading.batch_size

    @cached_property
    def test_episodes_hash(self) -> str:
        """SHA-256 of the test episodes."""
        return episodes_hash(record(self.streams.test))

    @cached_property
    def val_episodes_hash(self) -> str:
        """SHA-256 of the validation episodes."""
        return episodes_hash(record(self.streams.val))

    @property
    def data_facts(self) -> Facts:
        """Facts of the data set for the result file: lists, mask rule, origin."""
        return facts_of(self.source)

    def prepare_data(self) -> None:
        """Derive and cache masks and area tables, in one process per machine.

        Raises:
            DataError: if the data set is missing or damaged.
        """
        trainer = self.trainer
        self._make("fit" if trainer is None or trainer.state.fn == "fit" else "test")

    def setup(self, stage: str | None = None) -> None:
        """Check the data set and build the episode streams of a stage.

        Args:
            stage: ``fit``, ``validate``, ``test``, ``predict``; None for all.

        Raises:
            DataError: if the data set is missing, damaged, or too small for the shot.
        """
        self._make(stage)

    def train_dataloader(self) -> DataLoader[EpisodeItem]:
        """Return batches of training episodes; Lightning sets the epoch on the sampler."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[EpisodeItem]:
        """Return batches of validation episodes."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[EpisodeItem]:
        """Return batches of test episodes."""
        return self._loader("test")

    def _make(self, stage: str | None) -> None:
        lists: tuple[ListSplit, ...] = ("train", "val") if stage in ("fit", None) else ("val",)
        for name in lists:
            self.source.check(name)
        if stage in ("fit", None):
            _ = self.streams.train
        if stage in ("fit", "validate", None):
            _ = self.streams.val
            self.streams.too_small("val")
        if stage in ("test", "predict", None):
            _ = self.streams.test
            self.streams.too_small("test")

    def _loader(self, split: Split) -> DataLoader[EpisodeItem]:
        training = split == "train"
        draws = getattr(self.streams, split)
        classes = tuple(self.streams.named(split))
        wanted = self.streams.episodes
        base = BaseLabels(self.streams.classes.base) if wanted.base_labels else None
        query, support = self._transforms(training)
        drawing = self.seed if training else wanted.test_seed
        dataset = EpisodeDataset(
            self.source, draws, query, self.seed, split, classes, base, wanted.padding, drawing, support
        )
        rank, world = self._processes()
        options = self.loading
        size = options.batch_size if training else options.test_batch_size * world
        return EpisodeLoader(
            dataset,
            batch_size=size // world,
            sampler=EpisodeIndexSampler(len(draws), size, rank, world, training, self._order(draws, split)),
            num_workers=options.workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=options.workers > 0,
            worker_init_fn=_single_thread if options.workers else None,
        )

    def _transforms(self, training: bool) -> tuple[Transform, Transform]:
        """Return the transforms of query and supports."""
        if not training or not self.transforms.augment:
            return self.test_transform, self.test_transform
        names = (self.protocol.query, self.protocol.support)
        query, support = (named_transform(name, self.transforms, self.images) for name in names)
        return query, support

    def _order(self, draws: DrawSource, split: Split) -> list[int] | None:
        """Return the episode numbers sorted by class and query, or None if a limit asks for the first episodes only."""
        limit = getattr(self.trainer, f"limit_{split}_batches", 1.0)
        if split == "train" or not self.loading.group_by_image or limit != 1.0 or isinstance(limit, int):
            return None
        drawn = [draws.draw(0, i) for i in range(len(draws))]
        return sorted(range(len(drawn)), key=lambda i: (drawn[i].class_id, drawn[i].query, i))

    def _processes(self) -> tuple[int, int]:
        trainer = self.trainer
        return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)


def _single_thread(worker: int) -> None:
    cv2.setNumThreads(0)  # one thread per worker; OpenCV's pool does not survive the fork
