"""The keys that a configuration may have: of its files, of the classes that it names, and of Hydra."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from fss.config.conf_files import ConfigFile, inherit, read_config
from fss.errors import FssError
from fss.instantiate import imported
from fss.results import ReportError

if TYPE_CHECKING:
    from omegaconf import DictConfig

ROW = "row"
"""Selects rows of a sweep by name, see :mod:`fss.sweeps.expansion`."""

OWN = {
    "trainer": ("callbacks", "default_root_dir", "enable_checkpointing", "enable_model_summary", "logger", "plugins",
                "sync_batchnorm", "use_distributed_sampler"),
    "method": ("channels", "classes", "taps"),
    "recipe.optimizer": ("params",),
    "recipe.schedule": ("progress",),
}  # fmt: skip
"""Arguments that the programs give themselves."""


class Known:
    """The keys that a configuration may have.

    Args:
        cfg: composed configuration, with Hydra's own node.
        open_choices: any file of a group may be chosen.
    """

    def __init__(self, cfg: DictConfig, open_choices: bool) -> None:
        from omegaconf import OmegaConf

        self.cfg, self.open, self._select = cfg, open_choices, OmegaConf.select
        self.program = "eval" if cfg.hydra.job.config_name == "eval" else "train"
        choices = {str(k): v for k, v in cfg.hydra.runtime.choices.items()}
        self.groups: set[str] = set()
        self.keys: set[str] = set()
        self.chosen: set[str] = set()  # of them, those of files that are chosen
        self.free: set[str] = set()
        for folder in _folders(cfg):
            main = read_config(folder / f"{cfg.hydra.job.config_name}.yaml", "") if _is_main(folder, cfg) else None
            for group, files in _groups_of(folder).items():
                self.groups.add(group)
                for file in files:
                    if open_choices or (choices.get(group) and (not file.is_global or choices[group] == file.name)):
                        self._add(file, choices.get(group) == file.name)
            if main is not None:
                self._add(main, True)
        used = {g for g, name in choices.items() if name}
        self.absent = set() if open_choices else self.groups - used - {key.partition(".")[0] for key in self.keys}

    def _add(self, file: ConfigFile, chosen: bool) -> None:
        for key, option in file.options.items():
            parts = key.split(".")
            self.keys |= {".".join(parts[: n + 1]) for n in range(len(parts))}
            self.chosen |= {key} if chosen and not file.is_global else set()
            if option.default == "{}":
                self.free.add(key)

    def holds(self, key: str) -> bool:
        """Tell whether something reads a key.

        Args:
            key: dotted; a group with slashes.
        """
        key = key.partition("[")[0]
        if key in self.groups or "/" in key:
            return True  # Hydra itself refuses groups and choices that do not exist
        if key.startswith("hydra."):
            return _hydra_knows(key)
        parents = [key.rsplit(".", n)[0] for n in range(1, key.count(".") + 1)]
        free = any(parent in self.free for parent in parents)
        above = self.target_above(key)
        if above:
            argument = f"{above}.{key[len(above) + 1 :].partition('.')[0]}"
            if argument != key and argument in self.keys:
                return free or key in self.keys
            return self._accepts(above, argument)
        return free or key in self.keys

    def is_own(self, key: str) -> bool:
        """Tell whether a key is of a user's own file or a group that nothing needs.

        Args:
            key: dotted.
        """
        return key in ("experiment", "debug", "size") or key not in self.keys | self.groups

    def target_above(self, key: str) -> str:
        """Return the nearest node above a key that names a class; empty if there is none.

        Args:
            key: dotted.
        """
        while "." in key:
            key = key.rpartition(".")[0]
            node = self._select(self.cfg, key, throw_on_resolution_failure=False)
            if hasattr(node, "keys") and "_target_" in node:
                return key
        return ""

    def _accepts(self, node: str, argument: str) -> bool:
        """Tell whether the class of a node takes an argument."""
        name = argument.rpartition(".")[2]
        if name in OWN.get(node, ()):
            return False
        if (self.open and argument in self.keys) or argument in self.chosen or name in ("_target_", "name", "wants"):
            return True  # not imported where a file tells: that takes seconds
        siblings = [k.rpartition(".")[2] for k in self.chosen if k.rpartition(".")[0] == node]
        if argument not in self.keys and difflib.get_close_matches(name, siblings, 1, 0.85):
            return False
        parameters = self._parameters(node)
        return argument in self.keys if parameters is None else name in parameters or "" in parameters

    def _parameters(self, node: str) -> set[str] | None:
        """Return what the class of a node takes, with an empty name for anything; None if it cannot be told."""
        target = str(self._select(self.cfg, f"{node}._target_"))
        try:
            parameters = inspect.signature(imported(node, {"_target_": target})).parameters.values()
        except (FssError, ValueError, TypeError):
            return None
        return {"" if p.kind is p.VAR_KEYWORD else p.name for p in parameters}

    def near(self, key: str) -> str:
        """Return the known option whose name is nearest, as it is typed; empty if none is near.

        Args:
            key: dotted.
        """
        parent, _, name = key.rpartition(".")
        written = {k.rpartition(".")[2] for k in self.chosen if k.rpartition(".")[0] == parent}
        for names, cutoff in ((written, 0.85), (None, 0.6)):  # the classes' arguments only where no file tells
            names = self.siblings(key) if names is None else names
            if parent and (found := difflib.get_close_matches(name, names - {name}, 1, cutoff)):
                return f"{parent}.{found[0]}"
        if self.target_above(key) == parent != "":
            return ""  # what other classes take is of no use here
        chosen = {str(group) for group in self.cfg.hydra.runtime.choices}
        options = {**{k: k for k in self.keys}, **{g: g if g in chosen else f"+{g}" for g in self.groups}}
        if self.program == "train":
            options[ROW] = f"+{ROW}"
        options.pop(key, None)
        if found := difflib.get_close_matches(key, [k for k in options if k.count(".") == key.count(".")], 1):
            return options[found[0]]
        last = {k.rpartition(".")[2]: k for k in sorted(options, reverse=True)}  # its name in another place
        found = difflib.get_close_matches(name, last, 1, 0.75)
        return options[last[found[0]]] if found else ""

    def siblings(self, key: str) -> set[str]:
        """Return the last parts of the keys that may stand where a key stands.

        Args:
            key: dotted.
        """
        parent = key.rpartition(".")[0]
        if key.startswith("hydra."):
            return hydra_fields(parent)
        names = {k.rpartition(".")[2] for k in self.keys if k.rpartition(".")[0] == parent}
        if parent and self.target_above(key) == parent:
            names = (self._parameters(parent) or names) - {"", *OWN.get(parent, ())}
        return names

    def beside(self, key: str) -> str:
        """Return a sentence with the keys that may stand where a key stands; empty at the top, and for long lists.

        Args:
            key: dotted.
        """
        parent, names = key.rpartition(".")[0], sorted(self.siblings(key))
        return f"Known below {parent}: {', '.join(names)}. " if parent and 0 < len(names) <= 25 else ""

    def elsewhere(self, key: str) -> str:
        """Say which choice has an option that the chosen one lacks; empty if none has it.

        Args:
            key: dotted.
        """
        group = key.partition(".")[0]
        names = self.having(key)
        return f" with {group}={self.cfg.hydra.runtime.choices.get(group)}; it belongs to {names}" if names else ""

    def having(self, key: str) -> str:
        """Name the choices of a key's group that have it.

        Args:
            key: dotted.
        """
        group = key.partition(".")[0]
        files = [
            file for folder in _folders(self.cfg) for file in _groups_of(folder).get(group, []) if not file.is_global
        ]
        return ", ".join(f"{group}={file.name}" for file in files if key in file.options and file.name[0] != "_")


def _folders(cfg: DictConfig) -> list[Path]:
    """Return the folders that a configuration was composed from, without those of Hydra and its plugins."""
    found = []
    for source in cfg.hydra.runtime.config_sources:
        path = str(source.path)
        if source.schema == "file":
            found.append(Path(path))
        elif source.schema == "pkg" and not re.match(r"hydra(_plugins)?\b", path):
            spec = find_spec(path)
            found += [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    return [folder for folder in found if folder.is_dir()]


def files_of(folder: Path, group: str) -> list[ConfigFile]:
    """Return the files of a group with all that they build on.

    Args:
        folder: holds the groups.
        group: its name.
    """
    return _groups_of(folder).get(group, [])


def _is_main(folder: Path, cfg: DictConfig) -> bool:
    return (folder / f"{cfg.hydra.job.config_name}.yaml").is_file()


@cache
def _groups_of(folder: Path) -> dict[str, list[ConfigFile]]:
    """Return the files of every group below a folder; files that cannot be read are Hydra's to refuse."""
    found: dict[str, list[ConfigFile]] = {}
    for path in sorted(folder.rglob("*.yaml")):
        group = path.parent.relative_to(folder).as_posix()
        if group != ".":
            try:
                found.setdefault(group, []).append(read_config(path, group))
            except ReportError:
                continue
    return {group: inherit(files) for group, files in found.items()}


def _hydra_knows(key: str) -> bool:
    """Tell whether one of Hydra's own options exists; what plugins take is theirs to check."""
    parts = key.split(".")
    for n in range(1, len(parts)):
        fields = hydra_fields(".".join(parts[:n]))
        if parts[n] not in fields:
            return not fields
    return True


def hydra_fields(key: str) -> set[str]:
    """Return the names of Hydra's options below a key; none where it leaves them open, or the key is unknown."""
    from hydra.conf import HydraConf

    kind: Any = HydraConf
    for name in key.split(".")[1:]:
        kind = get_type_hints(kind).get(name) if dataclasses.is_dataclass(kind) else None
    return set(get_type_hints(kind)) if dataclasses.is_dataclass(kind) else set()
