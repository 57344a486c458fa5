"""Training, validation and test episode streams of a fold, shared by the data module and the command line."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fss.data.episodes.areas import AreaTable, area_table
from fss.data.episodes.generalised import GeneralisedEpisodes
from fss.data.episodes.index import ClassIndex, class_index, without_small_classes
from fss.data.episodes.lists import EpisodeList, checked_replay
from fss.data.episodes.options import EpisodeOptions, IndexOptions, check_least
from fss.data.episodes.rules import rule
from fss.data.episodes.stateless import DrawSource, StatelessEpisodes
from fss.data.sources.base import ListSplit, SegmentationSource
from fss.data.sources.folds import name_classes
from fss.errors import DataError

if TYPE_CHECKING:
    from fss.types import Split


class EpisodeStreams:
    """Classes, indices and episodes of one fold. Masks, or the cached area table, are read on first use.

    Args:
        source: the data set.
        fold: 0..3.
        shot: supports per training episode.
        seed: seed of the training episodes.
        index: which images are used.
        episodes: options of the validation and test episodes.
        progress: show progress bars while masks are read.

    Raises:
        DataError: if fold, shot or seed is not allowed.
    """

    def __init__(
        self,
        source: SegmentationSource,
        fold: int,
        shot: int = 1,
        seed: int = 321,
        index: IndexOptions | None = None,
        episodes: EpisodeOptions | None = None,
        progress: bool = True,
    ) -> None:
        check_least("shot", shot, 1)
        check_least("seed", seed, 0)
        self.source, self.shot, self.seed, self.progress = source, shot, seed, progress
        self.options = index or IndexOptions()
        self.episodes = episodes or EpisodeOptions()
        classes, left_out = source.fold(fold), self.episodes.left_out
        novel = tuple(i for i in classes.novel if source.class_names[i] not in left_out) if left_out else classes.novel
        self.classes = replace(classes, novel=novel)

    @cached_property
    def train_index(self) -> ClassIndex:
        """Base classes on the training list."""
        forbidden = self.classes.novel if self.options.novel_images == "drop" else ()
        return self.index("train", self.classes.base, forbidden, self.shot)

    @cached_property
    def base_val_index(self) -> ClassIndex:
        """Base classes on the validation list, without images that contain novel pixels."""
        return self.index("val", self.classes.base, self.classes.novel, self.shot)

    @cached_property
    def test_index(self) -> ClassIndex:
        """Novel classes on the validation list, never filtered."""
        return self.index("val", self.classes.novel, (), self.test_shot)

    @property
    def test_shot(self) -> int:
        """Supports per test episode."""
        return self.shot if self.episodes.test_shot is None else self.episodes.test_shot

    @cached_property
    def train(self) -> DrawSource:
        """Training episodes."""
        return StatelessEpisodes(self.train_index, self.shot, self.seed, "train")

    @cached_property
    def val(self) -> DrawSource:
        """Validation episodes."""
        options = self.episodes
        count = options.test_episodes if options.val_episodes is None else options.val_episodes
        if options.selection == "base":
            return StatelessEpisodes(self.base_val_index, self.shot, self.episodes.test_seed, "val", count)
        if self.test_shot != self.shot:
            index = self.index("val", self.classes.novel, (), self.shot)
            return self._novel(index, self.shot, count)
        if options.val_episodes is None:
            return self.test
        if self.replayed is not None:
            return self.replayed.head(count)
        return self._novel(self.test_index, self.shot, count)

    @cached_property
    def test(self) -> DrawSource:
        """Test episodes."""
        if self.episodes.task == "generalised":
            options = self.episodes
            return GeneralisedEpisodes(
                self._table(), self.classes, self.test_shot, options.test_seed, options.test_episodes
            )
        if self.replayed is not None:
            return self.replayed
        return self._novel(self.test_index, self.test_shot, self.episodes.test_episodes)

    @cached_property
    def replayed(self) -> EpisodeList | None:
        """The episode list to replay, if one was given.

        Raises:
            DataError: if the list does not fit data set, fold or shot.
        """
        if self.episodes.replay is None:
            return None
        path = Path(self.episodes.replay).expanduser()
        self.source.check("val", images=False)
        self.source.prepare("val")
        return checked_replay(path, self.source, self.classes, self.test_shot)

    def too_small(self, split: Literal["val", "test"]) -> dict[str, int]:
        """List the classes that the mean over classes of validation or test leaves out (``min_test_images``).

        The images of a class are those that it could be drawn from: of the validation list, without limits that the
        number of episodes sets. In generalised tests they are those with any pixel of it, of base classes too.

        Args:
            split: ``val`` or ``test``.

        Returns:
            Class name -> number of its images, ascending by class; empty without the option.

        Raises:
            DataError: if no class is left; in generalised tests, if no base or no novel class is left.
        """
        least = self.episodes.min_test_images
        if least is None:
            return {}
        found: dict[int, int] = {}
        for kind, counts in self._images(split).items():
            small = {c: count for c, count in counts.items() if count < least}
            names = self.source.class_names
            if len(small) == len(counts):
                listed = ", ".join(f"{names[c]} ({count})" for c, count in small.items())
                raise DataError(
                    f"data.min_test_images={least} leaves no {kind} class of fold {self.classes.fold} for the mean IoU "
                    f"of the {'validation' if split == 'val' else 'test'}. Classes and their images: {listed}. Lower "
                    "it, choose another fold, or set it to null."
                )
            found |= small
        return {self.source.class_names[c]: found[c] for c in sorted(found)}

    def _images(self, split: str) -> dict[str, dict[int, int]]:
        """Return ``base`` or ``novel`` -> class -> number of its images in validation or test."""
        if split == "test" and self.episodes.task == "generalised":
            table = self._table()
            groups = {"base": self.classes.base, "novel": self.classes.novel}
            present = {kind: (table.columns(ids) > 0).sum(axis=0) for kind, ids in groups.items()}
            return {k: dict(zip(ids, map(int, present[k]), strict=True)) for k, ids in groups.items()}
        base = split == "val" and self.episodes.selection == "base"
        ids, forbidden = (self.classes.base, self.classes.novel) if base else (self.classes.novel, ())
        index = self.raw_index("val", ids, forbidden)
        return {"base" if base else "novel": {c: len(index.per_class[c]) for c in index.class_ids}}

    def _table(self) -> AreaTable:
        self.source.check("val", images=False)
        self.source.prepare("val")
        return area_table(self.source, "val", self.progress)

    def named(self, split: Split) -> dict[int, str]:
        """Return the classes that episodes of a split are drawn for, id -> name, ascending.

        With ``small_classes=drop`` this reads the masks.

        Args:
            split: ``train``, ``val`` or ``test``.
        """
        base = split == "train" or (split == "val" and self.episodes.selection == "base")
        ids = self.classes.base if base else self.classes.novel
        if self.options.small_classes == "drop":
            ids = self._kept(split, base)
        return name_classes(ids, self.source.class_names)

    def index(self, split: ListSplit, relevant: tuple[int, ...], forbidden: tuple[int, ...], shot: int) -> ClassIndex:
        """Return the index of an image list.

        Args:
            split: which list.
            relevant: classes to draw episodes for.
            forbidden: classes whose presence removes an image.
            shot: supports that must be available.

        Raises:
            DataError: if the data set is missing, damaged or too small.
        """
        index = self.raw_index(split, relevant, forbidden)
        return without_small_classes(index, shot, self.options.small_classes, self.source.class_names)

    def raw_index(self, split: ListSplit, relevant: tuple[int, ...], forbidden: tuple[int, ...]) -> ClassIndex:
        """Return the index of an image list, including classes with too few images.

        Args:
            split: which list.
            relevant: classes to draw episodes for.
            forbidden: classes whose presence removes an image.

        Raises:
            DataError: if the data set is missing or damaged.
        """
        self.source.check(split, images=False)
        self.source.prepare(split)
        table = area_table(self.source, split, self.progress)
        return class_index(table, relevant, forbidden, self.options.min_area)

    def _novel(self, index: ClassIndex, shot: int, count: int) -> DrawSource:
        """Return test or validation episodes of novel classes, drawn by the configured sampler."""
        return rule(self.episodes.sampler).novel(index, shot, self.episodes.test_seed, count)

    def _kept(self, split: Split, base: bool) -> tuple[int, ...]:
        if split == "train":
            return self.train_index.class_ids
        if base:
            return self.base_val_index.class_ids
        stream = self.test if split == "test" else self.val
        return self.classes.novel if isinstance(stream, EpisodeList) else stream.class_ids
