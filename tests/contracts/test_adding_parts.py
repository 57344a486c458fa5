"""The examples of docs/adding work as they are printed, in a package of one's own and inside the repository.

A head, a strategy, a backbone and a data set are added with their own new files alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
import yaml
from tests.docs.pages import SHELL, blocks, commands, files
from tests.programs import TINY, call

import fss
from fss.config.options_table import options_table
from fss.config.source import build_source
from fss.data.sources.voc import VocSource
from fss.errors import FssError
from fss.results import load_result

ROOT = Path(__file__).resolve().parents[2]
MOVE = re.compile(r"^\| `(my_fss/[^`]+)` \| `([^`]+)` \|$", re.MULTILINE)


@dataclass(frozen=True)
class Page:
    """A page that adds a part, and what it prints.

    Attributes:
        path: below the repository.
        group: of ``conf/``.
        name: choice of the group.
    """

    path: str
    group: str
    name: str

    @cached_property
    def text(self) -> str:
        return (ROOT / self.path).read_text(encoding="utf-8")

    @cached_property
    def files(self) -> dict[str, str]:
        """Path -> content of every printed file."""
        return files(self.path, self.text)

    @property
    def outside(self) -> dict[str, str]:
        return {path: text for path, text in self.files.items() if path.startswith("my_fss/")}

    @property
    def inside(self) -> dict[str, str]:
        """The new files of the repository, by the table of the page."""
        moved = {new: self.files[old].replace("my_fss.", "fss.") for old, new in MOVE.findall(self.text)}
        return moved | {path: text for path, text in self.files.items() if path not in self.outside}

    def commands(self, program: str) -> list[tuple[str, ...]]:
        """The words behind a program, for each command that calls it."""
        begin = tuple(program.split())
        found = [c.words for b in blocks(self.path, self.text) if b.language == SHELL for c in commands(b)]
        return [words[len(begin) :] for words in found if words[: len(begin)] == begin]


PAGES = [
    Page("docs/adding/head.md", "method", "nearest"),
    Page("docs/adding/strategy.md", "finetune", "gain"),
    Page("docs/adding/backbone.md", "backbone", "convnet"),
    Page("docs/adding/data_set.md", "data", "plants"),
]
HEAD, STRATEGY, BACKBONE, DATA = PAGES


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.group)
def test_a_page_prints_every_file(page: Page) -> None:
    kinds = sorted((Path(path).parts[0], Path(path).suffix) for path in page.inside)
    assert kinds == [("conf", ".yaml"), ("src", ".py"), ("tests", ".py")]
    assert len({Path(path).stem.removeprefix("test_") for path in page.inside}) == 1
    (test,) = page.commands("python -m pytest")
    assert set(test) == {"tests/contracts", *(path for path in page.inside if path.startswith("tests/"))}


# In a package of one's own.


@pytest.fixture(scope="module")
def own(home: Path) -> Iterator[Path]:
    """A working directory with the package of all pages, and the drawn images in the layout of the plants."""
    shapes, plants = home / "data/shapes", home / "data/plants"
    plants.mkdir()
    (plants / "photos").symlink_to(shapes / "JPEGImages")
    (plants / "labels").symlink_to(shapes / "SegmentationClassAug")
    for name in ("ImageSets/FewShot/train.txt", "ImageSets/FewShot/val.txt", "classes.txt"):
        (plants / Path(name).name).symlink_to(shapes / name)
    for page in PAGES:
        write(home, page.outside)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(home))  # as PYTHONPATH does; the programs of tests inherit it
        yield home
    for name in [n for n in sys.modules if n.partition(".")[0] == "my_fss"]:
        del sys.modules[name]


def train(home: Path, page: Page) -> Path:
    """Run the command of a page at tiny size; return the folder of the run."""
    (printed,) = page.commands("python train.py")
    chosen = {word.partition("=")[0] for word in printed}
    tiny = [word for word in TINY if word.partition("=")[0] not in chosen]
    before = set(home.glob("multirun/*/*/result.json"))
    code, text = call(home, "train.py", *printed, *tiny, "debug=one_batch")
    assert code == 0, text
    (result,) = set(home.glob("multirun/*/*/result.json")) - before
    return result.parent


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.group)
def test_a_package_of_ones_own_trains_tests_and_loads(own: Path, page: Page) -> None:
    run = train(own, page)
    result = load_result(run / "result.json")
    assert result.config[page.group]["name"] == page.name
    assert result.episodes.count == 4
    checkpoint = run / "checkpoints" / "best.ckpt"
    if page is DATA:  # a model is loaded without its data set, and tested with it
        assert result.config["fold"] == 4
        fss.load(checkpoint)
        (printed,) = page.commands("python eval.py")
        code, text = call(own, "eval.py", f"ckpt={checkpoint}", *printed[1:], "test_episodes=2")
        assert code == 0, text
        return
    with pytest.raises(FssError, match=r'trusted=\["my_fss"\]'):
        fss.load(checkpoint)
    model = fss.load(checkpoint, merge=page is STRATEGY, trusted=["my_fss"])
    names = {type(m).__module__ for m in (model.head, model.backbone)}
    assert any(name.startswith("my_fss.") for name in names) == (page is not STRATEGY)


def test_a_yaml_alone_reads_the_layout_of_voc(own: Path) -> None:
    node = yaml.safe_load(DATA.outside["my_fss/conf/data/drawings.yaml"])
    source = build_source({"source": node["source"] | {"root": str(own / "data/shapes")}})
    source.check("val")
    assert type(source) is VocSource
    assert len(source.class_names) == 20


# Inside the repository.

COPIED = ("src", "conf", "tests", "docs", "pyproject.toml", "Makefile", "train.py", "eval.py")
NEW = {path: text for page in PAGES for path, text in page.inside.items()}
LISTS = "has_a_yaml or has_its_yaml or member or in_order or circle or table_of_contents or has_a_level or counted"
"""Words of the tests that look at all parts at once."""


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository, with the hashes of its files beside it."""
    folder = tmp_path_factory.mktemp("copied") / "fss"
    folder.mkdir()
    skipped = shutil.ignore_patterns("__pycache__", "*.png")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=skipped)
        else:
            shutil.copy(ROOT / name, folder / name)
    before = hashes(folder)
    assert not before.keys() & NEW.keys(), "an example has the name of a part that exists"
    (folder.parent / "before.json").write_text(json.dumps(before))
    write(folder, NEW)
    return folder


