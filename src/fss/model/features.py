"""Run a backbone as a head's feature spec declares: stages, support view and taps."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fss.errors import FssError
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
    image slot is its own batch, as in PFENet's release. Stages before the first trainable layer record no graph,
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
    together = backbone.norm_mode == "eval" or not backbone.training
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
            tapped[index] = caught
    return outputs, tapped


def _run_stage(
    stage: nn.Module, blocks: Sequence[nn.Module] | None, parts: Slots, together: bool
) -> tuple[Slots, list[Slots]]:
    """Run one stage; return one output per slot, and for every block its tap by slot."""
    outputs: list[Tensor] = []
    taps: list[list[Tensor]] = []
    for batch in [torch.cat(parts)] if together else parts:
        with _taps(blocks or ()) as caught:
            outputs.append(stage(batch))
        taps.append(caught)
    return _split(outputs, len(parts)), [_split(list(block), len(parts)) for block in zip(*taps, strict=True)]


def _split(batches: list[Tensor], slots: int) -> Slots:
    """Return the maps of every slot, from one batch of all slots or from one batch each."""
    return batches if len(batches) == slots else list(batches[0].chunk(slots))


@contextmanager
def _taps(blocks: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Collect what every block returns, before its last ReLU if it ends in one, while a stage runs."""
    caught: list[Tensor] = []
    watched = [_Block(block) for block in blocks]
    try:
        for block in watched:
            block.listen()
        yield caught
        caught.extend(block.tap() for block in watched)
    finally:
        for block in watched:
            block.leave()


class _Block:
    """Listens to a block: to its output, and to the input of the ReLU that computes it, if one does."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.relus = [m for m in module.modules() if isinstance(m, nn.ReLU)]
        if not self.relus and not any(True for _ in module.children()):
            raise ValueError(
                f"taps need residual blocks or other modules of several layers; stage holds {type(module).__name__}"
            )
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._before: Tensor | None = None
        self._after: Tensor | None = None
        self._tap: Tensor | None = None

    def listen(self) -> None:
        for relu in self.relus:
            self._handles.append(relu.register_forward_pre_hook(self._enter))
            self._handles.append(relu.register_forward_hook(self._exit))
        self._handles.append(self.module.register_forward_hook(self._end))

    def leave(self) -> None:
        for handle in self._handles:
            handle.remove()

    def tap(self) -> Tensor:
        assert self._tap is not None, f"{type(self.module).__name__} was not called"
        return self._tap

    def _enter(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._before = inputs[0].clone()  # the ReLU works in place; the block's last call wins

    def _exit(self, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._after = output

    def _end(self, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if self.relus and self._before is None:
            raise RuntimeError(f"{type(self.module).__name__} ran without calling its ReLU: its tap cannot be told")
        ends_in_relu = output is self._after
        self._tap = self._before if ends_in_relu else output.clone()  # the next block may work in place
        self._before = self._after = None
