"""The site builds without a warning, and holds what it promises."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("mkdocs", reason="the documentation needs the extra docs: make setup")

from docs import build

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "fss"


def targets(entries: list[Any]) -> Iterator[str]:
    """Yield every page of a navigation."""
    for entry in entries:
        for target in entry.values():
            yield from targets(target) if isinstance(target, list) else [target]


def text_of(page: Path) -> str:
    return re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built by the command that ``make docs`` runs."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "docs/build.py", "--stage", str(folder / "stage"), "--site", str(folder / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    return folder / "site"


def test_the_site_is_complete(site: Path) -> None:
    config = yaml.safe_load((site.parent / "stage" / "mkdocs.yml").read_text())
    shown = list(targets(config["nav"]))
    written = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    notebooks = {f"notebooks/{path.stem}.md" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert len(shown) == len(set(shown))
    assert {*written, *notebooks, "options.md", "changelog.md"} <= set(shown)
    for name in shown:
        assert (site / name).with_suffix(".html").is_file(), name

    options = text_of(site / "options.html")
    for key in ("finetune.memory", "data.image_cache_mb", "recording.episodes", "feature_cache_mb", "ckpt"):
        assert key in options

    for init in SOURCE.rglob("__init__.py"):
        package = ".".join(("fss", *init.parent.relative_to(SOURCE).parts))
        page = (site / "api" / f"{package}.html").read_text(encoding="utf-8")
        for path in init.parent.glob("*.py"):
            if not path.stem.startswith("_"):
                assert f'id="{package}.{path.stem}"' in page, f"{package}.{path.stem}"
    assert 'id="fss.methods.bam.BAM"' in (site / "api" / "fss.methods.html").read_text()
    assert "the meta learner's own loss" in text_of(site / "api" / "fss.methods.html")
    roles = [page.name for page in (site / "api").iterdir() if re.search(r":(class|func|meth|data):", text_of(page))]
    assert not roles, "Sphinx roles that docs/docstring_roles.py did not turn into links"

    notebook = text_of(site / "notebooks" / "01_svd_of_a_layer.html")
    assert "torch.linalg.svd" in notebook
    assert "U S Vᵀ" in notebook

    remote = re.compile(r"<(?:script|img|link|iframe)[^>]+(?:src|href)=\"(?:https?:)?//")
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    assert not [page for page in pages if remote.search(page.read_text(encoding="utf-8"))], "asks another host"


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("# A page\n\n[gone](gone.md)\n", "gone.md"),
        ("# A page\n\n[gone](index.md#gone)\n", "gone"),
        ("# A page\n\n![gone](images/gone.png)\n", "gone.png"),
        ("# A page\n", ""),
    ],
    ids=["link", "anchor", "image", "nothing"],
)
def test_strict_means_strict(page: str, complaint: str, tmp_path: Path) -> None:
    """Broken links fail with the settings of mkdocs.yml; here without the slow plugins."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text(page)
    config = yaml.safe_load(build.CONFIG.read_text())
    own = {"docs_dir": "docs", "plugins": [], "nav": [{"A page": "index.md"}], "extra_css": []}
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(config | own))
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(tmp_path / "mkdocs.yml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode == 0) == (complaint == ""), done.stderr
    assert complaint in done.stderr


def test_formulas_of_notebooks_become_text() -> None:
    assert build._without_math(Path("n.ipynb"), r"$W = U S V^\top$ costs 3 $") == "*W = U S Vᵀ* costs 3 $"
    with pytest.raises(ValueError, match="has no form without MathJax"):
        build._without_math(Path("n.ipynb"), r"$\frac{1}{2}$")


def test_folders_of_the_navigation_are_filled_in() -> None:
    staged = {"a.md": b"# First\n", "n/2.md": b"# Two\n", "n/1.md": b"\n# One\n\ntext\n"}
    nav = [{"A": "a.md"}, {"N": [{"Of": "n/"}]}]
    filled = build._nav(nav, staged)
    assert filled == [{"A": "a.md"}, {"N": [{"Of": [{"One": "n/1.md"}, {"Two": "n/2.md"}]}]}]


def test_staging_removes_pages_that_are_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "pages", lambda: {"index.md": b"# fss\n"})
    monkeypatch.setattr(build, "configuration", lambda staged, site: {"pages": len(staged)})
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/old.md").touch()
    config = build.stage(tmp_path, tmp_path / "site")
    assert sorted(p.name for p in (tmp_path / "docs").iterdir()) == ["index.md"]
    assert yaml.safe_load(config.read_text()) == {"pages": 1}
    before = (tmp_path / "docs/index.md").stat().st_mtime_ns
    build.stage(tmp_path, tmp_path / "site")
    assert (tmp_path / "docs/index.md").stat().st_mtime_ns == before


def test_the_readme_is_short_and_names_every_folder() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= 150
    assert "<!--" not in readme, "generated text belongs into the site"
    folders = {init.parent.relative_to(ROOT).as_posix() for init in SOURCE.rglob("__init__.py")}
    named = set(re.findall(r"^\| `([^`]+)` \|", readme, re.MULTILINE))
    assert folders <= named, folders - named
    for name in named:
        assert (ROOT / name).is_dir(), name
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", readme)
    assert len(links) > 15
    assert not [link for link in links if not (ROOT / link).exists()]
