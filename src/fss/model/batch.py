"""The distinct images and masks of a batch of episodes, and running backbone stages on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from fss.model.features import run_stages
from fss.model.map_cache import Maps
from fss.nn.prototype import support_mask
from fss.nn.resize import up
from fss.types import Episode, EpisodeFeatures, FeatureSpec, ImageBackbone

Support = tuple[str, str]
"""Ids of image and class."""
Input = Callable[[], Tensor]


class Run:
    """Runs some stages and keeps the outputs a head declared.

    Args:
        backbone: runs on the images.
        spec: the head's declaration.
        others: other stages to keep.
    """

    def __init__(self, backbone: ImageBackbone, spec: FeatureSpec, others: set[int]) -> None:
        self.backbone, self.spec = backbone, spec
        self.kept = others.union(spec.stages)

    def __call__(self, maps: Tensor, stages: range) -> list[Maps]:
        """Run consecutive stages, see :func:`fss.model.features.run_stages`.

        Args:
            maps: images, or the output of the stage before the first one, (N, C, h, w).
            stages: the stages to run.

        Returns:
            The kept maps of each image; each owns its memory.
        """
        outputs, taps = run_stages(self.backbone, [maps], stages, self.kept, self.spec.taps)
        return [
            Maps(
                {i: slot[n].clone() for i, (slot,) in outputs.items()},
                {i: [slot[n].clone() for (slot,) in blocks] for i, blocks in taps.items()},
            )
            for n in range(len(maps))
        ]


class Batch:
    """Lists the distinct images and masks of a batch of episodes.

    Attributes:
        slots: the supports of every episode, in stacking order.
        queries: ids of the distinct queries.
        supports: distinct supports.

    Args:
        episode: the batch; see :func:`fss.model.feature_cache.cacheable`.
    """

    def __init__(self, episode: Episode) -> None:
        self.episode = episode
        classes = [str(c) for c in episode.class_id.tolist()]
        # Ids are in sampling order, images are stacked last sampled first.
        self.slots = [[(n, c) for n in reversed(ids)] for ids, c in zip(episode.support_ids, classes, strict=True)]
        self.queries = list(dict.fromkeys(episode.query_ids))
        self.positions = {s: (b, k) for b, row in enumerate(self.slots) for k, s in enumerate(row)}
        self.supports: list[Support] = list(self.positions)

    def image(self, name: str) -> Input:
        """Return a function that returns an image (3, H, W).

        Args:
            name: id of the image.
        """
        if name in self.queries:
            return lambda: self.episode.query[self.episode.query_ids.index(name)]
        position = next(p for (n, _), p in self.positions.items() if n == name)
        return lambda: self.episode.support_images[position]

    def labels(self, support: Support) -> Tensor:
        """Return the labels of a support, (H, W).

        Args:
            support: ids of image and class.
        """
        return self.episode.support_labels[self.positions[support]]

    def masked(self, support: Support, maps: Input) -> Input:
        """Return a function that returns maps (C, h, w) of a support, multiplied by its mask.

        Args:
            support: ids of image and class.
            maps: returns the maps of the image.
        """

        def product() -> Tensor:
            x = maps()
            mask = support_mask(self.labels(support), self.episode.query.dtype)
            return x * up(mask[None], (x.shape[-2], x.shape[-1]))[0]

        return product

    def assembled(
        self,
        spec: FeatureSpec,
        query: Mapping[str, Maps],
        support: Mapping[Support, Maps],
        extras: Mapping[str, Tensor],
    ) -> EpisodeFeatures:
        """Stack the maps of all episodes.

        Args:
            spec: the head's declaration.
            query: maps of every query.
            support: maps of every support.
            extras: other tensors, passed on.

        Returns:
            The input of a head.
        """
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


def _stacked(rows: Iterable[Sequence[Tensor]]) -> Tensor:
    """Return B rows of K maps as (B, K, C, h, w)."""
    return torch.stack([torch.stack(list(row)) for row in rows])
