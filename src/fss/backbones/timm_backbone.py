"""Any network of timm whose stages or blocks can be told apart, as a backbone of five stages."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import accumulate
from typing import Any, Literal

import timm
import torch
from torch import Tensor, nn

from fss.backbones.staged import StagedModule
from fss.backbones.timm_narrow import narrow
from fss.backbones.timm_network import FEATURES, WHOLE, adapted, checked, create, create_with_weights, published
from fss.backbones.timm_parts import Blocks, Chain, blocks, blocks_within, chain, connect, is_chain
from fss.backbones.timm_sides import Sides, find_sides, sees_patches, shifts
from fss.backbones.timm_weights import HUB, fetch, read, sha256
from fss.backbones.weights import WeightsError, existing
from fss.errors import FssError, first_line
from fss.types import InputSpec

FinalNorm = Literal["none", "last", "all"]
_NORMS = ("none", "last", "all")


class TimmBackbone(StagedModule):
    """A network of timm (PyTorch Image Models, github.com/huggingface/pytorch-image-models) by its name there.

    Most networks are chains, and their stages are called one by one: the last four features that timm names end stages
    1 to 4, and everything before stage 1's own module is stage 0, so that a ResNet's max-pooling belongs to it.

    Others run in one call, see :meth:`maps`: plain vision transformers, whose tokens carry more than a map from block
    to block (class and register tokens, rotary positions), and a few hierarchical ones. Stage 0 is the patch embedding;
    stages 1 to 4 are the stages of the network, or equal groups of its blocks (what is left over goes to the last
    groups; ViT-S and B: 3 blocks each, L: 6 each). Class and register tokens are dropped from the maps.

    Stochastic depth is off unless ``arguments`` asks for it.
    """

    def __init__(
        self,
        model: str,
        output_stride: int | None = 8,
        img_size: int | None = None,
        final_norm: FinalNorm = "none",
        arguments: Mapping[str, Any] | None = None,
        width: int | None = None,
    ) -> None:
        """Build with the initialisation of timm.

        Args:
            model: a name of ``timm.list_models()``, also with the tag of its weights, as ``convnext_tiny.fb_in22k``.
            output_stride: of the last stage, in families that can dilate: 8, 16 or 32. Others keep their own, which
                ``notes`` says. None: the network's own.
            img_size: side that networks of a fixed size are built for, in pixels; None: their own.
            final_norm: where networks that run in one call apply their last norm: to no stage (the outputs of blocks
                as they are), to the ``last`` stage, or to ``all`` from 1 on and to taps.
            arguments: further arguments of ``timm.create_model``.
            width: build a narrow and shallow form for tests, see :func:`fss.backbones.timm_narrow.narrow`; None: the
                network itself.

        Raises:
            FssError: if timm knows no such network, refuses an argument, or its stages cannot be told apart, or if the
                width is not possible.
        """
        if final_norm not in _NORMS:
            raise FssError(f"backbone.final_norm={final_norm!r} is not known: choose one of {', '.join(_NORMS)}.")
        self.name = checked(model)
        small = {} if width is None else narrow(self.name, width)
        options = json.dumps(small | dict(arguments or {}), sort_keys=True)
        self._arguments, sides = _described(self.name, output_stride, img_size, final_norm, options)
        super().__init__(sides.channels)
        self._final_norm = final_norm
        self._cut = _cut(create(self.name, self._arguments), self._arguments, final_norm)
        for index, part in enumerate(self._cut.parts):
            self.add_module(f"layer{index}", part)
        images = published(self.name)
        self.input = InputSpec(images.mean, images.std, sides.step, sides.offset, sides.most)
        self.stepwise = isinstance(self._cut, Chain)
        self.strides = sides.strides
        if output_stride not in (None, sides.strides[-1]):
            self.notes += (
                f"backbone.output_stride={output_stride}: {self.name} cannot dilate to it, the output stride of its "
                f"last stage is {sides.strides[-1]}",
            )
        shifted = shifts(self._cut.parts, sides.strides)
        if shifted[-1]:
            listed = ", ".join(f"stage {stage} by {pixels:g}" for stage, pixels in enumerate(shifted) if pixels)
            self.notes += (
                f"{self.name} has strided layers with even kernels: dilated to output stride {sides.strides[-1]} they "
                f"shift the maps to the right and down, in pixels of the image: {listed}",
            )

    def blocks(self, index: int) -> Sequence[nn.Module]:
        """Return the modules of a stage that run in sequence and whose outputs are its taps.

        Args:
            index: 0 (the stem, one block) to 4.
        """
        stage = self.stage(index)
        if index == 0:
            return [stage]
        if isinstance(stage, nn.Sequential):
            return blocks_within(stage)
        return [module for name, module in stage.named_children() if name != "norm"]

    def as_map(self, output: Tensor) -> Tensor:
        """Return what a block gave as a map (N, C, h, w); the blocks of Swin and its like have channels last."""
        channels_last = isinstance(self._cut, Chain) and self._cut.channels_last
        return output.permute(0, 3, 1, 2) if channels_last else output

    def maps(
        self, image: Tensor, stages: Collection[int], taps: Collection[int] = ()
    ) -> tuple[dict[int, Tensor], dict[int, list[Tensor]]]:
        """Run a network that is no chain once, for all wanted stages.

        Args:
            image: normalised RGB, (N, 3, H, W).
            stages: stages whose output is wanted.
            taps: stages of which the output of every block is wanted.

        Returns:
            Stage -> (N, C, h, w), and stage -> one (N, C, h, w) per block.

        Raises:
            FssError: if taps are wanted of a network that only gives the ends of its stages.
        """
        if isinstance(self._cut, Chain):
            return super().maps(image, stages, taps)
        connect([self.stage(index) for index in range(self.STAGES)], self._cut.slots)
        return _maps(self._cut, self._final_norm, image, stages, taps)

    def published(self, weights: str) -> dict[str, Tensor]:
        """Read the weights that a name or a file stands for.

        Args:
            weights: ``hub`` or ``imagenet`` (what timm publishes for the name), or the path of a ``.safetensors`` or
                ``.pth`` file, in timm's or in the original author's names as far as timm knows them, or in our own.

        Returns:
            The tensors of this backbone.

        Raises:
            WeightsError: if they cannot be found, read, or matched.
        """
        file = fetch(self.name) if weights in HUB else existing(weights, "none, hub, or the path of a weight file")
        if weights in HUB:
            self.notes += (f"weights: {self.name} of timm {timm.__version__}, SHA-256 {sha256(file)}",)
        state = read(file)
        if all(re.match(r"layer\d\.", name) for name in state):
            return state
        try:
            loaded = create_with_weights(self.name, self._arguments, file)
        except (
            RuntimeError,
            KeyError,
            ValueError,
            AttributeError,
        ) as error:  # filters meet names that they do not know
            reason = " ".join(str(error).split())
            shown = reason if len(reason) < 300 else f"{reason[:300]} ..."
            raise WeightsError(f"{file} does not fit {self.name}: {shown} {_hint(self.name)}") from error
        parts = nn.ModuleList(_cut(loaded.net, self._arguments, self._final_norm).parts)
        tensors = parts.state_dict(keep_vars=True)
        missing = [name for name, tensor in tensors.items() if id(tensor) in loaded.lost]
        missing = [name for name in missing if not name.endswith("num_batches_tracked")]
        if missing:
            raise WeightsError(
                f"{file} does not fit {self.name}: it lacks {len(missing)} of {len(tensors)} tensors, as "
                f"{missing[0].partition('.')[2]}. {_hint(self.name)}"
            )
        return {f"layer{name}": tensor.detach() for name, tensor in tensors.items()}


def _hint(name: str) -> str:
    return f"Give weights of {name.partition('.')[0]}, or start at random: backbone.weights=none"


@cache
def _described(
    name: str, output_stride: int | None, img_size: int | None, final_norm: str, options: str
) -> tuple[dict[str, Any], Sides]:
    """Find the arguments of a network, its sides and its channels, with a copy that has no values."""
    net, arguments = adapted(name, output_stride, img_size, json.loads(options))
    if is_chain(net) and final_norm != "none":
        raise FssError(
            f"backbone.final_norm={final_norm} is for networks that run in one call, as plain vision transformers; "
            f"{name} runs stage by stage: leave it at none."
        )
    if not is_chain(net):
        arguments = {key: value for key, value in arguments.items() if key not in FEATURES} | WHOLE
        with torch.device("meta"):
            net = create(name, arguments)
    even = sees_patches(net)
    cut = _cut(net.eval(), arguments, final_norm)

    def run(side: int) -> list[Tensor]:
        image = torch.empty(1, 3, side, side, device="meta")
        with torch.no_grad():
            if isinstance(cut, Chain):
                return list(accumulate(cut.parts, lambda x, part: part(x), initial=image))[1:]
            if cut.each:  # all blocks give equal maps
                found, _ = _maps(replace(cut, ends=(0, 0, 0, 0)), final_norm, image, range(StagedModule.STAGES), ())
            else:
                found, _ = _maps(cut, final_norm, image, range(StagedModule.STAGES), ())
        return [found[index] for index in range(StagedModule.STAGES)]

    try:
        return arguments, find_sides(run, img_size or published(name).side, even)
    except Exception as error:  # every family fails in its own way
        reason = str(error) if isinstance(error, FssError) else f"{type(error).__name__}: {first_line(error)}"
        raise FssError(
            f"backbone.model={name} cannot serve as a backbone: {reason}. Take a network of another family, "
            "as resnet50, convnext_tiny or vit_small_patch14_dinov2."
        ) from error


def _cut(net: nn.Module, arguments: Mapping[str, Any], final_norm: str) -> Chain | Blocks:
    return chain(net) if FEATURES.keys() <= arguments.keys() else blocks(net, final_norm != "none")


def _maps(
    cut: Blocks, final_norm: str, image: Tensor, stages: Collection[int], taps: Collection[int]
) -> tuple[dict[int, Tensor], dict[int, list[Tensor]]]:
    """Run a network that is no chain once."""
    if taps and not cut.each and set(taps) != {0}:
        raise FssError(
            f"taps of single blocks are wanted, but {type(cut.whole).__name__} of timm only gives the ends of its "
            "stages: use a head that needs no taps, or another backbone."
        )
    whole: Any = cut.whole
    wanted = {cut.ends[stage - 1] for stage in stages if stage} | {i for s in taps if s for i in cut.group(s)}
    first: list[Any] = []
    handles = []
    if 0 in stages or 0 in taps:
        embedding = cut.whole.get_submodule(cut.embedding)
        handles.append(embedding.register_forward_hook(lambda _, __, output: first.append(output)))
    try:
        indices = sorted(wanted) or [cut.ends[0]]
        found = whole.forward_intermediates(
            image, indices=indices, output_fmt="NCHW", intermediates_only=True, stop_early=True
        )
    finally:
        for handle in handles:
            handle.remove()
    features = dict(zip(indices, found, strict=True))
    if final_norm == "all":
        features = {index: _normed(whole, m) for index, m in features.items()}
    outputs = {stage: features[cut.ends[stage - 1]] for stage in stages if stage}
    if final_norm == "last" and len(cut.ends) in outputs:
        outputs[len(cut.ends)] = _normed(whole, outputs[len(cut.ends)])
    tapped = {stage: [features[index] for index in cut.group(stage)] for stage in taps if stage}
    if first:
        embedded = _as_map(first[0], image, cut)
        outputs |= {0: embedded} if 0 in stages else {}
        tapped |= {0: [embedded]} if 0 in taps else {}
    return outputs, tapped


def _normed(whole: Any, m: Tensor) -> Tensor:
    """Apply the final norm to every position of a map."""
    normed: Tensor = whole.norm(m.permute(0, 2, 3, 1))
    return normed.permute(0, 3, 1, 2)


def _as_map(output: Any, image: Tensor, cut: Blocks) -> Tensor:
    """Return what a patch embedding gave, tokens or a map with channels first or last, as (N, C, h, w)."""
    m, *more = output if isinstance(output, tuple) else (output,)
    if m.dim() == 3:
        height, width = image.shape[-2], image.shape[-1]
        stride = round((height * width / m.shape[1]) ** 0.5)
        rows, columns = more[0] if more else (height // stride, width // stride)
        tokens: Tensor = m.transpose(1, 2)
        return tokens.reshape(len(tokens), -1, rows, columns)
    found: Tensor = m.permute(0, 3, 1, 2) if cut.embedding_is_last(m) else m
    return found
