"""The base class of few-shot segmentation heads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.methods.releases import Release
from fss.nn.distributed import mean_over_processes
from fss.nn.resize import up
from fss.types import IGNORE, EpisodeFeatures, FeatureSpec, HeadOutput, ParamGroup


class FewShotHead(nn.Module, ABC):
    """Turns feature maps of a query and its supports into logits of background and foreground.

    The model handles images, backbone, gradients, norm mode and resizing; a head only maps features to two-channel
    logits. It never freezes anything and never sees the backbone.

    Attributes:
        spec: the features the head needs from the backbone.
        releases: its official codes, which :program:`fss convert` reads and writes.
        scores: kind of its two channels: ``logits``, whose softmax gives probabilities, or ``shares``, which are linear
            in probabilities and only need to be divided by their sum.
        merged_scores: the same of what :meth:`merge_shots` returns.
        align_corners: how its logits are resized to the image.
        refinement_rounds: number of calls at test time, each given the previous ``state`` (CANet).
        training_rounds: the same in training.
        remembers: whether in training ``previous_prediction`` is what the head returned as ``state`` when the same
            query and class were last trained on, zeros before (CANet). The head must then always return one.
        needs_grad_in_eval: whether the head optimises something at test time (CWT). It is then called with gradients
            enabled on tensors that may take part in them, even where the rest of the test records nothing.
        detach: whether gradients are stopped before the head, as its release does; None: its release does not.
    """

    name: ClassVar[str]
    releases: ClassVar[tuple[Release, ...]] = ()
    scores: ClassVar[Literal["logits", "shares"]] = "logits"
    merged_scores: ClassVar[Literal["logits", "shares"]] = "logits"
    align_corners: ClassVar[bool] = True
    refinement_rounds: ClassVar[int] = 1
    training_rounds: ClassVar[int] = 1
    remembers: ClassVar[bool] = False
    needs_grad_in_eval: ClassVar[bool] = False
    detach: bool | None = None

    def __init__(self, spec: FeatureSpec) -> None:
        """Store the feature spec.

        Args:
            spec: stages, taps, support view and extras the head needs.
        """
        super().__init__()
        self.spec = spec

    @abstractmethod
    def forward(self, features: EpisodeFeatures) -> HeadOutput:
        """Score one batch of episodes.

        Args:
            features: the maps and labels declared in ``spec``.

        Returns:
            logits (B, 2, h, w) at the head's own resolution, and its other predictions.
        """

    def merge_shots(self, outputs: Sequence[HeadOutput], size: tuple[int, int]) -> HeadOutput:
        """Make one output of those of K single supports, at test time; by default the mean of their logits.

        Args:
            outputs: output of :meth:`forward` for every support alone, K > 1, of the same B queries.
            size: height and width of the image.

        Returns:
            logits (B, 2, h, w) at any resolution; of the kind ``merged_scores``.
        """
        return HeadOutput(torch.stack([output.logits for output in outputs]).mean(dim=0))

    def criterion(self, logits: Tensor, label: Tensor, pixels: Tensor | None = None, output: str = "main") -> Tensor:
        """Compute the loss of logits; by default the mean cross entropy over the pixels that are not ignored.

        What the protocol counts as background or foreground in training is no longer 255 here.

        Args:
            logits: (N, classes, H, W).
            label: (N, H, W), 255 ignored.
            pixels: number of pixels to divide by; None counts the pixels of ``label`` that are not ignored. Training
                passes the mean over all processes.
            output: ``main``, or the name of the auxiliary logits.

        Returns:
            A scalar; zero (with a graph) if every pixel is ignored.
        """
        total = F.cross_entropy(logits, label.long(), ignore_index=IGNORE, reduction="sum")
        counted = (label != IGNORE).sum() if pixels is None else pixels
        return total / counted.clamp(min=1)

    def loss(self, output: HeadOutput, labels: dict[str, Tensor]) -> dict[str, Tensor]:
        """Compute every term of the training loss; in parallel training all processes must call it together.

        If the head was called once per support, every term is the mean over the supports.

        Args:
            output: output of :meth:`forward`.
            labels: target name (``query``, ``support``, ``base``) -> (N, H, W).

        Returns:
            ``main``, the auxiliary terms by name (unweighted), and their weighted sum ``total``.

        Raises:
            KeyError: if an auxiliary target has no label.
        """
        if output.shots:
            every = [self.loss(shot, labels) for shot in output.shots]
            return {name: torch.stack([terms[name] for terms in every]).mean() for name in every[0]}
        terms = {"main": self._at_label_size(output.logits, labels["query"], "main")}
        total = terms["main"]
        for aux in output.aux_logits:
            terms[aux.name] = self._at_label_size(aux.logits, labels[aux.target], aux.name)
            total = total + aux.weight * terms[aux.name]
        for name, (value, weight) in output.aux_losses.items():
            terms[name] = value
            total = total + weight * value
        terms["total"] = total
        return terms

    def param_groups(self) -> list[ParamGroup]:
        """Return the head's parameters by optimiser group; one group by default."""
        return [ParamGroup("head", [p for p in self.parameters() if p.requires_grad])]

    def notes(self, tuned: bool, shot: int = 1) -> list[str]:
        """Return what the result of a run must say about this head.

        Args:
            tuned: whether the backbone trains.
            shot: number of supports of the test, which may be another than that of the training.
        """
        if self.detach is None or self.detach or not tuned:
            return []
        return ["method.detach=false: gradients reach the tuned backbone through the head; its release stops them"]

    def _at_label_size(self, logits: Tensor, label: Tensor, output: str) -> Tensor:
        size = (label.shape[-2], label.shape[-1])
        pixels = mean_over_processes((label != IGNORE).sum())
        return self.criterion(up(logits, size, self.align_corners), label, pixels, output)
