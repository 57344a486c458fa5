"""Options of index and episodes: plain values, checked when made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from fss.errors import DataError

MIN_AREA = 2 * 32 * 32
"""Least pixel area of a class that makes an image count for it (protocol A.1)."""
NovelImages = Literal["drop", "keep"]
SmallClasses = Literal["error", "drop"]
Selection = Literal["novel", "base"]
Sampler = Literal["stateless", "release"]
Task = Literal["episodes", "generalised"]


@dataclass(frozen=True)
class IndexOptions:
    """Which images take part.

    Attributes:
        novel_images: ``drop``: training images with any pixel of a novel class are left out (the "dagger
            trick" of BAM and SVF); ``keep``: they stay, novel pixels count as background (PFENet).
        min_area: least pixel area of a class that makes an image count for it.
        small_classes: a class with fewer than shot + 1 images is an ``error``, or is left out (``drop``).
    """

    novel_images: NovelImages = "drop"
    min_area: int = MIN_AREA
    small_classes: SmallClasses = "error"

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            DataError: if one is not allowed.
        """
        check_choice("novel_images", self.novel_images, get_args(NovelImages))
        check_choice("small_classes", self.small_classes, get_args(SmallClasses))
        check_least("min_area", self.min_area, 1)


@dataclass(frozen=True)
class EpisodeOptions:
    """Which episodes validate and test.

    Attributes:
        selection: what validation runs on. ``novel``: the test episodes themselves, the convention of the field;
            ``base``: base classes on the validation list, without images that hold novel pixels.
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
            novel one at once, on all images of the list.
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
        check_choice("selection", self.selection, get_args(Selection))
        check_choice("sampler", self.sampler, get_args(Sampler))
        check_choice("task", self.task, get_args(Task))
        for name in ("test_episodes", "val_episodes", "test_shot"):
            if getattr(self, name) is not None:
                check_least(name, getattr(self, name), 1)
        check_least("test_seed", self.test_seed, 0)


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


def check_number(option: str, value: object) -> None:
    """Check an option that is a number.

    Args:
        option: its name.
        value: what was given.

    Raises:
        DataError: if it is no number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{option}={value!r} is not allowed: give a number.")


def check_choice(option: str, value: object, allowed: Sequence[str]) -> None:
    """Check an option that has names for values.

    Args:
        option: its name.
        value: what was given.
        allowed: the names.

    Raises:
        DataError: if it is none of them.
    """
    if value not in allowed:
        raise DataError(f"{option}={value!r} is not known: allowed are {', '.join(allowed)}.")
