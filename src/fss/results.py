"""Finished runs as typed records: one :class:`Result` per ``result.json``."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from fss.errors import FssError

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1

T = TypeVar("T")


class ReportError(FssError):
    """An input file of a report is missing, damaged or inconsistent with the others."""


class UnfinishedRunError(ReportError):
    """The run behind a result file has not finished."""


@dataclass(frozen=True)
class Key:
    """What was run: the key of a table row; ``test`` describes the test episodes in words."""

    data: str
    method: str
    backbone: str
    finetune: str
    fold: int
    shot: int
    seed: int
    recipe: str
    experiment: str | None
    test: str = ""


@dataclass(frozen=True)
class Scores:
    """Test scores in per cent.

    Attributes:
        miou: mean IoU over the classes of the fold, without those of ``left_out``.
        miou_interval: 95 % bootstrap interval over the episodes' images, or None if it was not computed.
        fb_iou: mean of foreground and background IoU.
        fb_iou_interval: 95 % bootstrap interval of ``fb_iou``, or None.
        per_class: class name -> IoU; None for a class without episodes.
        miou_m: mIoU of BAM's meta learner alone; None for methods without one.
        fb_iou_m: FB-IoU of BAM's meta learner alone.
        miou_b: mIoU of BAM's base learner, over the base classes that occur in the queries.
        miou_base: generalised testing only: mIoU over the base classes; ``miou`` is then over all classes.
        miou_novel: generalised testing only: mIoU over the novel classes.
        class_intervals: class name -> interval of its IoU; None for a class without episodes.
        class_episodes: class name -> number of test episodes.
        intervals: how the intervals were made: method, what was resampled, samples, level, seed.
        miou_all_foreground: mIoU of predicting foreground everywhere in the same test; None in files of before.
        left_out: class name -> number of its test images, for classes that have too few of them to count in a mean
            over classes; None without ``data.min_test_images``.
    """

    miou: float
    miou_interval: tuple[float, float] | None
    fb_iou: float
    fb_iou_interval: tuple[float, float] | None
    per_class: dict[str, float | None]
    miou_m: float | None = None
    fb_iou_m: float | None = None
    miou_b: float | None = None
    miou_base: float | None = None
    miou_novel: float | None = None
    class_intervals: dict[str, tuple[float, float] | None] | None = None
    class_episodes: dict[str, int] | None = None
    intervals: dict[str, Any] | None = None
    miou_all_foreground: float | None = None
    left_out: dict[str, int] | None = None


@dataclass(frozen=True)
class Episodes:
    """Test episodes: their number, the hash of their list, and the name of the sampler."""

    count: int
    hash: str
    sampler: str


@dataclass(frozen=True)
class Selection:
    """How the checkpoint was chosen.

    Attributes:
        rule: kind of the validation episodes, or ``last``.
        note: the same in words.
        validation_miou: mIoU of the chosen checkpoint on these episodes, in percent; None if there are none.
    """

    rule: Literal["novel", "base", "last"]
    note: str
    validation_miou: float | None = None


@dataclass(frozen=True)
class Parameters:
    """Parameter counts; ``per_layer`` maps backbone parameter names to the number of trainable values."""

    backbone_trainable: int
    backbone_total: int
    head_trainable: int
    per_layer: dict[str, Any]


@dataclass(frozen=True)
class Cost:
    """Time and memory; None if not measured, e.g. the training time of a test-only run.

    Attributes:
        train_seconds: wall time of the training steps, data loading included, validation and checkpoints excluded.
        test_seconds: wall time of the test.
        peak_memory_mb: MiB, see ``memory_kind``.
        memory_kind: ``cuda``: the allocator's peak; ``saved_for_backward``: what one training step saves for its
            backward pass.
    """

    train_seconds: float | None
    test_seconds: float | None
    peak_memory_mb: float | None
    memory_kind: Literal["saved_for_backward", "cuda"]


@dataclass(frozen=True)
class Result:
    """One finished run.

    Attributes:
        path: the file it was read from.
        identity: hash of everything that determines the outcome.
        key: what was run.
        scores: test scores.
        episodes: test episodes.
        selection: how the checkpoint was chosen.
        parameters: parameter counts.
        cost: time and memory.
        config: resolved configuration.
        versions: package -> version.
        commit: Git commit of the code, None outside a repository.
        files: kind -> file name relative to the run folder; None if not written.
        data: facts of the data set: image lists, rule of the masks, origin.
    """

    path: Path
    identity: str
    key: Key
    scores: Scores
    episodes: Episodes
    selection: Selection
    parameters: Parameters
    cost: Cost
    config: dict[str, Any]
    versions: dict[str, Any]
    commit: str | None
    files: dict[str, str | None]
    data: dict[str, Any] | None = None

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.path.parent


def load_result(path: Path) -> Result:
    """Read one result file.

    Args:
        path: a ``result.json``.

    Returns:
        result: the record.

    Raises:
        ReportError: if the file is missing, not valid JSON, of another schema version, or a value is missing or of
            the wrong type.
        UnfinishedRunError: if its status is not ``finished``.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ReportError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ReportError(f"{path} is damaged or truncated ({error}); delete it and run again") from error
    if not isinstance(content, dict):
        raise ReportError(f"{path}: expected a JSON object, found {type(content).__name__}")
    version = content.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ReportError(f"{path}: schema_version is {version!r}, this program reads {SCHEMA_VERSION}; run again")
    if content.get("status") != "finished":
        raise UnfinishedRunError(
            f"{path}: status is {content.get('status')!r}, not 'finished'; resume or repeat the run"
        )
    return _record(Result, {**content, "path": Path(path)}, str(path), "")


