"""Heads whose answer is made of what each picture and each masked support gives alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from fss.methods.base import FewShotHead
from fss.types import HeadOutput

Parts = Mapping[str, Tensor]
"""Tensors by name, without an axis of episodes; each must own its memory."""


@dataclass(frozen=True)
class EpisodeParts:
    """A batch of B episodes as parts.

    Attributes:
        query: of every query, B.
        supports: of every support, B rows of K, in the order in which the episode stacks them.
        extras: declared further tensors, by name, (B, ...).
    """

    query: Sequence[Parts]
    supports: Sequence[Sequence[Parts]]
    extras: Mapping[str, Tensor] = field(default_factory=dict)


class PartedHead(FewShotHead):
    """A head that can answer from parts, so that a test makes each of them once and need not keep feature maps.

    ``answer`` of the parts must equal ``forward`` of the feature maps in evaluation mode, up to rounding. Taps,
    voting and rounds of refinement are not served.
    """

    @abstractmethod
    def of_query(self, maps: Mapping[int, Tensor]) -> Parts:
        """Return what a query gives, whatever the supports are.

        Args:
            maps: the declared stages of one picture, stage -> (1, C, h, w).
        """

    @abstractmethod
    def of_support(self, maps: Mapping[int, Tensor], labels: Tensor) -> Parts:
        """Return what a support gives, whatever the query is.

        Args:
            maps: the declared stages of one picture, stage -> (1, C, h, w). Stages behind the mask of
                ``masked_before_stage4`` are right where the resized mask is above zero; what they hold elsewhere must
                not count.
            labels: values 0, 1, 255, (1, H, W).
        """

    @abstractmethod
    def answer(self, episode: EpisodeParts) -> HeadOutput:
        """Score one batch of episodes.

        Args:
            episode: its parts.

        Returns:
            What :meth:`forward` returns.
        """
