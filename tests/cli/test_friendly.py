"""Output never ends a run: neither characters that cannot be encoded nor a reader that has gone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fss.config.error_texts import explained

PROGRAM = """
import sys
from fss.cli.friendly import friendly

@friendly
def main():
    for i in range(20000):
        print("41.9 ± 2.0 ✓ 图")
    sys.stderr.write("done\\n")

main()
"""


def test_characters_that_cannot_be_encoded() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "done" in done.stderr
    assert "41.9 \\xb1 2.0" in done.stdout


def test_a_reader_that_has_gone() -> None:
    command = f'"{sys.executable}" -c "$PROGRAM" | head -1; echo "${{PIPESTATUS[0]}}"'
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env={**os.environ, "PROGRAM": PROGRAM}
    )
    assert done.stdout.splitlines()[-1] == "141"
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("DataLoader worker (pid(s) 17) exited unexpectedly", "workers=0"),
        ("DataLoader worker (pid 17) is killed by signal: Killed. ", "give fewer workers"),
        ("DataLoader worker (pid 17) is killed by signal: Bus error. It is possible ...", "--shm-size"),
        ("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:9", "Another process of this run"),
    ],
)
def test_lost_processes_are_one_paragraph_with_the_way_on(text: str, words: str) -> None:
    said = explained(RuntimeError(text))
    assert said is not None
    assert words in said
    assert "The same command continues" in said
    assert len(said.splitlines()) == 1


def test_other_errors_of_torch_stay_defects() -> None:
    assert explained(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
