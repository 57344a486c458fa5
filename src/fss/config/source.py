"""The reader of a data set, from its configuration group; imports no torch."""

from __future__ import annotations

from fss.data.sources.base import ImageFiles, SegmentationSource
from fss.instantiate import Node, make


def build_source(node: Node) -> SegmentationSource:
    """Build the reader of a data set; imports no torch.

    Args:
        node: the data group.

    Returns:
        The reader.
    """
    source = make("data", node["source"])
    assert isinstance(source, SegmentationSource)
    if isinstance(source, ImageFiles):
        source.keep_images(node.get("image_cache_mb", 0) << 20)  # checkpoints from before the option lack it
    return source
