"""Option groups of the data module: plain values, checked when made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from fss.data.errors import DataError

MIN_AREA = 2 * 32 * 32
"""Least pixel area of a class that makes a picture count for it (protocol A.1)."""

NovelImages = Literal["drop", "keep"]
SmallClasses = Literal["error", "drop"]
Selection = Literal["novel", "base"]
Sampler = Literal["stateless", "release"]
Task = Literal["episodes", "generalised"]


@dataclass(frozen=True)
class IndexOptions:
    """Which pictures take part.

    Attributes:
        novel_images: ``drop``: training pictures with any pixel of a novel class are left out (the "dagger
            trick" of BAM and SVF); ``keep``: they stay, novel pixels count as background (PFENet).
        min_area: least pixel area of a class that makes a picture count for it.
        small_classes: a class with fewer than shot + 1 pictures is an ``error``, or is left out (``drop``).
    """

    novel_images: NovelImages = "drop"
    min_area: int = MIN_AREA
    small_classes: SmallClasses = "error"

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            DataError: if one is not allowed.
        """
        _check_choice("novel_images", self.novel_images, get_args(NovelImages))
        _check_choice("small_classes", self.small_classes, get_args(SmallClasses))
        check_least("min_area", self.min_area, 1)


@dataclass(frozen=True)
class EpisodeOptions:
    """Which episodes validate and test.

    Attributes:
        selection: what validation runs on. ``novel``: the test episodes themselves, the convention of the field;
            ``base``: base classes on the validation list, without pictures that hold novel pixels.
        test_episodes: number of test episodes; the queries go through the list again and again.
        val_episodes: number of validation episodes, under ``novel`` the first ones of the test; None: as many as
            in the test.
        test_shot: supports in test episodes; None: as in training.
        test_seed: seed of test and validation episodes, apart from the training's, so that runs of several seeds are
            tested on the same episodes (the releases seed every validation with 321).
        replay: JSON list to test on instead of drawing; its length replaces ``test_episodes``.
        sampler: how episodes of novel classes are drawn. ``stateless``: each from the seed and its number;
            ``release``: as the 8 loader processes of SVF and BAM draw them. Training episodes and validation on
            base classes, which the releases do not have, are stateless always.
        base_labels: every query brings the labels of all base classes too.
        task: what is tested: ``episodes``, one novel class against the rest, or ``generalised``, base classes and a
            novel one at once, on all pictures of the list.
    """

    selection: Selection = "novel"
    test_episodes: int = 1000
    val_episodes: int | None = None
    test_shot: int | None = None
    test_seed: int = 321
    replay: str | Path | None = None
    sampler: Sampler = "stateless"
    base_labels: bool = False
    task: Task = "episodes"

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            DataError: if one is not allowed.
        """
        _check_choice("selection", self.selection, get_args(Selection))
        _check_choice("sampler", self.sampler, get_args(Sampler))
        _check_choice("task", self.task, get_args(Task))
        for name in ("test_episodes", "val_episodes", "test_shot"):
            if getattr(self, name) is not None:
                check_least(name, getattr(self, name), 1)
        check_least("test_seed", self.test_seed, 0)


@dataclass(frozen=True)
class LoaderOptions:
    """How batches are loaded.

    Attributes:
        batch_size: training episodes per step over all devices.
        test_batch_size: validation and test episodes per step and device.
        workers: loader processes per device; 0 loads in the main process.
        progress: show bars while masks are read.
        by_picture: validation and test episodes of one class come together, and among them those of one query, so
            that a memory of feature maps can be small.
    """

    batch_size: int = 8
    test_batch_size: int = 1
    workers: int = 2
    progress: bool = True
    by_picture: bool = False

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            DataError: if one is not allowed.
        """
        for name, least in (("batch_size", 1), ("test_batch_size", 1), ("workers", 0)):
            check_least(name, getattr(self, name), least)


@dataclass(frozen=True)
class TransformOptions:
    """Sizes and ranges of the transforms.

    Attributes:
        size: side S of the square network input; S - 1 must divide by 8.
        scale_min: least random scale factor in training.
        scale_max: largest one; the release uses 0.9..1.1 on PASCAL and 0.8..1.25 on COCO.
        rotate: largest rotation in degrees.
        augment: False trains on the test transform (for overfitting checks).
    """

    size: int = 473
    scale_min: float = 0.9
    scale_max: float = 1.1
    rotate: float = 10.0
    augment: bool = True

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            DataError: if one is not allowed.
        """
        check_least("size", self.size, 17)
        if (self.size - 1) % 8:
            low = (self.size - 1) // 8 * 8 + 1
            raise DataError(f"size={self.size} is not allowed: size - 1 must divide by 8, like {low} or {low + 8}.")
        for name in ("scale_min", "scale_max", "rotate"):
            _check_number(name, getattr(self, name))
        if not 0 < self.scale_min <= self.scale_max:
            raise DataError(
                f"scale_min={self.scale_min} with scale_max={self.scale_max} is not allowed: give "
                "0 < scale_min <= scale_max."
            )
        if not 0 <= self.rotate <= 180:
            raise DataError(f"rotate={self.rotate} is not allowed: give degrees from 0 to 180.")
        if not isinstance(self.augment, bool):
            raise DataError(f"augment={self.augment!r} is not allowed: give true or false.")


def check_least(option: str, value: object, least: int) -> None:
    """Check an option that is a whole number.

    Args:
        option: its name.
        value: what was given.
        least: smallest number allowed.

    Raises:
        DataError: if it is no whole number or too small.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise DataError(f"{option}={value!r} is not allowed: give a whole number from {least} up.")


def _check_number(option: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{option}={value!r} is not allowed: give a number.")


def _check_choice(option: str, value: object, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise DataError(f"{option}={value!r} is not known: allowed are {', '.join(allowed)}.")
