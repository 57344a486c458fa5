"""Shared types: the episode, the input and output of a head, parameter groups, and what a backbone provides.

Shape letters used in all docstrings of the package:

    B episodes in a batch      K support shots      C channels
    H, W image height, width   h, w feature map     R rank of a decomposed weight
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Literal, Protocol, runtime_checkable

from torch import Generator, Tensor, nn

from fss.input_spec import InputSpec as InputSpec  # of every backbone; a file of its own, without torch

IGNORE = 255
"""Label value of pixels that the loss and all metrics ignore."""

Split = Literal["train", "val", "test"]
NormMode = Literal["eval", "train", "train_late"]
"""What batch norm of a backbone does in training: keep its statistics, normalise by each image slot of a batch and move
them, or do so in stages 3 and 4 alone and by all slots together."""
SupportView = Literal["plain", "masked_image", "masked_before_stage4"]
ShotRule = Literal["joint", "each"]


@dataclass
class Episode:
    """A batch of B episodes, each one query image and K support images of one class.

    Attributes:
        query: normalised RGB, (B, 3, H, W), float32.
        query_label: (B, H, W), uint8; 1 on the class, 0 elsewhere, 255 ignored.
        support_images: normalised RGB, (B, K, 3, H, W), float32, in the order the release stacks them
            (last sampled first).
        support_labels: (B, K, H, W), uint8, values as in ``query_label``.
        class_id: id of the class in the data set, (B,), int64.
        class_index: position of the class in the split's ascending class list, (B,), int64.
        index: number i of each episode in its stream, (B,), int64.
        query_ids: image ids, length B.
        support_ids: image ids in sampling order, B lists of length K.
        full_labels: query labels at original size, B tensors (H_i, W_i), uint8; empty in training.
        full_base_labels: base-class labels of the queries at original size, for methods that need them: position of
            the base class + 1, 0 on background and novel classes, 255 ignored.
        extras: further tensors by name. With base labels: ``base_label``, the base-class label after the query's
            transform, (B, H, W), uint8, and ``base_index``, the position of the episode's class among the base
            classes, -1 for a novel class, (B,), int64. With the map of the padding: ``query_padding``, 255 where the
            query is padded and 0 elsewhere, (B, H, W), uint8.
        seeds: seed of the random numbers of each episode, B whole numbers; empty: 0 for all of them.
    """

    query: Tensor
    query_label: Tensor
    support_images: Tensor
    support_labels: Tensor
    class_id: Tensor
    class_index: Tensor
    index: Tensor
    query_ids: list[str]
    support_ids: list[list[str]]
    full_labels: list[Tensor] = field(default_factory=list)
    full_base_labels: list[Tensor] = field(default_factory=list)
    extras: dict[str, Tensor] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        """Return the number of episodes B."""
        return int(self.query.shape[0])

    def pin_memory(self) -> Episode:
        """Return a copy in page-locked memory (called by the data loader)."""
        return self._map(lambda t: t.pin_memory())

    def _map(self, f: Callable[[Tensor], Tensor]) -> Episode:
        changed: dict[str, Tensor | list[Tensor] | dict[str, Tensor]] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Tensor):
                changed[item.name] = f(value)
        changed["full_labels"] = [f(t) for t in self.full_labels]
        changed["full_base_labels"] = [f(t) for t in self.full_base_labels]
        changed["extras"] = {k: f(t) for k, t in self.extras.items()}
        return replace(self, **changed)  # type: ignore[arg-type]


@dataclass(frozen=True)
class FeatureSpec:
    """The features a head needs from the backbone, read once when the model is built.

    Attributes:
        stages: stages (0 is the stem) whose output the head receives, for query and support.
        taps: stages of which the head also receives every block's output before the last ReLU (HSNet, VAT).
        support_view: ``plain``; ``masked_image``: supports are multiplied by their mask before the backbone;
            ``masked_before_stage4``: the stage 3 output is multiplied by the resized mask before stage 4 (PFENet, BAM).
        extras: names of the tensors the head reads from :attr:`EpisodeFeatures.extras`.
        shot_rule: ``joint``: the head sees all K shots; ``each``: it is called once per shot, and its ``merge_shots``
            makes one output of them. In training their losses are averaged.
        needs_query_label: whether the head reads the query label in its training forward pass (CyCTR, HDMNet).
        draws: whether the head reads :attr:`EpisodeFeatures.generators`.
    """

    stages: tuple[int, ...]
    taps: tuple[int, ...] = ()
    support_view: SupportView = "plain"
    extras: frozenset[str] = frozenset()
    shot_rule: ShotRule = "joint"
    needs_query_label: bool = False
    draws: bool = False


@dataclass
class EpisodeFeatures:
    """Input of a head: feature maps and labels, but not the backbone.

    Attributes:
        query: stage -> (B, C, h, w).
        support: stage -> (B, K, C, h, w).
        support_labels: (B, K, H, W), values 0, 1, 255; not binarised, as heads treat 255 differently.
        query_taps: stage -> list of (B, C, h, w), one per block.
        support_taps: stage -> list of (B, K, C, h, w).
        query_label: (B, H, W) in training if the head needs it, else None.
        extras: the tensors declared in :attr:`FeatureSpec.extras`, by name.
        generators: if declared, one random generator per episode, on the CPU, B in all. Its seed depends on the episode
            alone, in training also on the epoch: not on the order of the episodes, batches, workers or devices.
    """

    query: Mapping[int, Tensor]
    support: Mapping[int, Tensor]
    support_labels: Tensor
    query_taps: Mapping[int, list[Tensor]] = field(default_factory=dict)
    support_taps: Mapping[int, list[Tensor]] = field(default_factory=dict)
    query_label: Tensor | None = None
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    generators: Sequence[Generator] = ()


@dataclass
class AuxLogits:
    """Logits of an auxiliary loss; they are resized to the label.

    Attributes:
        name: key under which the loss is logged.
        logits: (N, classes, h, w).
        target: label they are compared with.
        weight: weight in the total loss.
    """

    name: str
    logits: Tensor
    target: Literal["query", "support", "base"]
    weight: float


@dataclass
class HeadOutput:
    """Output of a head.

    Attributes:
        logits: background and foreground at the head's own resolution, (B, 2, h, w).
        aux_logits: logits of auxiliary losses.
        aux_losses: name -> (scalar, weight), for losses that are not computed from logits.
        state: tensor to feed back in the next refinement round, or at the next visit in training (CANet), or None.
        branch_logits: further logits worth logging (BAM's meta and base logits), by name.
        shots: where the head was called once per support, the output of each call.
    """

    logits: Tensor
    aux_logits: list[AuxLogits] = field(default_factory=list)
    aux_losses: dict[str, tuple[Tensor, float]] = field(default_factory=dict)
    state: Tensor | None = None
    branch_logits: dict[str, Tensor] = field(default_factory=dict)
    shots: list[HeadOutput] = field(default_factory=list)


@dataclass
class ParamGroup:
    """Parameters that share optimiser settings.

    Attributes:
        name: name in the learning rate logs.
        parameters: trainable parameters.
        lr_factor: multiplier of the learning rate of its optimiser.
        weight_decay: overrides that of its optimiser; None keeps it.
        optimizer: name of one of the recipe's further optimisers; empty, or not in the recipe: its main one.
    """

    name: str
    parameters: list[nn.Parameter]
    lr_factor: float = 1.0
    weight_decay: float | None = None
    optimizer: str = ""


@runtime_checkable
class StagedBackbone(Protocol):
    """A backbone of five stages.

    Attributes:
        channels: output channels of stages 0 to 4.
        stepwise: whether each stage can be called by itself on the map of the one before. Otherwise (plain
            transformers, whose tokens carry more than the map) the stages only hold the modules of their part.
        norm_mode: mode that batch norm keeps whatever is passed to ``train()``.
        training: whether the module is in training mode.
    """

    channels: tuple[int, ...]
    stepwise: bool
    norm_mode: NormMode
    training: bool

    def stage(self, index: int) -> nn.Module:
        """Return stage ``index`` (0 is the stem)."""
        ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Iterate over all parameters by name."""
        ...


@runtime_checkable
class ImageBackbone(StagedBackbone, Protocol):
    """A staged backbone that runs on images, as :class:`fss.backbones.staged.StagedModule` does.

    Attributes:
        input: normalisation and sides of its images.
        notes: what the result of a run must say about it.
    """

    input: InputSpec
    notes: tuple[str, ...]

    def blocks(self, index: int) -> Sequence[nn.Module]:
        """Return the modules of a stage that run in sequence and whose outputs are its taps."""
        ...

    def as_map(self, output: Tensor) -> Tensor:
        """Return the output of a block as a map (N, C, h, w)."""
        ...

    def maps(
        self, image: Tensor, stages: Collection[int], taps: Collection[int] = ()
    ) -> tuple[dict[int, Tensor], dict[int, list[Tensor]]]:
        """Run a backbone that is not ``stepwise`` once, for all wanted stages."""
        ...


@dataclass
class TuneReport:
    """What a fine-tuning strategy changed in a backbone.

    Attributes:
        strategy: name of the strategy.
        trainable: parameter name -> number of trainable values.
        total: number of backbone parameters after injection.
        plain_total: number of backbone parameters before injection.
        notes: deviations worth recording, e.g. a truncated rank.
    """

    strategy: str
    trainable: dict[str, int]
    total: int
    plain_total: int
    notes: list[str] = field(default_factory=list)

    @property
    def trainable_total(self) -> int:
        """Number of trainable backbone values."""
        return sum(self.trainable.values())
