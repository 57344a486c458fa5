import os
import shutil

import pytest

from fss.data.reading import derived_files as cache
from fss.errors import DataError


def test_write_is_whole_and_leaves_no_rest(tmp_path):
    cache.write_atomic(tmp_path / "a" / "f.txt", "one")
    cache.write_atomic(tmp_path / "a" / "f.txt", b"two")
    assert (tmp_path / "a" / "f.txt").read_bytes() == b"two"
    assert os.listdir(tmp_path / "a") == ["f.txt"]


def test_unwritable_place_is_explained(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="Cannot write"):
        cache.write_atomic(tmp_path / "file" / "f.txt", "x")


def test_fingerprint_follows_contents_not_places(tmp_path):
    for name in ("x.png", "y.png"):
        (tmp_path / "one" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "one" / name).write_text(name)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one = [tmp_path / "one" / n for n in ("x.png", "y.png")]
    two = [tmp_path / "two" / n for n in ("x.png", "y.png")]
    key = cache.fingerprint(one)
    assert cache.fingerprint(two) == key
    assert cache.fingerprint(one[::-1]) != key
    stat = os.stat(two[0])
    two[0].write_text("z.png")  # same length
    os.utime(two[0], ns=(stat.st_atime_ns, stat.st_mtime_ns))  # and same time
    assert cache.fingerprint(two) != key


def test_fast_hit_reads_no_content(tmp_path, monkeypatch):
    (tmp_path / "x").write_text("1")
    key = cache.fingerprint([tmp_path / "x"])
    monkeypatch.setattr(cache, "_digest", lambda file: pytest.fail("read again"))
    assert cache.fingerprint([tmp_path / "x"]) == key


def test_missing_files_are_counted(tmp_path):
    (tmp_path / "x").write_text("1")
    with pytest.raises(DataError, match="2 of 3"):
        cache.fingerprint([tmp_path / "a", tmp_path / "x", tmp_path / "b"])
