"""How each kind of command is checked without its data, weights or hours."""

from __future__ import annotations

import importlib.util
import inspect
import re
import tomllib
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from typing import Any

import typer.main
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from tests.docs.pages import ROOT, Command, files, name_of, sources

from docs import build
from fss.cli.main import app
from fss.config.base_learner import completed
from fss.config.checks import check
from fss.config.compose import CONF, composed, plain, prepare_hydra
from fss.config.test_options import merged
from fss.instantiate import not_arguments
from fss.reports.figures.base import kinds
from fss.reports.paper_tables import tables
from fss.sweeps.grid import planned

ALLOWED = {"#SBATCH", "export", "hf", "source", "wandb"}
"""First words of commands of other programs, which are not checked."""

DEFAULTS = {"backbone": "resnet50", "data": "pascal", "finetune": "svf", "method": "baseline"}


def examples() -> dict[str, str]:
    """Return the choices that the pages add as examples -> an existing choice of the same group."""
    found = {}
    for path in sources():
        for name in files(name_of(path), path.read_text(encoding="utf-8")):
            group = re.fullmatch(r"my_fss/conf/(\w+)/(\w+)\.yaml", name)
            if group:
                found[group[2]] = DEFAULTS[group[1]]
    return found


STANDS_FOR = examples()
"""What a word of ``fss`` is checked as, where a page has moved its example into the repository."""

_BUILT = ("backbone", "method", "finetune", "trainer")

Checker = Callable[[Sequence[str], bool], None]


class UnclassifiedError(AssertionError):
    """No rule says how a command is checked."""


def inspect_command(command: Command) -> None:
    """Check a command.

    Raises:
        UnclassifiedError: if no rule knows it.
        Exception: whatever the program would say of a wrong option or argument.
    """
    words = tuple(STANDS_FOR.get(word, word) for word in _unwrapped(command.words))
    for begin, checker in CHECKERS.items():
        if words[: len(begin)] == begin:
            checker(words[len(begin) :], command.partial)
            return
    if words[0] not in ALLOWED:
        raise UnclassifiedError(f"{command}: no rule says how it is checked; add one to {__name__}")


def _unwrapped(words: tuple[str, ...]) -> tuple[str, ...]:
    """Take away a launcher: ``srun python train.py ...`` and ``torchrun --nproc-per-node 4 train.py ...``."""
    if words[0] in ("srun", "torchrun"):
        at = next((i for i, word in enumerate(words) if word.endswith(".py")), None)
        if at is None:
            raise AssertionError(f"{' '.join(words)} names no program")
        return ("python", *words[at:])
    return words


def train(words: Sequence[str], partial: bool) -> None:
    """Compose what ``python train.py`` would run, and check that every class takes its arguments."""
    if list(words) == ["--help"]:
        return
    options = [word for word in words if word != "-m"]
    configs = _sweep(tuple(options)) if "-m" in words else [_single(options)]
    assert configs
    for config in configs:
        check_arguments(config)


@cache
def _sweep(options: tuple[str, ...]) -> list[dict[str, Any]]:
    """Several pages show the same sweep."""
    return [run.config for run in planned(options)]


def _single(options: list[str]) -> dict[str, Any]:
    prepare_hydra(completed)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=options, return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        assert str(config.hydra.run.dir).startswith("multirun/")  # an experiment that is a sweep says so here
        own = completed(plain(config))
    check(own)
    return own


def check_arguments(config: dict[str, Any]) -> None:
    """Bind each group's values to what its ``_target_`` names, without calling it."""
    for group in _BUILT:
        node = config[group]
        module, _, name = node["_target_"].rpartition(".")
        target = getattr(import_module(module), name)
        arguments = {key: value for key, value in node.items() if key not in not_arguments(group)}
        try:
            inspect.signature(target).bind_partial(**arguments)
        except TypeError as error:
            raise AssertionError(f"{group}={node.get('name', group)}: {error}") from error


