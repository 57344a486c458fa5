"""Features of test episodes, computed once per image and per masked support; equal to ``extract``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from fss.methods.separable import Encoding, SeparableHead
from fss.model.batch import Batch, Input, Run
from fss.model.encoding_cache import Compute, EncodingCache
from fss.model.features import MASKED_STAGE, masks_late
from fss.model.map_cache import Key, MapCache, Maps
from fss.types import Episode, EpisodeFeatures, FeatureSpec, ImageBackbone

IMAGES_AT_ONCE = 1
"""Images per backbone pass. With one, its maps do not depend on which others were cached, so no bit depends on the
limit, the batch size or the number of processes; on a CPU more are not faster."""

_T = TypeVar("_T")


def cacheable(model: nn.Module, episode: Episode) -> bool:
    """Tell whether features depend only on the image, and whether images have ids.

    Args:
        model: the backbone and all other modules that run on the images.
        episode: the batch.

    Returns:
        False while gradients are recorded, any module is in training mode, or images have no ids.
    """
    shots = episode.support_images.shape[1]
    named = len(episode.query_ids) == len(episode.support_ids) == len(episode)
    named = named and all(len(ids) == shots for ids in episode.support_ids)
    return named and not torch.is_grad_enabled() and not any(m.training for m in model.modules())


class FeatureCache:
    """Caches feature maps over the episodes of one pass; weights and transforms must not change meanwhile.

    The head's declaration determines what is cached: maps of unmasked images serve both queries and supports, masked
    maps serve every support with this image and class.

    Attributes:
        cache: the maps.
    """

    def __init__(self, limit: int, backbone: ImageBackbone) -> None:
        """Start with an empty cache.

        Args:
            limit: largest size of the cache in bytes; the maps of the current batch are held in addition.
            backbone: runs on the images.
        """
        self.backbone = backbone
        self.cache = MapCache(limit)
        self._encoder: EncodingCache | None = None
        self._shared: int | None = None

    def features(self, spec: FeatureSpec, episode: Episode, extras: Mapping[str, Tensor]) -> EpisodeFeatures:
        """Look up or compute the features of a batch of episodes.

        Args:
            spec: the head's declaration.
            episode: the batch; see :func:`cacheable`.
            extras: other tensors, passed on.

        Returns:
            The declared stages and taps of query and supports.
        """
        batch = Batch(episode)
        last = max((*spec.stages, *spec.taps))
        late = masks_late(spec, last)
        hidden = spec.support_view == "masked_image"
        run = Run(self.backbone, spec, {MASKED_STAGE - 1} if late else set())
        names = batch.queries if hidden else [*batch.queries, *(n for n, _ in batch.supports)]
        inputs: dict[Key, Input] = {("whole", n): batch.image(n) for n in names}
        whole = self._obtain(run, inputs, range(MASKED_STAGE if late else last + 1))
        query = {n: whole["whole", n] for n in batch.queries}
        if hidden:
            inputs = {("masked", *s): batch.masked(s, batch.image(s[0])) for s in batch.supports}
            masked = self._obtain(run, inputs, range(last + 1))
            support = {s: masked["masked", *s] for s in batch.supports}
        else:
            support = {s: whole["whole", s[0]] for s in batch.supports}
        if late:
            rest = range(MASKED_STAGE, last + 1)
            inputs = {("query", n): _stage(maps, MASKED_STAGE - 1) for n, maps in query.items()}
            found = self._obtain(run, inputs, rest)
            query = {n: maps.joined(found["query", n]) for n, maps in query.items()}
            inputs = {("masked", *s): batch.masked(s, _stage(m, MASKED_STAGE - 1)) for s, m in support.items()}
            found = self._obtain(run, inputs, rest)
            support = {s: maps.joined(found["masked", *s]) for s, maps in support.items()}
        return batch.assembled(spec, query, support, extras)

    def encodings(
        self, head: SeparableHead, episode: Episode, compute: Compute | None
    ) -> tuple[list[Encoding], list[list[Encoding]], Tensor | None]:
        """Look up or compute the encodings of a batch of episodes.

        Args:
            head: computes the encodings.
            episode: the batch; see :func:`cacheable`.
            compute: computes another value of every query, cached likewise; or None.

        Returns:
            As from :class:`fss.model.encoding_cache.EncodingCache`.
        """
        if self._encoder is None:
            self._encoder = EncodingCache(self.cache, self.backbone, head)
        return self._encoder(episode, compute)

    def once(self, compute: Callable[[], int]) -> int:
        """Return how many stages two backbones share, which no pass changes.

        Args:
            compute: counts them, the first time.
        """
        if self._shared is None:
            self._shared = compute()
        return self._shared

    def others(self, keys: Sequence[Key], compute: Callable[[int], Mapping[str, Tensor]]) -> list[Mapping[str, Tensor]]:
        """Look up or compute other values, such as those of a base learner, one image at a time.

        Args:
            keys: one for each value that is wanted; equal ones are computed once.
            compute: position in ``keys`` -> values by name, without an episode dimension.

        Returns:
            The values of every key.
        """
        found: dict[Key, Maps] = {}
        for position, key in enumerate(keys):
            maps = found.get(key) or self.cache.get(key)
            if maps is None:
                maps = Maps({}, encoding={name: value.clone() for name, value in compute(position).items()})
                self.cache.put(key, maps)
            found[key] = maps
        return [found[key].encoding for key in keys]

    def _obtain(self, run: Run, inputs: Mapping[Key, Input], stages: range) -> dict[Key, Maps]:
        """Look up maps and compute the missing ones, ``IMAGES_AT_ONCE`` at a time."""
        found = {key: maps for key in inputs if (maps := self.cache.get(key)) is not None}
        for group in _groups([key for key in inputs if key not in found]):
            for key, maps in zip(group, run(torch.stack([inputs[k]() for k in group]), stages), strict=True):
                found[key] = maps
                self.cache.put(key, maps)
        return found


def _stage(maps: Maps, index: int) -> Input:
    return lambda: maps.stages[index]


def _groups(items: list[_T]) -> list[list[_T]]:
    return [items[i : i + IMAGES_AT_ONCE] for i in range(0, len(items), IMAGES_AT_ONCE)]
