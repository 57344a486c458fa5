"""Killed at any time and run again: the same bytes as without interruption, and nothing left over."""

import os
import random
import signal
import subprocess
import sys
import time
from multiprocessing import get_context

import pytest
from tests.data.fabricate_archives import write_coco_archives, write_sbd_archive, write_voc_archive
from tests.data.trees import tree_hash

from fss.data.prepare.coco import prepare_coco
from fss.data.prepare.extraction import Pace
from fss.data.prepare.pascal import prepare_pascal
from fss.data.prepare.request import Request

PROGRAM = "from fss.cli.main import app; app()"


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archives")
    write_voc_archive(folder)
    write_sbd_archive(folder)
    return write_coco_archives(folder, images=20)


class Forked:
    """A run in a forked child: quick, as everything is imported already."""

    def __init__(self, data, root, archives):
        options = {"year": 2014, "mask_rule": "full"} if data == "coco" else {}
        request = Request(data, root, archives, options, unverified=True, pace=Pace(1, progress=False))
        self.child = get_context("fork").Process(target=prepare_coco if options else prepare_pascal, args=(request,))
        self.child.start()

    def running(self):
        return self.child.is_alive()

    def kill(self):
        self.child.kill()

    def code(self):
        self.child.join()
        return self.child.exitcode


class Program:
    """The program itself, with two processes of its own, which must end with it."""

    def __init__(self, data, root, archives):
        command = [sys.executable, "-c", PROGRAM, "data", "prepare", data, "--root", str(root)]
        command += ["--archives", str(archives), "--unverified", "--workers", "2"]
        self.child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def running(self):
        return self.child.poll() is None

    def kill(self):
        self.child.kill()

    def code(self):
        return self.child.wait()


def files(root):
    return sum(len(names) for _, _, names in os.walk(root))


@pytest.mark.parametrize("data", ["pascal", "coco"])
@pytest.mark.parametrize("run", [Forked, pytest.param(Program, marks=pytest.mark.slow)], ids=["fork", "program"])
def test_ten_random_kills(archives, tmp_path, data, run):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run(data, whole, archives).code() == 0
    total = files(whole)
    assert total > 80
    codes = []
    for threshold in sorted(random.Random(3).sample(range(1, total), 10)):
        child = run(data, broken, archives)
        while child.running() and files(broken) < threshold:
            time.sleep(0.001)
        child.kill()
        codes.append(child.code())
    assert codes.count(-signal.SIGKILL) >= 8, "most runs must have been killed at work"
    assert run(data, broken, archives).code() == 0
    assert tree_hash(broken) == tree_hash(whole)
    assert not [p for p in broken.rglob("*") if p.name.startswith(".") or p.suffix in (".tmp", ".part")]


def test_two_at_once_wait_for_each_other(archives, tmp_path):
    runs = [Forked("pascal", tmp_path / "root", archives) for _ in range(3)]
    assert [run.code() for run in runs] == [0, 0, 0]
    assert Forked("pascal", tmp_path / "alone", archives).code() == 0
    assert tree_hash(tmp_path / "root") == tree_hash(tmp_path / "alone")
