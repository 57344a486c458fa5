"""Components and gallery of a run: what is written, that it is right, and that the run does not notice."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from tests.lit.fabricate import CLASSES, Episodes, module, trainer

from fss.finetune.base import Strategy
from fss.finetune.chains.components import component_maps, look_inside, tuned_convolutions
from fss.finetune.full import Full
from fss.finetune.svf import SVF
from fss.finetune.svf_residual import SVFResidual
from fss.lit.callbacks.components import ComponentOptions, ComponentRecorder, extremes, spread_over_classes
from fss.lit.callbacks.finetuning import BackboneFinetune
from fss.lit.callbacks.gallery import GalleryRecorder, leading
from fss.lit.callbacks.recording_folder import RecordingFolder
from fss.lit.episodic import EpisodicModule
from fss.metrics.foreground import foreground_energy

MEAN, STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def run(folder: Path, strategy: Strategy, *more: pl.Callback) -> tuple[EpisodicModule, Episodes]:
    net, data = module(), Episodes(4)
    one = trainer(folder, BackboneFinetune(strategy), *more)
    torch.manual_seed(0)
    one.fit(net, datamodule=data)
    one.test(net, datamodule=data, verbose=False)
    return net, data


def recorders(folder: Path, **options: Any) -> tuple[ComponentRecorder, GalleryRecorder]:
    chosen = ComponentOptions(**{"episodes": 8, "maps": 3, **options})
    into = RecordingFolder(folder / "recording", {"key": {"finetune": "svf"}})
    return ComponentRecorder(into, chosen, MEAN, STD), GalleryRecorder(into, 2, MEAN, STD)


@pytest.mark.parametrize("strategy", [SVF, SVFResidual])
def test_run_does_not_notice_the_recording(strategy: type[Strategy], tmp_path: Path) -> None:
    plain, _ = run(tmp_path / "plain", strategy())
    recorded, _ = run(tmp_path / "recorded", strategy(), *recorders(tmp_path))
    assert plain.test_scores == recorded.test_scores
    assert torch.equal(plain.test_rows, recorded.test_rows)
    for (name, a), (other, b) in zip(plain.state_dict().items(), recorded.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(a, b), name
    assert (tmp_path / "recording/components.npz").is_file()
    assert (tmp_path / "recording/gallery.npz").is_file()


@pytest.mark.parametrize("strategy", [SVF, SVFResidual])
def test_components_are_those_of_the_tested_weights(strategy: type[Strategy], tmp_path: Path) -> None:
    net, data = run(tmp_path, strategy(), *recorders(tmp_path))
    untouched = module()
    strategy().apply(untouched.model.backbone)
    layers, first = tuned_convolutions(net.model.backbone), tuned_convolutions(untouched.model.backbone)
    stored = np.load(tmp_path / "recording/components.npz")
    assert stored["layers"].tolist() == list(layers)
    assert stored["episode"].tolist() == list(range(8))
    assert stored["class_name"].tolist() == [CLASSES[i % 2] for i in range(8)]
    for name, layer in layers.items():
        assert np.array_equal(stored[f"before:{name}"], first[name].values.detach().numpy()), name
        assert np.array_equal(stored[f"after:{name}"], layer.values.detach().numpy()), name
    assert any((stored[f"before:{n}"] != stored[f"after:{n}"]).any() for n in layers)
    batch = data.make(True)[1]
    seen: dict[str, torch.Tensor] = {}
    look_inside(net.model.backbone, batch.query, layers, lambda n, x: seen.update({n: component_maps(layers[n], x)}))
    for name, maps in seen.items():
        expected = foreground_energy(maps, batch.query_label).numpy()
        assert np.allclose(stored[f"energy:{name}"][2:4], expected, atol=1e-4, equal_nan=True), name
    name = "layer3.1.conv2"
    assert stored["shown"].tolist() == [name]
    at, index = stored["image_episode"].tolist().index(2), stored[f"index:{name}"]
    assert np.allclose(stored[f"map:{name}"][at], seen[name][0, index].abs().numpy(), rtol=2e-3, atol=1e-4)
    pixels = (batch.query[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    assert np.array_equal(stored["image"][at], pixels)
    assert np.array_equal(stored["mask"][at], batch.query_label[0].numpy())


def test_a_continued_run_compares_with_the_pretrained_values(tmp_path: Path) -> None:
    """Not with those of the checkpoint that it continues from."""
    whole, _ = run(tmp_path / "whole", SVF(), recorders(tmp_path / "whole")[0])
    first, interrupted = trainer(tmp_path, BackboneFinetune(SVF())), module()
    torch.manual_seed(0)
    first.fit(interrupted, datamodule=Episodes(4))
    first.save_checkpoint(tmp_path / "last.ckpt")
    again, data = module(), Episodes(4)
    second = trainer(tmp_path, BackboneFinetune(SVF()), recorders(tmp_path / "again")[0])
    second.fit(again, datamodule=data, ckpt_path=str(tmp_path / "last.ckpt"), weights_only=True)
    second.test(again, datamodule=data, verbose=False)
    for (name, a), (_, b) in zip(whole.state_dict().items(), again.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    stored = [np.load(tmp_path / folder / "recording/components.npz") for folder in ("whole", "again")]
    assert stored[0].files == stored[1].files
    for name in stored[0].files:
        assert np.array_equal(stored[0][name], stored[1][name], equal_nan=stored[0][name].dtype.kind == "f"), name


def test_a_test_alone_records_no_components(tmp_path: Path) -> None:
    """The values before training are not known there."""
    trainer(tmp_path, BackboneFinetune(SVF()), *recorders(tmp_path)).test(
        module(), datamodule=Episodes(1), verbose=False
    )
    assert [path.name for path in sorted((tmp_path / "recording").iterdir())] == ["about.json", "gallery.npz"]


@pytest.mark.parametrize("options", [{"episodes": 0}, {"maps": 0}])
def test_less_can_be_kept(options: dict[str, int], tmp_path: Path) -> None:
    run(tmp_path, SVF(), recorders(tmp_path, **options)[0])
    path = tmp_path / "recording/components.npz"
    assert path.is_file() == ("episodes" not in options)
    if path.is_file():
        assert len(np.load(path)["image"]) == 0


def test_layers_of_ones_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        run(tmp_path, SVF(), recorders(tmp_path, layers=("layer2.0.conv1", "layer9.conv"))[0])
    stored = np.load(tmp_path / "recording/components.npz")
    assert stored["shown"].tolist() == ["layer2.0.conv1"]
    assert "layer9.conv is no convolution that is tuned, as layer4.0.downsample.0, layer4.1.conv1" in caplog.text


def test_no_file_where_no_singular_values_train(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        run(tmp_path, Full(), recorders(tmp_path)[0])
    assert not (tmp_path / "recording").exists()
    assert "No singular values train" in caplog.text


def test_a_folder_that_cannot_be_written_costs_the_recording_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "recording").write_text("in the way")
    net, _ = run(tmp_path, SVF(), *recorders(tmp_path))
    assert net.test_scores.episodes == 8
    assert caplog.text.count("Cannot write") == 1


def test_gallery_keeps_the_worst_and_best_of_every_class(tmp_path: Path) -> None:
    seen: list[tuple[float, int]] = []

    class Watch(pl.Callback):
        def on_test_batch_end(self, _t: Any, _m: Any, outputs: Any, batch: Any, *_: Any, **__: Any) -> None:
            seen.extend(zip(outputs["iou"], batch.index.tolist(), strict=True))

    _, data = run(tmp_path, SVF(), recorders(tmp_path)[1], Watch())
    stored = np.load(tmp_path / "recording/gallery.npz")
    assert stored["end"].tolist() == ["worst"] * 4 + ["best"] * 4
    assert stored["class_name"].tolist() == [CLASSES[0]] * 2 + [CLASSES[1]] * 2 + [CLASSES[0]] * 2 + [CLASSES[1]] * 2
    for end, first in (("worst", 0), ("best", -1)):
        for number, name in enumerate(CLASSES):
            ious = sorted(iou for iou, index in seen if index % 2 == number)
            here = (stored["end"] == end) & (stored["class_name"] == name)
            assert stored["iou"][here][0] == ious[first]
            assert sorted(stored["iou"][here]) == (ious[:2] if end == "worst" else ious[-2:])
    index = int(stored["index"][0])
    batch = data.make(True)[index // 2]
    assert np.array_equal(stored["truth"][0], batch.query_label[index % 2].numpy())
    assert np.array_equal(stored["support_mask"][0], batch.support_labels[index % 2, -1].numpy())


def test_extremes_by_both_rules() -> None:
    before = np.array([10.0, 5.0, 1.0, 0.1, 0.0])
    after = np.array([8.0, 8.0, 1.5, 0.09, 0.0])
    assert extremes(before, after, 1).tolist() == [0, 1]
    assert extremes(np.array([10.0, 1.0]), np.array([9.0, 0.5]), 1).tolist() == [0, 1]
    assert extremes(np.array([10.0, 1.0, 3.0]), np.array([9.0, 0.5, 3.0]), 1).tolist() == [0, 1, 2]


def test_images_of_every_class_before_a_second_and_tiny_objects_last() -> None:
    full, speck = np.ones((8, 8)), np.zeros((8, 8))
    rows = [{"class": c, "mask": m} for c, m in (("a", speck), ("a", full), ("a", full), ("b", full))]
    assert spread_over_classes(rows, 4) == [1, 3, 2, 0]
    assert spread_over_classes(rows, 2) == [1, 3]


def test_gallery_of_several_processes_counts_an_episode_once() -> None:
    rows = [
        {"end": "best", "class_name": "a", "index": i, "order": (-v, 0, i)} for i, v in ((1, 0.5), (2, 0.9), (2, 0.9))
    ]
    assert [r["index"] for r in leading(rows, 2)] == [2, 1]
