"""The image grid: what it shows, and that it refuses runs on other episodes."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from tests.reports.fabricate_runs import write_previews

from fss.reports.preview_grid import _spread, load_previews, preview_grid
from fss.results import ReportError


def test_grid_has_a_row_per_episode_and_a_column_per_run(tmp_path: Path) -> None:
    runs = {name: write_previews(tmp_path / name, seed=k) for k, name in enumerate(("freeze", "svf"))}
    preview_grid(runs, tmp_path / "new" / "grid.png")
    whole = imread(tmp_path / "new" / "grid.png")
    preview_grid(runs, tmp_path / "two.png", episodes=2)
    preview_grid({"svf": runs["svf"]}, tmp_path / "one.png")
    fewer, narrower = imread(tmp_path / "two.png"), imread(tmp_path / "one.png")
    assert whole.shape[1] == fewer.shape[1] > narrower.shape[1]
    assert whole.shape[0] == narrower.shape[0] > fewer.shape[0]
    assert (tmp_path / "new").iterdir().__next__().name == "grid.png"
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_grid_shows_the_prediction(tmp_path: Path) -> None:
    nothing = np.zeros((4, 24, 32), np.uint8)
    for name, prediction in (("empty", nothing), ("all", nothing + 1)):
        preview_grid({"run": write_previews(tmp_path / name, prediction=prediction)}, tmp_path / f"{name}.png")
    empty, everything = imread(tmp_path / "empty.png"), imread(tmp_path / "all.png")
    changed = np.abs(empty - everything).max(axis=(0, 2)) > 0.1
    assert not changed[: int(0.7 * len(changed))].any(), "support, query and truth must not depend on the prediction"
    assert changed[int(0.78 * len(changed)) : int(0.98 * len(changed))].mean() > 0.9


def test_episodes_are_matched_by_number(tmp_path: Path) -> None:
    a = write_previews(tmp_path / "a")
    stored = dict(np.load(a / "previews.npz"))
    write_previews(tmp_path / "b", **{k: v[::-1] for k, v in stored.items()})
    preview_grid({"a": a}, tmp_path / "a.png")
    preview_grid({"a": tmp_path / "b"}, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_other_episodes_are_refused(tmp_path: Path) -> None:
    a = write_previews(tmp_path / "a")
    b = write_previews(tmp_path / "b", index=np.array([0, 1, 2, 7]))
    with pytest.raises(ReportError, match=r"'a' and 'b' stored different episodes \(e.g. \[3, 7\]\)"):
        preview_grid({"a": a, "b": b}, tmp_path / "grid.png")
    c = write_previews(tmp_path / "c", query=np.zeros((4, 24, 32, 3), np.uint8))
    with pytest.raises(ReportError, match="differ in query"):
        preview_grid({"a": a, "c": c}, tmp_path / "grid.png")
    assert not (tmp_path / "grid.png").exists()


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"nowhere/previews\.npz is missing"):
        load_previews(tmp_path / "nowhere")
    folder = write_previews(tmp_path / "a")
    content = (folder / "previews.npz").read_bytes()
    (folder / "previews.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(ReportError, match=r"a/previews\.npz is damaged"):
        load_previews(folder)
    np.savez(folder / "previews.npz", index=np.arange(2))
    with pytest.raises(ReportError, match=r"a/previews\.npz.*query"):
        load_previews(folder)
    write_previews(folder, iou=np.zeros(3))
    with pytest.raises(ReportError, match=r"iou has shape \(3,\), expected \(4,\)"):
        load_previews(folder)
    write_previews(folder, truth=np.zeros((4, 24, 31), np.uint8))
    with pytest.raises(ReportError, match="truth has shape"):
        load_previews(folder)
    with pytest.raises(ReportError, match="nothing to draw"):
        preview_grid({}, tmp_path / "grid.png")


def test_every_class_comes_before_any_twice() -> None:
    assert _spread(np.array(["a", "a", "b", "a", "c", "b"]), 4) == [0, 2, 4, 1]
