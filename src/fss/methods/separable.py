"""Heads that encode queries and masked supports independently, so that a test encodes each of them once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from torch import Generator, Tensor

from fss.methods.base import FewShotHead
from fss.types import HeadOutput

Encoding = Mapping[str, Tensor]
"""A head's encoding of one image: tensors by name, without an episode dimension; each must own its memory."""


@dataclass(frozen=True)
class EncodedEpisode:
    """A batch of B episodes as encodings.

    Attributes:
        query: encodings of the B queries.
        supports: encodings of the supports, B rows of K, in the stacking order of the episode.
        extras: other declared tensors by name, (B, ...).
        generators: as in :class:`fss.types.EpisodeFeatures`.
    """

    query: Sequence[Encoding]
    supports: Sequence[Sequence[Encoding]]
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    generators: Sequence[Generator] = ()


class SeparableHead(FewShotHead):
    """A head that can score encodings, so that a test computes each of them once and need not keep feature maps.

    ``forward_encoded`` of the encodings must equal ``forward`` of the feature maps in evaluation mode, up to rounding.
    Taps, a call per support, gradients at test time and refinement rounds are not supported. If a subclass overrides a
    method, only its ``forward`` is used, unless it defines all four methods itself; see :func:`encodes`.
    """

    @abstractmethod
    def encode_query(self, maps: Mapping[int, Tensor]) -> Encoding:
        """Return the encoding of a query, which must not depend on the supports.

        Args:
            maps: the declared stages of one image, stage -> (1, C, h, w).
        """

    @abstractmethod
    def encode_support(self, maps: Mapping[int, Tensor], labels: Tensor) -> Encoding:
        """Return the encoding of a support, which must not depend on the query.

        Args:
            maps: the declared stages of one image, stage -> (1, C, h, w). With ``masked_before_stage4``, stage 4 is
                valid only where the resized mask is above zero; values elsewhere must not be used.
            labels: label with values 0, 1, 255, (1, H, W).
        """

    @abstractmethod
    def forward_encoded(self, episode: EncodedEpisode) -> HeadOutput:
        """Score one batch of episodes.

        Args:
            episode: the encodings of the batch.

        Returns:
            What :meth:`forward` returns.
        """


_PARTS = ("forward", "encode_query", "encode_support", "forward_encoded")
_APART = {"__init__", "criterion", "loss", "param_groups"}
"""Methods that the encoded path does not replace: a subclass may override them."""


def encodes(head: FewShotHead) -> TypeGuard[SeparableHead]:
    """Tell whether a head may be tested through its encodings, i.e. whether they match its ``forward``.

    Args:
        head: any head.

    Returns:
        True if the class that defines ``forward`` also defines the three encoding methods, nothing below that class or
        on the object overrides a method, the head has no forward hooks, and it declares neither taps nor a call per
        support nor refinement rounds nor gradients at test time.
    """
    if not isinstance(head, SeparableHead) or head._forward_hooks or head._forward_pre_hooks:
        return False
    spec = head.spec
    if spec.taps or spec.shot_rule != "joint" or head.refinement_rounds != 1 or head.needs_grad_in_eval:
        return False
    lineage = type(head).__mro__
    at = next(i for i, kind in enumerate(lineage) if "forward" in vars(kind))
    known = {name for kind in lineage[at:] for name, value in vars(kind).items() if _is_method(value)}
    overridden = {name for names in (vars(head), *map(vars, lineage[:at])) for name in names}
    return vars(lineage[at]).keys() >= set(_PARTS) and not overridden & (known - _APART)


def _is_method(value: Any) -> bool:
    return callable(value) or isinstance(value, classmethod | staticmethod | property)
