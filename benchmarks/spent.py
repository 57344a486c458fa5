"""Where the seconds of a test go, part by part; used by ``benchmarks.testing``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from fss.model.segmenter import FewShotSegmenter

HEAD = "head, by episode"
PARTS = ("data", "stages 0 to 3", "stage 4", "head, by image", HEAD, "scores and the rest")


class Spent:
    """Seconds by part.

    Attributes:
        seconds: part -> seconds so far.

    Args:
        clock: says the time; on a GPU it must wait for the device.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.seconds: dict[str, float] = defaultdict(float)

    def watch(self, model: FewShotSegmenter) -> None:
        """Measure the parts of a model from now on.

        Args:
            model: with a backbone of plain blocks; left changed.
        """
        for index in range(5):
            for block in model.backbone.stage(index).children():
                self._wrap(block, "forward", "stage 4" if index == 4 else "stages 0 to 3")
        for method in ("of_query", "of_support"):
            self._wrap(model.head, method, "head, by image")
        for method in ("forward_encoded", "forward"):
            self._wrap(model.head, method, HEAD)

    def loading(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Hand batches on and measure the time until they come.

        Args:
            batches: of a data loader.

        Yields:
            The batches.
        """
        one, there = iter(batches), True
        while there:
            begun = self.clock()
            batch = next(one, None)
            self.seconds["data"] += self.clock() - begun
            there = batch is not None
            if there:
                yield batch

    def shares(self, total: float, count: int) -> dict[str, float]:
        """Return the seconds per episode of every part, what no part accounts for included, and forget them.

        Args:
            total: seconds of everything.
            count: episodes.
        """
        known = dict(self.seconds)
        self.seconds.clear()
        known["scores and the rest"] = total - sum(known.values())
        return {part: known.get(part, 0.0) / count for part in PARTS}

    def _wrap(self, owner: Any, method: str, part: str) -> None:
        plain = getattr(owner, method, None)
        if plain is None:
            return

        def timed(*given: Any, **named: Any) -> Any:
            begun = self.clock()
            result = plain(*given, **named)
            self.seconds[part] += self.clock() - begun
            return result

        setattr(owner, method, timed)
