"""Create a network of timm by name: with dilation and any input side where its family can, with or without weights."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import DropPath
from timm.models import get_pretrained_cfg, is_model, list_models, list_pretrained
from timm.models._pretrained import PretrainedCfg
from torch import nn

from fss.errors import FssError, first_line

Arguments = Mapping[str, Any]
"""Arguments of timm's ``create_model``."""

FEATURES, WHOLE = {"features_only": True}, {"num_classes": 0}
"""Arguments for a chain of modules that gives features, and for the network itself, without its classifier."""

_ANY_SIDE: tuple[Arguments, ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})
"""How families that build their network for one side are asked to take others; most know neither word."""


_RESERVED = {
    "cache_dir", "checkpoint_path", "feature_cls", "features_only", "global_pool", "in_chans", "num_classes",
    "out_indices", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay",
}  # fmt: skip
"""Arguments that are not a user's: some load files."""


@dataclass(frozen=True)
class Loaded:
    """A network with weights.

    Attributes:
        net: the network.
        lost: identities (``id``) of the tensors of ``net`` that the weights do not hold.
        unused: names in the weights that have no place.
    """

    net: nn.Module
    lost: frozenset[int]
    unused: tuple[str, ...]


@dataclass(frozen=True)
class Images:
    """The images that published weights were made for.

    Attributes:
        mean: of each channel, of values in [0, 1].
        std: of each channel.
        side: in pixels.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    side: int


def published(model: str) -> Images:
    """Return the images that the published weights of a network were made for.

    Args:
        model: name with tag.
    """
    config = get_pretrained_cfg(model) or PretrainedCfg()
    (r, g, b), (s, t, u) = config.mean, config.std
    return Images((r, g, b), (s, t, u), int(config.input_size[-1]))


def checked(model: str) -> str:
    """Return the name of a network with the tag of its weights.

    Args:
        model: a name of ``timm.list_models()``, or of ``timm.list_pretrained()``, which has a tag after a point.

    Raises:
        FssError: if there is no such network, or no weights of such a tag.
    """
    name, _, tag = model.partition(".")
    if not is_model(name):
        raise FssError(
            f"backbone.model={model} is no network of timm {timm.__version__}.{_near(name, list_models())} All names: "
            "python -c 'import timm; print(*timm.list_models())'"
        )
    tagged = list_pretrained(f"{name}.*")
    if tag and model not in tagged:
        raise FssError(
            f"backbone.model={model}: timm {timm.__version__} knows no weights {tag!r} of {name}. Known: "
            f"{', '.join(tagged) or 'none'}."
        )
    default = get_pretrained_cfg(name)
    found = getattr(default, "tag", None)
    return model if tag or not found else f"{name}.{found}"


def _near(name: str, names: list[str]) -> str:
    found = difflib.get_close_matches(name, names, 4, 0.5)
    return f" Do you mean {' or '.join(found)}?" if found else ""


def adapted(
    model: str, output_stride: int | None, img_size: int | None, more: Arguments
) -> tuple[nn.Module, dict[str, Any]]:
    """Build a network on torch's meta device with what its family takes.

    Args:
        model: name of the network.
        output_stride: of the last stage, for families that can dilate; None: the network's own.
        img_size: side to build for; None: the network's own.
        more: a user's own arguments.

    Returns:
        The network, without values, and the arguments for :func:`create`: ``features_only``, ``more``, and what the
        family takes of the rest.

    Raises:
        FssError: if the family refuses ``img_size`` or ``more``, or ``more`` holds what is not a user's to say.
    """
    if reserved := sorted(_RESERVED & more.keys()):
        raise FssError(
            f"backbone.arguments holds {', '.join(reserved)}, which the backbone gives itself. Leave it out; weights "
            "are chosen by backbone.weights."
        )
    fixed = {**more, **({} if img_size is None else {"img_size": img_size})}
    strides = [{}] if output_stride is None else [{"output_stride": output_stride}, {}]
    error: Exception | None = None
    for stride in strides:
        for side in _ANY_SIDE:
            arguments = {**FEATURES, **stride, **side, **fixed}
            try:
                with torch.device("meta"):
                    return create(model, arguments), arguments
            except Exception as found:  # each family refuses in its own way
                error = found
    given = json.dumps(fixed) if fixed else "nothing besides its name"
    raise FssError(
        f"backbone.model={model} cannot be built with {given}: {first_line(error or ValueError())}. Change "
        "backbone.arguments and backbone.img_size, or take another network."
    )


def create(model: str, arguments: Arguments) -> nn.Module:
    """Create a network with random values.

    Args:
        model: name of the network.
        arguments: of :func:`adapted`.

    Returns:
        The network, without stochastic depth unless it is asked for.
    """
    net: nn.Module = timm.create_model(model, pretrained=False, **arguments)
    if "drop_path_rate" not in arguments:
        for module in net.modules():
            if isinstance(module, DropPath):
                module.drop_prob = 0.0
    return net


def create_with_weights(model: str, arguments: Arguments, file: Path) -> Loaded:
    """Create a network with the weights of a file, which timm fits to it: names, and positions of another side.

    Args:
        model: name of the network.
        arguments: of :func:`adapted`.
        file: ``.pth`` or ``.safetensors``; must be safe to read.

    Raises:
        RuntimeError: if shapes differ.
    """
    overlay = {"file": str(file), "custom_load": False}
    with _watched() as seen:
        net = timm.create_model(model, pretrained=True, pretrained_cfg_overlay=overlay, **arguments)
    lost: set[int] = set()
    unused: list[str] = []
    for module, missing, unexpected in seen:
        tensors = module.state_dict(keep_vars=True)
        lost |= {id(tensors[name]) for name in missing if name in tensors}
        unused += unexpected
    return Loaded(net, frozenset(lost), tuple(unused))


@contextmanager
def _watched() -> Iterator[list[tuple[nn.Module, list[str], list[str]]]]:
    """Note which names modules miss and which they do not know: timm only logs them and leaves random values."""
    plain = nn.Module.load_state_dict
    seen: list[tuple[nn.Module, list[str], list[str]]] = []

    def load_state_dict(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        found = plain(self, *args, **kwargs)
        seen.append((self, list(found.missing_keys), list(found.unexpected_keys)))
        return found

    nn.Module.load_state_dict = load_state_dict  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        nn.Module.load_state_dict = plain  # type: ignore[method-assign]
