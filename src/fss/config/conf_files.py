"""Config files with their comments: what each setting is called, its default, and what its author says of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from fss.results import ReportError

_PACKAGE = re.compile(r"^#\s*@package\s+(\S+)")
_FOLLOWS_BACKBONE = re.compile(r"\$\{fss\.(?:size:(\d+)|support_view:)\}")
"""Defaults that depend on the backbone; shown as what the networks of the paper get."""
_RELEASED_VIEW = "masked_before_stage4"
_COMMENT = re.compile(r":?\s+#+\s*(.*)$")


@dataclass(frozen=True)
class Option:
    """One setting in one file: its dotted key, the default as YAML, and what the comment says."""

    key: str
    default: str
    meaning: str


@dataclass
class ConfigFile:
    """One YAML file.

    Attributes:
        name: the choice it stands for.
        meaning: what its head comment says.
        package: where its keys go, dotted.
        is_global: it overrides keys of other groups.
        defaults: group -> choice, from its defaults list.
        bases: files of its own group that it builds on.
        options: key -> its settings.
    """

    name: str
    meaning: str = ""
    package: str = ""
    is_global: bool = False
    defaults: dict[str, str] = field(default_factory=dict)
    bases: list[str] = field(default_factory=list)
    options: dict[str, Option] = field(default_factory=dict)


def read_config(path: Path, group: str) -> ConfigFile:
    """Read one config file with its comments.

    Args:
        path: YAML file.
        group: its group, such as ``data``; empty for the main file.

    Returns:
        file: name, head comment, chosen defaults and settings.

    Raises:
        ReportError: the file is no valid YAML mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ReportError(f"{path} is no readable YAML: {error}") from error
    if node is not None and not isinstance(node, yaml.MappingNode):
        raise ReportError(f"{path} must hold a mapping of keys to values")
    lines = text.splitlines()
    packages = [m.group(1) for line in lines if (m := _PACKAGE.match(line))]
    file = ConfigFile(path.stem, _head(lines), group.replace("/", "."))
    if packages:
        file.is_global = packages[0] == "_global_"
        file.package = "" if file.is_global else packages[0].replace("_group_", file.package)
    if node is not None:
        file.defaults, file.bases = _defaults(node)
        file.options = {option.key: option for option in _walk(node, file.package, lines)}
    return file


def target(path: Path) -> str:
    """Return the class that a config file names in ``_target_``; empty if it names none.

    Args:
        path: YAML file.

    Raises:
        ReportError: the file is no valid YAML.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ReportError(f"{path} is no readable YAML: {error}") from error
    return str(content.get("_target_", "")) if isinstance(content, dict) else ""


def inherit(files: Sequence[ConfigFile]) -> list[ConfigFile]:
    """Add to every file of a group what it takes over from its bases.

    Args:
        files: all files of one group.

    Returns:
        files: copies, each with all its settings; a comment of the base serves where the file has none.
    """
    known = {file.name: file for file in files}

    def gather(file: ConfigFile, above: tuple[str, ...]) -> dict[str, Option]:
        options: dict[str, Option] = {}
        for base in file.bases:
            if base in known and base not in above:
                options |= gather(known[base], (*above, base))
        for key, option in file.options.items():
            meaning = option.meaning or (options[key].meaning if key in options else "")
            options[key] = replace(option, meaning=meaning)
        return options

    return [replace(file, options=gather(file, (file.name,))) for file in files]


def _head(lines: Sequence[str]) -> str:
    """Return the comment block that opens the file, without the package line."""
    words = []
    for line in lines:
        if not line.startswith("#"):
            break
        if not _PACKAGE.match(line):
            words.append(line.lstrip("# ").strip())
    return " ".join(words).strip()


def _defaults(node: yaml.MappingNode) -> tuple[dict[str, str], list[str]]:
    """Return group -> choice, and the plain entries, from the defaults list."""
    listed = next((value for key, value in node.value if key.value == "defaults"), None)
    chosen: dict[str, str] = {}
    bases: list[str] = []
    for entry in listed.value if isinstance(listed, yaml.SequenceNode) else []:
        if isinstance(entry, yaml.MappingNode):
            for key, value in entry.value:
                chosen[re.sub(r"^(optional|override)\s+|@.*$", "", key.value).strip("/")] = str(value.value)
        elif entry.value != "_self_":
            bases.append(str(entry.value))
    return chosen, bases


def _walk(node: yaml.MappingNode, prefix: str, lines: Sequence[str]) -> Iterator[Option]:
    """Yield the settings below a mapping; Hydra's own words are no settings."""
    for key, value in node.value:
        name = str(key.value)
        if (name.startswith("_") and name.endswith("_")) or name in ("defaults", "hydra"):
            continue
        full = f"{prefix}.{name}" if prefix else name
        if isinstance(value, yaml.MappingNode) and value.value:
            yield from _walk(value, full, lines)
        else:
            yield Option(full, _source(value), _comment(key, value, lines))


def _source(node: yaml.Node) -> str:
    """Return a value on one line as one would type it."""
    if isinstance(node, yaml.ScalarNode):
        if node.tag == "tag:yaml.org,2002:null":
            return "null"
        return _FOLLOWS_BACKBONE.sub(lambda m: m[1] or _RELEASED_VIEW, str(node.value)) if node.value else "''"
    flow = yaml.serialize(_as_flow(node), Dumper=yaml.SafeDumper, width=10_000)
    return flow.strip().removesuffix("...").strip()


def _as_flow(node: yaml.Node) -> yaml.Node:
    if isinstance(node, yaml.SequenceNode):
        return yaml.SequenceNode(node.tag, [_as_flow(n) for n in node.value], flow_style=True)
    if isinstance(node, yaml.MappingNode):
        return yaml.MappingNode(node.tag, [(k, _as_flow(v)) for k, v in node.value], flow_style=True)
    return node


def _comment(key: yaml.Node, value: yaml.Node, lines: Sequence[str]) -> str:
    """Return the comment behind a setting, else the comment lines right above it."""
    inline = isinstance(value, yaml.ScalarNode) or bool(getattr(value, "flow_style", False))
    mark = value.end_mark if inline and value.end_mark.column else key.end_mark
    found = _COMMENT.match(lines[mark.line][mark.column :])
    if found:
        return found.group(1).strip()
    first = key.start_mark.line
    while first > 0 and re.match(rf"^ {{{key.start_mark.column}}}#", lines[first - 1]):
        first -= 1
    head = next((n for n, line in enumerate(lines) if not line.startswith("#")), len(lines))
    above = lines[first : key.start_mark.line] if first >= head else []
    return " ".join(line.lstrip("# ").strip() for line in above)
