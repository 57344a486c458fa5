"""The image lists of PASCAL-5i, derived from the image sets of VOC 2012 and SBD."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fss.data.sources.manifest import list_hash

RELEASED_SHA256 = {
    "train": "43623a53e9bb4e35f76537dd5809bc59af6ac72de88b21391cd2100ddfe13f03",
    "val": "6f8edc37993764f6e212237d39546fb595246244147e8a050813c520aac0ade1",
}
"""SHA-256 of the ids of the released lists, joined by newlines."""

RELEASED_COUNTS = {"sbd": 5623, "voc_train": 1464, "merged": 7087, "train": 5953, "val": 1449}
"""Lengths of the released lists and of their parts (protocol A.1)."""


@dataclass(frozen=True)
class PascalLists:
    """The image lists and the parts of the training list.

    Attributes:
        sbd: images with SBD masks that are in neither of VOC's validation sets (``Main`` and ``Segmentation``).
        voc_train: VOC's training images for segmentation, in VOC's order.
        train: the training list: ``sbd`` followed by ``voc_train``, without duplicates.
        val: VOC's validation images for segmentation, in VOC's order.
    """

    sbd: tuple[str, ...]
    voc_train: tuple[str, ...]
    train: tuple[str, ...]
    val: tuple[str, ...]

    def counts(self) -> dict[str, int]:
        """Return the lengths, under the keys of :data:`RELEASED_COUNTS`."""
        merged = len(self.sbd) + len(self.voc_train)
        lengths = {n: len(getattr(self, n)) for n in ("sbd", "voc_train", "train", "val")}
        return {n: lengths.get(n, merged) for n in RELEASED_COUNTS}

    def hashes(self) -> dict[str, str]:
        """Return the SHA-256 of both lists, under the keys of :data:`RELEASED_SHA256`."""
        return {"train": list_hash(self.train), "val": list_hash(self.val)}


def derive_lists(
    voc_train: Sequence[str], voc_val: Sequence[str], main_val: Iterable[str], sbd: Iterable[str]
) -> PascalLists:
    """Merge the image sets as the released lists do.

    Args:
        voc_train: ``ImageSets/Segmentation/train.txt`` of VOC.
        voc_val: ``ImageSets/Segmentation/val.txt``.
        main_val: ``ImageSets/Main/val.txt``.
        sbd: ``train.txt`` and ``val.txt`` of SBD.

    Returns:
        The lists.
    """
    sbd_only = tuple(sorted(set(sbd) - set(main_val) - set(voc_val)))
    return PascalLists(sbd_only, tuple(voc_train), tuple(dict.fromkeys((*sbd_only, *voc_train))), tuple(voc_val))


def differences(lists: PascalLists) -> list[str]:
    """Describe how lists differ from the released ones.

    Args:
        lists: as derived.

    Returns:
        One phrase per difference; empty if both lists equal the released ones, including their order.
    """
    counts, hashes = lists.counts(), lists.hashes()
    phrases = [f"{n}: {counts[n]} images instead of {c}" for n, c in RELEASED_COUNTS.items() if counts[n] != c]
    phrases += [
        f"{n} list: SHA-256 {hashes[n][:12]}.. instead of {h[:12]}.."
        for n, h in RELEASED_SHA256.items()
        if hashes[n] != h
    ]
    return phrases
