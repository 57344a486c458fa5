"""Build models and strategies from a resolved configuration; constructors receive only plain values."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fss.backbones.staged import StagedModule
from fss.backbones.weights import load_weights
from fss.errors import FssError
from fss.finetune.base import Strategy
from fss.instantiate import Node, imported, make
from fss.methods.base import FewShotHead
from fss.methods.base_learner import BaseLearner
from fss.model.companion import BaseBranch
from fss.model.multiclass_segmenter import MulticlassSegmenter
from fss.model.segmenter import FewShotSegmenter


def build_backbone(node: Node, pretrained: bool = True) -> StagedModule:
    """Build a backbone.

    Args:
        node: the backbone group of the configuration.
        pretrained: load the weights that it names.

    Returns:
        The backbone.

    Raises:
        FssError: if options or weights are wrong or missing.
    """
    backbone = make("backbone", node, StagedModule)
    if pretrained:
        load_weights(backbone, node["weights"], node["name"], node.get("stem", ""))
    return backbone


def build_head(node: Node, backbone: StagedModule) -> FewShotHead:
    """Build a head for a backbone.

    Args:
        node: the method group of the configuration.
        backbone: gives ``channels`` of its stages and, to heads that take them, ``taps``: how many blocks each has.

    Returns:
        The head.

    Raises:
        FssError: if an option is wrong.
    """
    taken = inspect.signature(imported("method", node)).parameters
    given: dict[str, list[int]] = {}
    if "channels" in taken or any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        given["channels"] = list(backbone.channels)
    if "taps" in taken:
        given["taps"] = [len(backbone.blocks(i)) for i in range(backbone.STAGES)]
    return make("method", node, FewShotHead, **given)  # type: ignore[type-abstract]


def build_model(config: Node, pretrained: bool = True, learner: Mapping[str, Tensor] | None = None) -> FewShotSegmenter:
    """Build backbone and head, without fine-tuning strategy, and the base branch if the head needs one.

    Args:
        config: the whole configuration.
        pretrained: load the backbone's weights.
        learner: state dict of a base learner, for the base branch and for the backbone instead of its weights.

    Returns:
        The model.
    """
    backbone = build_backbone(config["backbone"], pretrained and learner is None)
    head = build_head(config["method"], backbone)
    companion = build_companion(config) if BaseBranch.provides & head.spec.extras else None
    if learner is not None:
        own = {k.removeprefix("backbone."): v for k, v in learner.items() if k.startswith("backbone.")}
        backbone.load_state_dict(own, strict=True)
        if companion is not None:
            companion.load_state_dict(dict(learner), strict=True)
    return FewShotSegmenter(backbone, head, companion)


def build_companion(config: Node) -> BaseBranch:
    """Build the frozen base branch of a model, without loading its values.

    Args:
        config: the whole configuration; ``method.base_learner.built`` describes the base learner.

    Returns:
        The base branch.

    Raises:
        FssError: if the description is missing.
    """
    node = config["method"].get("base_learner", {})
    built = node.get("built")
    if not isinstance(built, Mapping):
        raise FssError(
            "The configuration of this model lacks method.base_learner.built, which describes its base learner: it "
            "was changed. Give another checkpoint, or train the model again."
        )
    backbone = build_backbone(built["backbone"], pretrained=False)
    head = make("method", built["method"], BaseLearner, channels=list(backbone.channels), classes=built["classes"])
    return BaseBranch(backbone, head, node.get("dropout", True))


def build_base_learner(config: Node, classes: int) -> MulticlassSegmenter:
    """Build the model of ``method=base_learner``.

    Args:
        config: the whole configuration.
        classes: number of base classes plus background.

    Returns:
        The model; its backbone has the weights that the configuration names.
    """
    backbone = build_backbone(config["backbone"])
    head = make("method", config["method"], BaseLearner, channels=list(backbone.channels), classes=classes)
    return MulticlassSegmenter(backbone, head)


def build_strategy(node: Node) -> Strategy:
    """Build a fine-tuning strategy from its group."""
    return make("finetune", node, Strategy)  # type: ignore[type-abstract]


def meta_model(config: Node, classes: int = 0) -> tuple[nn.Module, Strategy]:
    """Build a model without values, with its fine-tuning strategy injected.

    Args:
        config: the whole configuration.
        classes: number of classes of a base learner, background included.

    Returns:
        The model on torch's meta device, and the strategy.
    """
    strategy = build_strategy(config["finetune"])
    with torch.device("meta"):
        model = _plain_model(config, classes)
        strategy.apply(model.backbone)
    return model, strategy


def empty_model(config: Node, dtype: torch.dtype, classes: int = 0) -> tuple[nn.Module, Strategy]:
    """Build a model whose values are loaded later: without initialisation and without SVD.

    Args:
        config: the whole configuration.
        dtype: dtype of its parameters.
        classes: number of classes of a base learner, background included.

    Returns:
        The model on the CPU, and its fine-tuning strategy, which is injected already. Buffers that no checkpoint holds
        have their values.

    Raises:
        FssError: if such a buffer is not determined by the configuration.
    """
    model, strategy = meta_model(config, classes)
    stored = model.state_dict().keys()
    model = model.to(dtype).to_empty(device="cpu")
    hidden = {name: buffer for name, buffer in model.named_buffers() if name not in stored}
    if hidden:
        for name, value in _hidden_values(config, list(hidden), classes).items():
            hidden[name].copy_(value)
    return model, strategy


def _plain_model(config: Node, classes: int) -> MulticlassSegmenter | FewShotSegmenter:
    if config["method"]["name"] != BaseLearner.name:
        return build_model(config, pretrained=False)
    backbone = build_backbone(config["backbone"], pretrained=False)
    head = make("method", config["method"], BaseLearner, channels=list(backbone.channels), classes=classes)
    return MulticlassSegmenter(backbone, head)


def _hidden_values(config: Node, names: list[str], classes: int) -> dict[str, Tensor]:
    """Return the buffers that no checkpoint holds as the model's own construction gives them, before any strategy.

    They are built twice, with other random numbers: what differs was drawn, or follows from weights that were.
    """
    built: list[dict[str, Tensor]] = []
    for seed in (0, 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            built.append(dict(_plain_model(config, classes).named_buffers()))
    one, other = built
    lost = [n for n in names if n not in one or not torch.equal(one[n].nan_to_num(), other[n].nan_to_num())]
    if lost:
        raise FssError(
            f"The model cannot be rebuilt from its checkpoint: it does not hold {', '.join(lost)}, which "
            "register_buffer(..., persistent=False) leaves out, and the configuration does not determine. Register it "
            "with persistent=True and train again."
        )
    return {name: one[name] for name in names}
