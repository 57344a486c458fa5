"""The options reference of the documentation, generated from the YAML files and comments in ``conf/``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fss.config.conf_files import ConfigFile, Option, inherit, read_config
from fss.results import ReportError


def options_table(conf_dir: Path) -> str:
    """Describe every config group and every setting.

    Args:
        conf_dir: folder with ``config.yaml`` and one folder per group.

    Returns:
        Markdown sections with a table each: the groups with their choices; the keys of ``train.py`` with default and
            meaning, first those of no group, then group by group; the keys of every further program that has a file
            beside ``config.yaml``.

    Raises:
        ReportError: ``config.yaml`` is missing or a file is no valid YAML mapping.
    """
    root = Path(conf_dir)
    if not (root / "config.yaml").is_file():
        raise ReportError(f"{root} holds no config.yaml; give the folder conf/ of the repository")
    train = read_config(root / "config.yaml", "")
    groups = _groups(root, train.defaults)
    text = "## Groups\n\n| Group | Choices |\n| :-- | :-- |\n"
    for name, files in groups.items():
        text += f"| `{name}=` | {_choices(files, train.defaults.get(name))} |\n"
    text += _section("Options of a run", [train])
    for name, files in groups.items():
        text += _section(f"Options of {name}", files)
    for path in sorted(root.glob("*.yaml")):
        if path.stem != train.name:
            text += _section(f"Options of {path.stem}.py", [read_config(path, "")])
    return text


def _groups(root: Path, chosen: Mapping[str, str]) -> dict[str, list[ConfigFile]]:
    """Return the files of each group, the default choice first; groups in the order of the main defaults list."""
    folders = (p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_dir() and any(p.glob("*.yaml")))
    ranks = {name: rank for rank, name in enumerate(chosen)}
    groups = {}
    for name in sorted(folders, key=lambda g: (ranks.get(g, len(ranks)), g)):
        files = [read_config(path, name) for path in sorted((root / name).glob("*.yaml"))]
        visible = [f for f in inherit(files) if not f.name.startswith("_")]
        groups[name] = sorted(visible, key=lambda f: f.name != chosen.get(name))
    return groups


def _choices(files: Sequence[ConfigFile], chosen: str | None) -> str:
    words = [f"`{f.name}`" + " (default)" * (f.name == chosen) + (f": {f.meaning}" if f.meaning else "") for f in files]
    return _escape("<br>".join(words) if any(f.meaning for f in files) else ", ".join(words))


def _section(title: str, files: Sequence[ConfigFile]) -> str:
    """Return a heading and a table of keys; nothing for files without settings of their own."""
    rows = "".join(f"| `{key}` | {default} | {meaning} |\n" for key, default, meaning in _rows(files))
    return f"\n## {title}\n\n| Key | Default | Meaning |\n| :-- | :-- | :-- |\n{rows}" if rows else ""


def _rows(files: Sequence[ConfigFile]) -> Iterator[tuple[str, str, str]]:
    """Yield key, default and meaning once per key; where choices of the group differ, each with its choices."""
    files = [f for f in files if not f.is_global]
    for key in dict.fromkeys(option.key for file in files for option in file.options.values()):
        found = {file.name: file.options[key] for file in files if key in file.options}
        meaning = _meaning(found)
        if meaning or not all(_is_wiring(option) for option in found.values()):
            yield key, _escape(_default(found, len(files))), _escape(meaning)


def _meaning(found: Mapping[str, Option]) -> str:
    """Return what a key means, in several lines if it means different things to the choices of its group."""
    names = _grouped({name: option.meaning for name, option in found.items() if option.meaning})
    if len(names) == 1:
        return next(iter(names))
    return "<br>".join(f"{', '.join(chosen)}: {meaning}" for meaning, chosen in names.items())


def _grouped(values: Mapping[str, str]) -> dict[str, list[str]]:
    """Return value -> the names that have it."""
    names: dict[str, list[str]] = {}
    for name, value in values.items():
        names.setdefault(value, []).append(name)
    return names


def _default(found: Mapping[str, Option], choices: int) -> str:
    """Return the default choice's value with the others that differ, or each with its choices if some have none."""
    names = _grouped({name: _code(option.default) for name, option in found.items()})
    labelled = [f"{', '.join(chosen)}: {value}" for value, chosen in names.items()]
    if len(found) < choices:
        return "; ".join(labelled)
    first, others = next(iter(names)), labelled[1:]
    return f"{first} ({'; '.join(others)})" if others else first


def _is_wiring(option: Option) -> bool:
    """Return whether nobody would set this: a choice's own name, or a value passed on from elsewhere."""
    return option.key.endswith(".name") or (option.default.startswith("${") and option.default.endswith("}"))


def _code(value: str) -> str:
    return "required" if value == "???" else f"`{value}`"


def _escape(cell: str) -> str:
    """Keep bars and line breaks from ending the cell, and angle brackets outside code from becoming HTML."""
    parts = cell.replace("|", "\\|").replace("\n", " ").split("`")
    parts[::2] = [re.sub(r"<(?!br>)", "&lt;", part) for part in parts[::2]]
    return "`".join(parts)
