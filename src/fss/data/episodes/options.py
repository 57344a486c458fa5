"""Options of class index and episodes, validated on construction."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from fss.errors import DataError

MIN_AREA = 2 * 32 * 32
"""Minimum pixel area of a class for an image to count for it (protocol A.1)."""
NovelImages = Literal["drop", "keep"]
SmallClasses = Literal["error", "drop"]
Selection = Literal["novel", "base"]
Task = Literal["episodes", "generalised"]


@dataclass(frozen=True)
class IndexOptions:
    """Which images are used.

    Attributes:
        novel_images: ``drop``: training images with any pixel of a novel class are removed (the "dagger trick" of BAM
            and SVF); ``keep``: they stay, with novel pixels as background (PFENet).
        min_area: minimum pixel area of a class for an image to count for it.
        small_classes: a class with fewer than shot + 1 images is an ``error`` or is removed (``drop``).
    """

    novel_images: NovelImages = "drop"
    min_area: int = MIN_AREA
    small_classes: SmallClasses = "error"

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            DataError: if a value is not allowed.
        """
        check_choice("novel_images", self.novel_images, get_args(NovelImages))
        check_choice("small_classes", self.small_classes, get_args(SmallClasses))
        check_least("min_area", self.min_area, 1)


@dataclass(frozen=True)
class EpisodeOptions:
    """Validation and test episodes.

    Attributes:
        selection: what validation runs on. ``novel``: the test episodes themselves, the convention of the field;
            ``base``: base classes on the validation list, without images that contain novel pixels.
        test_episodes: number of test episodes; their queries cycle through the list.
        val_episodes: number of validation episodes, under ``novel`` the first test episodes; None: as many as in the
            test.
        test_shot: supports in test episodes; None: as in training.
        test_seed: seed of test and validation episodes, separate from the training seed, so that runs with different
            seeds are tested on the same episodes (the releases seed every validation with 321).
        replay: JSON episode list to test on instead of sampling; its length replaces ``test_episodes``.
        sampler: how episodes of novel classes are drawn, see :mod:`fss.data.episodes.rules`. ``stateless``: each from
            the seed and its number; ``release``: as the 8 data loader workers of SVF and BAM draw them; ``pairs`` and
            ``uniform``: as HSNet's release does on PASCAL and on COCO. Training episodes, and validation on base
            classes, which the releases do not have, are always stateless.
        base_labels: whether every query also has labels of all base classes.
        padding: whether every query also has a map of its padding.
        task: what is tested. ``episodes``: one novel class against the rest; ``generalised``: base classes and one
            novel class together, on all images of the list.
        left_out: names of novel classes that are not tested, as the model was trained on them under another fold or
            in another data set.
        min_test_images: classes with fewer images in validation or test are left out of means over classes; they are
            still drawn, so that episodes stay the same. None: every class counts.
    """

    selection: Selection = "novel"
    test_episodes: int = 1000
    val_episodes: int | None = None
    test_shot: int | None = None
    test_seed: int = 321
    replay: str | Path | None = None
    sampler: str = "stateless"
    base_labels: bool = False
    padding: bool = False
    task: Task = "episodes"
    left_out: tuple[str, ...] = ()
    min_test_images: int | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            DataError: if a value is not allowed.
        """
        check_choice("selection", self.selection, get_args(Selection))
        check_choice("sampler", self.sampler, rule_names())
        check_choice("task", self.task, get_args(Task))
        for name in ("test_episodes", "val_episodes", "test_shot", "min_test_images"):
            if getattr(self, name) is not None:
                check_least(name, getattr(self, name), 1)
        check_least("test_seed", self.test_seed, 0)


@cache
def rule_names() -> tuple[str, ...]:
    """Return the names of the rules that draw episodes of novel classes, see :mod:`fss.data.episodes.rules`.

    The files are read, not imported, as that takes longer than all other checks of options.
    """
    return tuple(path.stem for path in sorted(Path(__file__).parent.glob("*.py")) if _holds_rule(path))


def _holds_rule(path: Path) -> bool:
    """Tell whether a file defines a class that draws novel classes and bears the name of the file as ``sampler``."""
    text = path.read_text(encoding="utf-8")
    named = re.search(rf'^    sampler(: ClassVar\[str\])? = "{path.stem}"$', text, re.MULTILINE)
    return named is not None and "def novel(" in text


def check_least(option: str, value: object, least: int) -> None:
    """Check an integer option.

    Args:
        option: name of the option.
        value: given value.
        least: smallest number allowed.

    Raises:
        DataError: if it is not an integer or is too small.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise DataError(f"{option}={value!r} is not allowed: give a whole number from {least} up.")


def check_number(option: str, value: object) -> None:
    """Check a numeric option.

    Args:
        option: name of the option.
        value: given value.

    Raises:
        DataError: if it is not a number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{option}={value!r} is not allowed: give a number.")


def check_choice(option: str, value: object, allowed: Sequence[str]) -> None:
    """Check an option with a fixed set of values.

    Args:
        option: name of the option.
        value: given value.
        allowed: allowed values.

    Raises:
        DataError: if it is not one of them.
    """
    if value not in allowed:
        raise DataError(f"{option}={value!r} is not known: allowed are {', '.join(allowed)}.")
