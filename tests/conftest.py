"""One thread per test process, and a working directory with a small drawn data set, drawn once.

The suite runs one process per core, and small decompositions lose on shared ones.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hydra.core.hydra_config import HydraConfig

from fss.data.shapes.write import write_shapes

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("WANDB_MODE", "disabled")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the programs that tests start
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_choices_left() -> Iterator[None]:
    """Hydra keeps the last configuration of a process, which the next test must not see."""
    yield
    HydraConfig.instance().cfg = None


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
