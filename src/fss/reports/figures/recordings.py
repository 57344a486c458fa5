"""Reading and checking what runs recorded, and choosing the runs of a figure."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fss.reports.figures.base import Run
from fss.results import ReportError

Array = NDArray[np.float64]

AGAIN = "Run it again with recording=on overwrite=true."


@dataclass(frozen=True)
class Curves:
    """mIoU by epoch, in per cent; NaN where none was computed.

    Attributes:
        epochs: (T,).
        train: on the epoch's training episodes, (T,).
        novel: on validation episodes of novel classes after the epoch, (T,).
    """

    epochs: Array
    train: Array
    novel: Array


@dataclass(frozen=True)
class Layer:
    """Singular values of a tuned convolution.

    Attributes:
        name: module path in the backbone, e.g. ``layer3.5.conv2``.
        kernel: kernel size.
        values: one row per record, columns in the pretrained order, (T, R).
    """

    name: str
    kernel: int
    values: Array

    @property
    def before(self) -> Array:
        """Pretrained values, (R,)."""
        return np.asarray(self.values[0])

    @property
    def after(self) -> Array:
        """Last recorded values, (R,)."""
        return np.asarray(self.values[-1])

    @property
    def stage(self) -> int:
        """Number of its stage."""
        return int(self.name.removeprefix("layer").split(".")[0])

    @property
    def block(self) -> str:
        """Path of the block that holds it; its own path if the stage has no blocks."""
        return ".".join(self.name.split(".")[:2])

    @property
    def is_shortcut(self) -> bool:
        """Whether it is the convolution of a shortcut."""
        return "downsample" in self.name


@dataclass(frozen=True)
class Spectra:
    """Content of ``spectra.npz``.

    Attributes:
        epochs: epochs of the records, (T,); 0 is before training.
        layers: in module order, i.e. by depth.
    """

    epochs: tuple[int, ...]
    layers: tuple[Layer, ...]


def read_curves(run: Run) -> Curves:
    """Read the curves of a run.

    Args:
        run: the run.

    Returns:
        One value per epoch.

    Raises:
        ReportError: the file is missing, damaged or empty.
    """
    path = run.recording / "curves.csv"
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        columns = [[float(row[name] or "nan") for row in rows] for name in ("epoch", "train_miou", "novel_miou")]
    except OSError as error:
        raise ReportError(f"{path} cannot be read ({error.strerror or error}). {AGAIN}") from error
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise ReportError(f"{path} is damaged ({error}). {AGAIN}") from error
    if not rows:
        raise ReportError(f"{path} holds no epoch. {AGAIN}")
    return Curves(*(np.array(column) for column in columns))


def read_spectra(run: Run) -> Spectra:
    """Read the singular values of a run.

    Args:
        run: the run.

    Returns:
        The values of every tuned convolution.

    Raises:
        ReportError: the file is missing, damaged, or holds no record after training began.
    """
    path = run.recording / "spectra.npz"
    try:
        with np.load(path, allow_pickle=False) as stored:
            epochs = tuple(int(epoch) for epoch in stored["epochs"])
            names = [str(name) for name in stored["names"]]
            sides = [int(side) for side in stored["kernels"]]
            layers = tuple(Layer(n, k, np.asarray(stored[n], np.float64)) for n, k in zip(names, sides, strict=True))
    except FileNotFoundError as error:
        raise ReportError(f"{path} is missing: {_why_missing(run)}") from error
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ReportError(f"{path} is damaged ({error}). {AGAIN}") from error
    if len(epochs) < 2 or not layers or any(v.values.ndim != 2 or len(v.values) != len(epochs) for v in layers):
        raise ReportError(f"{path} does not hold values before and after training. {AGAIN}")
    return Spectra(epochs, layers)


def recorded(runs: Sequence[Run], name: str, command: str) -> list[Run]:
    """Keep the runs that recorded a file.

    Args:
        runs: candidates.
        name: file name.
        command: command that makes such runs, for the error.

    Returns:
        The runs with the file, at least one.

    Raises:
        ReportError: no run has it.
    """
    found = [run for run in runs if (run.recording / name).is_file()]
    if not found:
        have = f"{len(runs)} run{'s' * (len(runs) != 1)} found, none with recording/{name}" if runs else "no run found"
        again = " (a finished run: its command with recording=on overwrite=true)" if runs else ""
        raise ReportError(f"{have}. Make one with: {command}{again}")
    return found


def best_setting(runs: Sequence[Run], count: Callable[[Sequence[Run]], int]) -> list[Run]:
    """Choose the runs of one setting (data, backbone, fold, shot, seed, epochs), so that they are comparable.

    Args:
        runs: at least one.
        count: returns how much of the figure a set of runs fills.

    Returns:
        The runs of the setting that fills most; ties prefer real data, then the lowest fold, shot and seed.
    """
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(_setting(run), []).append(run)
    return min(groups.items(), key=lambda item: (-count(item[1]), _preference(item[0])))[1]


def setting_words(run: Run) -> str:
    """Describe the setting of a run: backbone, data, fold, shots, seed.

    Args:
        run: the run.
    """
    key = run.key
    return (
        f"{key.get('backbone')}, {key.get('data')} fold {key.get('fold')}, {key.get('shot')}-shot, "
        f"seed {key.get('seed')}"
    )


def strategy_words(run: Run) -> str:
    """Describe method, strategy and setting of a run.

    Args:
        run: the run.
    """
    return f"{run.key.get('method')}, finetune={run.key.get('finetune')}, {setting_words(run)}"


def fits(tuned: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Tell whether the options of a strategy have the wanted values.

    Args:
        tuned: all options of the run's strategy.
        wanted: options that must match.
    """
    return all(tuned.get(name) == value for name, value in wanted.items())


def _setting(run: Run) -> tuple[Any, ...]:
    key = run.key
    names = ("data", "backbone", "fold", "shot", "seed")
    return (*(key.get(name) for name in names), run.about.get("epochs"))


def _preference(setting: tuple[Any, ...]) -> tuple[Any, ...]:
    data, _, fold, shot, seed, _ = setting
    return (data == "shapes", *(-1 if value is None else value for value in (fold, shot, seed)), str(setting))


def _why_missing(run: Run) -> str:
    tuned = run.about.get("finetune", {}).get("name")
    if (run.recording / "curves.csv").is_file() and tuned in ("freeze", "bn", "bias", "adapter"):
        return f"finetune={tuned} tunes no convolution. Take a run with finetune=svf."
    return AGAIN
