"""Types of a figure, the run folders it is drawn from, and the registry of all figures."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from fss.results import ReportError, Result, UnfinishedRunError, load_result

RECORDING = "recording"
"""Folder inside a run folder that ``recording=on`` writes to."""
ABOUT = "about.json"
"""File in it that describes the run, also during training: ``key`` of the result and the ``finetune`` options."""

STRUCTURE = "structure.json"
"""Model structure for schematic figures; written by the command line, as reports never build a model."""

Column = Sequence[float | int | str]


@dataclass(frozen=True)
class Drawn:
    """A finished figure.

    Attributes:
        figure: made with ``Figure()``, without pyplot.
        data: CSV columns: name -> values, all of one length.
        caption: plain text: what is shown, and what was chosen where the paper leaves it open.
        missing: parts that no run provides, each with the command that makes the run.
    """

    figure: Figure
    data: Mapping[str, Column]
    caption: str
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """A run, finished or still training.

    Attributes:
        folder: run folder.
        result: its result; None while it is training.
    """

    folder: Path
    result: Result | None

    @cached_property
    def about(self) -> dict[str, Any]:
        """``key`` and ``finetune`` of the run, from the result or the recording; empty if neither has them."""
        if self.result is not None:
            return {"key": vars(self.result.key), "finetune": dict(self.result.config.get("finetune", {}))}
        try:
            content = json.loads((self.recording / ABOUT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    @property
    def key(self) -> dict[str, Any]:
        """Key of the run's table row; empty if unknown."""
        key = self.about.get("key", {})
        return key if isinstance(key, dict) else {}

    @property
    def recording(self) -> Path:
        """Folder of the run's recordings."""
        return self.folder / RECORDING

    def label(self) -> str:
        """Return method, strategy, data, fold, shot and seed as text; the folder's name if they are unknown."""
        key = self.key
        if not {"method", "finetune", "data", "fold", "shot", "seed"} <= key.keys():
            return self.folder.name
        return (
            f"{key['method']}, {key['finetune']}, {key['data']} fold {key['fold']}, {key['shot']}-shot, "
            f"seed {key['seed']}"
        )


@dataclass(frozen=True)
class FigureKind:
    """A figure that can be drawn.

    Attributes:
        name: as typed by the user: ``2``, ``12``, ``heatmap``.
        title: one line for the list of figures.
        needs: required runs or recordings, and the command that makes them.
        experiment: file of ``conf/experiment`` whose runs are used by default, or None.
        draw: draws the figure from runs; raises :class:`ReportError` with what is missing and the next command.
        schematic: whether it needs no run; ``draw`` then gets one folder that holds :data:`STRUCTURE`.
    """

    name: str
    title: str
    needs: str
    experiment: str | None
    draw: Callable[[Sequence[Run]], Drawn]
    schematic: bool = False


def find_runs(folders: Sequence[Path]) -> list[Run]:
    """List the runs below some folders, finished or still training, each once.

    Args:
        folders: searched recursively; missing ones are skipped.

    Returns:
        The runs, by folder, then by path.

    Raises:
        ReportError: a result is damaged.
    """
    found: dict[Path, Run] = {}
    for folder in folders:
        recorded = {path.parent for path in folder.rglob(RECORDING) if path.is_dir()}
        finished = {path.parent for path in folder.rglob("result.json")}
        for run_folder in sorted(recorded | finished):
            found.setdefault(run_folder.resolve(), Run(run_folder, _result(run_folder / "result.json")))
    return list(found.values())


def kinds() -> dict[str, FigureKind]:
    """Collect the figures of all modules of this package that define ``FIGURES``, a tuple of :class:`FigureKind`.

    Returns:
        name -> figure, numbered figures first and in order.

    Raises:
        ValueError: two figures share a name.
    """
    package = importlib.import_module(__package__ or "")
    found: dict[str, FigureKind] = {}
    for module in pkgutil.iter_modules(package.__path__):
        loaded = importlib.import_module(f"{package.__name__}.{module.name}")
        for kind in getattr(loaded, "FIGURES", ()):
            if kind.name in found:
                raise ValueError(f"two figures are called {kind.name}: {found[kind.name].title} | {kind.title}")
            found[kind.name] = kind
    return dict(sorted(found.items(), key=lambda item: _order(item[0])))


def _order(name: str) -> tuple[bool, int, str]:
    digits = re.match(r"\d+", name)
    return (digits is None, int(digits.group()) if digits else 0, name)


def _result(path: Path) -> Result | None:
    if not path.is_file():
        return None
    try:
        return load_result(path)
    except UnfinishedRunError:
        return None


__all__ = [
    "ABOUT",
    "RECORDING",
    "STRUCTURE",
    "Column",
    "Drawn",
    "FigureKind",
    "ReportError",
    "Run",
    "find_runs",
    "kinds",
]
