"""Finished runs assigned to the cells of a paper's table, with warnings about what limits the comparison."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, stdev
from typing import Any

from scipy.special import stdtrit

from fss.reports.deviations import Deviations, deviations_of, letters
from fss.reports.paper_tables import FOLDS, GROUPS, TOY, Numbers, PaperTable, Row, cell_overrides, command
from fss.results import Result

Runs = dict[int, dict[int, Result]]
"""fold -> seed -> run."""


_MUST_FIT = ("data.novel_images", "data.test_episodes", "recipe")
"""Options that exclude a run which otherwise fits a row; the report names such runs."""


@dataclass(frozen=True)
class Line:
    """One row at one number of shots: the paper's numbers and ours.

    Attributes:
        row: row of the table.
        shot: supports per episode.
        paper: printed numbers.
        runs: finished runs by fold and seed.
        metric: ``miou`` or ``fb_iou``.
    """

    row: Row
    shot: int
    paper: Numbers
    runs: Runs
    metric: str
    deviations: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def departures(self, fold: int | None = None) -> list[str]:
        """Return how the runs behind a number differ from the table's own protocol, without repetitions.

        Args:
            fold: of the number; None: the mean over all folds.
        """
        runs = self.results if fold is None else self.runs.get(fold, {}).values()
        return list(dict.fromkeys(text for run in runs for text in self.deviations.get(run.identity, ())))

    @property
    def folds(self) -> tuple[float | None, ...]:
        """Our score of each fold, averaged over seeds; None for a fold without runs."""
        return tuple(self._fold(fold) for fold in FOLDS)

    @property
    def mean(self) -> float | None:
        """Our mean over the folds; None unless every fold has a run."""
        scores = [s for s in self.folds if s is not None]
        return mean(scores) if len(scores) == len(FOLDS) else None

    @property
    def seeds(self) -> list[int]:
        """Seeds that have a run in every fold."""
        sets = [set(self.runs.get(fold, {})) for fold in FOLDS]
        return sorted(set.intersection(*sets))

    @property
    def half_interval(self) -> float | None:
        """Half-width of the 95 % t-interval, over seeds, of the mean over the folds; None for fewer than two seeds."""
        means = [mean(_score(self.runs[fold][seed], self.metric) for fold in FOLDS) for seed in self.seeds]
        if len(means) < 2:
            return None
        freedom = len(means) - 1
        return float(stdtrit(freedom, 0.975)) * stdev(means) / math.sqrt(len(means))

    @property
    def results(self) -> list[Result]:
        """The runs of this line, by fold and seed."""
        return [self.runs[fold][seed] for fold in sorted(self.runs) for seed in sorted(self.runs[fold])]

    def _fold(self, fold: int) -> float | None:
        scores = [_score(run, self.metric) for run in self.runs.get(fold, {}).values()]
        return mean(scores) if scores else None


@dataclass(frozen=True)
class FilledTable:
    """A table of the paper with our runs.

    Attributes:
        table: table of the paper.
        toy: whether the runs are of toy size, hence not comparable to the paper.
        lines: row by row, shot by shot.
        warnings: settings that should be equal but differ, and ambiguous or excluded runs.
    """

    table: PaperTable
    toy: bool
    lines: tuple[Line, ...]
    warnings: tuple[str, ...]

    @property
    def marks(self) -> dict[str, str]:
        """What sets runs apart from the table's own protocol -> the letter that stands at their numbers."""
        return letters(text for line in self.lines for text in line.departures())

    def mark(self, line: Line, fold: int | None = None) -> str:
        """Return what stands behind a number of ours: ``[a,c]``, or nothing.

        Args:
            line: one of the table's.
            fold: of the number; None: the mean over all folds.
        """
        marks = self.marks
        own = [marks[text] for text in line.departures(fold)]
        return f"[{','.join(own)}]" if own else ""

    def below(self) -> list[str]:
        """Return one line for every mark: what it means, and in which rows it stands."""
        rows = {text: [line for line in self.lines if text in line.departures()] for text in self.marks}
        return [
            f"[{letter}] {text} ({', '.join(dict.fromkeys(line.row.id for line in rows[text]))})"
            for text, letter in self.marks.items()
        ]


def fill_table(table: PaperTable, results: Iterable[Result], toy: bool, deviations: Deviations) -> FilledTable:
    """Assign runs to the cells of a table.

    Args:
        table: table of the paper.
        results: finished runs; unrelated ones, and those that only test a checkpoint, are ignored.
        toy: use the toy-size runs instead of those on the table's data.
        deviations: in which options a configuration differs from what a command gives, as
            :func:`fss.config.protocol.deviations`; not asked of toy runs, which follow no protocol.

    Returns:
        The table with its runs. Runs on any other data set never fill a cell.
    """
    data = TOY if toy else table.data
    trained = [r for r in results if r.cost.train_seconds and "task" not in r.config and r.key.data == data]
    needed = needed_options(table, toy)
    lines, warnings, used = [], [], set()
    for row in table.rows:
        for shot, numbers in row.numbers.items():
            by_fold: Runs = {}
            departures: dict[str, tuple[str, ...]] = {}
            for fold in FOLDS:
                overrides = cell_overrides(row, shot, fold)
                fitting = [r for r in trained if overrides is not None and not _misfits(r, overrides, needed)]
                if fitting and overrides is not None:
                    by_fold[fold], ambiguous = _by_seed(fitting, f"{row.id}, {shot}-shot, fold {fold}")
                    warnings += ambiguous
                    used |= {r.identity for r in fitting}
                    for run in () if toy else by_fold[fold].values():
                        departures[run.identity] = deviations_of(run, command(overrides), deviations)
            lines.append(Line(row, shot, numbers, by_fold, table.metric, departures))
    others = [r for r in trained if r.identity not in used]
    warnings += _near_misses([line for line in lines if not line.runs], others, needed)
    return FilledTable(table, toy, tuple(lines), (*_differences(lines), *warnings))