def hashes(folder: Path) -> dict[str, str]:
    found = [p for name in COPIED for p in [folder / name, *(folder / name).rglob("*")] if p.is_file()]
    kept = [p for p in found if "__pycache__" not in p.parts]
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in kept}


def python(folder: Path, *arguments: str) -> str:
    """Run Python in the copy, with its fss; return the output."""
    environment = {**os.environ, "PYTHONPATH": str(folder / "src"), "COLUMNS": "200", "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {"FSS_CACHE": str(folder / "cache"), "FSS_SHARED": str(folder / "absent")}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{shlex.join(arguments)}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
    return done.stdout


def check_contracts(folder: Path, *arguments: str) -> str:
    """Run the contracts and the tests of the new parts in the copy."""
    own = [name for name in NEW if name.startswith("tests/")]
    skipped = f"--deselect=tests/contracts/{Path(__file__).name}"
    return python(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/contracts", *own, skipped, *arguments)


def test_inside_only_its_own_files_are_new(copied: Path) -> None:
    words = " or ".join([*(page.name for page in PAGES), LISTS])
    ran = check_contracts(copied, "-k", words)
    passed = re.search(r"(\d+) passed", ran)
    assert passed is not None
    assert int(passed.group(1)) > 100
    code = [name for name in NEW if name.endswith(".py")]
    python(copied, "-m", "ruff", "check", "--no-cache", *code)
    python(copied, "-m", "ruff", "format", "--no-cache", "--check", *code)
    before, after = json.loads((copied.parent / "before.json").read_text()), hashes(copied)
    assert after.keys() - before.keys() == NEW.keys()
    assert {name: after.get(name) for name in before} == before


@pytest.mark.slow
def test_inside_all_contracts_hold(copied: Path) -> None:
    check_contracts(copied)
    python(copied, "-m", "mypy", "--cache-dir", str(copied / "mypy"), *(n for n in NEW if n.startswith("src/")))


ASKING = """
import sys
from fss.cli.main import app
for words in sys.argv[1:]:
    try:
        app(words.split())
    except SystemExit as end:
        assert end.code == 0, words
"""


def test_inside_commands_and_options_list_the_parts(copied: Path, drawn: Path) -> None:
    table = options_table(copied / "conf")
    shown = python(copied, "train.py", "--help")
    for page in PAGES:
        assert f"`{page.name}`" in table
        assert page.name in re.search(rf"^{page.group}: (.*)$", shown, re.MULTILINE).group(1)  # type: ignore[union-attr]
    asked = [f"strategies {STRATEGY.name} --backbone {BACKBONE.name}", "data index --help", "doctor"]
    said = python(copied, "-c", ASKING, *asked)
    assert re.search(rf"{STRATEGY.name}\b.* 6 \(", said), said  # two convolutions in each of three stages
    assert re.search(rf"Data set: .*{DATA.name}", said)
    assert re.search(rf"missing +{DATA.name} train", said)
