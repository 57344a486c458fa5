"""The few-shot model: a backbone, a head, and optionally a companion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn

from fss.errors import FssError
from fss.methods.base import FewShotHead
from fss.methods.separable import EncodedEpisode, SeparableHead, encodes
from fss.model.companion import LOGITS, BaseBranch, SharedPrefix
from fss.model.companion_extras import CompanionExtras
from fss.model.feature_cache import FeatureCache, cacheable
from fss.model.features import extract
from fss.model.head_call import call_head, generators
from fss.nn.prototype import support_mask
from fss.nn.resize import up
from fss.types import Episode, EpisodeFeatures, HeadOutput, ImageBackbone, InputSpec

_OPTIONAL = frozenset({"previous_prediction", "base_index", "query_padding"})
"""Extras that exist only in later refinement rounds, in training, or where images are padded."""


class FewShotSegmenter(nn.Module):
    """Segments the class of the supports in a query image.

    Attributes:
        backbone: a staged backbone, possibly with a fine-tuning strategy injected.
        head: any few-shot head.
        companion: a frozen base learner with its own backbone, or None.
    """

    def __init__(self, backbone: nn.Module, head: FewShotHead, companion: BaseBranch | None = None) -> None:
        """Combine the parts.

        Args:
            backbone: must follow :class:`fss.types.ImageBackbone`.
            head: built for the backbone's channels.
            companion: for heads that ask for outputs of a base learner.

        Raises:
            TypeError: if the backbone does not follow the protocol.
            FssError: if the backbone cannot serve the head's view of the supports, or the companion's expects other
                images.
        """
        super().__init__()
        if not isinstance(backbone, ImageBackbone):
            raise TypeError(f"{type(backbone).__name__} is no ImageBackbone: derive it from StagedModule")
        _check_view(backbone, head)
        _check_same_images(backbone, companion)
        self.backbone = backbone
        self.head = head
        self.companion = companion
        self._shared = SharedPrefix()
        self._cache: FeatureCache | None = None

    @property
    def input(self) -> InputSpec:
        """Normalisation and sides of the images, which are the backbone's."""
        return self.backbone.input

    def cache_features(self, limit: int | None, backbone: ImageBackbone | None = None) -> None:
        """Cache feature maps by image id from now on; for test episodes, whose images never change.

        Weights must not change until the next call: call it at the start of every pass, and with None at its end.
        Where maps depend on more than the image (gradients, a module in training mode), nothing is cached.

        Args:
            limit: bytes of maps on the model's device; None clears and disables the cache.
            backbone: runs instead of the model's, with equal outputs; None: the model's own.
        """
        self._cache = None if limit is None else FeatureCache(limit, backbone or self.backbone)

    @property
    def caches(self) -> bool:
        """Whether feature maps are cached at the moment."""
        return self._cache is not None

    @contextmanager
    def uncached(self) -> Iterator[None]:
        """Disable the feature cache within the context, and restore its content afterwards."""
        cache, self._cache = self._cache, None
        try:
            yield
        finally:
            self._cache = cache

    def forward(
        self, query: Tensor, support_images: Tensor, support_masks: Tensor, query_padding: Tensor | None = None
    ) -> Tensor:
        """Segment queries.

        Args:
            query: normalised RGB, (B, 3, H, W).
            support_images: normalised RGB, (B, K, 3, H, W).
            support_masks: 1 on the class, 0 elsewhere, 255 counts as background, (B, K, H, W).
            query_padding: above zero where a query is padded, (B, H, W), for heads that read it; None: nowhere.

        Returns:
            logits: scores of background and foreground, (B, 2, H, W).

        Raises:
            FssError: if the shapes do not fit together, or, in evaluation mode, a mask vanishes at
                the resolution of the feature maps.
        """
        _check(query, support_images, support_masks)
        extras = {} if query_padding is None else {"query_padding": query_padding}
        features = self._features(query, support_images, support_masks, extras)
        if not self.training:
            _check_coverage(features)
        features.generators = generators(self.head, (), len(query))
        output = call_head(self.head, features, _size(query))
        return up(output.logits, _size(query), self.head.align_corners)

    def probability(self, scores: Tensor, shots: int) -> Tensor:
        """Convert scores to probabilities of the foreground.

        Args:
            scores: background and foreground as :meth:`forward` returns them, or resized, (B, 2, H, W).
            shots: number of supports K; if K > 1, merged scores may be of another kind.

        Returns:
            Values in [0, 1], above 0.5 exactly where the foreground has the larger score, (B, H, W).
        """
        head = self.head
        if (head.merged_scores if head.spec.shot_rule == "each" and shots > 1 else head.scores) == "logits":
            return scores.softmax(dim=1)[:, 1]
        shares = scores - scores.amin(dim=1, keepdim=True).clamp(max=0)  # learned weights can make them negative
        total = shares.sum(dim=1)
        return torch.where(total > 0, shares[:, 1] / total.where(total > 0, 1), 0.5)

    def run_episode(self, episode: Episode) -> HeadOutput:
        """Run a batch of episodes; the head sees the query label only if it needs it and is training.

        Args:
            episode: the batch.

        Returns:
            The head's output at its own resolution.
        """
        label = episode.query_label if self.head.spec.needs_query_label and self.training else None
        extras = {"class_index": episode.class_index, **episode.extras}
        cache = self._cache
        if cache is not None and cacheable(self, episode):
            if encodes(self.head) and self.head.spec.extras & BaseBranch.provides <= {LOGITS}:
                return self._run_encoded(cache, self.head, episode, extras)
            features = self._cached_features(cache, episode, extras)
            features.generators = generators(self.head, episode.seeds, len(episode))
            return call_head(self.head, features, _size(episode.query))
        return self.head_output(
            episode.query,
            episode.support_images,
            episode.support_labels,
            query_label=label,
            extras=extras,
            seeds=episode.seeds,
        )

    def head_output(
        self,
        query: Tensor,
        support_images: Tensor,
        support_masks: Tensor,
        query_label: Tensor | None = None,
        extras: dict[str, Tensor] | None = None,
        seeds: Sequence[int] = (),
    ) -> HeadOutput:
        """Extract features and call the head according to its shot rule.

        Args:
            query: (B, 3, H, W).
            support_images: (B, K, 3, H, W).
            support_masks: (B, K, H, W).
            query_label: (B, H, W), or None.
            extras: other tensors by name.
            seeds: of the random numbers of each episode; none: 0 for all of them.

        Returns:
            The head's output.

        Raises:
            FssError: if an extra that the head declared is missing.
        """
        features = self._features(query, support_images, support_masks, extras or {})
        features.query_label = query_label
        features.generators = generators(self.head, seeds, len(query))
        return call_head(self.head, features, _size(query))

    def _features(
        self, query: Tensor, support_images: Tensor, support_masks: Tensor, available: dict[str, Tensor]
    ) -> EpisodeFeatures:
        """Extract the features the head needs; stages shared with the companion run once for both."""
        wanted, companion = self._wanted(available), self._asked_companion()
        if companion is None:
            return extract(self.backbone, self.head.spec, query, support_images, support_masks, wanted)
        shared = self._shared(self.backbone, companion.backbone)
        kept = (shared - 1,) if shared else ()
        features = extract(self.backbone, self.head.spec, query, support_images, support_masks, wanted, kept)
        own = CompanionExtras(companion, self.head.spec, shared).direct(features, query, support_images, support_masks)
        features.extras = {**features.extras, **own}
        return features

    def _cached_features(self, cache: FeatureCache, episode: Episode, available: dict[str, Tensor]) -> EpisodeFeatures:
        """Look up the features in the cache; the companion starts after the last shared stage that was kept."""
        features = cache.features(self.head.spec, episode, self._wanted(available))
        extras = self._companion_extras(cache)
        if extras is not None:
            features.extras = {**features.extras, **extras.cached(features, episode, cache)}
        return features

    def _run_encoded(
        self, cache: FeatureCache, head: SeparableHead, episode: Episode, available: dict[str, Tensor]
    ) -> HeadOutput:
        """Score encodings, which are smaller than feature maps and are computed only once."""
        extras, companion = self._wanted(available), self._companion_extras(cache)
        drawn = generators(head, episode.seeds, len(episode))
        compute = None if companion is None else companion.of_image
        queries, supports, base = cache.encodings(head, episode, compute)
        if base is not None:
            extras = {**extras, LOGITS: base}
        return head.forward_encoded(EncodedEpisode(queries, supports, extras, drawn))

    def _asked_companion(self) -> BaseBranch | None:
        """Return the companion if the head asks anything of it."""
        return self.companion if self.head.spec.extras & BaseBranch.provides else None

    def _companion_extras(self, cache: FeatureCache) -> CompanionExtras | None:
        companion = self._asked_companion()
        if companion is None:
            return None
        shared = cache.once(lambda: self._shared(self.backbone, companion.backbone))
        return CompanionExtras(companion, self.head.spec, shared)

    def _wanted(self, available: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the extras that the head declared and the episode provides."""
        spec, companion = self.head.spec, self.companion
        provided = frozenset[str]() if companion is None else companion.provides
        missing = spec.extras - available.keys() - provided - _OPTIONAL
        if missing:
            raise FssError(f"{type(self.head).__name__} needs {sorted(missing)}, which this data does not provide")
        return {k: available[k] for k in spec.extras & available.keys()}


def _size(images: Tensor) -> tuple[int, int]:
    return images.shape[-2], images.shape[-1]


def _check_view(backbone: ImageBackbone, head: FewShotHead) -> None:
    if head.spec.support_view == "masked_before_stage4" and not backbone.stepwise:
        raise FssError(
            f"{type(head).__name__} masks the supports before stage 4 (masked_before_stage4), but the stages of "
            f"{type(backbone).__name__} cannot be run one by one. Mask the support images instead: "
            "method.support_view=masked_image, or choose a backbone of convolutions."
        )


def _check_same_images(backbone: ImageBackbone, companion: BaseBranch | None) -> None:
    """Refuse a base learner whose backbone expects other images: both see the same ones."""
    if companion is not None and companion.backbone.input != backbone.input:
        raise FssError(
            f"The base learner's backbone expects images of {companion.backbone.input}, the model's of "
            f"{backbone.input}: both see the same ones. Give a base learner of this backbone, or leave "
            "method.base_learner.checkpoint out."
        )


def _check(query: Tensor, support_images: Tensor, support_masks: Tensor) -> None:
    given = f"query {tuple(query.shape)}, support {tuple(support_images.shape)}, masks {tuple(support_masks.shape)}"
    if query.dim() != 4 or support_images.dim() != 5 or support_masks.dim() != 4:
        raise FssError(f"expected query (B,3,H,W), support images (B,K,3,H,W), support masks (B,K,H,W); got {given}")
    b, k = support_images.shape[:2]
    if k == 0 or b != query.shape[0] or support_masks.shape != (b, k, *support_images.shape[-2:]):
        raise FssError(f"batch, shots or image sizes differ, or there is no support; got {given}")


def _check_coverage(features: EpisodeFeatures) -> None:
    """Raise if the object of a support vanishes in a stage that the head uses, or in the finest of its taps."""
    masks = support_mask(features.support_labels, torch.float32)
    taps = sorted(chain(*features.support_taps.values()), key=lambda t: t.shape[-1])
    for maps in (*features.support.values(), *taps[-1:]):
        size = (maps.shape[-2], maps.shape[-1])
        for k in range(masks.shape[1]):
            if not (up(masks[:, k], size) > 0).flatten(1).any(dim=1).all():
                raise FssError(
                    f"The object of support {k + 1} covers no point of the feature map of {size[0]} x {size[1]}: it is "
                    "too small, or its mask is empty. Crop the support image and its mask closer to the object."
                )
