"""What sets a run apart from the protocol of the number beside which it stands, and the marks that say so."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from string import ascii_lowercase
from typing import Any

from fss.results import Result

Deviations = Callable[[Mapping[str, Any], Sequence[str]], Sequence[str]]
"""(configuration, options of a command) -> the options in which they differ, in words."""


def deviations_of(run: Result, command: Sequence[str], compare: Deviations) -> tuple[str, ...]:
    """Name everything in which a run is not what a command makes.

    Args:
        run: finished run.
        command: options after ``python train.py``.
        compare: finds the options that differ.

    Returns:
        Options first, then what the outcome tells: image lists, number of episodes, divergence.
    """
    found = list(compare(run.config, command))
    data = run.data or {}
    if data.get("lists") == "other":
        found.append("image lists other than the released ones")
    if "test_images_trained_on" in data:
        found.append(f"{data['test_images_trained_on']:,} images of the test's list are in the training's, too")
    wanted = next((word.split("=")[1] for word in command if word.startswith("data.test_episodes=")), None)
    if wanted is not None and run.episodes.count != int(wanted):
        found.append(f"tested on {run.episodes.count:,} episodes instead of {int(wanted):,}")
    if run.scores.miou == 0:
        found.append("mIoU 0: the training diverged, or learned nothing")
    return tuple(found)


def letters(texts: Iterable[str]) -> dict[str, str]:
    """Give every text a mark of its own.

    Args:
        texts: in order, repetitions among them.

    Returns:
        Text -> ``a``, ``b``, ..., ``z``, ``aa``, ``ab``, ...
    """
    return {text: _letters(place) for place, text in enumerate(dict.fromkeys(texts))}


def _letters(place: int) -> str:
    more, last = divmod(place, len(ascii_lowercase))
    return (_letters(more - 1) if more else "") + ascii_lowercase[last]
