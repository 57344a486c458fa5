import json

import pytest

from fss.data.sources.manifest import check_complete, count_files, finished, list_hash, read_manifest, write_manifest
from fss.errors import DataError

STATE = {"data": "coco", "year": 2014, "archives": [], "source": "verified"}
WHOLE = STATE | {"complete": True, "folders": {"a": 2}, "counts": {"train": 2, "val": 0}}


def test_round_trip(tmp_path):
    assert read_manifest(tmp_path) is None
    assert read_manifest(tmp_path / "gone") is None
    write_manifest(tmp_path, WHOLE)
    assert read_manifest(tmp_path).items() >= WHOLE.items()
    assert [p.name for p in tmp_path.iterdir()] == ["fss.json"]


def test_finished_means_that_all_files_are_there(tmp_path):
    write_manifest(tmp_path, STATE | {"complete": False})
    assert finished(tmp_path, {"data": "coco"}) is None
    with pytest.raises(DataError, match=r"interrupted.*fss data prepare coco --root"):
        check_complete(tmp_path)
    write_manifest(tmp_path, WHOLE)
    assert check_complete(tmp_path)["year"] == 2014
    assert finished(tmp_path, {"data": "coco"}) is None
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1").touch()
    (tmp_path / "a" / ".hidden").touch()
    assert count_files(tmp_path / "a") == 1
    assert finished(tmp_path, {"data": "coco"}) is None
    (tmp_path / "a" / "2").touch()
    assert finished(tmp_path, {"data": "coco", "year": 2014}) is not None
    with pytest.raises(DataError, match="year=2014, but 2017 was asked"):
        finished(tmp_path, {"data": "coco", "year": 2017})


@pytest.mark.parametrize("lost", ["format", "data", "archives", "folders", "counts", "everything"])
def test_damaged_manifests(tmp_path, lost):
    write_manifest(tmp_path, WHOLE)
    path = tmp_path / "fss.json"
    content = json.loads(path.read_text())
    content.pop(lost, None)
    path.write_text(path.read_text()[:50] if lost == "everything" else json.dumps(content))
    with pytest.raises(DataError, match=r"Cannot read .*fss\.json.*Delete it"):
        read_manifest(tmp_path)


def test_list_hash():
    assert list_hash([]) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert list_hash(["a", "b"]) != list_hash(["b", "a"]) != list_hash(["a\nb", ""])
