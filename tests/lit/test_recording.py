"""Curves and singular values of a training: written, right, and the training does not notice."""

from __future__ import annotations

import csv
import errno
import json
import logging
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from tests.lit.fabricate import Episodes, module, trainer
from tests.lit.test_snapshots import BATCHES, EPOCHS, VAL, Signal, fit
from torch import nn

from fss.finetune.adapter import Adapter
from fss.finetune.base import Strategy
from fss.finetune.bn import BN
from fss.finetune.freeze import Freeze
from fss.finetune.full import Full
from fss.finetune.layers.surgery import convolutions
from fss.finetune.layers.svd import decompose, full_rank
from fss.finetune.lora import LoRA
from fss.finetune.part import Part
from fss.finetune.scale_out import ScaleOut
from fss.finetune.svf import SVF
from fss.finetune.svf_residual import SVFResidual
from fss.finetune.svf_rotated import SVFRotated
from fss.lit.callbacks.curves import CurveRecorder
from fss.lit.callbacks.finetuning import BackboneFinetune
from fss.lit.callbacks.recording_folder import RecordingFolder
from fss.lit.callbacks.spectra import SpectrumRecorder, follow

ABOUT = {"key": {"finetune": "svf"}}
NAMES = [
    f"layer{stage}.{block}.{conv}"
    for stage in (2, 3, 4)
    for block, conv in ((0, "conv1"), (0, "conv2"), (0, "downsample.0"), (1, "conv1"), (1, "conv2"))
]


def recorders(folder: Path, every: int = 2) -> tuple[CurveRecorder, SpectrumRecorder]:
    into = RecordingFolder(folder / "recording", ABOUT)
    return CurveRecorder(into), SpectrumRecorder(into, every)


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "recording" / "curves.csv", newline="") as file:
        return list(csv.DictReader(file))


def arrays(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    with np.load(folder / "recording" / "spectra.npz", allow_pickle=False) as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("whole")
    net, _, _ = fit(folder, *recorders(folder))
    return folder, net


def logged(folder: Path, name: str) -> list[str]:
    with open(folder / "csv" / "metrics.csv", newline="") as file:
        return [row[name] for row in csv.DictReader(file) if row.get(name)]


def test_curves_are_what_the_run_logs(whole: tuple[Path, Any]) -> None:
    folder, _ = whole
    table = rows(folder)
    assert [row["epoch"] for row in table] == [str(e + 1) for e in range(EPOCHS)]
    assert [float(row["train_miou"]) for row in table] == pytest.approx(
        [float(v) for v in logged(folder, "train/miou")]
    )
    assert [float(row["novel_miou"]) for row in table] == pytest.approx([float(v) for v in logged(folder, "val/miou")])
    assert len({row["train_miou"] for row in table}) > 1, "the training is worth recording"
    assert json.loads((folder / "recording" / "about.json").read_text()) == ABOUT


def test_spectra_before_during_and_after(whole: tuple[Path, Any]) -> None:
    folder, net = whole
    found = arrays(folder)
    assert found["epochs"].tolist() == [0, 2, EPOCHS]
    assert found["names"].tolist() == NAMES
    assert dict(zip(found["names"], found["kernels"], strict=True)) == {n: 1 if "down" in n else 3 for n in NAMES}
    plain = {site.name: site.module for site in convolutions(module().model.backbone, (2, 3, 4))}
    for name in NAMES:
        weight = plain[name].weight
        _, before, _ = decompose(weight, full_rank(weight))
        np.testing.assert_allclose(found[name][0], before.detach().numpy(), rtol=1e-5)
        after = net.model.backbone.get_submodule(name).S
        np.testing.assert_array_equal(found[name][-1], after.detach().numpy())
        assert not np.array_equal(found[name][1], found[name][2])


def test_the_training_does_not_notice(whole: tuple[Path, Any], tmp_path: Path) -> None:
    _, net = whole
    other, _, _ = fit(tmp_path)
    for name, value in other.state_dict().items():
        assert torch.equal(value, net.state_dict()[name]), name
    assert not (tmp_path / "recording").exists()


@pytest.mark.parametrize(
    ("place", "epoch", "batch"), [("train", 0, 1), ("train", 1, BATCHES - 1), ("val", 1, VAL - 1), ("end", 1, 0)]
)
def test_a_continued_training_records_the_same(
    whole: tuple[Path, Any], tmp_path: Path, place: str, epoch: int, batch: int, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Exception, match="SIGTERM"):
        fit(tmp_path, Signal(place, epoch, batch, signal.SIGTERM), *recorders(tmp_path))
    fit(tmp_path, *recorders(tmp_path))
    assert "it was off before" not in caplog.text
    for name in ("curves.csv", "spectra.npz", "about.json"):
        same = (whole[0] / "recording" / name).read_bytes()
        assert (tmp_path / "recording" / name).read_bytes() == same, name


def test_recording_begins_where_it_was_switched_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Exception, match="SIGTERM"):
        fit(tmp_path, Signal("end", 0, 0, signal.SIGTERM))
    fit(tmp_path, *recorders(tmp_path))
    assert "Recording begins with epoch 2: it was off before" in caplog.text
    assert [row["epoch"] for row in rows(tmp_path)] == ["2", "3"]
    assert arrays(tmp_path)["epochs"].tolist() == [0, 2, EPOCHS]