def _score(run: Result, metric: str) -> float:
    return run.scores.fb_iou if metric == "fb_iou" else run.scores.miou


def needed_options(table: PaperTable, toy: bool) -> set[str]:
    """Return the options in which a run must match a table; toy runs are free in data and test episodes.

    Args:
        table: table of the paper.
        toy: whether the run is of toy size.
    """
    keys = {key for row in table.rows if row.overrides for key in row.overrides} | {"fold", "shot"}
    if not toy:
        return keys
    episodes = {row.overrides["data.test_episodes"] for row in table.rows if row.overrides}
    return keys - {"data"} - ({"data.test_episodes"} if len(episodes) == 1 else set())


def _misfits(result: Result, wanted: Mapping[str, Any], needed: set[str]) -> list[str]:
    """Return the options in which a run differs from the wanted ones."""
    return [key for key, value in wanted.items() if key in needed and setting(result.config, key) != value]


def setting(config: Mapping[str, Any], key: str) -> Any:
    """Look up an option in a run's configuration.

    Args:
        config: resolved configuration.
        key: dotted key, or a config group, which stands for the name of its choice.

    Returns:
        The value, or None.
    """
    node: Any = config
    for part in f"{key}.name".split(".") if key in GROUPS else key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return sorted(node, key=str) if isinstance(node, list) and key == "finetune.kernel_sizes" else node


def _by_seed(fitting: Sequence[Result], where: str) -> tuple[dict[int, Result], list[str]]:
    """Keep one run per seed; where different runs fit, keep the newest and warn."""
    seeds: dict[int, dict[str, Result]] = defaultdict(dict)
    for run in sorted(fitting, key=lambda r: r.path.stat().st_mtime):
        seeds[run.key.seed][run.identity] = run
    chosen = {seed: list(runs.values())[-1] for seed, runs in seeds.items()}
    warnings = [
        f"{where}, seed {seed}: {len(runs)} different runs fit; the newest is shown: {chosen[seed].folder}"
        for seed, runs in seeds.items()
        if len(runs) > 1
    ]
    return chosen, warnings


def _near_misses(empty: Sequence[Line], others: Sequence[Result], needed: set[str]) -> list[str]:
    """Name runs that fit an empty row except for the recipe, the novel images or the number of test episodes."""
    messages = []
    for line in empty:
        for run in others:
            wanted = cell_overrides(line.row, line.shot, run.key.fold)
            if wanted is None:
                continue
            wrong = _misfits(run, wanted, needed)
            if wrong and all(key in _MUST_FIT or key.startswith("recipe.") for key in wrong):
                reasons = ", ".join(f"{key}={setting(run.config, key)} instead of {wanted[key]}" for key in wrong)
                messages.append(
                    f"{line.row.id}, {line.shot}-shot, fold {run.key.fold}: not shown, it has {reasons}: {run.folder}"
                )
    return messages


def _differences(lines: Sequence[Line]) -> list[str]:
    """Name settings that should be equal across the runs of a table but differ."""
    seen: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for line in lines:
        for run in line.results:
            for name, group, value in _comparable(run):
                seen[name, group].setdefault(value, line.row.id)
    return [
        f"{name} {'of ' + group + ' ' if group else ''}differ: "
        + "; ".join(f"{value} ({row})" for value, row in values.items())
        for (name, group), values in seen.items()
        if len(values) > 1
    ]


def _comparable(run: Result) -> Iterable[tuple[str, str, str]]:
    """Yield the settings that must be equal: name, group of runs, value."""
    key, config = run.key, run.config
    recipe = f"recipe {key.recipe}, {key.method}"
    episodes = f"fold {key.fold}, {key.test or f'{key.shot}shot'}, {run.episodes.count} of them"
    yield "test episodes", episodes, run.episodes.hash[:12]
    yield "test seeds", "", str(config.get("test_seed"))
    yield "rules of selection", "", run.selection.rule
    for name, option in (("weights", "backbone.weights"), ("stems", "backbone.stem"), ("widths", "backbone.width")):
        yield name, key.backbone, str(setting(config, option))
    for name, option in (("batch sizes", "recipe.batch_size"), ("rates", "recipe.optimizer.lr")):
        yield name, recipe, str(setting(config, option))
    yield "schedules", recipe, str(setting(config, "recipe.schedule._target_"))
    for name, option in (("sizes of images", "data.size"), ("epochs", "data.epochs")):
        yield name, "", str(setting(config, option))
    for name in ("limit_train_batches", "limit_test_batches"):
        yield name, "", str(setting(config, f"trainer.{name}"))
