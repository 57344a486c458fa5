"""What a configured backbone allows, from its yaml file or, where that does not say, from its class.

``sizes`` and ``support_view`` of a backbone's yaml file spare importing torch. Without ``sizes`` the class is asked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from fss.data.options import check_side
from fss.errors import DataError, FssError
from fss.input_spec import InputSpec

Node = Mapping[str, Any]

_ADDED: dict[str, dict[str, object]] = {
    "fss.backbones.resnet.ResNet": {"stride_on": "3x3", "pool": "floor", "last_relu": True},
    "fss.backbones.plain_vgg.PlainVGG": {
        "pool": "2x2",
        "output_stride": 32,
        "dilation": 1,
        "last_relu": True,
        "last_pool": True,
    },
}
"""Options by class that runs from before them lack, and the value that stands for what there was."""

SIZES, VIEW = "sizes", "support_view"
"""Keys of a backbone's group that describe its class: they do not determine a run's numbers."""
RELEASED_VIEW, OTHER_VIEW = "masked_before_stage4", "masked_image"
VIEWS = (RELEASED_VIEW, OTHER_VIEW, "plain")
"""Every view that a head may declare, see :class:`fss.types.FeatureSpec`."""


def sides(backbone: Node) -> InputSpec:
    """Return the allowed sides of a backbone's input; the normalisation is not that of the backbone.

    Args:
        backbone: the group, resolved.

    Raises:
        FssError: if ``sizes`` is no pair of whole numbers, or the class cannot be built.
    """
    given = backbone.get(SIZES)
    if given is None:
        return _asked(_text(backbone))[0]
    whole = isinstance(given, list) and all(isinstance(v, int) and not isinstance(v, bool) for v in given)
    if not whole or len(given) != 2 or not 0 <= given[1] < given[0]:
        raise FssError(
            f"backbone.{SIZES}={given} is not allowed: it describes the backbone as [step, offset], e.g. [8,1] for "
            "sides of 8n + 1. Leave the option out."
        )
    return InputSpec(step=given[0], offset=given[1])


def nearest_side(backbone: Node, wanted: int) -> int:
    """Return the allowed side nearest to the one that a data set's file names, of two equally near ones the larger.

    Args:
        backbone: the group, resolved.
        wanted: side in pixels.
    """
    return sides(backbone).nearest(wanted)


def support_view(backbone: Node) -> str:
    """Return how heads of PFENet's kind mask the supports: before stage 4, or the image where that is impossible.

    Args:
        backbone: the group, resolved.
    """
    given = backbone.get(VIEW)
    if given is not None:
        return str(given)
    if backbone.get(SIZES) is not None:  # the file describes its backbone, and names no other view
        return RELEASED_VIEW
    return RELEASED_VIEW if _asked(_text(backbone))[1] else OTHER_VIEW


def without_added(backbone: Node) -> dict[str, Any]:
    """Leave out options that say what every run did before there were such options.

    Args:
        backbone: the group, resolved.

    Returns:
        A copy, equal for a run with the options at those values and for one from before.
    """
    added = _ADDED.get(str(backbone.get("_target_")), {})
    return {k: v for k, v in backbone.items() if k not in added or v != added[k]}


def with_added(backbone: Node) -> dict[str, Any]:
    """Fill in the options that runs from before them lack.

    Args:
        backbone: the group, resolved.

    Returns:
        A copy with every option.
    """
    return {**backbone, **{k: v for k, v in _ADDED.get(str(backbone.get("_target_")), {}).items() if k not in backbone}}


def check_backbone(config: Node) -> None:
    """Check that the backbone takes the images and the support view that a configuration asks for.

    Args:
        config: resolved, plain values.

    Raises:
        FssError: if it does not.
    """
    backbone, name = config["backbone"], f"backbone={config['backbone']['name']}"
    try:
        check_side(config["data"]["size"], sides(backbone), name)
    except DataError as error:
        raise FssError(f"data.{error}") from error
    view = config["method"].get(VIEW, RELEASED_VIEW)
    if view not in VIEWS:
        raise FssError(f"method.{VIEW}={view} is not known: choose one of {', '.join(VIEWS)}.")
    if config["method"].get(VIEW) == RELEASED_VIEW and support_view(backbone) != RELEASED_VIEW:
        raise FssError(
            f"method.{VIEW}={RELEASED_VIEW} is not possible with {name}, whose stages cannot be run one by one: type "
            f"method.{VIEW}={OTHER_VIEW}, which masks the support images instead, or leave the option out."
        )


def _text(backbone: Node) -> str:
    return json.dumps(backbone, sort_keys=True, default=str)


@cache
def _asked(text: str) -> tuple[InputSpec, bool]:
    """Return what the class of a backbone says: sides, and whether stages run one by one."""
    from fss.backbones.described import described  # needs torch, and maybe a library of its own

    found = described(json.loads(text))
    return found.input, found.stepwise
