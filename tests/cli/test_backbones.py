"""``fss backbones``: the table of all, the description of one, and what lacks its package."""

from __future__ import annotations

import sys

import pytest
import torch
from typer.testing import CliRunner

from fss.backbones.resnet import ResNet
from fss.cli import backbones
from fss.cli.main import app
from fss.config import compose
from fss.config.compose import composed
from fss.model.backbone_facts import facts_of, why_not


def fss(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["backbones", *arguments], env={"COLUMNS": "220"})
    return done.exit_code, done.output


def rows(text: str) -> dict[str, list[str]]:
    return {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}


def test_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "names", lambda *_: ["resnet18", "efficientnet_lite0", "vgg16"])
    code, text = fss()
    assert code == 0, text
    found = rows(text)
    assert " ".join(found["resnet18"]) == (
        "resnet18 64 64 128 256 512 4 4 8 8 8 8n + 1 ImageNet 11.2 M 4,032 image, maps"
    )
    assert " ".join(found["efficientnet_lite0"]) == (
        "efficientnet_lite0 16 24 40 112 320 2 4 8 8 8 8n + 1 0.5 3.0 M 11,880 image, maps"
    )
    assert " ".join(found["vgg16"]).startswith("vgg16 64 128 256 512 512 2 4 8 16 16 8n + 1 ImageNet 14.7 M 3,840")


def test_every_backbone_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    from fss.config.compose import choices

    asked: list[str] = []
    monkeypatch.setattr(backbones, "_row", lambda name, _: (asked.append(name), name, *[""] * 7)[1:])
    assert fss()[0] == 0
    assert asked == choices("backbone")


def test_what_lacks_its_package_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [m for m in sys.modules if m.split(".")[0] == "timm" or m.startswith("fss.backbones.timm")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setattr(backbones, "names", lambda *_: ["convnext_atto", "resnet18"])
    code, text = fss()
    assert code == 0, text
    assert rows(text)["convnext_atto"] == ["convnext_atto", "needs", "fss[timm]"]
    assert rows(text)["resnet18"][-2:] == ["image,", "maps"]
    code, text = fss("convnext_atto")
    assert code == 2
    assert "convnext_atto needs the package timm, which is not installed: pip install 'fss[timm]'" in " ".join(
        text.split()
    )


def test_one_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"backbone": ["resnet18"], "finetune": ["freeze", "svf", "ln"], "method": ["base_learner", "bam", "pfenet"]}
    monkeypatch.setattr(compose, "choices", few.__getitem__)
    code, text = fss("resnet18", "--option", "backbone.width=8", "--option", "backbone.weights=none")
    assert code == 0, text
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "backbone=resnet18: 0.2 M values, ResNet" in lines
    with torch.device("meta"):
        plain = ResNet(18, width=8)
    for index, (channels, stride) in enumerate([(8, 4), (8, 4), (16, 8), (32, 8), (64, 8)]):
        count = sum(p.numel() for p in plain.stage(index).parameters())
        blocks = 4 if index == 0 else 2
        assert f"{index} {channels} {stride} {blocks} {count:,}" in lines
    assert "sides: 8n + 1; data=pascal takes 473" in lines
    assert "weights: none" in lines
    joined = " ".join(lines)
    assert "values that strategies train: freeze 0, svf 504; refused: ln" in joined
    assert [line for line in lines if line.startswith("method=")] == ["method=bam: yes", "method=pfenet: yes"]


def test_a_name_that_does_not_exist() -> None:
    code, text = fss("resnet51")
    assert code == 2
    assert "backbone=resnet51 does not exist" in text
    assert "fss backbones resnet50" in text


def test_heads_that_a_backbone_cannot_serve_are_told_why() -> None:
    pytest.importorskip("timm", reason="needs fss[timm]")
    from fss.backbones.timm_backbone import TimmBackbone

    small = {"embed_dim": 16, "num_heads": 1, "stages": [1, 1, 2, 1], "global_att_blocks": [3]}
    with torch.device("meta"):
        backbone = TimmBackbone("sam2_hiera_tiny", arguments=small).eval()
    assert [stage.blocks for stage in facts_of(backbone).stages] == [1, 1, 1, 2, 1]
    view = "method.support_view=masked_image"
    assert why_not(backbone, composed(["method=baseline", "method.width=8", view])["method"]) == ""
    late = composed(["method=baseline", "method.support_view=masked_before_stage4"])["method"]
    assert "cannot be run one by one" in why_not(backbone, late)
    assert "head that needs no taps" in why_not(backbone, composed(["method=hsnet"])["method"])
