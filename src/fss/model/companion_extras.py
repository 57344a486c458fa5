"""What a head asks of the frozen base learner, for query and supports, starting at stages that both backbones share."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fss.methods.base_learner import LAST_STAGE
from fss.model.companion import LOGITS, SUPPORT, BaseBranch, asked_of
from fss.model.feature_cache import FeatureCache
from fss.model.features import MASKED_STAGE
from fss.nn.prototype import support_mask
from fss.types import Episode, EpisodeFeatures, FeatureSpec


class CompanionExtras:
    """Computes the outputs of a base learner that a head declared.

    Supports are seen as the head's view of them says: with ``masked_image`` their images are masked. With
    ``masked_before_stage4`` they are not, as the base learner knows no mask.

    Args:
        companion: the base learner.
        spec: the head's declaration.
        shared: number of leading stages that its backbone shares with the model's.
    """

    def __init__(self, companion: BaseBranch, spec: FeatureSpec, shared: int) -> None:
        self.companion, self.spec, self.shared = companion, spec, shared
        self.of_query, self.of_supports = asked_of(spec, False), asked_of(spec, True)

    def direct(
        self, features: EpisodeFeatures, query: Tensor, support_images: Tensor, support_masks: Tensor
    ) -> dict[str, Tensor]:
        """Compute them for a batch.

        Args:
            features: of the model's own backbone.
            query: (B, 3, H, W).
            support_images: (B, K, 3, H, W).
            support_masks: (B, K, H, W).

        Returns:
            Extra -> (B, ...) or (B, K, ...).
        """
        found: dict[str, Tensor] = {}
        if self.of_query:
            last = self._last(features.query, late=False)
            maps = query if last is None else features.query[last]
            found |= self.companion.outputs(self.of_query, maps, 0 if last is None else last + 1)
        if self.of_supports:
            maps, first = self._supports(features, support_images, support_masks)
            shape = maps.shape[:2]
            outputs = self.companion.outputs(self.of_supports, maps.flatten(0, 1), first)
            found |= {SUPPORT + name: value.reshape(*shape, *value.shape[1:]) for name, value in outputs.items()}
        return found

    def cached(self, features: EpisodeFeatures, episode: Episode, cache: FeatureCache) -> dict[str, Tensor]:
        """Look them up, or compute them image by image.

        Args:
            features: of the model's own backbone.
            episode: the batch.
            cache: of test episodes.

        Returns:
            As :meth:`direct`.
        """
        found: dict[str, Tensor] = {}
        if self.of_query:
            last = self._last(features.query, late=False)
            maps = episode.query if last is None else features.query[last]
            first = 0 if last is None else last + 1

            def of_query(row: int) -> Mapping[str, Tensor]:
                return _first(self.companion.outputs(self.of_query, maps[row : row + 1], first))

            rows = cache.others([("extra", name) for name in episode.query_ids], of_query)
            found |= {name: torch.stack([row[name] for row in rows]) for name in self.of_query}
        if self.of_supports:
            others, start = self._supports(features, episode.support_images, episode.support_labels)
            batch, shots = others.shape[:2]
            hidden = self.spec.support_view == "masked_image"

            def of_support(place: int) -> Mapping[str, Tensor]:
                return _first(self.companion.outputs(self.of_supports, others.flatten(0, 1)[place : place + 1], start))

            keys = [
                ("support_extra", name, str(int(c)) if hidden else "")
                for names, c in zip(episode.support_ids, episode.class_id, strict=True)
                for name in reversed(names)  # images are stacked last sampled first
            ]
            values = cache.others(keys, of_support)
            stacked = {name: torch.stack([v[name] for v in values]) for name in self.of_supports}
            found |= {SUPPORT + name: value.reshape(batch, shots, *value.shape[1:]) for name, value in stacked.items()}
        return found

    def of_image(self, stages: Mapping[int, Tensor], image: Tensor) -> Tensor:
        """Return the logits of a query image of which some stages are kept, (1, classes, h, w).

        Args:
            stages: stage -> (1, C, h, w).
            image: (1, 3, H, W).
        """
        last = self._last(stages, late=False)
        maps, first = (image, 0) if last is None else (stages[last], last + 1)
        return self.companion.outputs({LOGITS}, maps, first)[LOGITS]

    def _supports(self, features: EpisodeFeatures, support_images: Tensor, support_masks: Tensor) -> tuple[Tensor, int]:
        """Return what the base learner is given of the supports, (B, K, C, h, w), and the stage that it enters."""
        last = self._last(features.support, late=self.spec.support_view == "masked_before_stage4")
        if last is not None:
            return features.support[last], last + 1
        if self.spec.support_view == "masked_image":
            support_images = support_images * support_mask(support_masks, support_images.dtype)
        return support_images, 0

    def _last(self, stages: Mapping[int, Tensor], late: bool) -> int | None:
        """Return the last kept stage that both backbones share, before the masking if there is one between stages."""
        end = min(self.shared, MASKED_STAGE) if late else self.shared
        last = max((i for i in stages if i < end), default=None)
        if last is not None and last < LAST_STAGE and not self.companion.backbone.stepwise:
            return None  # its stages run in one call
        return last


def _first(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value[0] for name, value in values.items()}
