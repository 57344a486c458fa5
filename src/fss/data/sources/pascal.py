"""PASCAL-5i: VOC 2012 with the SBD masks, 20 classes in four folds of five."""

from __future__ import annotations

from functools import cached_property

from fss.data.sources.base import Facts
from fss.data.sources.folds import PASCAL_CLASSES
from fss.data.sources.pascal_lists import RELEASED_SHA256
from fss.data.sources.voc import VocSource


class PascalSource(VocSource):
    """VOC 2012 with ``SegmentationClassAug``; arguments and layout as :class:`VocSource`, no ``classes.txt`` needed.

    The released lists hold 5,953 training and 1,449 validation images (protocol A.1).
    """

    name = "pascal"
    how_to_get = (
        "PASCAL-5i is expected below data.root={root} as JPEGImages/ID.jpg, SegmentationClassAug/ID.png and "
        "ImageSets/FewShot/train.txt and val.txt with one id per line. Point data.root to such a folder "
        "(data.train_list and data.val_list give other lists), or make it from the official archives with: "
        "fss data prepare pascal --root {root} --archives DIR (or --download)"
    )

    @cached_property
    def class_names(self) -> dict[int, str]:
        """Class id -> name, ids 1..20."""
        return dict(PASCAL_CLASSES)

    def facts(self) -> Facts:
        """Return the facts of :class:`VocSource`, and whether both lists are the released ones."""
        facts = super().facts()
        released = all(facts.get(f"{split}_list") == known for split, known in RELEASED_SHA256.items())
        return facts | {"lists": "released" if released else "other"}
