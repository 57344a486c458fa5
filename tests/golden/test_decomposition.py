"""Decomposing the released baseline: truncated as in the release, exact by default, and merged again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.golden.released import converted, deviation, digest, inputs
from tests.golden.vectors import PRINTED, decomposed
from torch import Tensor

from fss.finetune.layers.factored import SVFConv2d
from fss.finetune.svf import SVF
from fss.methods.releases import Released
from fss.model.segmenter import FewShotSegmenter

CHANGE = {"resnet50": (6.0e-3, 5e-5), "vgg16": (2.1e-1, 5e-3)}
"""Largest change of the output, and half a unit of its last printed digit."""
STEM = {  # singular values 1, 24, 25, 26, 27 of the first convolution; three digits are printed
    "resnet50": [2.586, 0.796, 0.752, 0.627, 0.563],
    "vgg16": [3.657, 1.126, 1.063, 0.887, 0.797],
}


def plain(backbone: str, folder: Path) -> FewShotSegmenter:
    model = converted(folder, Released("svf", "baseline", backbone, "pascal", 1, "freeze", 0))
    assert isinstance(model, FewShotSegmenter)
    return model


@torch.no_grad()
def output(model: FewShotSegmenter) -> Tensor:
    given = inputs(1)
    return model(given.query, given.supports, given.support_labels)


@pytest.mark.parametrize("backbone", ["vgg16", pytest.param("resnet50", marks=pytest.mark.slow)])
def test_truncated_as_released(backbone: str, tmp_path: Path) -> None:
    model = plain(backbone, tmp_path)
    before = output(model)
    stem = model.backbone.stage(0)[0].weight.detach().flatten(1)
    values = torch.linalg.svdvals(stem)[[0, 23, 24, 25, 26]]
    assert values.tolist() == pytest.approx(STEM[backbone], abs=5e-4)
    report = SVF(rank_rounding=4).apply(model.backbone)
    assert report.notes == ["layer0.0: rank 27 truncated to 24"]
    for module in model.backbone.modules():
        if isinstance(module, SVFConv2d):  # the release keeps factors and bias in float32 even in a float64 model
            for value in module.parameters():
                value.data = value.data.float().double()
    after = output(model)
    assert deviation(digest(after), decomposed()[backbone]) < PRINTED
    expected, tolerance = CHANGE[backbone]
    assert float((after - before).abs().max()) == pytest.approx(expected, abs=tolerance)


@pytest.mark.slow
def test_exact_decomposition_changes_nothing(tmp_path: Path) -> None:
    model = plain("resnet50", tmp_path)
    before = output(model)
    strategy = SVF(stages=(0, 1, 2, 3, 4))
    assert strategy.apply(model.backbone).notes == []
    assert float((output(model) - before).abs().max()) < 1e-12
    strategy.merge(model.backbone)
    assert float((output(model) - before).abs().max()) < 1e-12
