"""The options table of the README, generated from the YAML files and comments in ``conf/``.

python -m fss.config.options_table --write README.md
python -m fss.config.options_table --check README.md
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from fss.config.conf_files import ConfigFile, Option, inherit, read_config
from fss.errors import FssError
from fss.files import atomic
from fss.results import ReportError

BEGIN, END = "<!-- options:begin -->", "<!-- options:end -->"


def options_table(conf_dir: Path) -> str:
    """Describe every config group and every setting.

    Args:
        conf_dir: folder with ``config.yaml`` and one folder per group.

    Returns:
        text: Markdown tables: the groups with their choices; the keys of ``train.py`` with default and meaning; the
            keys of every further program that has a file beside ``config.yaml``.

    Raises:
        ReportError: ``config.yaml`` is missing or a file is no valid YAML mapping.
    """
    root = Path(conf_dir)
    if not (root / "config.yaml").is_file():
        raise ReportError(f"{root} holds no config.yaml; give the folder conf/ of the repository")
    train = read_config(root / "config.yaml", "")
    groups = _groups(root, train.defaults)
    text = "| Group | Choices |\n| :-- | :-- |\n"
    for name, files in groups.items():
        text += f"| `{name}=` | {_choices(files, train.defaults.get(name))} |\n"
    text += _key_table([_rows([train])] + [_rows(files) for files in groups.values()])
    for path in sorted(root.glob("*.yaml")):
        if path.stem != train.name:
            text += f"\nOf `{path.stem}.py`:\n" + _key_table([_rows([read_config(path, "")])])
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


def _key_table(sections: Sequence[Iterable[tuple[str, str, str]]]) -> str:
    lines = [f"| `{key}` | {default} | {meaning} |\n" for rows in sections for key, default, meaning in rows]
    return "\n| Key | Default | Meaning |\n| :-- | :-- | :-- |\n" + "".join(lines)


def _rows(files: Sequence[ConfigFile]) -> Iterator[tuple[str, str, str]]:
    """Yield key, default and meaning once per key: the first file's default, then the choices that differ."""
    files = [f for f in files if not f.is_global]
    for key in dict.fromkeys(option.key for file in files for option in file.options.values()):
        found = {file.name: file.options[key] for file in files if key in file.options}
        meaning = next((option.meaning for option in found.values() if option.meaning), "")
        if meaning or not all(_is_wiring(option) for option in found.values()):
            yield key, _escape(_default(found, len(files))), _escape(meaning)


def _default(found: Mapping[str, Option], choices: int) -> str:
    """Return the default choice's value with the others that differ, or each with its choices if some have none."""
    names: dict[str, list[str]] = {}
    for name, option in found.items():
        names.setdefault(_code(option.default), []).append(name)
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


def replace_block(text: str, table: str) -> str:
    """Return ``text`` with the part between the markers replaced.

    Args:
        text: README.
        table: new content.

    Returns:
        text: the new README.

    Raises:
        ReportError: the markers are not there exactly once, in order.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ReportError(f"expected one line {BEGIN} followed by one line {END}")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{table}{END}{rest.split(END)[1]}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the table of a README.

    Args:
        arguments: command line without the program name.

    Returns:
        status: 0 done or up to date, 1 out of date, 2 cannot be done.
    """
    parser = argparse.ArgumentParser(
        prog="python -m fss.config.options_table", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--conf", type=Path, default=Path("conf"), help="folder of the configuration")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", type=Path, metavar="README", help="replace the table between the markers")
    action.add_argument("--check", type=Path, metavar="README", help="fail if the table is out of date")
    given = parser.parse_args(arguments)
    path: Path = given.write or given.check
    try:
        old = path.read_text(encoding="utf-8")
        new = replace_block(old, options_table(given.conf))
        if given.write is not None and new != old:
            with atomic(path) as file:
                file.write(new.encode())
    except (OSError, FssError) as error:
        sys.stderr.write(f"{path}: {error}\n")
        return 2
    if given.check is not None and new != old:
        sys.stderr.write(
            f"{path}: the options table is out of date; run: python -m fss.config.options_table --write {path}\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
