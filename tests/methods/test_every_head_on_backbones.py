"""Every other head of conf/method takes a step and answers on backbones of every kind, both at their toy size."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.methods.test_heads_on_backbones import HEADS as PAPER
from tests.model.episodes import Stream
from torch import Tensor

from fss.config.compose import composed, heads
from fss.model.build import build_model, build_strategy
from fss.model.segmenter import FewShotSegmenter
from fss.types import Episode

ROOT = Path(__file__).parents[2]
HEADS = sorted(set(heads()) - set(PAPER))
OURS = ("resnet50", "vgg16", "efficientnet_lite0")
TIMM = ("convnext_atto", "swin_tiny", "dinov2_small", "dinov3_small")


@cache
def config(head: str, backbone: str) -> dict[str, Any]:
    wide = ["backbone.width=32"] if backbone == "efficientnet_lite0" else []  # DCAMA divides channels by 8
    node = composed([f"method={head}", f"backbone={backbone}", "finetune=svf", "+size=smoke", *wide])
    if "base_learner" in node["method"]:
        learner = composed(["method=base_learner", "+size=smoke"])["method"]
        node["method"]["base_learner"]["built"] = {"backbone": node["backbone"], "method": learner, "classes": 5}
    return node


def built(head: str, backbone: str) -> FewShotSegmenter:
    torch.manual_seed(0)
    node = config(head, backbone)
    model = build_model(node, pretrained=False)
    build_strategy(node["finetune"]).apply(model.backbone)
    return model


def one_batch(model: FewShotSegmenter) -> Episode:
    batch = Stream(1, count=2, dtype=torch.float32, size=model.backbone.input.nearest(97)).batches(2)[0]
    size = batch.query_label.shape
    batch.extras |= {
        "base_label": torch.zeros_like(batch.query_label),
        "base_index": torch.zeros(len(batch), dtype=torch.int64),
        "query_padding": torch.zeros(size, dtype=torch.bool),
    }
    return batch


def test_the_documentation_lists_what_is_tested() -> None:
    lines = (ROOT / "docs" / "backbones.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip(" `*") for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    (start,) = (i for i, row in enumerate(rows) if row[1:2] == [OURS[0]])
    assert tuple(rows[start][1:]) == OURS + TIMM
    table = {row[0]: row[1:] for row in rows[start + 2 : start + 2 + len(heads())]}
    columns = len(OURS + TIMM)
    assert table == {head: ["4" if head in PAPER else "yes"] * columns for head in heads()}


@pytest.mark.parametrize("backbone", OURS + TIMM)
@pytest.mark.parametrize("head", HEADS)
def test_a_step_and_an_answer(head: str, backbone: str) -> None:
    if backbone in TIMM:
        pytest.importorskip("timm", reason="backbones of timm need the extra fss[timm]")
    model = built(head, backbone)
    batch = one_batch(model)
    labels: dict[str, Tensor] = {
        "query": batch.query_label,
        "support": batch.support_labels.flatten(0, 1),
        "base": batch.extras["base_label"],
    }
    total = model.train().head.loss(model.run_episode(batch), labels)["total"]
    total.backward()
    tuned = [p for p in model.backbone.parameters() if p.requires_grad]  # type: ignore[operator]
    assert bool(total.isfinite())
    assert any(p.grad is not None and bool((p.grad != 0).any()) for p in tuned)
    with torch.no_grad():
        logits = model.eval().run_episode(batch).logits
    assert logits.shape[:2] == (2, 2)
    assert bool(logits.isfinite().all())
