"""HSNet: correlations of query and support at many depths, squeezed by center-pivot 4D convolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from fss.errors import FssError
from fss.methods.base import FewShotHead
from fss.methods.releases import KeyMap, Pairs, Release, Released, Shapes, torchvision_resnet, torchvision_vgg
from fss.nn.correlation.center_pivot import GROUPS, PivotEncoder
from fss.nn.correlation.cosine import correlation, normalised
from fss.nn.dropout import SharedDropout2d
from fss.nn.prototype import support_mask
from fss.nn.resize import up
from fss.nn.votes import relative_votes
from fss.types import EpisodeFeatures, FeatureSpec, HeadOutput

STAGES = (4, 3, 2)
"""Coarse to fine."""
KERNELS = {4: (3, 3, 3), 3: (5, 3, 3), 2: (5, 5, 3)}
STRIDES = {4: (2, 2, 2), 3: (4, 2, 2), 2: (4, 4, 2)}
JOINTS = ("4to3", "3to2")
VGG = "vgg16_plain"
AT_ONCE = 1 << 24
"""Values of a correlation that ``lean`` holds at a time: 64 MiB in single precision."""


def _keys(backbone: str) -> KeyMap:
    pairs: list[tuple[str, str]] = []
    learner = "hpn_learner."
    for name, ours in [(str(s), f"encoders.{s}") for s in STAGES] + [(j, f"joints.{j}") for j in JOINTS]:
        theirs = f"{learner}encoder_layer{name}."
        for layer in (0, 3, 6):
            for conv, plane in (("conv1", "query"), ("conv2", "support")):
                pairs.append((f"{theirs}{layer}.{conv}.", f"head.{ours}.{layer}.{plane}."))
        pairs.append((theirs, f"head.{ours}."))
    pairs += [(f"{learner}decoder{n}.", f"head.decoder{n}.") for n in (1, 2)]
    return KeyMap((*_backbone(backbone), *pairs), unused=("backbone.fc.", "backbone.classifier."))


def _backbone(name: str) -> Pairs:
    return torchvision_vgg("backbone.") if name == VGG else torchvision_resnet("backbone.")


def _unread(released: Released) -> Shapes:
    """Return the classifier of ImageNet, which the release keeps."""
    layers = {"fc": (1000, 2048)}
    if released.backbone == VGG:
        layers = {"classifier.0": (4096, 25088), "classifier.3": (4096, 4096), "classifier.6": (1000, 4096)}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in layers.items():
        shapes |= {f"backbone.{name}.weight": shape, f"backbone.{name}.bias": shape[:1]}
    return shapes


def _options(released: Released) -> list[str]:
    trained = ["protocol=hsnet", "data.size=400"]
    if released.backbone == VGG:
        return trained
    return [*trained, "backbone.stem=torchvision", "method.wants.dilation=none"]


class HSNet(FewShotHead):
    """Hypercorrelation squeeze network (Min et al., ICCV 2021, arXiv 2104.01538).

    The blocks of stages 2 to 4 are compared position by position. Encoders compress the support plane of each stage;
    coarse stages are added to finer ones; what is left of the support plane is averaged, and two small decoders give
    the scores.

    It knows one support. Several vote, relative to the largest number of votes in the image, so that neither their
    order nor repeating all of them changes the mask. In training with several, each has its own loss.

    Departures: the release compares under no-grad, so that nothing reaches the backbone; here it does unless
    ``detach`` is given. Where two stages end with support planes of different sizes, the release fails, unless one is
    a single position; here the larger plane is averaged down to the smaller.
    """

    name: ClassVar[str] = "hsnet"
    merged_scores: ClassVar[Literal["logits", "shares"]] = "shares"
    releases: ClassVar[tuple[Release, ...]] = (
        Release(
            "hsnet",
            _keys,
            ("resnet50", "resnet101", VGG),
            _options,
            unread=_unread,
            telling=("hpn_learner.encoder_layer4.",),
            wrapped=False,
            prefix="module.",
        ),
    )

    def __init__(
        self,
        taps: Sequence[int],
        width: int = 128,
        dropout: float = 0.0,
        detach: bool = False,
        lean: bool = False,
    ) -> None:
        """Build the head.

        Args:
            taps: number of blocks in stages 0 to 4 of the backbone.
            width: channels of the last of an encoder's three convolutions, a multiple of 4. The first has an eighth and
                the second half of them, rounded up to multiples of 4: 16 and 64 of the paper's 128.
            dropout: probability with which channels of the squeezed correlation are zero in training; the release drops
                none.
            detach: stop gradients before the comparison, as in the release, whose backbone never trains.
            lean: keep less for the backward pass: neither the correlations nor what lies within a layer, all of which
                are then computed twice; the result is the same up to rounding.

        Raises:
            FssError: if ``width`` is not a multiple of 4.
        """
        super().__init__(FeatureSpec(stages=(), taps=(2, 3, 4), shot_rule="each"))
        if width < GROUPS or width % GROUPS:
            raise FssError(f"method.width={width}: give a multiple of {GROUPS}, e.g. 128")
        self.detach, self.lean = detach, lean
        widths = (*(GROUPS * math.ceil(width / part / GROUPS) for part in (8, 2)), width)
        self.encoders = nn.ModuleDict(
            {str(s): PivotEncoder((taps[s], *widths), KERNELS[s], STRIDES[s]) for s in STAGES}
        )
        self.joints = nn.ModuleDict({j: PivotEncoder((width,) * 4, (3, 3, 3), (1, 1, 1)) for j in JOINTS})
        self.dropout = SharedDropout2d(dropout)
        self.decoder1 = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width // 2, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.decoder2 = nn.Sequential(
            nn.Conv2d(width // 2, width // 2, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width // 2, 2, 3, padding=1),
        )

    def forward(self, features: EpisodeFeatures) -> HeadOutput:
        """Score one batch of episodes with one support each.

        Args:
            features: taps of stages 2 to 4.

        Returns:
            logits (B, 2, 2h, 2w) at twice the resolution of stage 2.

        Raises:
            FssError: if gradients are stopped although the backbone is tuned.
        """
        squeezed = {stage: self._squeezed(stage, features) for stage in STAGES}
        x = squeezed[STAGES[0]]
        for stage, joint in zip(STAGES[1:], self.joints.values(), strict=True):
            assert isinstance(joint, PivotEncoder)
            x = _sum(x, squeezed[stage])
            x = joint.lean(x) if self.lean else joint(x)
        x = self.decoder1(self.dropout(x.mean(dim=(-2, -1))))
        logits: Tensor = self.decoder2(up(x, (2 * x.shape[-2], 2 * x.shape[-1])))
        return HeadOutput(logits)

    def merge_shots(self, outputs: Sequence[HeadOutput], size: tuple[int, int]) -> HeadOutput:
        """Let the supports vote at the size of the image; see :func:`fss.nn.votes.relative_votes`."""
        return HeadOutput(relative_votes([up(output.logits, size) for output in outputs]))

    def _squeezed(self, stage: int, features: EpisodeFeatures) -> Tensor:
        """Return the compressed correlation of a stage, (B, C, h, w, u, v)."""
        queries, supports = features.query_taps[stage], [t[:, 0] for t in features.support_taps[stage]]
        if self.detach:
            if any(t.requires_grad for t in (*queries, *supports)):
                raise FssError(
                    "method.detach=true lets no gradient reach the backbone, which this fine-tuning strategy tunes: "
                    "it would train nothing. Leave detach out, or use finetune=freeze."
                )
            queries, supports = [t.detach() for t in queries], [t.detach() for t in supports]
        size = (supports[0].shape[-2], supports[0].shape[-1])
        mask = up(support_mask(features.support_labels[:, 0], supports[0].dtype), size)
        queries, supports = [normalised(q) for q in queries], [normalised(s * mask) for s in supports]
        encoder = self.encoders[str(stage)]
        assert isinstance(encoder, PivotEncoder)
        if self.lean:
            return encoder.of_maps(queries, supports, AT_ONCE)
        squeezed: Tensor = encoder(correlation(queries, supports))
        return squeezed


def _sum(coarse: Tensor, fine: Tensor) -> Tensor:
    """Add a coarse stage to a finer one, at its query resolution, (B, C, h, w, u, v)."""
    b, c, h, w, u, v = coarse.shape
    size = (fine.shape[2], fine.shape[3])
    resized = up(coarse.permute(0, 4, 5, 1, 2, 3).reshape(b * u * v, c, h, w), size)
    coarse = resized.reshape(b, u, v, c, *size).permute(0, 3, 4, 5, 1, 2)
    one, other = coarse.shape[-2:], fine.shape[-2:]
    if one == other or 1 in (one.numel(), other.numel()):
        return coarse + fine
    plane = (min(one[0], other[0]), min(one[1], other[1]))
    return _averaged(coarse, plane) + _averaged(fine, plane)


def _averaged(x: Tensor, plane: tuple[int, int]) -> Tensor:
    """Average support planes down to a size."""
    return F.adaptive_avg_pool2d(x.flatten(0, 2), plane).reshape(*x.shape[:4], *plane)
