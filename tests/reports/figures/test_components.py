"""Figures 4 and 5 on fabricated recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.reports.figures.looked import write_components
from tests.reports.figures.recordings import FREEZE, record

from fss.reports.figures.base import Drawn, find_runs
from fss.reports.figures.components import FIGURES, extremes
from fss.reports.figures.image_tiles import resized, shape
from fss.reports.figures.style import save
from fss.results import ReportError


def draw(folder: Path, name: str = "4") -> Drawn:
    return {kind.name: kind for kind in FIGURES}[name].draw(find_runs([folder]))


@pytest.mark.parametrize(("name", "layer"), [("4", "layer3.5.conv2"), ("5", "layer3.5.conv3")])
def test_shows_the_components_that_fell_and_grew_most(name: str, layer: str, tmp_path: Path) -> None:
    write_components(tmp_path / "run")
    drawn = draw(tmp_path, name)
    assert set(drawn.data["layer"]) == {layer}
    rows = list(zip(drawn.data["role"], drawn.data["component"], strict=True))
    assert rows == [("fell most", 2), ("grew most", 6)] * 4
    assert drawn.data["episode"] == [0, 0, 2, 2, 4, 4, 6, 6]
    change = np.array(drawn.data["s_after"]) - np.array(drawn.data["s_before"])
    assert np.allclose(change, [-0.9, 0.7] * 4)
    assert np.allclose(drawn.data["foreground_energy"], [-0.09, 0.07] * 4)
    assert "component 2 (fell most: S changed by -0.9, foreground energy -0.090 over 10 images)" in drawn.caption
    axes = drawn.figure.axes
    assert len(axes) == 4 * 5
    assert [ax.get_title(loc="right") for ax in axes[:5] if ax.get_title(loc="right")] == [
        "S 3.14 → 2.24",
        "S 1.43 → 2.13",
    ]
    assert {ax.get_ylim() for ax in axes} == {(19.5, -0.5)}, "the margin is cut off"
    for path in save(drawn, tmp_path / "out", "figure"):
        assert path.stat().st_size > 100


def test_map_is_that_of_the_component_and_light_follows_it(tmp_path: Path) -> None:
    stored = np.zeros((5, 4, 6, 6), np.float16)
    stored[:, 1, 0, 0] = 8.0  # component 2 is strong in the upper left corner alone
    write_components(tmp_path / "run", **{"map:layer3.5.conv2": stored})
    fell_over, fell = draw(tmp_path).figure.axes[1:3]
    alone = fell.images[0].get_array()
    assert alone is not None
    assert alone[0, 0] == 1
    assert alone.sum() == 1
    lit = np.asarray(fell_over.images[0].get_array(), float)
    assert lit[:3, :3].mean() > 5 * lit[12:, 12:].mean()


def test_fewer_images_than_rows(tmp_path: Path) -> None:
    write_components(tmp_path / "run", maps=2)
    assert len(draw(tmp_path).figure.axes) == 2 * 5


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"no run found\. Make one with: python train\.py experiment=figure06"):
        draw(tmp_path)
    record(tmp_path / "frozen", FREEZE)
    with pytest.raises(ReportError, match=r"none with recording/components\.npz"):
        draw(tmp_path)
    write_components(tmp_path / "narrow", layers={"layer3.1.conv2": 3})
    with pytest.raises(ReportError, match=r"no recording has maps of a 1x1 convolution.*resnet50"):
        draw(tmp_path, "5")


def test_damaged_file_is_named(tmp_path: Path) -> None:
    path = write_components(tmp_path / "run") / "recording" / "components.npz"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ReportError, match=r"components\.npz is damaged .* recording=on overwrite=true"):
        draw(tmp_path)
    write_components(tmp_path / "short", **{"energy:layer3.5.conv2": np.zeros((10, 3))})
    path.unlink()
    with pytest.raises(ReportError, match=r"arrays of layer3\.5\.conv2 differ"):
        draw(tmp_path)


def test_resizing_keeps_constants_and_ramps() -> None:
    assert np.allclose(resized(np.full((3, 4), 2.0), (7, 9)), 2)
    ramp = resized(np.arange(4.0)[None], (1, 8))[0]
    assert np.allclose(ramp, [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])


def test_shape_leaves_out_the_margin() -> None:
    mask = np.zeros((10, 10), np.uint8)
    assert shape(mask) == 1
    mask[5:] = 255
    assert shape(mask) == 0.5
    mask[:] = 255
    assert shape(mask) == 1, "an image without any known pixel is shown whole"


def test_what_fell_is_not_said_to_have_grown() -> None:
    assert extremes(np.array([0.1, -0.3, 0.2])) == {"fell most": 1, "grew most": 2}
    assert extremes(np.array([-0.1, -0.3])) == {"fell most": 1, "fell least": 0}
    assert extremes(np.array([0.1, 0.3])) == {"grew least": 0, "grew most": 1}
