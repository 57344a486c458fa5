"""Downloads against a server on this machine that drops connections, ignores ranges, or sends something else."""

import hashlib
import threading
from collections import namedtuple
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from fss.data.prepare import downloads
from fss.data.prepare.archives import Archive
from fss.data.prepare.downloads import Fetching, download
from fss.errors import DataError

BODY = np.random.default_rng(0).integers(0, 256, 300_000).astype(np.uint8).tobytes()


class Server(ThreadingHTTPServer):
    """Serves BODY; ``drops`` are numbers of bytes after which connections break, one after the other."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.drops, self.ranges, self.body, self.status = [], True, BODY, []
        self.asked = []  # the Range header of every request


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.asked.append(asked)
        if server.status:
            self.send_error(server.status.pop(0))
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and server.ranges else 0
        data = server.body[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.body) - 1}/{len(server.body)}")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: server.drops.pop(0)] if server.drops else data)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as made:
        threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield made
        made.shutdown()


@pytest.fixture
def archive(server):
    url = f"http://127.0.0.1:{server.server_port}/a.tar"
    return Archive("a.tar", url, len(BODY), hashlib.md5(BODY).hexdigest(), "x")


@pytest.fixture
def how(tmp_path):
    return Fetching(tmp_path / "archives", "fss data prepare AGAIN", progress=False, attempts=3, pause=0.0)


def names(how):
    return sorted(p.name for p in how.folder.iterdir())


def test_a_plain_download(server, archive, how):
    (place,) = download([archive], how)
    assert (place.path, place.verified) == (how.folder / "a.tar", True)
    assert place.path.read_bytes() == BODY
    assert names(how) == ["a.tar"]
    assert server.asked == [None]


def test_dropped_connections_go_on_where_they_stopped(server, archive, how):
    server.drops = [100_000, 0, 50_000]
    assert download([archive], how)[0].path.read_bytes() == BODY
    assert server.asked == [None, "bytes=100000-", "bytes=100000-", "bytes=150000-"]


def test_a_later_run_continues_the_part(server, archive, how):
    server.drops = [100_000, 0, 0, 0]
    with pytest.raises(DataError, match=r"stopped 3 times.*100,000 of 300,000 bytes are kept.*AGAIN"):
        download([archive], how)
    assert names(how) == ["a.tar.part"]
    assert download([archive], how)[0].path.read_bytes() == BODY
    assert server.asked[-1] == "bytes=100000-"
    assert names(how) == ["a.tar"]


def test_a_server_without_ranges_starts_again(server, archive, how):
    server.ranges, server.drops = False, [100_000]
    assert download([archive], how)[0].path.read_bytes() == BODY
    assert server.asked == [None, "bytes=100000-"]


def test_a_part_longer_than_the_archive_is_dropped(server, archive, how):
    how.folder.mkdir()
    (how.folder / "a.tar.part").write_bytes(BODY + b"x")
    assert download([archive], how)[0].path.read_bytes() == BODY


def test_a_wrong_hash_keeps_nothing(server, archive, how):
    server.body = BODY[:-1] + bytes([BODY[-1] ^ 1])
    with pytest.raises(DataError, match=rf"not the official a\.tar.*instead of 300,000 with {archive.md5}.*AGAIN"):
        download([archive], how)
    assert names(how) == []
    (place,) = download([archive], replace(how, unverified=True))
    assert not place.verified
    assert place.md5 == hashlib.md5(server.body).hexdigest()


def test_a_damaged_part_is_noticed_and_dropped(server, archive, how):
    how.folder.mkdir()
    (how.folder / "a.tar.part").write_bytes(b"x" * 1000)
    with pytest.raises(DataError, match="not the official"):
        download([archive], how)
    assert names(how) == []


def test_another_size_is_refused_before_anything_is_fetched(server, archive, how):
    server.body = BODY[:1000]
    with pytest.raises(DataError, match=r"offers 1,000 bytes, but a\.tar is pinned at 300,000.*--archives DIR"):
        download([archive], how)
    assert names(how) == []


def test_refusals(server, archive, how):
    server.status = [404]
    with pytest.raises(DataError, match=rf"HTTP status 404.*MD5 {archive.md5}.*put it into"):
        download([archive], how)
    server.status = [503, 503]
    assert download([archive], how)[0].path.read_bytes() == BODY
    server.status = [416]
    (how.folder / "a.tar.part").write_bytes(BODY[:10])
    assert download([archive], how)[0].path.read_bytes() == BODY


def test_nobody_answers(archive, how):
    gone = replace(archive, url="http://127.0.0.1:9/a.tar")
    with pytest.raises(DataError, match=r"stopped 3 times without a byte.*AGAIN"):
        download([gone], how)


def test_a_full_disk_is_noticed_first(server, archive, how, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: usage(10**9, 10**9, 1000))
    with pytest.raises(DataError, match=r"has 0\.0 GB free, but the archives need 0\.3 GB \(a\.tar\)"):
        download([archive], how)
    assert server.asked == []
