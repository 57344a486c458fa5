"""A working directory with a small drawn data set, drawn once."""

from __future__ import annotations

from pathlib import Path

import pytest

from fss.data.shapes import write_shapes

TINY = (
    "data=shapes", "backbone=resnet18", "backbone.width=8", "backbone.weights=none", "method.width=8", "data.size=65",
    "workers=0", "trainer=cpu", "trainer.enable_progress_bar=false",
)  # fmt: skip
"""Options of the smallest model that learns something."""


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "shapes"
    write_shapes(folder, 0, train=60, val=40, pretrain_per_class=1, workers=1)
    return folder


@pytest.fixture(scope="module")
def home(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory for the tests of one file, with ``data/shapes``."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "data").mkdir()
    (folder / "data/shapes").symlink_to(drawn)
    return folder
