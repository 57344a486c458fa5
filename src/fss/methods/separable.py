"""Heads that encode each query and each masked support by itself, so that a test encodes each of them once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from fss.methods.base import FewShotHead
from fss.types import HeadOutput

Encoding = Mapping[str, Tensor]
"""What a head makes of one image: tensors by name, without an axis of episodes; each must own its memory."""


@dataclass(frozen=True)
class EncodedEpisode:
    """A batch of B episodes as encodings.

    Attributes:
        query: of every query, B.
        supports: of every support, B rows of K, in the order in which the episode stacks them.
        extras: declared other tensors, by name, (B, ...).
    """

    query: Sequence[Encoding]
    supports: Sequence[Sequence[Encoding]]
    extras: Mapping[str, Tensor] = field(default_factory=dict)


class SeparableHead(FewShotHead):
    """A head that can score encodings, so that a test makes each of them once and need not keep feature maps.

    ``forward_encoded`` of the encodings must equal ``forward`` of the feature maps in evaluation mode, up to rounding.
    Taps, voting and rounds of refinement are not served.
    """

    @abstractmethod
    def encode_query(self, maps: Mapping[int, Tensor]) -> Encoding:
        """Return what a query gives, whatever the supports are.

        Args:
            maps: the declared stages of one image, stage -> (1, C, h, w).
        """

    @abstractmethod
    def encode_support(self, maps: Mapping[int, Tensor], labels: Tensor) -> Encoding:
        """Return what a support gives, whatever the query is.

        Args:
            maps: the declared stages of one image, stage -> (1, C, h, w). Stages behind the mask of
                ``masked_before_stage4`` are right where the resized mask is above zero; what they hold elsewhere must
                not count.
            labels: values 0, 1, 255, (1, H, W).
        """

    @abstractmethod
    def forward_encoded(self, episode: EncodedEpisode) -> HeadOutput:
        """Score one batch of episodes.

        Args:
            episode: its encodings.

        Returns:
            What :meth:`forward` returns.
        """
