"""Run a backbone as a head's feature spec declares: stages, support view and taps."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fss.nn.prototype import support_mask
from fss.nn.resize import up
from fss.types import EpisodeFeatures, FeatureSpec, StagedBackbone

MASKED_STAGE = 4
"""Stage before which ``masked_before_stage4`` masks the supports."""


def extract(
    backbone: StagedBackbone,
    spec: FeatureSpec,
    query: Tensor,
    support_images: Tensor,
    support_labels: Tensor,
    extras: Mapping[str, Tensor] | None = None,
    query_stages: Collection[int] = (),
) -> EpisodeFeatures:
    """Compute the features of a batch of episodes.

    Query and supports run through a stage together if batch norm is in evaluation mode; with batch statistics each
    image slot is its own batch, as in PFENet's release. Stages before the first trainable layer record no graph,
    because nothing there requires a gradient.

    Args:
        backbone: called stage by stage.
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
    together = backbone.norm_mode == "eval" or not backbone.training
    stages: dict[int, list[Tensor]] = {}
    extra: dict[int, Tensor] = {}
    taps: dict[int, list[list[Tensor]]] = {}
    for index in range(max((*spec.stages, *spec.taps, *query_stages)) + 1):
        if index == MASKED_STAGE and spec.support_view == "masked_before_stage4":
            size = (slots[1].shape[-2], slots[1].shape[-1])
            slots = [slots[0], *(x * up(m, size) for x, m in zip(slots[1:], masks, strict=True))]
        slots, tapped = run_stage(backbone.stage(index), slots, together, index in spec.taps)
        if index in spec.stages:
            stages[index] = slots
        elif index in query_stages:
            extra[index] = slots[0]
        if index in spec.taps:
            taps[index] = tapped
    return EpisodeFeatures(
        query={**extra, **{i: p[0] for i, p in stages.items()}},
        support={i: torch.stack(p[1:], dim=1) for i, p in stages.items()},
        support_labels=support_labels,
        query_taps={i: [p[0] for p in blocks] for i, blocks in taps.items()},
        support_taps={i: [torch.stack(p[1:], dim=1) for p in blocks] for i, blocks in taps.items()},
        extras=dict(extras or {}),
    )


def run_stage(
    stage: nn.Module, parts: list[Tensor], together: bool, tap: bool
) -> tuple[list[Tensor], list[list[Tensor]]]:
    """Run one stage over image slots.

    Args:
        stage: a stage of the backbone.
        parts: one (N, C, h, w) per slot.
        together: run all slots as one batch.
        tap: keep the input of each block's last ReLU.

    Returns:
        One output per slot, and for every block the tapped maps by slot.
    """
    batches = [torch.cat(parts)] if together else parts
    outputs: list[Tensor] = []
    blocks: list[list[Tensor]] = []
    for batch in batches:
        with _taps(stage if tap else None) as caught:
            outputs.append(stage(batch))
        blocks.append(caught)
    by_block = [list(b) for b in zip(*blocks, strict=True)]
    if together:
        return list(outputs[0].chunk(len(parts))), [list(b[0].chunk(len(parts))) for b in by_block]
    return outputs, by_block


@contextmanager
def _taps(stage: nn.Module | None) -> Iterator[list[Tensor]]:
    """Collect the input of each block's last ReLU while the stage runs."""
    caught: list[Tensor] = []
    handles = []
    latest: dict[int, Tensor] = {}
    if stage is not None:
        for position, block in enumerate(stage.children()):
            relu = getattr(block, "relu", None)
            if not isinstance(relu, nn.Module):
                raise ValueError(f"taps need residual blocks with a ReLU; stage holds {type(block).__name__}")

            def keep(_: nn.Module, inputs: tuple[Tensor, ...], at: int = position) -> None:
                latest[at] = inputs[0].clone()  # the ReLU works in place; the block's last call wins

            handles.append(relu.register_forward_pre_hook(keep))
    try:
        yield caught
        caught.extend(latest[i] for i in sorted(latest))
    finally:
        for handle in handles:
            handle.remove()
