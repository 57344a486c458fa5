"""How episodes become inputs, losses and scores: what a release fixes beside its network. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from fss.errors import FssError

OWN_TRANSFORMS = ("augment", "pad")
"""The suite's own; those of releases are the files of a folder."""
_FOLDER = Path(__file__).parent / "data" / "transforms"

Ignored = Literal["ignore", "background", "foreground"]
ScoredAt = Literal["original", "network"]


@dataclass(frozen=True)
class EpisodeProtocol:
    """The conventions of a comparison; the defaults are the suite's own.

    Attributes:
        query: transform of training queries: the name of a file in ``fss/data/transforms``.
        support: transform of training supports.
        test: transform of queries and supports in validation and test; nothing in it is random.
        ignored: what pixels of label 255 are in the training loss.
        scoring: size at which predictions are scored: that of the original label, or of the network's input.
    """

    query: str = "augment"
    support: str = "augment"
    test: str = "pad"
    ignored: Ignored = "ignore"
    scoring: ScoredAt = "original"

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            FssError: if one is not allowed.
        """
        for name in ("query", "support", "test"):
            if getattr(self, name) not in transform_names():
                raise FssError(
                    f"protocol.{name}={getattr(self, name)} is not known: choose one of {', '.join(transform_names())}."
                )
        for name, allowed in (("ignored", get_args(Ignored)), ("scoring", get_args(ScoredAt))):
            if getattr(self, name) not in allowed:
                raise FssError(
                    f"protocol.{name}={getattr(self, name)} is not known: choose one of {', '.join(allowed)}."
                )


def transform_names() -> tuple[str, ...]:
    """Return the names of all transforms."""
    files = sorted(path.stem for path in _FOLDER.glob("*.py") if path.stem != "__init__")
    return (*OWN_TRANSFORMS, *files)
