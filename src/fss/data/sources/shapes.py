"""Reader of the synthetic shapes data set."""

from __future__ import annotations

from fss.data.sources.voc import VocSource


class ShapesSource(VocSource):
    """The synthetic shapes data set, in the VOC layout; arguments as :class:`VocSource`."""

    name = "shapes"
    how_to_get = "Draw the data set with: fss data shapes --root {root}"
