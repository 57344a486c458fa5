"""Build the documentation site: stage the pages, generate the reference, and run MkDocs in strict mode.

python docs/build.py            writes site/
python docs/build.py --serve    shows it at http://127.0.0.1:8000 and follows changes of docs/
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from nbconvert import MarkdownExporter

from fss.config.options_table import options_table

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
SOURCE = ROOT / "src" / "fss"
CONFIG = ROOT / "mkdocs.yml"

Pages = dict[str, bytes]
"""Path below the staged folder -> content."""

_MATH = {r"^\top": "ᵀ", r"\,": " "}
"""LaTeX of the notebooks -> text, as MathJax would have to be fetched from another host."""

_DOCSTRING_ALONE = "{members: false, show_root_heading: false, show_root_toc_entry: false}"

OPTIONS = """# Options

Generated from the files and comments in `conf/`. Any option can follow `python train.py`, for example
`finetune=svf finetune.stages=[3,4]`. A group is a folder of `conf/`; its choices are the files in that folder.
`python train.py --help` prints the composed configuration.

"""


def pages() -> Pages:
    """Collect every page of the site: the written ones, the images, and the generated ones."""
    found: Pages = {}
    for path in sorted(DOCS.rglob("*")):
        if path.suffix in (".md", ".png", ".svg", ".css"):
            found[path.relative_to(DOCS).as_posix()] = path.read_bytes()
    generated = {
        "options.md": OPTIONS + options_table(ROOT / "conf"),
        "measurements.md": (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8"),
        "measured_backbones.md": (ROOT / "benchmarks" / "BACKBONES.md").read_text(encoding="utf-8"),
        "measured_heads.md": (ROOT / "benchmarks" / "HEADS.md").read_text(encoding="utf-8"),
        "contributing.md": _moved(ROOT / "CONTRIBUTING.md"),
        "changelog.md": _moved(ROOT / "CHANGELOG.md"),
        **dict(api_pages(SOURCE)),
        **dict(notebook_pages(ROOT / "notebooks")),
    }
    found["heads.md"] = found["heads.md"].replace(b"<!-- heads -->", head_list(found).encode())
    twice = found.keys() & generated.keys()
    if twice:
        raise ValueError(f"docs/ holds pages that are generated: {', '.join(sorted(twice))}")
    return found | {name: text.encode() for name, text in generated.items()}


def head_list(found: Pages) -> str:
    """List the pages of heads with their first sentence.

    Args:
        found: every written page.
    """
    lines = []
    for name in sorted(found):
        if name.startswith("heads/"):
            first = found[name].decode().split("\n\n")[1].replace("\n", " ")
            lines.append(f"- [{_title(found[name])}]({name}): {first}")
    return "\n".join(lines)


def api_pages(source: Path) -> Iterator[tuple[str, str]]:
    """Write a page for every package: its docstring, then each public module.

    Args:
        source: folder of the top package.

    Yields:
        File name and text.
    """
    for init in sorted(source.rglob("__init__.py")):
        folder = init.parent
        package = ".".join((source.name, *folder.relative_to(source).parts))
        modules = [p.stem for p in sorted(folder.glob("*.py")) if not p.stem.startswith("_")]
        text = f"# {package}\n\n"
        text += f"::: {package}\n    options: {_DOCSTRING_ALONE}\n"
        for name in modules:
            text += f"\n::: {package}.{name}\n"
        yield f"api/{package}.md", text


def notebook_pages(folder: Path) -> Iterator[tuple[str, str]]:
    """Convert the notebooks, without running them.

    Args:
        folder: of the notebooks.

    Yields:
        File name and text.

    Raises:
        ValueError: if a formula has LaTeX that has no text form here.
    """
    exporter: Any = MarkdownExporter()  # type: ignore[no-untyped-call]
    for path in sorted(folder.glob("*.ipynb")):
        text, _ = exporter.from_filename(str(path))
        head, _, rest = text.strip().partition("\n")
        note = f"This page shows `notebooks/{path.name}` without its outputs. Run it with Jupyter to see them."
        parts = re.split(r"^(```.*?^```$)", f"{head}\n\n{note}\n{rest}\n", flags=re.MULTILINE | re.DOTALL)
        parts[::2] = [_without_math(path, part) for part in parts[::2]]
        yield f"notebooks/{path.stem}.md", "".join(parts)


def _without_math(path: Path, text: str) -> str:
    """Replace formulas by italic text."""

    def plain(match: re.Match[str]) -> str:
        formula = match[1]
        for latex, words in _MATH.items():
            formula = formula.replace(latex, words)
        if re.search(r"[\\^_{}]", formula):
            raise ValueError(f"{path}: ${match[1]}$ has no form without MathJax; extend _MATH in docs/build.py")
        return f"*{formula}*"

    return re.sub(r"\$([^$`\n]+)\$", plain, text)


def _moved(path: Path) -> str:
    """Read a page of the repository's root; its links to docs/ become links within the site."""
    return path.read_text(encoding="utf-8").replace("](docs/", "](")


