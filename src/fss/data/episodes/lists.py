"""Episode lists on disk: export, replay, and the hash stored in every result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fss.data.episodes.stateless import Draw, DrawSource
from fss.data.reading.derived_files import write_atomic
from fss.data.sources.base import SegmentationSource
from fss.data.sources.folds import FoldClasses
from fss.errors import DataError

if TYPE_CHECKING:
    from fss.types import Split


@dataclass(frozen=True)
class EpisodeList:
    """A fixed list of episodes and its origin.

    Attributes:
        data: name of the data set.
        fold: 0..3.
        shot: supports per episode.
        split: stream the list was drawn from.
        seed: seed of the stream.
        sampler: name of the sampling rule.
        episodes: the draws.
    """

    data: str
    fold: int
    shot: int
    split: Split
    seed: int
    sampler: str
    episodes: tuple[Draw, ...]

    @property
    def class_ids(self) -> tuple[int, ...]:
        """Ids of all classes that occur, ascending."""
        return tuple(sorted({e.class_id for e in self.episodes}))

    def __len__(self) -> int:
        """Return the number of episodes."""
        return len(self.episodes)

    def draw(self, epoch: int, i: int) -> Draw:
        """Return episode ``i``.

        Args:
            epoch: unused, a list is the same in every epoch.
            i: number of the episode.
        """
        return self.episodes[i]

    def head(self, count: int) -> EpisodeList:
        """Return the list of the first episodes.

        Args:
            count: how many.
        """
        return replace(self, episodes=self.episodes[:count])

    def save(self, path: Path) -> None:
        """Write the list as JSON.

        Args:
            path: file to write.

        Raises:
            DataError: if it cannot be written.
        """
        header = {k: getattr(self, k) for k in ("data", "fold", "shot", "split", "seed", "sampler")}
        rows = [{"class": e.class_id, "query": e.query, "supports": list(e.supports)} for e in self.episodes]
        write_atomic(path, json.dumps({**header, "hash": episodes_hash(self.episodes), "episodes": rows}) + "\n")

    @classmethod
    def load(cls, path: Path) -> EpisodeList:
        """Read a list written by :meth:`save`.

        Args:
            path: JSON file.

        Raises:
            DataError: if the file is missing, damaged, or not an episode list.
        """
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise _not_a_list(path, str(getattr(error, "strerror", None) or error)) from error
        try:
            episodes = tuple(_read_draw(row, int(raw["shot"])) for row in raw["episodes"])
            loaded = cls(
                data=str(raw["data"]),
                fold=int(raw["fold"]),
                shot=int(raw["shot"]),
                split=raw.get("split", "test"),
                seed=int(raw["seed"]),
                sampler=str(raw.get("sampler", "unknown")),
                episodes=episodes,
            )
        except KeyError as error:
            raise _not_a_list(path, f"it lacks {error}") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise _not_a_list(path, f"{type(error).__name__}: {error}") from error
        if not episodes:
            raise _not_a_list(path, "it holds no episode")
        if raw.get("hash") not in (None, episodes_hash(episodes)):
            raise _not_a_list(path, "its episodes do not match its hash, so it was changed after export")
        return loaded


def record(draws: DrawSource, count: int | None = None) -> tuple[Draw, ...]:
    """Return the first episodes of a stream.

    Args:
        draws: the stream.
        count: how many; None: all of one epoch.
    """
    return tuple(draws.draw(0, i) for i in range(len(draws) if count is None else count))


def checked_replay(path: Path, source: SegmentationSource, classes: FoldClasses, shot: int) -> EpisodeList:
    """Read an episode list and check that it fits this test.

    Args:
        path: JSON file.
        source: the data set.
        classes: classes of the fold.
        shot: supports per test episode.

    Raises:
        DataError: if data set, fold, shot, classes or images do not fit.
    """
    loaded = EpisodeList.load(path)
    for what, theirs, ours in (
        ("data set", loaded.data, source.name),
        ("fold", loaded.fold, classes.fold),
        ("shot", loaded.shot, shot),
    ):
        if theirs != ours:
            raise _not_a_list(path, f"it is for {what} {theirs}, this run has {what} {ours}")
    other_classes = set(loaded.class_ids) - set(classes.novel)
    if other_classes:
        raise _not_a_list(path, f"it holds classes {sorted(other_classes)}, novel here are {list(classes.novel)}")
    val_ids = set(source.ids("val"))
    missing = sorted({i for e in loaded.episodes for i in (e.query, *e.supports)} - val_ids)
    if missing:
        raise _not_a_list(path, f"{len(missing)} images are not in the validation list, first {missing[0]}")
    return loaded


def episodes_hash(episodes: Sequence[Draw]) -> str:
    """Return the SHA-256 of an episode list: of class, query and supports, in order.

    Args:
        episodes: the draws.
    """
    canonical = [[e.class_id, e.query, list(e.supports)] for e in episodes]
    return hashlib.sha256(json.dumps(canonical, separators=(",", ":")).encode()).hexdigest()


def _read_draw(row: Any, shot: int) -> Draw:
    draw = Draw(int(row["class"]), str(row["query"]), tuple(str(s) for s in row["supports"]))
    if len(draw.supports) != shot:
        raise ValueError(f"an episode has {len(draw.supports)} supports, the list says shot {shot}")
    return draw


def _not_a_list(path: Path, why: str) -> DataError:
    return DataError(
        f"Cannot use {path} as episode list: {why}. Write one with: fss data episodes DATA --fold F --shot K "
        "--split test --out FILE."
    )
