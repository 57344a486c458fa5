"""Features of test episodes with every picture and every masked support computed once; equal to ``extract``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from fss.methods.feature_cache import FeatureCache, Key, Maps
from fss.methods.features import MASKED_STAGE, run_stage
from fss.nn.prototype import support_mask
from fss.nn.resize import up
from fss.types import Episode, EpisodeFeatures, FeatureSpec, StagedBackbone

PICTURES = 1
"""Pictures that go through the backbone together. With one, its maps do not depend on which others were missing, and so
no bit depends on the limit, the batch size or the number of processes; on a CPU more are not faster."""

Support = tuple[str, str]
"""Picture and class."""
Input = Callable[[], Tensor]
_T = TypeVar("_T")


def memorable(model: nn.Module, episode: Episode) -> bool:
    """Tell whether the features of a picture depend on nothing but the picture, and whether it has a name.

    Args:
        model: backbone and whatever else is to be remembered.
        episode: the batch.

    Returns:
        False while gradients are recorded, any module is in training mode, or pictures have no ids.
    """
    shots = episode.support_images.shape[1]
    named = len(episode.query_ids) == len(episode.support_ids) == len(episode)
    named = named and all(len(ids) == shots for ids in episode.support_ids)
    return named and not torch.is_grad_enabled() and not any(m.training for m in model.modules())


class Recall:
    """Remembers feature maps over the episodes of one pass; weights and transforms must not change meanwhile.

    What is remembered follows from the head's declaration: maps of whole pictures serve queries and supports alike,
    maps behind a mask serve every support of this picture and class.

    Attributes:
        cache: the maps.
    """

    def __init__(self, limit: int) -> None:
        """Start with nothing.

        Args:
            limit: bytes that may be remembered; what one batch of episodes needs is held besides.
        """
        self.cache = FeatureCache(limit)

    def features(
        self, backbone: StagedBackbone, spec: FeatureSpec, episode: Episode, extras: Mapping[str, Tensor]
    ) -> EpisodeFeatures:
        """Compute or remember the features of a batch of episodes.

        Args:
            backbone: called stage by stage.
            spec: the head's declaration.
            episode: the batch; see :func:`memorable`.
            extras: further tensors, handed on.

        Returns:
            The declared stages and taps of query and supports.
        """
        batch = _Batch(episode)
        last = max((*spec.stages, *spec.taps))
        late = spec.support_view == "masked_before_stage4" and last >= MASKED_STAGE
        hidden = spec.support_view == "masked_image"
        run = _Run(backbone, spec, {MASKED_STAGE - 1} if late else set())
        names = batch.queries if hidden else [*batch.queries, *(n for n, _ in batch.supports)]
        inputs: dict[Key, Input] = {("whole", n): batch.picture(n) for n in names}
        whole = self._obtain(run, inputs, range(MASKED_STAGE if late else last + 1))
        query = {n: whole["whole", n] for n in batch.queries}
        if hidden:
            inputs = {("masked", *s): batch.masked(s, batch.picture(s[0])) for s in batch.supports}
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

    def of_queries(self, episode: Episode, compute: Callable[[Tensor, list[int]], Tensor]) -> Tensor:
        """Remember something else of every query: a base learner's logits.

        Args:
            episode: the batch.
            compute: maps pictures (N, 3, H, W), and their places in the batch, to (N, ...).

        Returns:
            What was computed for each query, (B, ...).
        """
        places = {n: i for i, n in enumerate(episode.query_ids)}
        found = {n: self.cache.get(("extra", n)) for n in places}
        missing = [n for n, maps in found.items() if maps is None]
        for group in _groups(missing):
            rows = [places[n] for n in group]
            for n, value in zip(group, compute(episode.query[rows], rows), strict=True):
                found[n] = made = Maps({0: value.clone()})
                self.cache.put(("extra", n), made)
        return torch.stack([maps.stages[0] for n in episode.query_ids if (maps := found[n]) is not None])

    def _obtain(self, run: _Run, inputs: Mapping[Key, Input], stages: range) -> dict[Key, Maps]:
        """Look maps up and compute those that are missing, several pictures at a time."""
        found = {key: maps for key in inputs if (maps := self.cache.get(key)) is not None}
        for group in _groups([key for key in inputs if key not in found]):
            for key, maps in zip(group, run(torch.stack([inputs[k]() for k in group]), stages), strict=True):
                found[key] = maps
                self.cache.put(key, maps)
        return found


class _Run:
    """Runs some stages and keeps what the head declared."""

    def __init__(self, backbone: StagedBackbone, spec: FeatureSpec, further: set[int]) -> None:
        self.backbone, self.spec = backbone, spec
        self.kept = further.union(spec.stages)

    def __call__(self, maps: Tensor, stages: range) -> list[Maps]:
        """Return what each picture of (N, C, h, w) leaves; each owns its memory."""
        left: dict[int, Tensor] = {}
        taps: dict[int, list[Tensor]] = {}
        for index in stages:
            (maps,), blocks = run_stage(self.backbone.stage(index), [maps], True, index in self.spec.taps)
            if index in self.kept:
                left[index] = maps
            if index in self.spec.taps:
                taps[index] = [block[0] for block in blocks]
        return [
            Maps({i: m[n].clone() for i, m in left.items()}, {i: [m[n].clone() for m in b] for i, b in taps.items()})
            for n in range(len(maps))
        ]


class _Batch:
    """Names what a batch of episodes holds; every picture and mask once."""

    def __init__(self, episode: Episode) -> None:
        self.episode = episode
        classes = [str(c) for c in episode.class_id.tolist()]
        # Ids are in sampling order, pictures are stacked last sampled first.
        self.slots = [[(n, c) for n in reversed(ids)] for ids, c in zip(episode.support_ids, classes, strict=True)]
        self.queries = list(dict.fromkeys(episode.query_ids))
        self.places = {s: (b, k) for b, row in enumerate(self.slots) for k, s in enumerate(row)}
        self.supports: list[Support] = list(self.places)

    def picture(self, name: str) -> Input:
        """Return what gives a picture (3, H, W)."""
        if name in self.queries:
            return lambda: self.episode.query[self.episode.query_ids.index(name)]
        place = next(p for (n, _), p in self.places.items() if n == name)
        return lambda: self.episode.support_images[place]

    def masked(self, support: Support, maps: Input) -> Input:
        """Return what gives maps (C, h, w) of a support, multiplied by its mask."""

        def product() -> Tensor:
            x = maps()
            mask = support_mask(self.episode.support_labels[self.places[support]], self.episode.query.dtype)
            return x * up(mask[None], (x.shape[-2], x.shape[-1]))[0]

        return product

    def assembled(
        self,
        spec: FeatureSpec,
        query: Mapping[str, Maps],
        support: Mapping[Support, Maps],
        extras: Mapping[str, Tensor],
    ) -> EpisodeFeatures:
        """Stack the maps of all episodes."""
        rows = [query[n] for n in self.episode.query_ids]
        slots = [[support[s] for s in row] for row in self.slots]
        blocks = {i: range(len(rows[0].taps[i])) for i in spec.taps}
        return EpisodeFeatures(
            query={i: torch.stack([m.stages[i] for m in rows]) for i in spec.stages},
            support={i: _stacked([[m.stages[i] for m in row] for row in slots]) for i in spec.stages},
            support_labels=self.episode.support_labels,
            query_taps={i: [torch.stack([m.taps[i][b] for m in rows]) for b in blocks[i]] for i in spec.taps},
            support_taps={
                i: [_stacked([[m.taps[i][b] for m in row] for row in slots]) for b in blocks[i]] for i in spec.taps
            },
            extras=dict(extras),
        )


def _stage(maps: Maps, index: int) -> Input:
    return lambda: maps.stages[index]


def _stacked(rows: Iterable[Sequence[Tensor]]) -> Tensor:
    """Return B rows of K maps as (B, K, C, h, w)."""
    return torch.stack([torch.stack(list(row)) for row in rows])


def _groups(items: list[_T]) -> list[list[_T]]:
    return [items[i : i + PICTURES] for i in range(0, len(items), PICTURES)]
