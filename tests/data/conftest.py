from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest
from tests.data.fabricate import write_voc

from fss.data.sources.shapes import ShapesSource

SHARED = Path(os.environ.get("FSS_SHARED", Path(__file__).resolve().parents[2].parent / "shared"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSS_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def pascal_dir() -> Path:
    folder = SHARED / "data" / "pascal_masks"
    if not folder.is_dir():
        pytest.skip(f"the real masks are not at {folder}")
    return folder


@pytest.fixture(scope="session")
def pascal_masks(pascal_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("pascal")
    with tarfile.open(pascal_dir / "SegmentationClassAug.tar") as archive:
        archive.extractall(target, filter="data")
    return target / "SegmentationClassAug"


@pytest.fixture(scope="session")
def coco128() -> Path:
    folder = SHARED / "data" / "coco128"
    if not folder.is_dir():
        pytest.skip(f"coco128 is not at {folder}")
    return folder


@pytest.fixture(scope="session")
def voc_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_voc(tmp_path_factory.mktemp("voc") / "tiny")


@pytest.fixture
def voc(voc_root: Path) -> ShapesSource:
    return ShapesSource(voc_root)
