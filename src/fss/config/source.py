"""The reader of a data set, from its configuration group; imports no torch."""

from __future__ import annotations

from typing import Any

from fss.data.sources.base import ImageFiles, SegmentationSource
from fss.errors import FssError
from fss.instantiate import Node, imported, make

_METHODS = ("fold", "check", "prepare", "ids", "facts", "image_path", "mask_path", "image", "mask")
"""What every reader has, see :class:`fss.data.sources.base.SegmentationSource`."""


def build_source(node: Node) -> SegmentationSource:
    """Build the reader of a data set; imports no torch.

    Args:
        node: the data group.

    Returns:
        The reader.

    Raises:
        FssError: if the class is unknown, is no reader, or refuses its arguments.
    """
    found = imported("data", node["source"])
    missing = [name for name in _METHODS if not callable(getattr(found, name, None))]
    if missing or not isinstance(found, type):
        raise FssError(
            f"data.source names {node['source'].get('_target_')}, which is no reader of a data set: it lacks "
            f"{', '.join(missing) or 'a class'}. Name a class that follows fss.data.sources.base.SegmentationSource."
        )
    source: Any = make("data", node["source"], found)
    if isinstance(source, ImageFiles):
        source.keep_images(node.get("image_cache_mb", 0) << 20)
    reader: SegmentationSource = source
    return reader
