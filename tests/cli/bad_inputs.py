"""Runs every way in which a user or a file can be wrong: ``python -m tests.cli.bad_inputs`` prints the table.

The rows are in ``bad_options.py`` (what is typed), ``bad_typed.py`` (what is typed and would have no effect),
``bad_backbones.py`` (networks, optional packages and their weights), ``bad_data.py`` (data sets and archives),
``bad_images.py`` and ``bad_runs.py`` (weights, checkpoints, lists, results, disks).
"""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.data.fabricate import write_coco, write_voc
from tests.data.fabricate_archives import write_coco_archives, write_sbd_archive, write_voc_archive
from tests.programs import call

from fss.data.shapes.write import write_shapes

SMALL = (
    "backbone=resnet18", "backbone.width=8", "backbone.weights=none", "method.width=8", "data.size=65", "finetune=svf",
    "debug=one_batch", "logger=csv", "workers=0", "trainer=cpu", "trainer.enable_progress_bar=false",
)  # fmt: skip
TRAIN = ("data=shapes", *SMALL)
RUN = "multirun/debug/run"
CKPT = f"{RUN}/checkpoints/best.ckpt"
PLACES = {
    "shapes": "data/shapes", "pascal": "data/VOC2012", "coco": "data/COCO2014", "run": RUN, "archives": "archives",
}  # fmt: skip


def nothing(home: Path) -> None:
    """Leave the folder as it is: the arguments are wrong."""


