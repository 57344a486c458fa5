"""Compare the scores of one episode computed through the feature cache with those of the plain model."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import cast

import torch
from torch import Tensor

from fss.errors import FssError
from fss.finetune.chains.merged_copy import merged_copy
from fss.methods.separable import encodes
from fss.model.segmenter import FewShotSegmenter
from fss.types import Episode, HeadOutput, ImageBackbone

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}
"""Largest allowed difference relative to the largest score; ``HALF`` for narrower types."""
HALF = 3e-2
ENOUGH = 1 << 62


@torch.no_grad()
def check_cache(model: FewShotSegmenter, episode: Episode) -> None:
    """Compare both ways on the first episode of a batch, and raise if they differ.

    Rounding may differ, and a head may amplify it (the prior mask does where all positions look alike), so a suspicious
    difference is computed again in double precision. Hooks see this episode once more. Random numbers drawn afterwards
    are the same as without the comparison.

    Args:
        model: in evaluation mode; nothing happens unless its cache is enabled.
        episode: a batch of any size.

    Raises:
        FssError: if the scores differ by more than rounding.
    """
    if not model.caches:
        return
    one = _first(episode)
    device = one.query.device
    difference = _difference(model, one)
    if difference <= 1:
        return
    with model.uncached():
        double = copy.deepcopy(model)
    try:
        place = "cpu" if device.type == "mps" else device  # MPS has no double precision
        double = double.to(place, torch.float64)
        double.cache_features(ENOUGH, cast(ImageBackbone | None, merged_copy(double.backbone)))
        with torch.autocast(device.type, enabled=False):
            difference = _difference(double, _moved(one, torch.device(place)))
    except RuntimeError:
        pass  # a head that forces single precision: the first comparison counts
    if difference > 1:
        raise FssError(_text(model))


def _text(model: FewShotSegmenter) -> str:
    name, encoded = type(model.head).__name__, encodes(model.head)
    cause = (
        f"{name}.forward_encoded gives other scores than {name}.forward, which training used: what encode_query, "
        "encode_support and forward_encoded compute must equal what forward computes. Mend them, or leave all three "
        "out of the class that defines forward"
        if encoded
        else f"{name} gives other scores with kept feature maps than with maps computed for the episode, as training "
        "does: a layer of the backbone or the head depends on more than its input"
    )
    return f"{cause}; or test without the feature cache, with feature_cache_mb=0 (slower)."


def _difference(model: FewShotSegmenter, episode: Episode) -> float:
    """Return the largest difference of any score relative to the allowed one; 0 if scores are not finite."""
    with _random_numbers_kept(episode.query.device), model.uncached():
        plain = model.run_episode(episode)
    with _random_numbers_kept(episode.query.device):
        cached = model.run_episode(episode)
    if plain.branch_logits.keys() != cached.branch_logits.keys():
        return math.inf
    pairs = zip(_scores(plain), _scores(cached), strict=True)
    return max(_share(a, b) for a, b in pairs)


def _scores(output: HeadOutput) -> list[Tensor]:
    return [output.logits, *(output.branch_logits[k] for k in sorted(output.branch_logits))]


def _share(plain: Tensor, cached: Tensor) -> float:
    if plain.shape != cached.shape:
        return math.inf
    if not bool(plain.isfinite().all()):
        return 0.0  # a diverged model is reported by another check
    scale = float(plain.abs().max()) * TOLERANCE.get(plain.dtype, HALF)
    difference = float((plain - cached).abs().max())
    if difference == 0:
        return 0.0
    return difference / scale if scale > 0 and math.isfinite(difference) else math.inf


def _first(episode: Episode) -> Episode:
    """Return the first episode as a batch of one."""
    rows = {f.name: getattr(episode, f.name)[:1] for f in fields(episode) if f.name != "extras"}
    return replace(episode, **rows, extras={k: v[:1] for k, v in episode.extras.items()})


def _moved(episode: Episode, device: torch.device) -> Episode:
    """Return a copy on a device, with floating-point tensors in double precision."""

    def to(value: Tensor) -> Tensor:
        return value.to(device, torch.float64 if value.is_floating_point() else value.dtype)

    values = {f.name: getattr(episode, f.name) for f in fields(episode)}
    tensors = {k: to(v) for k, v in values.items() if isinstance(v, Tensor)}
    return replace(episode, **tensors, extras={k: to(v) for k, v in episode.extras.items()})  # type: ignore[arg-type]


@contextmanager
def _random_numbers_kept(device: torch.device) -> Iterator[None]:
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        yield
