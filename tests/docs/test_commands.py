"""Every command that README and documentation show is run, or checked up to its missing data."""

from __future__ import annotations

import ast
import importlib
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from tests.docs.classes import ALLOWED, CHECKERS, UnclassifiedError, inspect_command
from tests.docs.pages import (
    OTHERS,
    ROOT,
    SHELL,
    Block,
    Command,
    blocks,
    commands,
    files,
    mentioned,
    name_of,
    sources,
    spans,
)
from tests.programs import TINY, call

from fss.config.options_table import options_table

PAGES = {name_of(path): path.read_text(encoding="utf-8") for path in sources()}
BLOCKS = [block for name, text in PAGES.items() for block in blocks(name, text)]
SHOWN = [command for block in BLOCKS if block.language == SHELL for command in commands(block)]
PROGRAMS = tuple(f"{' '.join(begin)} " for begin in CHECKERS)
MENTIONED = [command for name, text in PAGES.items() for command in mentioned(name, text, PROGRAMS)]
RUN: dict[tuple[str, ...], tuple[str, ...]] = {
    ("fss", "data", "shapes", "--root", "data/shapes"): ("--train", "60", "--val", "40", "--pretrain-per-class", "1"),
    ("python", "train.py", "data=shapes", "backbone=efficientnet_lite0", "debug=one_batch"): TINY,
    ("fss", "figure", "--list"): (),
    ("fss", "strategies", "svf", "full", "--backbone", "resnet101", "--option", "finetune.stages=[3,4]"): (),
}
"""Commands that need nothing but a synthetic data set and seconds -> what makes them small."""

EXAMPLES = {name: text for page, content in PAGES.items() for name, text in files(page, content).items()}
"""Files that the pages show in full, those of the package my_fss and those of the repository."""


@pytest.fixture
def own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without data or runs, with the package that the pages build up."""
    for name, text in EXAMPLES.items():
        if name.startswith("my_fss/"):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.split(".")[0] == "my_fss"]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


def distinct(found: list[Command]) -> list[Command]:
    return list({command.words: command for command in reversed(found)}.values())


def test_there_is_something_to_check() -> None:
    assert len(PAGES) >= 14
    assert len(SHOWN) > 60
    assert len(MENTIONED) > 20
    for program in (("python", "train.py"), ("python", "eval.py"), ("fss",), ("make",)):
        assert sum(command.words[: len(program)] == program for command in SHOWN) >= 4


@pytest.mark.parametrize("block", BLOCKS, ids=lambda b: f"{b.page}:{b.line}")
def test_every_block_has_a_language(block: Block) -> None:
    """A command in a block without a language would not be seen."""
    assert block.language in (SHELL, *OTHERS), f"fence it as ```{SHELL} or one of {OTHERS}"
    if block.language != SHELL:
        looks = [line for line in block.lines if line.strip().removeprefix("$ ").startswith(PROGRAMS)]
        assert not looks, f"commands belong into a block ```{SHELL}: {looks}"


@pytest.mark.parametrize("command", distinct(SHOWN), ids=str)
def test_a_shown_command_is_accepted(command: Command, own_package: Path) -> None:
    inspect_command(command)


@pytest.mark.parametrize("command", distinct(MENTIONED), ids=str)
def test_a_mentioned_command_is_accepted(command: Command, own_package: Path) -> None:
    inspect_command(command)


def test_the_list_of_unchecked_programs_is_short_and_used() -> None:
    assert {command.words[0] for command in SHOWN} >= ALLOWED, "remove what no page shows any more"
    assert len(ALLOWED) <= 6


@pytest.mark.parametrize("words", RUN, ids=" ".join)
def test_a_cheap_command_runs(words: tuple[str, ...], home: Path) -> None:
    assert words in {command.words for command in SHOWN}, "no page shows it any more: remove it here"
    program, arguments = (words[1], words[2:]) if words[0] == "python" else (words[0], words[1:])
    code, text = call(home, program, *arguments, *RUN[words])
    assert code == 0, text


TRAIN_KEYS, EVAL_KEYS = (
    set(re.findall(r"^\| `([^`]+?)=?` \|", part, re.MULTILINE))
    for part in options_table(ROOT / "conf").split("## Options of eval.py")
)
KEYS = TRAIN_KEYS | EVAL_KEYS | {"hydra/launcher", "hydra.searchpath", "row"}
"""Every key that an option may have on a command line of train.py or eval.py."""
_OPTION = re.compile(r"[+~]{0,2}([a-z]\w*(?:[./][a-z]\w*)*)=(?!True|False)\S*")
_KEY = re.compile(rf"[+~]{{0,2}}((?:{'|'.join(sorted({k.split('.')[0] for k in KEYS if '.' in k}))})\.[a-z_.]+)")


def options(text: str) -> Iterator[tuple[int, str]]:
    """Yield line and key of every option that a sentence names, as ``seed=1`` or ``finetune.stages``."""
    for number, span in spans(text):
        words = span.strip("'").split()
        found = [_OPTION.fullmatch(word.strip("'")) for word in words]
        if all(found):
            yield from ((number, match[1]) for match in found if match)
        elif match := _KEY.fullmatch(span):
            yield number, match[1]


@pytest.mark.parametrize("page", PAGES)
def test_every_option_in_a_sentence_exists(page: str) -> None:
    wrong = [f"{page}:{line}: {key}" for line, key in options(PAGES[page]) if key not in KEYS]
    assert not wrong


PYTHON = [block for block in BLOCKS if block.language == "python"]


@pytest.mark.parametrize("block", PYTHON, ids=lambda b: f"{b.page}:{b.line}")
def test_python_blocks_import_what_exists(block: Block) -> None:
    """Names are looked up, nothing is called; modules that the pages add as examples are not there."""
    tree = ast.parse(block.text)
    added = {name.removesuffix(".py").replace("my_fss", "fss").replace("/", ".") for name in EXAMPLES}
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    for name in imported:
        importlib.import_module(name)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.replace("my_fss", "fss") not in added:
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"
        elif isinstance(node, ast.Attribute):
            _look_up(ast.unparse(node), imported)


def _look_up(dotted: str, imported: set[str]) -> None:
    """Follow ``a.b.c`` from an imported module; importing fss loads no sub-module, so those must be imported too."""
    first, *rest = dotted.split(".")
    if first not in {name.split(".")[0] for name in imported} or not all(part.isidentifier() for part in rest):
        return
    found, path = importlib.import_module(first), first
    for part in rest:
        path += f".{part}"
        assert hasattr(found, part), f"there is no {path}"
        found = getattr(found, part)
        if not isinstance(found, ModuleType):
            return
        own = first != "fss" or any(name == path or name.startswith(f"{path}.") for name in imported)
        assert own, f"{path} is not imported"


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "yaml"], ids=lambda b: f"{b.page}:{b.line}")
def test_yaml_blocks_are_yaml(block: Block) -> None:
    assert yaml.safe_load(block.text)


PAGE = """
# Title

