"""``fss pretrain`` makes weights that a run loads and reuses them; ``fss report`` says when there is nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fss.backbones.resnet import ResNet
from fss.backbones.weights import load_into
from fss.cli.main import app
from fss.data.shapes.write import write_shapes

CLI = CliRunner()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images") / "shapes"
    write_shapes(root, 0, train=1, val=1, pretrain_per_class=5, workers=1)
    return root / "classification"


def pretrain(images: Path, out: Path, seed: int) -> str:
    options = ["--epochs", "1", "--width", "8", "--batch-size", "16", "--seed", str(seed)]
    done = CLI.invoke(app, ["pretrain", "--data", str(images), "--out", str(out), *options])
    assert done.exit_code == 0, done.output
    return done.output


def test_weights_are_made_once_and_fit_the_dilated_backbone(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.pth"
    assert "18 classes" in pretrain(images, out, seed=0)
    written = out.read_bytes()
    assert "there already" in pretrain(images, out, seed=0)
    assert out.read_bytes() == written
    assert "18 classes" in pretrain(images, out, seed=1)
    assert out.read_bytes() != written
    backbone = ResNet(18, width=8)
    before = backbone.layer4[0].conv1.weight.clone()
    assert load_into(backbone, out).missing == []
    assert not before.equal(backbone.layer4[0].conv1.weight)


def test_pretrain_without_images_names_the_command(tmp_path: Path) -> None:
    done = CLI.invoke(app, ["pretrain", "--data", str(tmp_path / "none"), "--out", str(tmp_path / "x.pth")])
    assert done.exit_code == 2
    assert "fss data shapes --root" in done.output
    assert not (tmp_path / "x.pth").exists()


def test_report_without_runs(tmp_path: Path) -> None:
    done = CLI.invoke(app, ["report", str(tmp_path)])
    assert done.exit_code == 2
    assert "no finished run" in done.output
