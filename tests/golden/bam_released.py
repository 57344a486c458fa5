"""Released names of BAM and its base learner, and models of ours filled under them."""

from __future__ import annotations

import numpy as np
import torch
from tests.golden.released import filled, inputs
from torch import Tensor, nn

from fss.checkpoints.convert import from_release, to_release
from fss.checkpoints.keymaps import BACKBONE, META_HEAD, KeyMap
from fss.methods.bam import BAM
from fss.methods.base_learner import BaseLearner, ManyWaySegmenter
from fss.methods.companion import BaseBranch
from fss.methods.segmenter import FewShotSegmenter

HEAD = (*META_HEAD, *((f"{n}.", f"head.{n}.") for n in ("gram_merge", "cls_merge", "kshot_rw")))
LEARNER = (("learner_base.0.", "companion.head.ppm."), ("learner_base.1.", "companion.head.cls."))
ORIGINAL = tuple((f"layer{i}p.", f"companion.backbone.layer{i}.") for i in range(5))
SVF_RELEASE = KeyMap(BACKBONE + HEAD + LEARNER + ORIGINAL)
BAM_RELEASE = KeyMap(BACKBONE + HEAD + LEARNER)
PSPNET = KeyMap((*BACKBONE, ("ppm.", "head.ppm."), ("cls.", "head.cls.")))


def fill(model: nn.Module, keymap: KeyMap, vgg: bool) -> dict[str, Tensor]:
    """Fill a model under the released names of a table; return what was filled."""
    names = {k: v.shape for k, v in to_release(model.state_dict(), keymap).items()}
    released = filled(names, 2.0 if vgg else 1.0)
    model.load_state_dict(from_release(released, keymap), strict=True)
    return released


def fill_bam(model: FewShotSegmenter, svf: bool, vgg: bool) -> int:
    """Fill as the release that has decomposed stages, or as BAM's own, whose base branch is the same backbone.

    Returns:
        Number of keys of the released model.
    """
    assert model.companion is not None
    if svf:
        return len(fill(model, SVF_RELEASE, vgg))
    backbone, model.companion.backbone = model.companion.backbone, nn.Module()
    count = len(fill(model, BAM_RELEASE, vgg))
    backbone.load_state_dict(model.backbone.state_dict())
    model.companion.backbone = backbone
    return count


def bam(backbones: tuple[nn.Module, nn.Module], shot: int) -> FewShotSegmenter:
    own, frozen = backbones
    own.norm_mode = "eval"
    channels = own.channels
    companion = BaseBranch(frozen, BaseLearner(channels, 16))
    return FewShotSegmenter(own, BAM(channels, shot=shot), companion).double().eval()


def pspnet(backbone: nn.Module) -> ManyWaySegmenter:
    return ManyWaySegmenter(backbone, BaseLearner(backbone.channels, 16)).double().eval()


def base_label() -> Tensor:
    """The third thing drawn from the inputs' generator, after query and supports."""
    rng = np.random.RandomState(7)
    rng.standard_normal((2, 3, 161, 161))
    rng.standard_normal((2, 5, 3, 161, 161))
    return torch.from_numpy(rng.randint(0, 16, (2, 161, 161)))


BASE_INDEX = torch.tensor([3, 7])

__all__ = ["BASE_INDEX", "bam", "base_label", "fill", "fill_bam", "inputs", "pspnet"]
