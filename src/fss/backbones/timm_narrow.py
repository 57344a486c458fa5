"""Narrow and shallow forms of timm's networks, in which a test of a whole run takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import timm

from fss.errors import FssError


def _vit(width: int) -> dict[str, Any]:
    return {"embed_dim": 4 * width, "depth": 4, "num_heads": 2}


_FORMS: dict[str, Callable[[int], dict[str, Any]]] = {
    "convnext": lambda width: {"depths": (1, 1, 1, 1), "dims": tuple(width * 2**stage for stage in range(4))},
    "eva": _vit,
    "resnet": lambda width: {
        "layers": (1, 1, 1, 1),
        "stem_width": width,
        "channels": tuple(width * 2**stage for stage in range(4)),
    },
    "swin_transformer": lambda width: {"embed_dim": width, "depths": (1, 1, 2, 1), "num_heads": (1, 1, 2, 2)},
    "vision_transformer": _vit,
    "vision_transformer_sam": lambda width: _vit(width) | {"global_attn_indexes": (1, 3)},
}
"""Module of timm that defines a network -> arguments of its narrow form, from the channels of its first stage."""


def narrow(model: str, width: int) -> dict[str, Any]:
    """Return the arguments of ``timm.create_model`` for a narrow form of a network.

    Args:
        model: a name that timm knows, maybe with the tag of its weights.
        width: channels of the first stage; of a plain vision transformer, a quarter of its channels.

    Raises:
        FssError: if the width is not a multiple of 4 above 0, or no narrow form is known for the family.
    """
    if width < 4 or width % 4:
        raise FssError(f"backbone.width={width} is not possible for {model}: give a multiple of 4, or null.")
    family = timm.models.model_entrypoint(model.partition(".")[0]).__module__.rpartition(".")[2]
    if family not in _FORMS:
        raise FssError(
            f"No narrow form of {model} is known, so that backbone.width={width} is not possible: leave it at null "
            "and give what makes the network small as backbone.arguments={...}. Families with one: "
            f"{', '.join(sorted(_FORMS))}."
        )
    return _FORMS[family](width)