def test_epochs_without_validation_have_no_novel_score(tmp_path: Path) -> None:
    fit(tmp_path, *recorders(tmp_path), validate=False)
    assert [row["novel_miou"] for row in rows(tmp_path)] == [""] * EPOCHS


def trained(folder: Path, strategy: Strategy) -> tuple[Any, Any]:
    """Train an epoch; return the network and the plain convolutions before."""
    net = module()
    before = {site.name: site.module.weight.detach().clone() for site in convolutions(net.model.backbone, range(5))}
    trainer(folder, BackboneFinetune(strategy), *recorders(folder)).fit(net, datamodule=Episodes())
    return net, before


@pytest.mark.parametrize(
    ("strategy", "names"),
    [
        (Full((2, 3, 4)), NAMES),
        (Part((4,), (1,)), ["layer4.0.downsample.0"]),
        (LoRA((3,), rank=2, alpha=400.0), [n for n in NAMES if n.startswith("layer3")]),
        (ScaleOut((2,)), [n for n in NAMES if n.startswith("layer2")]),
        (SVF((2,), ("U", "S", "V")), [n for n in NAMES if n.startswith("layer2")]),
    ],
)
def test_other_weights_are_projected_on_the_pretrained_directions(
    tmp_path: Path, strategy: Strategy, names: list[str]
) -> None:
    net, before = trained(tmp_path, strategy)
    found = arrays(tmp_path)
    assert found["names"].tolist() == names
    strategy.merge(net.model.backbone)
    for name in names:
        u, s, v = decompose(before[name].double(), full_rank(before[name]))
        now = net.model.backbone.get_submodule(name).weight.detach().double().flatten(1)
        np.testing.assert_allclose(found[name][0], s, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found[name][-1], torch.diagonal(u.T @ now @ v.flatten(1).T), rtol=1e-4, atol=1e-5)
        assert np.abs(found[name][-1] - found[name][0]).max() > 1e-4


def test_residual_values_are_those_of_the_weight(tmp_path: Path) -> None:
    net, before = trained(tmp_path, SVFResidual((4,)))
    name = "layer4.1.conv2"
    layer, found = net.model.backbone.get_submodule(name), arrays(tmp_path)[name]
    np.testing.assert_allclose(found[-1], (layer.S * layer.p.exp()).detach(), rtol=1e-6)
    _, s, _ = decompose(before[name], full_rank(before[name]))
    np.testing.assert_allclose(found[0], s, rtol=1e-5)
    assert not np.array_equal(found[0], found[-1])


def test_groups_are_projected_each_by_itself() -> None:
    torch.manual_seed(0)
    net = module().model.backbone
    net.layer4[0].conv2 = nn.Conv2d(8, 8, 3, groups=2, bias=False)
    weight = net.layer4[0].conv2.weight.detach()
    (one,) = [one for one in follow(net) if one.site.name == "layer4.0.conv2"]
    expected = torch.cat([torch.linalg.svdvals(half.flatten(1).double()) for half in weight.split(4)])
    np.testing.assert_allclose(one.values(), expected, rtol=1e-5)


@pytest.mark.parametrize("strategy", [Freeze(), BN(), Adapter(), SVFRotated(train_s=False)])
def test_strategies_without_tuned_convolutions(
    tmp_path: Path, strategy: Strategy, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "fss"):
        trained(tmp_path, strategy)
    assert "no singular values are recorded" in caplog.text
    assert sorted(path.name for path in (tmp_path / "recording").iterdir()) == ["about.json", "curves.csv"]


def test_a_full_disk_does_not_stop_the_training(
    whole: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = os.fsync

    class Room(pl.Callback):
        """There is room again in the last epoch."""

        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == EPOCHS - 1:
                monkeypatch.setattr(os, "fsync", real)

    def full(handle: int) -> None:
        if "/recording/" in os.readlink(f"/proc/self/fd/{handle}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with caplog.at_level(logging.WARNING, "fss"):
        net, _, _ = fit(tmp_path, Room(), *recorders(tmp_path))
    assert caplog.text.count("No space left on device") == 1, "one warning for all files"
    assert "The training goes on" in caplog.text
    for name, value in net.state_dict().items():
        assert torch.equal(value, whole[1].state_dict()[name]), name
    for name in ("curves.csv", "spectra.npz"):
        assert (tmp_path / "recording" / name).read_bytes() == (whole[0] / "recording" / name).read_bytes(), name


def test_a_folder_that_cannot_be_made(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "recording").write_text("in the way")
    with caplog.at_level(logging.WARNING, "fss"):
        fit(tmp_path, *recorders(tmp_path))
    assert caplog.text.count("Cannot write") == 1
    assert (tmp_path / "recording").read_text() == "in the way"
    assert not list(tmp_path.rglob("*.tmp"))