Run `fss report table05`, or `fss report` with `seed=1`; not `other words`.

```sh
make demo SEEDS=0,1  # a comment
$ python train.py -m \\
    'finetune.stages=[3,4]' fold=0,1 && fss report all
# only a comment

#SBATCH --requeue
```

~~~yaml
key: 1
~~~

````text
```sh
not a command
```
````

```
python train.py
"""


def test_files_are_seen() -> None:
    text = "**`a/b.py`**\n\n```python\nx = 1\n```\n\nText about `c.py`.\n\n```python\ny = 1\n```\n"
    assert files("p.md", text) == {"a/b.py": "x = 1\n"}
    assert sum(name.startswith("my_fss/conf/") for name in EXAMPLES) >= 4


def test_the_reader_sees_every_form() -> None:
    found = list(blocks("p.md", PAGE))
    assert [(block.language, block.line) for block in found] == [("sh", 6), ("yaml", 15), ("text", 19), ("", 25)]
    assert [(c.line, c.words) for c in commands(found[0])] == [
        (7, ("make", "demo", "SEEDS=0,1")),
        (8, ("python", "train.py", "-m", "finetune.stages=[3,4]", "fold=0,1")),
        (8, ("fss", "report", "all")),
        (12, ("#SBATCH", "--requeue")),
    ]
    assert [c.words for c in mentioned("p.md", PAGE, ("fss ",))] == [("fss", "report", "table05"), ("fss", "report")]
    assert list(options(PAGE)) == [(4, "seed")]


@pytest.mark.parametrize(
    "line",
    [
        "python train.py finetune=svff",
        "python train.py finetune.stagess=[3]",
        "python train.py test_cache_mb=10",
        "python train.py fold=0,1",
        "python train.py fold=7",
        "python train.py experiment=table05",
        "python train.py finetune=freeze +finetune.rank_rounding=4",
        "python train.py -m fold=0,7",
        "python train.py -m experiment=table05 +row=t05r99",
        "python train.py -m experiment=table05 recording.pictures=3",
        "python eval.py shot=5",
        "python eval.py ckpt=a.ckpt pictures=3",
        "python eval.py ckpt=a.ckpt seed=1,2",
        "python eval.py ckpt=a.ckpt task=general",
        "fss",
        "fss reports table05",
        "fss report table05 --sizes full",
        "fss report table25",
        "fss data prepare pascal",
        "fss data prepare voc --root r",
        "fss predict --ckpt a --support photo.jpg --query b --out c",
        "fss figure 14",
        "fss strategies svff",
        "fss sweep plan experiment=table50",
        "make demos",
        "make demo SEED=1",
        "srun python train.py fold=7",
        "torchrun --nproc-per-node 4",
        "python -m benchmark",
        "python docs/build.py --server",
        "python other.py",
        "rm -r multirun",
    ],
)
def test_a_planted_mistake_is_found(line: str, own_package: Path) -> None:
    with pytest.raises((Exception, SystemExit), match=r".") as caught:
        inspect_command(Command("p.md", 1, tuple(line.split())))
    unknown = line.startswith(("rm", "python other.py"))
    assert isinstance(caught.value, UnclassifiedError) == unknown, caught.value
    assert not isinstance(caught.value, NameError | AttributeError | KeyError), caught.value


def test_a_planted_option_and_a_planted_block_are_found() -> None:
    assert [key for _, key in options("with `recording.pictures` and `test_cache_mb=3`")] == [
        "recording.pictures",
        "test_cache_mb",
    ]
    assert not {"recording.pictures", "test_cache_mb"} & KEYS
    hidden = Block("p.md", 1, "text", ("python train.py finetune=svff",))
    with pytest.raises(AssertionError, match="belong into a block"):
        test_every_block_has_a_language(hidden)
    unlabelled = types.SimpleNamespace(language="", lines=())
    with pytest.raises(AssertionError, match="fence it"):
        test_every_block_has_a_language(unlabelled)  # type: ignore[arg-type]
