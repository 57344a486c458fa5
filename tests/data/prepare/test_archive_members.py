"""Archives from strangers: nothing leads outside, nothing fills memory or disk, damage is named."""

import gzip
import io
import tarfile
import zipfile
from dataclasses import replace

import pytest

from fss.data.prepare import archive_members as members
from fss.data.prepare.archive_members import read_all, read_members
from fss.data.prepare.archives import COCO, SBD, VOC, Place
from fss.errors import DataError

PREFIX = VOC.prefix


def tar(path, entries, mode="w"):
    """Write members: (name, bytes) or a ready TarInfo."""
    with tarfile.open(path, mode) as archive:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                archive.addfile(entry)
                continue
            info = tarfile.TarInfo(entry[0])
            info.size = len(entry[1])
            archive.addfile(info, io.BytesIO(entry[1]))
    return Place(VOC, path, "0" * 32, "GET IT AGAIN")


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zipped(path, entries, change=lambda info: None):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries:
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            change(info)
            archive.writestr(info, data)
    return Place(COCO[2014]["train"], path, "0" * 32, "GET IT AGAIN")


def test_wanted_members_of_every_kind(tmp_path):
    entries = [(f"{PREFIX}/b", b"2"), (f"{PREFIX}/skipped", b"x"), (f"./{PREFIX}/a", b"1"), ("elsewhere/a", b"3")]
    for place in (tar(tmp_path / "a.tar", entries), tar(tmp_path / "a.tgz", entries, "w:gz")):
        assert list(read_members(place, {"a", "b"}, 9)) == [("b", b"2"), ("a", b"1")]
    place = zipped(tmp_path / "a.zip", [("train2014/b", b"2"), ("train2014/a", b"1"), ("a", b"3")])
    assert read_all(place, {"a", "b"}, 9) == {"a": b"1", "b": b"2"}
    (tmp_path / PREFIX).mkdir(parents=True)
    (tmp_path / PREFIX / "a").write_bytes(b"1")
    unpacked = Place(VOC, tmp_path / PREFIX, "", "GET IT AGAIN")
    assert list(read_members(unpacked, {"a"}, 9)) == [("a", tmp_path / PREFIX / "a")]
    assert list(read_members(unpacked, set(), 9)) == []
    with pytest.raises(DataError, match=r"lacks 1 of 2 files, first c.*Unpack VOCtrainval"):
        read_all(unpacked, {"a", "c"}, 9)


