"""Cut a network of timm into five parts: a chain of modules, or the blocks of a network that runs in one call."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from timm.layers import Format
from timm.models._features import FeatureDictNet, FeatureGetterNet
from timm.models.efficientnet import EfficientNetFeatures
from timm.models.mobilenetv3 import MobileNetV3Features
from torch import Tensor, nn

from fss.errors import FssError

STAGES = 5
_LISTS = (nn.Sequential, nn.ModuleList)
_EMBEDDINGS = ("patch_embed", "stem")
_NAMED_OTHERWISE = {"block": "stages"}
"""Lists of blocks that ``feature_info`` calls by another name than their network (MViTv2)."""


class ChannelsLast(nn.Sequential):
    """Modules that work on (N, h, w, C), as those of Swin, between maps (N, C, h, w).

    Attributes:
        opens: whether the first module takes the image, (N, 3, H, W).
    """

    opens: bool = False

    def forward(self, x: Tensor) -> Tensor:
        """Run the modules, (N, Ci, H, W) to (N, Co, h, w)."""
        x = x if self.opens else x.permute(0, 2, 3, 1)
        for module in self:
            x = module(x)
        return x.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Chain:
    """A network whose parts run one after the other.

    Attributes:
        parts: stages 0 to 4.
        channels_last: whether its modules work on (N, h, w, C).
    """

    parts: list[nn.Sequential]
    channels_last: bool


@dataclass(frozen=True)
class Blocks:
    """A network that runs in one call, and where its blocks are.

    Attributes:
        whole: the network; its blocks and final norm are in ``parts``, no longer among its own children.
        parts: what stages 0 to 4 hold.
        slots: where the network looks for a module of a part: stage, name there, module that holds it, name in it.
        ends: index of the feature that ends stages 1 to 4, as ``forward_intermediates`` numbers them.
        each: whether every block gives a feature.
        embedding: name of the module whose output is stage 0.
        width: channels of the first feature.
    """

    whole: nn.Module
    parts: list[nn.ModuleDict]
    slots: list[tuple[int, str, nn.Module, str]]
    ends: tuple[int, ...]
    each: bool
    embedding: str
    width: int

    def embedding_is_last(self, m: Tensor) -> bool:
        """Tell whether a map that the embedding gave has its channels last."""
        known = getattr(self.whole.get_submodule(self.embedding), "output_fmt", None)
        return bool(known == Format.NHWC or (known is None and m.shape[1] != self.width == m.shape[3]))

    def group(self, stage: int) -> range:
        """Return the indices of the features of a stage from 1 on."""
        return range(0 if stage == 1 else self.ends[stage - 2] + 1, self.ends[stage - 1] + 1)


def is_chain(net: nn.Module) -> bool:
    """Tell whether a network that gives features is a chain; else it gives them in one call.

    Args:
        net: made with ``features_only``.

    Raises:
        FssError: if it is neither.
    """
    if isinstance(net, FeatureDictNet | EfficientNetFeatures | MobileNetV3Features):
        return True
    if isinstance(net, FeatureGetterNet):
        return False
    raise FssError(
        f"{type(net).__name__} of timm is neither a chain of modules nor a list of blocks, so that it cannot be cut "
        "into five stages. Take a network of another family, as resnet50, convnext_tiny or vit_small_patch14_dinov2."
    )


def chain(net: nn.Module) -> Chain:
    """Cut a chain: its last four features end stages 1 to 4, and stage 1 is the module of its feature alone.

    Args:
        net: made with ``features_only``.

    Raises:
        FssError: if it has fewer than four features, or a part without parameters.
    """
    modules = list(_flattened(net))
    names = [name for name, _ in modules]
    features: Any = net.feature_info
    ends = list(net.return_layers) if isinstance(net, FeatureDictNet) else [_flat(m) for m in features.module_name()]
    places = [names.index(end) for end in ends[1 - STAGES :]]
    borders = [0, *places[:1], *(place + 1 for place in places)]
    parts = [OrderedDict(modules[low:high]) for low, high in pairwise(borders)]
    if len(places) < STAGES - 1 or not all(any(_has_values(m) for m in part.values()) for part in parts):
        raise FssError(
            f"this network of timm gives features at {', '.join(ends)}: not four that part it into five stages with "
            "values. Take a network of another family, as resnet50 or convnext_tiny."
        )
    if getattr(net, "output_fmt", Format.NCHW) != Format.NHWC:
        return Chain([nn.Sequential(part) for part in parts], channels_last=False)
    inner = [ChannelsLast(part) for part in parts]
    inner[0].opens = True
    return Chain([nn.Sequential(part) for part in inner], channels_last=True)


def _flattened(net: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules that run in sequence; timm's lists of features are flat already."""
    for name, module in net.named_children():
        if name == "blocks" and not isinstance(net, FeatureDictNet):
            yield from ((f"{name}_{inner}", block) for inner, block in module.named_children())
        else:
            yield name, module


def _flat(name: str) -> str:
    return name.replace(".", "_")


def _has_values(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())