def evaluate(words: Sequence[str], partial: bool) -> None:
    """Compose the options of ``python eval.py`` and merge them with those of a run."""
    if list(words) == ["--help"] or (partial and not words):
        return
    options = [word for word in words if word != "-m"]
    prepare_hydra()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        parsed = OverridesParser.create(config_loader=loader).parse_overrides(options)
        jobs = [job for batch in BasicSweeper.split_arguments(parsed, None) for job in batch]
        assert len(jobs) == 1 or "-m" in words, "several values need -m"
        asked = [plain(compose("eval", overrides=job)) for job in jobs]
    for one in asked:
        assert partial or one["ckpt"] != "???", "ckpt is required"
        trained = composed(["method=bam" if one["task"] == "generalised" else "method=baseline"])
        check(merged(one, trained))


def fss(words: Sequence[str], partial: bool) -> None:
    """Parse the words of an ``fss`` command without running it; check names of tables, figures and options."""
    command: Any = typer.main.get_command(app)
    path: list[str] = []
    rest = list(words)
    while hasattr(command, "commands") and not (partial and not rest):
        known = command.commands.keys() & set(rest[:1])
        assert known, f"{' '.join(['fss', *path])} has no command {rest[:1]}"
        command, _ = command.commands[rest[0]], path.append(rest.pop(0))
    if hasattr(command, "commands"):
        return
    try:
        given = command.make_context(" ".join(path), list(rest)).params
    except SystemExit as error:
        raise AssertionError(f"fss {' '.join(words)} exits with {error.code}") from error
    except Exception as error:
        if type(error).__name__ == "Exit" or (partial and type(error).__name__ == "MissingParameter"):
            return  # --help, or a sentence that names a command without its arguments
        raise
    _check_names(path, given)


def _check_names(path: list[str], given: dict[str, Any]) -> None:
    if path[0] == "sweep":
        for config in _sweep(tuple(given["options"])):
            check_arguments(config)
    if path[0] == "report":
        known = re.fullmatch(r"multirun(/\S+)?|all", given["target"]) or given["target"] in tables()
        assert known, f"fss report {given['target']} names no table and no folder of runs"
    if path[0] == "figure":
        wrong = set(given["names"] or ()) - kinds().keys() - {"all", "N"}
        assert not wrong, f"there is no figure {', '.join(wrong)}"
    if path[0] == "backbones":
        for backbone in given["chosen"] or ["resnet50"]:
            check_arguments(composed([f"backbone={backbone}", *(given["option"] or ())]))
    if path[0] == "strategies":
        for name in given["chosen"] or ["svf"]:
            for backbone in given["backbone"] or ["resnet50"]:
                check_arguments(composed([f"finetune={name}", f"backbone={backbone}", *(given["option"] or ())]))


def make(words: Sequence[str], partial: bool) -> None:
    """Look a target and its variables up in the Makefile."""
    text = (ROOT / "Makefile").read_text()
    for word in words:
        name, equals, _ = word.partition("=")
        if equals:
            assert re.search(rf"\$\({name}\)|^{name} \?=", text, re.MULTILINE), f"the Makefile has no variable {name}"
        else:
            assert re.search(rf"^{re.escape(name)}:", text, re.MULTILINE), f"the Makefile has no target {name}"


def module(words: Sequence[str], partial: bool) -> None:
    """Look for a module that ``python -m`` runs."""
    assert importlib.util.find_spec(words[0]) is not None, f"there is no module {words[0]}"


def pip(words: Sequence[str], partial: bool) -> None:
    """Look for the extras of fss that ``pip install`` names."""
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra in re.findall(r"fss\[(\w+)\]", " ".join(words)):
        assert extra in known, f"fss has no extra {extra}: {sorted(known)}"


def site(words: Sequence[str], partial: bool) -> None:
    """Parse the options of ``python docs/build.py``."""
    build.parser().parse_args(list(words))


CHECKERS: dict[tuple[str, ...], Checker] = {
    ("python", "train.py"): train,
    ("python", "eval.py"): evaluate,
    ("python", "docs/build.py"): site,
    ("python", "-m"): module,
    ("fss",): fss,
    ("make",): make,
    ("pip", "install"): pip,
}
"""First words of a command -> how the rest is checked."""
