"""What a test may not score as new: classes that the training saw under any name, and images that it was given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fss.data.sources.base import Facts, SegmentationSource
from fss.errors import DataError

LEAKED = "test_images_trained_on"
"""Fact of a result: how many images of the test's list the training's list holds."""

_SAME = {
    "aeroplane": "airplane",
    "bike": "bicycle",
    "motorbike": "motorcycle",
    "people": "person",
    "plane": "airplane",
    "sofa": "couch",
    "television": "tv",
    "tvmonitor": "tv",
}
"""Names of one class in different data sets, without spaces and signs; those of PASCAL's are all that COCO renames."""


def same_class(name: str) -> str:
    """Return what equal classes have in common, whatever a data set calls them.

    Args:
        name: class name.

    Returns:
        The name in small letters without spaces and signs, or that of its synonym.
    """
    bare = "".join(letter for letter in name.lower() if letter.isalnum())
    return _SAME.get(bare, bare)


def seen_classes(novel: Mapping[int, str], trained: Iterable[str]) -> dict[int, str]:
    """Return the classes of a test that a training saw.

    Args:
        novel: id -> name of the classes that the test takes for new.
        trained: names of the classes trained on, maybe of another data set.

    Returns:
        Id -> name of those that are not.
    """
    known = {same_class(name) for name in trained}
    return {i: name for i, name in novel.items() if same_class(name) in known}


def facts_of(source: SegmentationSource) -> Facts:
    """Return the facts of a data set for the result file, with the number of test images that its training list holds.

    Args:
        source: data set.
    """
    facts, leaked = source.facts(), leaked_images(source)
    return facts | {LEAKED: len(leaked)} if leaked else facts


def leaked_images(source: SegmentationSource) -> list[str]:
    """Return the images of the test's list that the training's list holds too, in the order of the test's.

    Args:
        source: data set.

    Returns:
        Image ids; none where a list is not known yet, as that of masks which are not made.

    Raises:
        DataError: if a list is damaged.
    """
    if not lists_known(source):
        return []
    trained = set(source.ids("train"))
    return [image for image in source.ids("val") if image in trained]


def lists_known(source: SegmentationSource) -> bool:
    """Tell whether both lists of a data set can be read, without making masks first.

    Args:
        source: data set.
    """
    return {"train_list", "val_list"} <= source.facts().keys()


def refuse_leaks(source: SegmentationSource, leaks: str) -> tuple[str, ...]:
    """Make sure that no image is tested on which the model was trained.

    Args:
        source: data set with the training's list and the test's.
        leaks: ``refuse`` or ``allow``.

    Returns:
        What the result must say: nothing, or how many images it is.

    Raises:
        DataError: if there are such images, unless they are allowed.
    """
    found = leaked_images(source)
    if not found:
        return ()
    told = f"{len(found)} of {len(source.ids('val'))} images of the test's list are in the training's list, too"
    if leaks != "allow":
        raise DataError(
            f"{told} (first {found[0]}): a score on images that were trained on says nothing about new ones. Remove "
            "them from data.train_list, give another data.val_list, or add leaks=allow; the result notes it then."
        )
    return (f"leaks=allow: {told}",)