def find_results(folder: Path) -> list[Result]:
    """Read every ``result.json`` below a folder, ordered by path; unfinished runs are skipped with a warning.

    Args:
        folder: where to look.

    Returns:
        results: the finished runs, possibly none.

    Raises:
        ReportError: if the folder does not exist or a file is damaged.
    """
    if not Path(folder).is_dir():
        raise ReportError(f"{folder} is no folder; give the output folder of the runs")
    results = []
    for path in sorted(Path(folder).rglob("result.json")):
        try:
            results.append(load_result(path))
        except UnfinishedRunError as error:
            log.warning("left out: %s", error)
    return results


def _record(cls: type[T], content: Any, where: str, name: str) -> T:
    """Build a dataclass from a JSON object, checking every type; unknown keys are ignored."""
    if not isinstance(content, dict):
        raise ReportError(f"{where}: {name or 'the file'} must be an object, found {_show(content)}")
    hints, values = get_type_hints(cls), {}
    for item in fields(cls):  # type: ignore[arg-type]
        full = f"{name}.{item.name}".lstrip(".")
        if item.name not in content:
            if item.default is not MISSING:
                continue
            raise ReportError(f"{where}: {full} is missing: the file was changed; delete it and run again")
        values[item.name] = _value(hints[item.name], content[item.name], where, full)
    return cls(**values)


def _value(hint: Any, content: Any, where: str, name: str) -> Any:
    """Convert ``content`` to the type ``hint``, or raise if it does not match."""
    kind, inner = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        return _record(hint, content, where, name)  # type: ignore[arg-type]
    if kind in (Union, UnionType):
        if NoneType in inner and _is_unknown(content):
            return None
        return _value(next(t for t in inner if t is not NoneType), content, where, name)
    if kind is tuple and isinstance(content, list) and len(content) == len(inner):
        return tuple(_value(t, c, where, f"{name}[{i}]") for i, (t, c) in enumerate(zip(inner, content, strict=True)))
    if kind is dict and isinstance(content, dict):
        return {k: _value(inner[1], v, where, f"{name}.{k}") for k, v in content.items()}
    if kind is Literal and content in inner:
        return content
    check = _SCALARS.get(hint)
    if check is not None and check(content):
        return hint(content) if hint is float else content
    raise ReportError(f"{where}: {name} is {_show(content)}, expected {_name(hint)}; delete the file and run again")


def _is_unknown(content: Any) -> bool:
    """Return whether a value was not measured: null, NaN, or a list of NaN."""
    if isinstance(content, list):
        return bool(content) and all(_is_unknown(x) for x in content)
    return content is None or (isinstance(content, float) and math.isnan(content))


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x)


_SCALARS: dict[Any, Callable[[Any], bool]] = {
    Any: lambda x: True,
    Path: lambda x: isinstance(x, Path),
    str: lambda x: isinstance(x, str),
    int: lambda x: isinstance(x, int) and not isinstance(x, bool),
    float: _is_number,
}


def _show(content: Any) -> str:
    text = repr(content)
    return text if len(text) <= 60 else text[:57] + "..."


def _name(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, get_args(hint)))
    return "a finite number" if hint is float else str(getattr(hint, "__name__", hint))