def blocks_within(part: nn.Sequential) -> list[nn.Module]:
    """List the blocks of a part of a chain, in the order in which they run.

    Args:
        part: a stage from 1 on.

    Returns:
        What is in the lists of blocks of its modules; a module without one counts as a block.
    """
    found: list[nn.Module] = []
    for module in part:
        inner = getattr(module, "blocks", None)
        if isinstance(module, ChannelsLast):
            found += blocks_within(module)
        elif isinstance(inner, _LISTS) and len(inner):
            found += list(inner)
        elif isinstance(module, nn.Sequential) and len(module):
            found += list(module)
        elif all(name[:1] == "b" and name[1:].isdecimal() for name, _ in module.named_children()):  # RegNet
            found += list(module.children()) or [module]
        else:
            found.append(module)
    return found


def blocks(whole: nn.Module, keep_norm: bool) -> Blocks:
    """Take the blocks of a network apart: equal groups, or the stages that it has.

    Args:
        whole: made without a classifier; changed: its blocks move to the parts, where strategies find them.
        keep_norm: keep the final norm, in stage 4.

    Raises:
        FssError: if its blocks are no list, or fewer than four.
    """
    every = _entries(whole)
    each = len({entry["reduction"] for entry in every}) == 1
    info = every if each else every[1 - STAGES :]
    path, numbers = _places(whole, [str(entry["module"]) for entry in info])
    listed = whole.get_submodule(path) if path else None
    embedding = _embedding(whole, path)
    if not isinstance(listed, _LISTS) or len(info) < STAGES - 1 or not embedding:
        raise FssError(
            f"the blocks of {type(whole).__name__} of timm cannot be parted into four stages: it gives "
            f"{len(info)} features. Take a network of another family, as vit_small_patch14_dinov2 or hiera_tiny_224."
        )
    first = len(every) - len(info)
    ends = tuple(first + end for end in (equal_groups(len(info)) if each else range(STAGES - 1)))
    if hasattr(whole, "prune_intermediate_layers"):
        prune: Any = whole.prune_intermediate_layers
        prune(list(range(len(every))), prune_norm=not keep_norm, prune_head=True)
        listed = whole.get_submodule(path)
    lasts = [numbers[end - first] for end in ends]
    parts: list[nn.ModuleDict] = [nn.ModuleDict() for _ in range(STAGES)]
    slots: list[tuple[int, str, nn.Module, str]] = []
    for number, (name, block) in enumerate(list(listed.named_children())):
        stage = next((k for k, last in enumerate(lasts, 1) if number <= last), STAGES - 1)
        parts[stage][f"{_flat(path)}_{name}"] = block
        slots.append((stage, f"{_flat(path)}_{name}", listed, name))
    holder, _, own = path.rpartition(".")
    _hide(whole.get_submodule(holder), own)
    norm = getattr(whole, "norm", None)
    if keep_norm:
        if not isinstance(norm, nn.Module) or not _has_values(norm):
            raise FssError(f"backbone.final_norm: {type(whole).__name__} of timm has no final norm; leave it at none.")
        _hide(whole, "norm")
        parts[-1]["norm"] = norm
        slots.append((STAGES - 1, "norm", whole, "norm"))
    parts[0]["model"] = whole
    return Blocks(whole, parts, slots, ends, each, embedding, int(every[0]["num_chs"]))


def equal_groups(count: int) -> tuple[int, ...]:
    """Return the last index of each of four groups of a row of blocks; the last groups take what is left over.

    Args:
        count: number of blocks, at least four.
    """
    size, more = divmod(count, STAGES - 1)
    sizes = [size + (group >= STAGES - 1 - more) for group in range(STAGES - 1)]
    return tuple(sum(sizes[: group + 1]) - 1 for group in range(STAGES - 1))


def _entries(whole: nn.Module) -> Sequence[dict[str, Any]]:
    info: Any = whole.feature_info
    found: Sequence[dict[str, Any]] = info if isinstance(info, list) else info.info
    return found


def _places(whole: nn.Module, modules: list[str]) -> tuple[str, list[int]]:
    """Return the path of the list that holds some modules, and their places in it; an empty path if none does."""
    paths = {module.rpartition(".")[0] for module in modules}
    numbers = [module.rpartition(".")[2] for module in modules]
    if len(paths) != 1 or len(set(modules)) < len(modules) or not all(number.isdecimal() for number in numbers):
        return "", []
    known = {name for name, _ in whole.named_modules()}
    (given,) = paths
    path = next((name for name in (given, _NAMED_OTHERWISE.get(given, "")) if name in known), "")
    return path, [int(number) for number in numbers]


def _embedding(whole: nn.Module, path: str) -> str:
    """Return the path of the module that makes the first map; an empty one if its name is not known."""
    holder = path.rpartition(".")[0]
    known = {name for name, _ in whole.named_modules()}
    places = [f"{holder}.{name}".lstrip(".") for name in _EMBEDDINGS]
    return next((place for place in places if place in known), "")


def _hide(holder: nn.Module, name: str) -> None:
    """Let a module reach a child as before that is registered elsewhere: the state dict holds every tensor once."""
    holder.__dict__[name] = holder._modules.pop(name)


def connect(parts: Sequence[nn.Module], slots: Sequence[tuple[int, str, nn.Module, str]]) -> None:
    """Let a network run what its parts hold now: strategies may have replaced a module.

    Args:
        parts: stages 0 to 4.
        slots: of :class:`Blocks`.
    """
    for stage, name, holder, own in slots:
        module = parts[stage].get_submodule(name)
        if own in holder._modules:
            holder._modules[own] = module
        else:
            holder.__dict__[own] = module