@dataclass(frozen=True)
class Case:
    """One bad input.

    Attributes:
        name: what is wrong.
        program: ``train.py``, ``eval.py``, ``fss``, or a script below the working directory.
        arguments: of the command line.
        words: what the message must hold: the cause, what is allowed, what to type next.
        needs: what lies in the working directory, keys of ``PLACES``.
        damage: makes the mess, given the working directory.
        file_bytes: no file can grow larger, as on a full disk; None for no limit.
        continues: begins of the names of complete files that may stay, for the same command to continue from.
    """

    name: str
    program: str
    arguments: tuple[str, ...]
    words: tuple[str, ...]
    needs: tuple[str, ...] = ()
    damage: Callable[[Path], None] = nothing
    file_bytes: int | None = None
    continues: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What a program made of a bad input.

    Attributes:
        code: exit code.
        text: everything it printed.
        seconds: from start to end.
        changes: files and folders that are new, changed or gone; whole cached files and logs are not counted.
    """

    code: int
    text: str
    seconds: float
    changes: tuple[str, ...]

    @property
    def paragraph(self) -> str:
        """What follows ``Error:``, as printed."""
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.text)
        begins = [found.end() for found in re.finditer("^Error: ", plain, re.MULTILINE)]
        return plain[begins[-1] :].strip() if begins else ""

    @property
    def message(self) -> str:
        """The paragraph in one line."""
        return " ".join(self.paragraph.split())


def write_stock(stock: Path) -> None:
    """Make the healthy data sets, archives and the run that cases damage copies of.

    Args:
        stock: folder to fill.
    """
    write_shapes(stock / PLACES["shapes"], 0, train=60, val=40, pretrain_per_class=1, workers=1)
    write_voc(stock / PLACES["pascal"], per_split=40)
    write_coco(stock / PLACES["coco"], {1: "person", 2: "bicycle", 3: "car"})
    write_voc_archive(stock / "archives")
    write_sbd_archive(stock / "archives")
    write_coco_archives(stock / "archives", images=4)
    code, text = call(stock, "train.py", *TRAIN)
    if code:
        raise RuntimeError(text)
    (made,) = (stock / "multirun/debug").iterdir()
    made.rename(stock / RUN)


def run(case: Case, stock: Path, home: Path) -> Outcome:
    """Run one case in a folder of its own.

    Args:
        case: the case.
        stock: from :func:`write_stock`.
        home: an empty folder.
    """
    for name in case.needs:
        shutil.copytree(stock / PLACES[name], home / PLACES[name], symlinks=True)
    case.damage(home)
    limit = {} if case.file_bytes is None else {"FSS_TEST_FILE_BYTES": str(case.file_bytes)}
    before, start = snapshot(home), time.monotonic()
    program = case.program if case.program in ("train.py", "eval.py", "fss") else str(home / case.program)
    code, text = call(home, program, *case.arguments, environment=limit)
    seconds, after = time.monotonic() - start, snapshot(home)
    differ = (p for p in before.keys() | after.keys() if before.get(p) != after.get(p))
    changes = tuple(sorted(p for p in differ if not _allowed(p, case, new=p not in before)))
    return Outcome(code, text, seconds, changes)


def snapshot(home: Path) -> dict[str, str]:
    """Describe every file and folder but the programs' output, complete files of the cache, and empty lock files.

    Args:
        home: where to look.
    """
    found = {}
    for path in home.rglob("*"):
        name = path.relative_to(home).as_posix()
        cached = name.split("/")[0] == "cache" and (path.is_dir() or not path.name.startswith("."))
        lock = path.name.startswith(".") and path.suffix == ".lock" and path.stat().st_size == 0
        if not cached and not lock and not re.fullmatch(r"out-\d+\.txt", name):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
    return found


def _allowed(name: str, case: Case, new: bool) -> bool:
    """Tell whether a file may differ afterwards: a log that was there before, or what a preparation goes on from."""
    log = name.endswith("train.log") or "/.hydra/" in name
    return (log and not new) or (name.startswith(case.continues or ("/",)) and not name.endswith(".tmp"))


def problems(case: Case, done: Outcome) -> list[str]:
    """List what is wrong with the answer to a bad input; empty if nothing is.

    Args:
        case: the case.
        done: what happened.
    """
    found = [] if done.code == 2 else [f"exit code {done.code}"]
    found += [f"not said: {word}" for word in case.words if word not in done.message]
    found += ["a traceback"] if "Traceback" in done.text else []
    found += ["no message"] if not done.message else []
    found += [f"changed: {', '.join(done.changes[:5])}"] if done.changes else []
    return found


def shown(case: Case, home: Path) -> str:
    """Return the command of a case as it is typed, without the options that only make the run small.

    Args:
        case: the case.
        home: its folder, left out of paths.
    """
    program = case.program if case.program == "fss" else f"python {case.program}"
    more = [a for a in case.arguments if a not in SMALL or case.arguments.count(a) > 1]
    return " ".join([program, *more]).replace(f"{home}/", "")


def main(names: list[str]) -> int:
    """Run the cases and print them as Markdown.

    Args:
        names: words that the names of the cases hold; none for all cases.

    Returns:
        Number of cases with a problem.
    """
    from tests.cli.bad_table import CASES

    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        stock = Path(folder, "stock")
        stock.mkdir()
        write_stock(stock)
        sys.stdout.write("| bad input | command | first line of the message | exit code | seconds |\n")
        sys.stdout.write("| :-- | :-- | :-- | --: | --: |\n")
        for number, case in enumerate(c for c in CASES if all(n in c.name for n in names)):
            home = Path(folder, str(number))
            home.mkdir()
            done = run(case, stock, home)
            wrong = problems(case, done)
            bad += bool(wrong)
            first = (done.paragraph.splitlines() or [""])[0].replace(str(home), "").replace("|", "\\|")
            cells = (case.name, f"`{shown(case, home)}`", first, str(done.code), f"{done.seconds:.1f}")
            sys.stdout.write(f"| {' | '.join(cells)} |\n")
            sys.stdout.flush()
            if wrong:
                sys.stderr.write(f"{case.name}: {'; '.join(wrong)}\n{done.text}\n")
            shutil.rmtree(home)
    return bad


if __name__ == "__main__":
    sys.exit(bool(main(sys.argv[1:])))