def configuration(staged: Pages, site: Path) -> dict[str, Any]:
    """Complete mkdocs.yml: absolute folders, and the pages of generated folders in ``nav``.

    Args:
        staged: every page.
        site: folder to write.

    Returns:
        The configuration.
    """
    config: dict[str, Any] = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    python = next(p["mkdocstrings"] for p in config["plugins"] if isinstance(p, dict))["handlers"]["python"]
    python["paths"] = [str(ROOT / p) for p in python["paths"]]
    python["options"]["extensions"] = [str(ROOT / p) for p in python["options"]["extensions"]]
    return config | {"docs_dir": "docs", "site_dir": str(site), "nav": _nav(config["nav"], staged)}


def _nav(entries: list[Any], staged: Pages) -> list[Any]:
    """Fill in the folders that a navigation names."""
    filled = []
    for entry in entries:
        ((title, target),) = entry.items()
        if isinstance(target, list):
            target = _nav(target, staged)
        elif target.endswith("/"):
            names = sorted((name for name in staged if name.startswith(target)), key=lambda name: Path(name).stem)
            target = [{_title(staged[name]): name} for name in names]
        filled.append({title: target})
    return filled


def _title(page: bytes) -> str:
    return page.decode().lstrip().splitlines()[0].lstrip("# ").strip()


def stage(folder: Path, site: Path) -> Path:
    """Write all pages and the configuration, and remove pages that are no more.

    Args:
        folder: receives ``docs/`` and ``mkdocs.yml``.
        site: where the site will be written.

    Returns:
        The configuration file.
    """
    staged = pages()
    for path in sorted((folder / "docs").rglob("*")):
        if path.is_file() and path.relative_to(folder / "docs").as_posix() not in staged:
            path.unlink()
    for name, content in staged.items():
        _write(folder / "docs" / name, content)
    config = folder / "mkdocs.yml"
    _write(config, yaml.safe_dump(configuration(staged, site), sort_keys=False, allow_unicode=True).encode())
    return config


def _write(path: Path, content: bytes) -> None:
    """Write a file unless it has this content, so that MkDocs sees changes only."""
    if not path.is_file() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def follow(folder: Path, site: Path) -> None:
    """Stage the pages again whenever a source changes, for ever.

    Args:
        folder: as for :func:`stage`.
        site: likewise.
    """
    known = _times()
    while True:
        time.sleep(0.5)
        if known != (known := _times()):
            try:
                stage(folder, site)
            except (OSError, ValueError, SyntaxError) as error:  # a file that is half written
                sys.stderr.write(f"{error}\n")


def _times() -> dict[Path, int]:
    sources = [*DOCS.rglob("*"), *(ROOT / "notebooks").glob("*.ipynb"), *(ROOT / "conf").rglob("*.yaml")]
    return {path: path.stat().st_mtime_ns for path in sources if path.is_file()}


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(prog="python docs/build.py", description="Build the documentation site.")
    made.add_argument("--serve", action="store_true", help="show it at http://127.0.0.1:8000 and follow changes")
    made.add_argument("--stage", type=Path, default=ROOT / "build", help="folder of the staged pages")
    made.add_argument("--site", type=Path, default=ROOT / "site", help="folder of the site")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the site, or serve it.

    Args:
        arguments: command line without the program name.

    Returns:
        Exit status of MkDocs: not zero if there was any warning.
    """
    given = parser().parse_args(arguments)
    folder, site = given.stage.resolve(), given.site.resolve()
    config = stage(folder, site)
    if given.serve:
        threading.Thread(target=follow, args=(folder, site), daemon=True).start()
    task = ["serve"] if given.serve else ["build", "--strict", "--clean"]
    command = [sys.executable, "-m", "mkdocs", *task, "--config-file", str(config)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # an advertisement of the theme
    return subprocess.run(command, env=quiet, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
