"""Lists of ids behave like tuples, and a process that reads an index gets no copy of it."""

from __future__ import annotations

import gc
import multiprocessing
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from fss.data.episodes.areas import AreaTable
from fss.data.episodes.index import ClassIndex, class_index
from fss.data.sources.shared_ids import Names

IDS = ("2007_000032", "a", "Straße_7", "COCO_val2014_000000000042")


def test_names_are_a_sequence_of_strings() -> None:
    names = Names.of(IDS)
    assert list(names) == list(IDS)
    assert names == IDS
    assert names != IDS[:3]
    assert (names[1], names[-1], len(names)) == ("a", IDS[-1], 4)
    assert type(names[0]) is str
    assert names[1:3] == IDS[1:3]
    assert "Straße_7" in names
    assert "Straße" not in names
    assert names.pick(np.array([3, 1])) == ("COCO_val2014_000000000042", "a")
    assert names.pick(np.array([3, 1])).pick(np.array([1])) == ("a",)
    assert not Names.of(())
    with pytest.raises(IndexError):
        names[4]


def table(count: int) -> AreaTable:
    areas = np.zeros((count, 20), np.int64)
    areas[np.arange(count), np.arange(count) % 20] = 5000
    areas[::3, 7] = 3000
    return AreaTable(tuple(f"COCO_train2014_{i:012d}" for i in range(count)), tuple(range(1, 21)), areas)


def test_the_index_is_what_the_rule_says() -> None:
    made = table(200)
    index = class_index(made, (2, 8, 9), (5,))
    free = [i for i in range(200) if made.areas[i, 4] == 0]
    used = [i for i in free if made.areas[i, [1, 7, 8]].max() >= 2048]
    assert index.images == [made.ids[i] for i in used]
    for c in (2, 8, 9):
        assert index.per_class[c] == [made.ids[i] for i in used if made.areas[i, c - 1] >= 2048]


def private_bytes() -> int:
    """Memory that this process shares with no other."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def read_all(index: ClassIndex, answer: Connection) -> None:
    gc.collect()
    gc.disable()
    before = private_bytes()
    length = sum(len(i) for i in index.images)
    length += sum(len(i) for images in index.per_class.values() for i in images)
    answer.send((private_bytes() - before, length))


@pytest.mark.skipif(sys.platform != "linux", reason="memory by process is read from Linux's /proc")
def test_a_process_that_reads_the_index_does_not_copy_it() -> None:
    index = class_index(table(150_000), tuple(range(1, 21)))
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()
    child = fork.Process(target=read_all, args=(index, there))
    child.start()
    assert here.poll(60)
    copied, length = here.recv()
    child.join(60)
    assert length > 27 * 150_000 * 2  # it read all of it, twice
    assert copied < 2_000_000  # as strings these ids take 11 MB
