"""The base learner of BAM: PSPNet on the base classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from fss.methods.releases import PSPNET, STAGED, STAGES, KeyMap, Release, deep_stem
from fss.nn.dropout import SharedDropout2d
from fss.nn.ppm import BINS, PPM
from fss.types import ParamGroup

LAST_STAGE = 4
EMBEDDING = 2
"""Layers of the classifier before its ReLU."""
_KEYS = KeyMap(
    (*STAGED, ("ppm.", "head.ppm."), ("cls.", "head.cls.")),
    repeated=tuple((f"encoder.{i}.", f"layer{i}.") for i in STAGES),
)


def _release(source: str) -> Release:
    return Release(
        source,
        lambda backbone: _KEYS,
        PSPNET,
        lambda released: deep_stem(released.backbone, "uniform"),
        telling=("encoder.",),
        classes="cls.4.bias",
    )


class BaseLearner(nn.Module):
    """Pyramid pooling and a classifier on stage 4: PSPNet (arXiv 1612.01105) without auxiliary head, as BAM trains it.

    It is not a few-shot head: it takes one image and scores the background and every base class.
    """

    name: ClassVar[str] = "base_learner"
    releases: ClassVar[tuple[Release, ...]] = (_release("svf"), _release("bam"))

    def __init__(
        self,
        channels: Sequence[int],
        classes: int,
        width: int = 512,
        bins: Sequence[int] = BINS,
        dropout: float = 0.1,
    ) -> None:
        """Build the head.

        Args:
            channels: output channels of the backbone's stages 0 to 4.
            classes: number of base classes plus background: 16 on PASCAL-5i, 61 on COCO-20i.
            width: channels within the classifier.
            bins: grid sizes of the pyramid.
            dropout: share of the classifier's channels dropped in training.
        """
        super().__init__()
        self.classes = classes
        self.ppm = PPM(channels[LAST_STAGE], tuple(bins))
        self.cls = nn.Sequential(
            nn.Conv2d(self.ppm.out_channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            SharedDropout2d(dropout),
            nn.Conv2d(width, classes, 1),
        )

    def forward(self, stage4: Tensor) -> Tensor:
        """Score every position.

        Args:
            stage4: (B, C, h, w).

        Returns:
            logits (B, classes, h, w).
        """
        return self.classify(self.embed(stage4))

    def embed(self, stage4: Tensor) -> Tensor:
        """Return what the classifier's ReLU is given.

        Args:
            stage4: (B, C, h, w).

        Returns:
            embedding (B, width, h, w).
        """
        embedding: Tensor = self.cls[:EMBEDDING](self.ppm(stage4))
        return embedding

    def classify(self, embedding: Tensor) -> Tensor:
        """Score every position of an embedding, which is overwritten.

        Args:
            embedding: from :meth:`embed`, (B, width, h, w).

        Returns:
            logits (B, classes, h, w).
        """
        logits: Tensor = self.cls[EMBEDDING:](embedding)
        return logits

    def param_groups(self) -> list[ParamGroup]:
        """Return pyramid and classifier, the release's groups 1 and 2; group 0 is the encoder."""
        return [ParamGroup(name, list(getattr(self, name).parameters())) for name in ("ppm", "cls")]
