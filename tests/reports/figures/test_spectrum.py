"""Figures 6 and 8 to 12 and the heat map: which convolutions, which values, and their numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.reports.figures import recordings
from tests.reports.figures.recordings import FREEZE, SVF

from fss.reports.figures.base import Drawn, find_runs, kinds
from fss.reports.figures.style import save
from fss.results import ReportError

NUMBER = {name: i for i, (name, _, _) in enumerate(recordings.names())}
RANK = {name: rank for name, _, rank in recordings.names()}
LAYERS = {
    "6": ["layer3.5.conv3", "layer3.5.conv2"],
    "8": [f"layer3.{block}.conv2" for block in range(6)],
    "9": [f"layer2.{block}.conv2" for block in range(4)],
    "10": [f"layer3.{block}.conv3" for block in range(6)],
    "11": [f"layer2.{block}.conv3" for block in range(4)],
    "12": ["layer3.5.conv2", "layer3.5.conv3"],
}


def draw(name: str, *folders: Path) -> Drawn:
    return kinds()[name].draw(find_runs(folders))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = recordings.record(tmp_path / "runs" / "svf", SVF)
    recordings.spectra(folder)
    return folder


@pytest.mark.parametrize("name", LAYERS)
def test_numbers_and_files(run: Path, tmp_path: Path, name: str) -> None:
    drawn = draw(name, run)
    assert drawn.missing == ()
    data = {key: np.array(values) for key, values in drawn.data.items()}
    assert list(dict.fromkeys(data["layer"])) == LAYERS[name]
    for layer in LAYERS[name]:
        rows = data["layer"] == layer
        count = RANK[layer] if name == "12" else 30
        before, after = (values[:count].astype(float) for values in recordings.spectrum(NUMBER[layer], RANK[layer]))
        assert data["index"][rows].tolist() == list(range(1, count + 1))
        np.testing.assert_array_equal(data["before"][rows], before)
        np.testing.assert_array_equal(data["after"][rows], after)
        np.testing.assert_array_equal(data["change"][rows], after - before)
        np.testing.assert_allclose(data["mean_abs_change"][rows], np.abs(after - before).mean(), rtol=1e-12)
        relative = 100 * (np.abs(after - before) / before).mean()
        np.testing.assert_allclose(data["mean_rel_change_percent"][rows], relative, rtol=1e-12)
        assert f"({layer}) {np.abs(after - before).mean():.3g} ({relative:.2g} %)" in drawn.caption
    assert "after 200 epochs" in drawn.caption
    pdf, _, _, _ = save(drawn, tmp_path / "out", name)
    assert b"/FontFile2" in pdf.read_bytes()


def test_charts_show_both_series_and_the_difference(run: Path) -> None:
    drawn = draw("8", run)
    titles = [axes.get_title() for axes in drawn.figure.axes if axes.get_title()]
    assert titles == [f"block {i}" for i in range(1, 7)]
    charts = [axes for axes in drawn.figure.axes if axes.get_title()]
    changes = [axes for axes in drawn.figure.axes if not axes.get_title()]
    assert len(changes) == 6
    for chart, change in zip(charts, changes[:3] + changes[3:], strict=True):
        before, after = chart.get_lines()
        assert (before.get_linestyle(), after.get_linestyle()) == ("--", "-")
        assert len(before.get_ydata()) == 30
        heights = sorted((p.get_x() + p.get_width() / 2, p.get_height()) for p in change.patches)
        np.testing.assert_allclose([h for _, h in heights], np.subtract(after.get_ydata(), before.get_ydata()))
    assert len({axes.get_ylim() for axes in changes}) == 1, "differences of all blocks have one scale"


def test_the_largest_before_tuning_are_chosen_whatever_the_order(tmp_path: Path) -> None:
    """Two groups of a convolution: values descend within each alone."""
    folder = recordings.record(tmp_path / "a", SVF)
    before = np.concatenate([np.linspace(9, 1, 20), np.linspace(8.5, 0.5, 20)]).astype(np.float32)
    after = before[::-1].copy()
    name = "layer3.0.conv2"
    arrays: dict[str, Any] = {name: np.stack([before, after]), "epochs": [0, 1], "names": [name], "kernels": [3]}
    np.savez(folder / "recording" / "spectra.npz", **arrays)
    data = draw("8", folder).data
    order = np.argsort(-before, kind="stable")[:30]
    np.testing.assert_array_equal(data["before"], before[order])
    np.testing.assert_array_equal(data["after"], after[order])


def test_small_ranks_show_what_there_is(tmp_path: Path) -> None:
    folder = recordings.record(tmp_path / "a", SVF, data="shapes")
    recordings.spectra(folder, shrink=8)
    drawn = draw("9", folder)
    assert list(drawn.data["index"]) == list(range(1, 17)) * 4
    assert "The 16 largest" in drawn.caption


def test_a_backbone_without_bottlenecks(tmp_path: Path) -> None:
    folder = recordings.record(tmp_path / "a", SVF, backbone="resnet18")
    recordings.spectra(folder, depth=18)
    eight = draw("8", folder)
    assert [axes.get_title() for axes in eight.figure.axes if axes.get_title()] == [
        f"block {block}, conv{conv}" for block in (1, 2) for conv in (1, 2)
    ]
    six = draw("6", folder)
    assert list(dict.fromkeys(six.data["layer"])) == ["layer3.1.conv2"]
    assert len(six.missing) == 1
    assert "backbone=resnet50" in six.missing[0]
    for name in ("10", "11"):
        with pytest.raises(
            ReportError, match=r"tuned no 1x1 .*backbone=resnet18.*experiment=figure06 backbone=resnet50"
        ):
            draw(name, folder)


def test_svf_of_the_baseline_comes_first(run: Path, tmp_path: Path) -> None:
    for i, (tuned, key) in enumerate(
        [(recordings.part(1, 3), {}), (SVF, {"method": "pfenet"}), (SVF, {"data": "shapes"}), (SVF, {"fold": 1})]
    ):
        recordings.spectra(recordings.record(tmp_path / "runs" / f"a{i}", tuned, **key), epochs=(0, 3))
    assert "baseline, finetune=svf, resnet50, pascal fold 0" in draw("6", tmp_path).caption
    other = draw("6", tmp_path / "runs" / "a0")
    assert "finetune=part" in other.caption
    assert [text.get_text() for text in other.figure.legends[0].get_texts()] == ["pretrained", "after part"]


def test_a_training_that_goes_on(tmp_path: Path) -> None:
    folder = recordings.record(tmp_path / "a", SVF, finished=False)
    recordings.spectra(folder, epochs=(0, 1))
    assert "after 1 epoch so far (the run is not finished)" in draw("12", folder).caption


@pytest.mark.parametrize("name", ["12", "heatmap"])
def test_runs_without_singular_values(tmp_path: Path, name: str) -> None:
    recordings.curves(recordings.record(tmp_path / "a", FREEZE))
    with pytest.raises(ReportError, match=r"1 run found, none with recording/spectra.npz.*experiment=figure06"):
        draw(name, tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"no zip"])
def test_damaged_files(run: Path, content: bytes) -> None:
    (run / "recording" / "spectra.npz").write_bytes(content)
    with pytest.raises(ReportError, match=r"spectra\.npz.*recording=on overwrite=true"):
        draw("6", run)


def test_a_file_without_a_record_after_training(run: Path) -> None:
    recordings.spectra(run, epochs=(0, 5))
    with np.load(run / "recording" / "spectra.npz") as stored:
        arrays: dict[str, Any] = dict(stored)
    arrays["epochs"] = arrays["epochs"][:1]
    np.savez(run / "recording" / "spectra.npz", **arrays)
    with pytest.raises(ReportError, match="does not hold values before and after training"):
        draw("6", run)


def test_heat_map(run: Path, tmp_path: Path) -> None:
    drawn = draw("heatmap", run)
    data = {key: np.array(values) for key, values in drawn.data.items()}
    assert list(dict.fromkeys(data["layer"])) == [name for name, _, _ in recordings.names()]
    assert len(data["layer"]) == sum(RANK.values())
    name = "layer4.2.conv2"
    rows = data["layer"] == name
    before, after = (values.astype(float) for values in recordings.spectrum(NUMBER[name], RANK[name]))
    expected = 100 * (after - before) / before.max()
    np.testing.assert_allclose(data["change_percent_of_largest"][rows], expected, rtol=1e-12)
    assert set(data["kernel"][rows]) == {3}
    assert data["component"][rows].tolist() == list(range(1, 513))
    (mesh,) = drawn.figure.axes[0].collections
    shown = np.asarray(mesh.get_array())
    assert shown.shape == (len(NUMBER), 1024)
    np.testing.assert_allclose(shown[NUMBER[name], :512], expected, rtol=1e-12)
    assert np.ma.getmaskarray(mesh.get_array())[NUMBER[name], 512:].all(), "no value is shown where there is none"
    low, high = mesh.get_clim()
    assert low == -high < 0
    pdf, _, _, _ = save(drawn, tmp_path / "out", "heatmap")
    assert b"/FontFile2" in pdf.read_bytes()