HOSTILE = {
    "absolute": (("/etc/passwd", b"x"), "leads outside"),
    "parent": ((f"{PREFIX}/../../x", b"x"), "leads outside"),
    "symlink": (special(f"{PREFIX}/l", tarfile.SYMTYPE, "/etc/passwd"), "link or a device"),
    "hard link": (special(f"{PREFIX}/l", tarfile.LNKTYPE, f"{PREFIX}/a"), "link or a device"),
    "device": (special(f"{PREFIX}/l", tarfile.CHRTYPE), "link or a device"),
    "fifo": (special(f"{PREFIX}/l", tarfile.FIFOTYPE), "link or a device"),
    "twice": ((f"{PREFIX}/a", b"9"), "is there twice"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_members_of_a_tar(tmp_path, case):
    entry, words = HOSTILE[case]
    place = tar(tmp_path / "a.tar", [(f"{PREFIX}/a", b"1"), entry])
    with pytest.raises(DataError, match=rf"a\.tar is damaged.*{words}.*rm .*a\.tar && GET IT AGAIN"):
        read_all(place, {"a"}, 9)
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar"]


def test_a_wanted_link_is_refused_even_in_an_official_archive(tmp_path):
    place = tar(tmp_path / "a.tar", [special(f"{PREFIX}/a", tarfile.SYMTYPE, "/etc/passwd")])
    official = replace(place, md5=VOC.md5)
    assert official.verified
    with pytest.raises(DataError, match="link or a device"):
        read_all(official, {"a"}, 9)


def test_an_official_archive_may_hold_odd_members_that_nobody_wants(tmp_path):
    place = tar(tmp_path / "a.tar", [special(f"{PREFIX}/l", tarfile.SYMTYPE, "x"), (f"{PREFIX}/a", b"1")])
    assert read_all(replace(place, md5=VOC.md5), {"a"}, 9) == {"a": b"1"}


@pytest.mark.parametrize(
    ("entries", "change", "words"),
    [
        ([("/train2014/x", b"x")], None, "leads outside"),
        ([("train2014/../../x", b"x")], None, "leads outside"),
        ([("train2014/l", b"/etc/passwd")], lambda i: setattr(i, "external_attr", 0o120777 << 16), "link or a device"),
        ([("train2014/a", b"1"), ("train2014/a", b"2")], None, "is there twice"),
        ([("train2014/a", b"0123456789")], None, "no file of at most 9 bytes"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_hostile_members_of_a_zip(tmp_path, entries, change, words):
    place = zipped(tmp_path / "a.zip", entries, change or (lambda info: None))
    with pytest.raises(DataError, match=words):
        read_all(place, {"a"}, 9)


def test_declared_sizes_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(members, "_FLOOR", 1000)
    place = tar(tmp_path / "a.tgz", [(f"{PREFIX}/zeros", bytes(200_000)), (f"{PREFIX}/a", b"1")], "w:gz")
    with pytest.raises(DataError, match="unpack to more than"):
        read_all(place, {"a"}, 9)
    bomb = zipped(tmp_path / "a.zip", [("train2014/zeros", bytes(500_000)), ("train2014/a", b"1")])
    with pytest.raises(DataError, match="unpack to more than"):
        read_all(bomb, {"a"}, 9)
    with pytest.raises(DataError, match="at most 9 bytes"):
        read_all(tar(tmp_path / "b.tar", [(f"{PREFIX}/a", bytes(10))]), {"a"}, 9)


def test_a_forged_header_does_not_fill_the_memory(tmp_path):
    """A long-name header of a gigabyte packs to a megabyte and would be read at once."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
    with gzip.open(tmp_path / "a.tgz", "wb", compresslevel=1) as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.write(bytes(1 << 20))
    with pytest.raises(DataError, match="asks for"):
        read_all(Place(SBD, tmp_path / "a.tgz", "0" * 32, "again"), {"a"}, 9)


def test_a_lying_zip_header_is_noticed(tmp_path):
    """The declared size is small, what comes out is not."""
    place = zipped(tmp_path / "a.zip", [("train2014/a", bytes(100_000))])
    data = place.path.read_bytes()
    place.path.write_bytes(data.replace((100_000).to_bytes(4, "little"), (5).to_bytes(4, "little")))
    with pytest.raises(DataError, match="damaged"):
        read_all(place, {"a"}, 9)


@pytest.mark.parametrize("name", ["a.tar", "a.tgz", "a.zip"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.6, 0.9])
def test_truncated_archives_are_named(tmp_path, name, keep):
    noise = [(f"{n}", bytes((n * k * k) % 251 for k in range(3000))) for n in range(1, 6)]
    if name == "a.zip":
        place = zipped(tmp_path / name, [(f"train2014/{n}", d) for n, d in noise])
    else:
        place = tar(tmp_path / name, [(f"{PREFIX}/{n}", d) for n, d in noise], "w:gz" if name == "a.tgz" else "w")
    assert len(read_all(place, {n for n, _ in noise}, 4000)) == 5
    data = place.path.read_bytes()
    place.path.write_bytes(data[: int(len(data) * keep * (0.6 if name == "a.tar" else 1))])
    with pytest.raises(DataError, match=r"a\.\w+ is damaged or truncated.*GET IT AGAIN"):
        read_all(place, {n for n, _ in noise}, 4000)


def test_flipped_bits_in_a_zip_are_noticed(tmp_path):
    place = zipped(tmp_path / "a.zip", [("train2014/a", b"0123456789" * 9)])
    data = bytearray(place.path.read_bytes())
    data[45] ^= 0xFF
    place.path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="damaged"):
        read_all(place, {"a"}, 99)
