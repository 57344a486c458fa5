"""Convert the layer names of published classification networks to stage names."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

_STEM_KEYS = {
    "deep": {"conv1": "0", "bn1": "1", "conv2": "3", "bn2": "4", "conv3": "6", "bn3": "7"},
    "torchvision": {"conv1": "0", "bn1": "1"},
}


_VGG_STAGES = (0, 7, 14, 24, 34)
"""Index of each stage's first layer in torchvision's ``features``."""


def to_stage_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a classification network's layers to ``layer0`` to ``layer4``: VGG's features, a ResNet's stem.

    Args:
        state: name -> tensor as stored by torchvision or semseg, or already under stage names.

    Returns:
        The same tensors under stage names; other names are kept.
    """
    if any(key.startswith("features.") for key in state):
        return {_vgg_key(key): value for key, value in state.items()}
    stem = _STEM_KEYS["deep" if "conv3.weight" in state else "torchvision"]
    renamed = {}
    for key, value in state.items():
        head, _, tail = key.partition(".")
        renamed[f"layer0.{stem[head]}.{tail}" if head in stem else key] = value
    return renamed


def _vgg_key(key: str) -> str:
    group, _, rest = key.partition(".")
    number, _, leaf = rest.partition(".")
    if group != "features" or not number.isdecimal():
        return key
    stage = sum(int(number) >= first for first in _VGG_STAGES) - 1
    return f"layer{stage}.{int(number) - _VGG_STAGES[stage]}.{leaf}"
