"""What README and the pages of docs/ show: fenced blocks, commands, and code within sentences."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHELL = "sh"
OTHERS = ("python", "yaml", "text", "toml", "make")
"""Languages of blocks that hold no command; a block without one of these is a mistake."""

_FENCE = re.compile(r"^\s*(`{3,}|~{3,})\s*(\S*)\s*$")
_FILE = re.compile(r"^\*\*`([^`]+)`\*\*\s*$")
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, the line of the fence, its language and its lines."""

    page: str
    line: int
    language: str
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return "\n".join(self.lines) + "\n"


@dataclass(frozen=True)
class Command:
    """A command line as words; ``partial`` if a sentence mentions it, maybe without its arguments."""

    page: str
    line: int
    words: tuple[str, ...]
    partial: bool = False

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {shlex.join(self.words)}"


def sources() -> list[Path]:
    """Every page with commands; the changelog names options of earlier versions."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(page: str, text: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page; a fence without an end reaches to the end of the page."""
    fence, language, first, lines = "", "", 0, list[str]()
    for number, line in enumerate(text.splitlines(), start=1):
        mark = _FENCE.match(line)
        if not fence and mark:
            fence, language, first, lines = mark[1], mark[2], number, []
        elif fence and mark and mark[1].startswith(fence) and not mark[2]:
            yield Block(page, first, language, tuple(lines))
            fence = ""
        elif fence:
            lines.append(line)
    if fence:
        yield Block(page, first, language, tuple(lines))


def files(page: str, text: str) -> dict[str, str]:
    """Return the files that a page shows in full: their name stands in bold above the block."""
    lines = text.splitlines()
    found = {}
    for block in blocks(page, text):
        above = [line for line in lines[: block.line - 1] if line.strip()][-1:]
        named = _FILE.match(above[0]) if above else None
        if named:
            found[named[1]] = block.text
    return found


def commands(block: Block) -> Iterator[Command]:
    """Yield the commands of a shell block: comments left out, continued lines joined, ``a && b`` taken apart."""
    joined, first = "", 0
    for number, line in enumerate(block.lines, start=block.line + 1):
        first = first or number
        joined += line.strip().removeprefix("$ ")
        if joined.endswith("\\"):
            joined = joined[:-1] + " "
            continue
        if joined.startswith("#SBATCH"):
            yield Command(block.page, first, tuple(joined.split()))
        else:
            words = shlex.split(joined, comments=True)
            for part in _parts(words):
                yield Command(block.page, first, part)
        joined, first = "", 0
    if joined:
        raise ValueError(f"{block.page}:{first}: the last line of the block is continued")


def _parts(words: list[str]) -> Iterator[tuple[str, ...]]:
    part: list[str] = []
    for word in [*words, "&&"]:
        if word != "&&":
            part.append(word)
        elif part:
            yield tuple(part)
            part = []


def spans(text: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of every code span outside of fenced blocks."""
    hidden = set[int]()
    for block in blocks("", text):
        hidden |= set(range(block.line, block.line + len(block.lines) + 2))
    for number, line in enumerate(text.splitlines(), start=1):
        if number not in hidden:
            for match in _INLINE.finditer(line):
                yield number, match[1].replace("\\|", "|")


def mentioned(page: str, text: str, programs: tuple[str, ...]) -> Iterator[Command]:
    """Yield the commands that sentences mention, as ``fss report``."""
    for number, span in spans(text):
        if span.startswith(programs):
            yield Command(page, number, tuple(shlex.split(span)), partial=True)
