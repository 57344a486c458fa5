import json
import multiprocessing
import os
import signal
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest

from fss.runs import claims
from fss.runs.claims import Owner, claimed, holder

CONTEXT = multiprocessing.get_context("fork")
ELSEWHERE = {"host": "node7", "pid": 1, "born": "1", "space": "another machine", "since": 1.0, "token": "t"}


def foreign(folder: Path, age: float, number: int = 1) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".claim-{number:06d}"
    path.write_text(json.dumps(ELSEWHERE))
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_a_claim_holds_and_leaves_nothing(tmp_path):
    folder = tmp_path / "run"
    with claimed(folder) as other:
        assert other is None
        assert holder(folder).pid == os.getpid()
        with claimed(folder) as second:
            assert second.token == holder(folder).token
        assert holder(folder) is not None, "who did not get the claim must not release it"
    assert holder(folder) is None
    assert not folder.exists(), "nothing was made in it"


def test_released_after_an_error(tmp_path):
    with pytest.raises(RuntimeError), claimed(tmp_path):
        raise RuntimeError
    assert holder(tmp_path) is None


def test_a_folder_that_another_has_by_now_is_left_to_it(tmp_path):
    folder = tmp_path / "run"
    with claimed(folder):
        (own,) = folder.glob(".claim-0*")
        own.unlink()  # as if the folder had been removed and claimed anew
        foreign(folder, age=0)
    assert holder(folder).host == "node7"


def test_without_hard_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("no links on this file system")

    monkeypatch.setattr(claims.os, "link", refuse)
    with claimed(tmp_path / "run") as other, claimed(tmp_path / "run") as second:
        assert other is None
        assert second.pid == os.getpid()
    assert not (tmp_path / "run").exists()


def test_a_claim_of_another_machine_counts_until_it_is_stale(tmp_path):
    path = foreign(tmp_path, age=claims.STALE_S - 60)
    with claimed(tmp_path) as other:
        assert other.host == "node7"
    os.utime(path, (time.time() - claims.STALE_S - 60,) * 2)
    assert holder(tmp_path) is None
    (tmp_path / "kept").touch()
    with claimed(tmp_path) as other:
        assert other is None
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]


def test_a_dead_process_loses_at_once_and_a_reused_number_does_not_count(tmp_path):
    dead = CONTEXT.Process(target=int)
    dead.start()
    dead.join()
    own = asdict(Owner())
    for changed in ({"pid": dead.pid}, {"born": "12"}):
        (tmp_path / ".claim-000001").write_text(json.dumps(own | changed))
        assert holder(tmp_path) is None
    (tmp_path / ".claim-000001").write_text(json.dumps(own))
    assert holder(tmp_path) == Owner(**own)


def test_a_damaged_claim_is_judged_by_its_age(tmp_path):
    path = tmp_path / ".claim-000001"
    path.touch()
    assert holder(tmp_path) is not None
    os.utime(path, (1, 1))
    assert holder(tmp_path) is None


def test_the_heartbeat_keeps_a_claim_fresh(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "BEAT_S", 0.05)
    with claimed(tmp_path):
        (path,) = tmp_path.glob(".claim-0*")
        os.utime(path, (1, 1))
        wait_until(lambda: path.stat().st_mtime > 1)


def sleeper(folder: Path, begun, told) -> None:
    signal.signal(signal.SIGTERM, lambda *_: (told.set(), os._exit(0)))
    claims.BEAT_S = 0.05
    with claimed(folder):
        begun.set()
        time.sleep(60)


def test_an_owner_that_was_taken_for_dead_ends(tmp_path):
    begun, told = CONTEXT.Event(), CONTEXT.Event()
    process = CONTEXT.Process(target=sleeper, args=(tmp_path, begun, told))
    process.start()
    assert begun.wait(30)
    foreign(tmp_path, age=0, number=2)
    assert told.wait(30)
    process.join()


def test_waiting_for_another(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "LOOK_S", 0.02)
    begun, told = CONTEXT.Event(), CONTEXT.Event()
    process = CONTEXT.Process(target=sleeper, args=(tmp_path, begun, told))
    process.start()
    assert begun.wait(30)
    with claimed(tmp_path) as other:
        assert other.pid == process.pid
    killer = CONTEXT.Process(target=lambda: (time.sleep(0.2), os.kill(process.pid, signal.SIGKILL)))
    killer.start()
    with claimed(tmp_path, wait=True) as other:
        assert other is None
    killer.join()
    process.join()


def worker(root: Path, log: Path, count: int) -> None:
    for index in range(count):
        folder = root / str(index)
        with claimed(folder) as other:
            if other is not None or (folder / "done").exists():
                continue
            with open(folder / "inside", "x"):  # a second process inside would fail here
                time.sleep(0.001)
            with open(log, "a") as file:
                file.write(f"{index}\n")
            (folder / "done").touch()
            (folder / "inside").unlink()


def test_many_processes_do_every_run_once(tmp_path):
    log, count = tmp_path / "log", 150
    group = [CONTEXT.Process(target=worker, args=(tmp_path / "runs", log, count)) for _ in range(6)]
    for process in group:
        process.start()
    for process in group:
        process.join()
    assert [p.exitcode for p in group] == [0] * 6
    assert Counter(map(int, log.read_text().split())) == Counter(range(count))


def contender(folder: Path, gate, winners) -> None:
    gate.wait()
    with claimed(folder) as other:
        if other is None:
            winners.put(os.getpid())
            time.sleep(0.5)


def test_of_many_takers_of_a_stale_claim_one_wins(tmp_path):
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        foreign(folder, age=2 * claims.STALE_S)
        gate, winners = CONTEXT.Event(), CONTEXT.Queue()
        group = [CONTEXT.Process(target=contender, args=(folder, gate, winners)) for _ in range(8)]
        for process in group:
            process.start()
        gate.set()
        for process in group:
            process.join()
        assert winners.get()
        assert winners.empty()


def wait_until(condition) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
