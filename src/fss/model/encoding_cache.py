"""Encodings of test episodes, computed once per image and per masked support; see ``fss.methods.separable``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from fss.methods.separable import Encoding, SeparableHead
from fss.model.batch import Batch, Run, Support
from fss.model.features import MASKED_STAGE, masks_late
from fss.model.local_stage import LocalStage
from fss.model.map_cache import Key, MapCache, Maps
from fss.nn.prototype import support_mask
from fss.nn.resize import up
from fss.types import Episode, ImageBackbone

Compute = Callable[[Mapping[int, Tensor], Tensor], Tensor]
"""Kept stages of a query, each (1, C, h, w), and its image (1, 3, H, W) -> another value of it, (1, ...)."""


class EncodingCache:
    """Computes and caches encodings, image by image.

    An image's maps up to the masking are cached because it may occur again, as query or as support of another class;
    once they are no longer used, the cache drops them as the oldest entries.
    """

    def __init__(self, cache: MapCache, backbone: ImageBackbone, head: SeparableHead) -> None:
        """Store the parts.

        Args:
            cache: stores maps and encodings.
            backbone: runs on the images.
            head: computes the encodings.
        """
        self.cache, self.backbone, self.head = cache, backbone, head
        spec = head.spec
        self.last = max(spec.stages)
        self.late = masks_late(spec, self.last)
        self.hidden = spec.support_view == "masked_image"
        self.run = Run(backbone, spec, {MASKED_STAGE - 1} if self.late else set())
        self._masked_stage: LocalStage | None = None
        self._latest: tuple[str, Maps] | None = None

    def __call__(
        self, episode: Episode, compute: Compute | None = None
    ) -> tuple[list[Encoding], list[list[Encoding]], Tensor | None]:
        """Return the encodings of a batch of episodes.

        Args:
            episode: the batch; see :func:`fss.model.feature_cache.cacheable`.
            compute: computes another value of every query, cached likewise; or None.

        Returns:
            The encodings of queries and of supports, and the other values (B, ...), or None.
        """
        batch = Batch(episode)
        queries, extra = {}, {}
        for name in batch.queries:
            queries[name] = self._query(batch, name)
            if compute is not None:
                extra[name] = self._extra(batch, name, compute)
        supports = {s: self._support(batch, s) for s in batch.supports}
        stacked = torch.stack([extra[n] for n in episode.query_ids]) if extra else None
        return [queries[n] for n in episode.query_ids], [[supports[s] for s in row] for row in batch.slots], stacked

    def _query(self, batch: Batch, name: str) -> Encoding:
        def make() -> Encoding:
            maps = self._whole(batch, name)
            if self.late:
                maps = maps.joined(self._run(maps.stages[MASKED_STAGE - 1], range(MASKED_STAGE, self.last + 1)))
            return self.head.encode_query(self._declared(maps))

        return self._look_up(("query", name), make)

    def _support(self, batch: Batch, support: Support) -> Encoding:
        def make() -> Encoding:
            maps = self._masked(batch, support)
            return self.head.encode_support(self._declared(maps), batch.labels(support)[None])

        return self._look_up(("masked", *support), make)

    def _masked(self, batch: Batch, support: Support) -> Maps:
        """Return the maps of a support in the support view that the head declared."""
        if self.hidden:
            return self._run(batch.masked(support, batch.image(support[0]))(), range(self.last + 1))
        maps = self._whole(batch, support[0])
        if not self.late:
            return maps
        before = maps.stages[MASKED_STAGE - 1]
        masked = batch.masked(support, lambda: before)()[None]
        if self._masked_stage is None:
            self._masked_stage = LocalStage(self.backbone.stage(MASKED_STAGE), masked)
        mask = up(support_mask(batch.labels(support), before.dtype)[None], (before.shape[-2], before.shape[-1]))
        return maps.joined(Maps({MASKED_STAGE: self._masked_stage(masked, mask[0, 0])[0]}))

    def _whole(self, batch: Batch, name: str) -> Maps:
        """Return the maps of an unmasked image; the latest ones are kept regardless of the limit."""
        if self._latest is not None and self._latest[0] == name:
            return self._latest[1]
        key = ("whole", name)
        maps = self.cache.get(key)
        if maps is None:
            maps = self._run(batch.image(name)(), range(MASKED_STAGE if self.late else self.last + 1))
            self.cache.put(key, maps)
        self._latest = (name, maps)
        return maps

    def _extra(self, batch: Batch, name: str, compute: Compute) -> Tensor:
        def make() -> Encoding:
            stages = {i: m[None] for i, m in self._whole(batch, name).stages.items()}
            return {"extra": compute(stages, batch.image(name)()[None])[0].clone()}

        return self._look_up(("extra", name), make)["extra"]

    def _look_up(self, key: Key, make: Callable[[], Encoding]) -> Encoding:
        found = self.cache.get(key)
        if found is None:
            found = Maps({}, encoding=make())
            self.cache.put(key, found)
        return found.encoding

    def _run(self, maps: Tensor, stages: range) -> Maps:
        """Run stages on one image (C, h, w), so that no bit depends on which other images were cached."""
        return self.run(maps[None], stages)[0]

    def _declared(self, maps: Maps) -> dict[int, Tensor]:
        return {i: maps.stages[i][None] for i in self.head.spec.stages}
