"""Run a backbone as a head's feature spec declares: stages, support view and taps."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from fss.errors import FssError
from fss.model.taps import tapping
from fss.nn.prototype import support_mask
from fss.nn.resize import up
from fss.types import EpisodeFeatures, FeatureSpec, ImageBackbone

MASKED_STAGE = 4
"""Stage before which ``masked_before_stage4`` masks the supports."""

Slots = list[Tensor]
"""Maps of the same stage of several image slots, (N, C, h, w) each."""


def extract(
    backbone: ImageBackbone,
    spec: FeatureSpec,
    query: Tensor,
    support_images: Tensor,
    support_labels: Tensor,
    extras: Mapping[str, Tensor] | None = None,
    query_stages: Collection[int] = (),
) -> EpisodeFeatures:
    """Compute the features of a batch of episodes.

    Query and supports run through the backbone together if batch norm is in evaluation mode; with batch statistics each
    image slot is its own batch, as in PFENet's release, unless only the late stages have them, as in PPNet's, where
    query and supports are one batch. Stages before the first trainable layer record no graph,
    because nothing there requires a gradient.

    Args:
        backbone: runs on the images.
        spec: the head's declaration.
        query: (B, 3, H, W).
        support_images: (B, K, 3, H, W).
        support_labels: values 0, 1, 255, (B, K, H, W).
        extras: other tensors, passed on.
        query_stages: other stages, kept for the query only.

    Returns:
        The declared stages and taps of query and supports.
    """
    masks = [support_mask(support_labels[:, k], query.dtype) for k in range(support_labels.shape[1])]
    slots = [query, *support_images.unbind(1)]
    if spec.support_view == "masked_image":
        slots[1:] = [x * m for x, m in zip(slots[1:], masks, strict=True)]
    together = backbone.norm_mode != "train" or not backbone.training
    wanted, last = {*spec.stages, *query_stages}, max((*spec.stages, *spec.taps, *query_stages))
    late = masks_late(spec, last)
    before = range(MASKED_STAGE if late else last + 1)
    stages, taps = run_stages(
        backbone, slots, before, wanted | {MASKED_STAGE - 1} if late else wanted, spec.taps, together
    )
    if late:
        slots = stages[MASKED_STAGE - 1]
        size = (slots[1].shape[-2], slots[1].shape[-1])
        slots = [slots[0], *(x * up(m, size) for x, m in zip(slots[1:], masks, strict=True))]
        more, more_taps = run_stages(backbone, slots, range(MASKED_STAGE, last + 1), wanted, spec.taps, together)
        stages, taps = stages | more, taps | more_taps
    return EpisodeFeatures(
        query={i: p[0] for i, p in stages.items() if i in wanted},
        support={i: torch.stack(stages[i][1:], dim=1) for i in sorted(spec.stages)},
        support_labels=support_labels,
        query_taps={i: [p[0] for p in blocks] for i, blocks in taps.items()},
        support_taps={i: [torch.stack(p[1:], dim=1) for p in blocks] for i, blocks in taps.items()},
        extras=dict(extras or {}),
    )


def masks_late(spec: FeatureSpec, last: int) -> bool:
    """Tell whether supports are masked between two stages.

    Args:
        spec: the head's declaration.
        last: last stage that runs.
    """
    return spec.support_view == "masked_before_stage4" and last >= MASKED_STAGE


def run_stages(
    backbone: ImageBackbone,
    parts: Slots,
    stages: range,
    kept: Collection[int],
    taps: Collection[int] = (),
    together: bool = True,
) -> tuple[dict[int, Slots], dict[int, list[Slots]]]:
    """Run consecutive stages over image slots.

    Args:
        backbone: runs on the images, stage by stage if it is ``stepwise``, else all stages in one call.
        parts: images, or outputs of the stage before the first one, one (N, C, h, w) per slot.
        stages: the stages to run; a backbone that is not ``stepwise`` starts at 0.
        kept: stages whose output is wanted; others are ignored.
        taps: stages whose blocks' maps are wanted; others are ignored.
        together: run all slots as one batch.

    Returns:
        Stage -> one output per slot, and stage -> for every block its map by slot.

    Raises:
        FssError: if a backbone that is not ``stepwise`` is to start in the middle.
    """
    outputs: dict[int, Slots] = {}
    tapped: dict[int, list[Slots]] = {}
    if not backbone.stepwise:
        if stages.start:
            raise FssError(
                f"{type(backbone).__name__} cannot start at stage {stages.start}: its stages run in one call"
            )
        ran = [
            backbone.maps(x, [i for i in stages if i in kept], [i for i in stages if i in taps])
            for x in ([torch.cat(parts)] if together else parts)
        ]
        for index in stages:
            if index in kept:
                outputs[index] = _split([found[index] for found, _ in ran], len(parts))
            if index in taps:
                blocks = zip(*(found[index] for _, found in ran), strict=True)
                tapped[index] = [_split(list(block), len(parts)) for block in blocks]
        return outputs, tapped
    for index in stages:
        blocks_of = backbone.blocks(index) if index in taps else None
        parts, caught = _run_stage(backbone.stage(index), blocks_of, parts, together)
        if index in kept:
            outputs[index] = parts
        if blocks_of is not None:
            tapped[index] = [[backbone.as_map(tap) for tap in slots] for slots in caught]
    return outputs, tapped


def _run_stage(
    stage: nn.Module, blocks: Sequence[nn.Module] | None, parts: Slots, together: bool
) -> tuple[Slots, list[Slots]]:
    """Run one stage; return one output per slot, and for every block its tap by slot."""
    outputs: list[Tensor] = []
    taps: list[list[Tensor]] = []
    for batch in [torch.cat(parts)] if together else parts:
        with tapping(blocks or ()) as caught:
            outputs.append(stage(batch))
        taps.append(caught)
    return _split(outputs, len(parts)), [_split(list(block), len(parts)) for block in zip(*taps, strict=True)]


def _split(batches: list[Tensor], slots: int) -> Slots:
    """Return the maps of every slot, from one batch of all slots or from one batch each."""
    return batches if len(batches) == slots else list(batches[0].chunk(slots))
