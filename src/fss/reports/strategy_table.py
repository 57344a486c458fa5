"""The comparison table of strategies, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table

from fss.reports.option_differences import option_differences, uneven_options
from fss.results import ReportError, Result

_SPLITTING_FIELDS = ("data", "method", "backbone", "fold", "shot", "recipe", "test")
"""Fields of the result key that split rows; those that differ among the results become columns."""

_LEARNER = "base_learner"
"""The method that is tested on images, not on episodes."""

_OPTIONS = "options"
"""Column of the options that distinguish runs which agree in all of these fields."""

_LEFT = ("strategy", *_SPLITTING_FIELDS, _OPTIONS)

_MEMORY = {"saved_for_backward": "backward\nmemory", "cuda": "GPU peak\nmemory"}


@dataclass(frozen=True)
class _Row:
    """Runs of one strategy in one setting, one per seed, by ascending seed."""

    setting: tuple[str, ...]
    runs: tuple[Result, ...]

    def mean(self, value: Callable[[Result], float]) -> float:
        """Return the mean of a value over seeds."""
        return sum(value(run) for run in self.runs) / len(self.runs)


def strategy_table(results: Sequence[Result]) -> Table:
    """Compare strategies: one row each, averaged over seeds.

    Args:
        results: finished runs; rows are split further where data, method, backbone, fold, shot, recipe or test
            differ, and by the options that distinguish runs of the same row and seed.

    Returns:
        table: ready to print with rich.

    Raises:
        ReportError: there are no results, or no option distinguishes different runs of one row and seed.
    """
    header, rows, notes = _contents(results)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.caption, table.caption_justify = "; ".join(notes), "left"
    for name in header:
        table.add_column(name, justify="left" if name in _LEFT else "right", no_wrap=name != _OPTIONS)
    for row in rows:
        table.add_row(*row)
    return table


def to_markdown(results: Sequence[Result]) -> str:
    """Return the same table as GitHub Markdown, with a trailing newline.

    Args:
        results: finished runs, as for :func:`strategy_table`.

    Returns:
        text: the table and its notes.
    """
    header, rows, notes = _contents(results)
    lines = [header, [":--" if name in _LEFT else "--:" for name in header], *rows]
    text = "".join(f"| {' | '.join(_escape(cell) for cell in line)} |\n" for line in lines)
    return text + "\n" + "; ".join(notes) + ".\n"


def _escape(cell: str) -> str:
    return cell.replace("\n", " ").replace("|", "\\|")


def _contents(results: Sequence[Result]) -> tuple[list[str], list[list[str]], list[str]]:
    """Return header, cells and footnotes."""
    columns, rows = _group(results)
    kinds = {run.cost.memory_kind for run in results}
    memory = _MEMORY[next(iter(kinds))] if len(kinds) == 1 else "memory"
    several = any(len(row.runs) > 1 for row in rows)
    header = ["strategy", *columns, "trainable\nbackbone\nparams", "mIoU\n± 95 %", "FB-IoU\n± 95 %"]
    header += ["base\nmIoU"] if _on_base_classes(results) else []
    header += ["training\ntime", memory]
    header += ["mIoU\nby seed"] if several else []
    cells = [[*_cells(row, _on_base_classes(results)), *([_by_seed(row)] if several else [])] for row in rows]
    return header, cells, _notes(results, rows, several)


def _group(results: Sequence[Result]) -> tuple[list[str], list[_Row]]:
    """Return the columns that differ, and the rows sorted by setting and number of trainable parameters."""
    if not results:
        raise ReportError("no finished results to tabulate; run a training first")
    columns = [c for c in _SPLITTING_FIELDS if len({getattr(r.key, c) for r in results}) > 1]

    def setting(run: Result) -> tuple[str, ...]:
        return run.key.finetune, *(str(getattr(run.key, c)) for c in columns)

    labels = option_differences(results, setting)
    groups: dict[tuple[str, ...], dict[int, Result]] = {}
    for run in results:
        row = (*setting(run), *([labels.get(run.identity, "")] if labels else []))
        other = groups.setdefault(row, {}).setdefault(run.key.seed, run)
        if other.identity != run.identity:
            raise ReportError(
                f"{other.path} and {run.path} are different runs of {' '.join(setting(run))} seed {run.key.seed}, and "
                "no option tells them apart: report them by themselves, fss report FOLDER/RUN"
            )
    columns += [_OPTIONS] if labels else []
    rows = [_Row(s, tuple(by_seed[seed] for seed in sorted(by_seed))) for s, by_seed in groups.items()]
    return columns, sorted(rows, key=lambda r: (r.setting[1:], r.mean(_trainable), r.setting[0]))


def _trainable(run: Result) -> float:
    return float(run.parameters.backbone_trainable)


def _on_base_classes(results: Sequence[Result]) -> bool:
    """Return whether every run was validated on held-out images of base classes."""
    return all(r.selection.rule == "base" and r.selection.validation_miou is not None for r in results)


def _cells(row: _Row, base: bool) -> list[str]:
    """Return the cells of a row but for those by seed; ``base`` asks for the score on base classes."""
    trainable, total = row.mean(_trainable), row.mean(lambda r: float(r.parameters.backbone_total))
    share = f"\n({100 * trainable / total:.2g} %)" if 0 < trainable < total else ""
    return [
        *row.setting,
        f"{trainable:,.0f}{share}",
        _with_interval(row, lambda r: r.scores.miou, lambda r: r.scores.miou_interval),
        _with_interval(row, lambda r: r.scores.fb_iou, lambda r: r.scores.fb_iou_interval),
        *([f"{row.mean(lambda r: r.selection.validation_miou or 0.0):.1f}"] if base else []),
        _duration([r.cost.train_seconds for r in row.runs]),
        _memory([r.cost.peak_memory_mb for r in row.runs]),
    ]


def _with_interval(
    row: _Row, score: Callable[[Result], float], interval: Callable[[Result], tuple[float, float] | None]
) -> str:
    intervals = [ends for ends in map(interval, row.runs) if ends is not None]
    text = f"{row.mean(score):.1f}"
    return f"{text} ± {sum(high - low for low, high in intervals) / 2 / len(intervals):.1f}" if intervals else text


def _by_seed(row: _Row) -> str:
    return " ".join(f"{run.scores.miou:.1f}" for run in row.runs)


def _duration(seconds: Sequence[float | None]) -> str:
    measured = [s for s in seconds if s is not None]
    if not measured:
        return "-"
    mean = round(sum(measured) / len(measured))
    if mean < 120:
        return f"{mean} s"
    return f"{mean // 60} m {mean % 60:02d} s" if mean < 600 else f"{mean / 60:.0f} min"


def _memory(megabytes: Sequence[float | None]) -> str:
    measured = [m for m in megabytes if m is not None]
    if not measured:
        return "-"
    peak = max(measured)
    return f"{peak / 1024:.1f} GB" if peak >= 1000 else f"{peak:.{0 if peak >= 100 else 1}f} MB"


def _notes(results: Sequence[Result], rows: Sequence[_Row], several: bool) -> list[str]:
    """Return the footnotes a reader needs to judge the table."""
    counts = sorted({run.episodes.count for run in results})
    notes = [f"± half the 95 % bootstrap interval over the images of {' or '.join(map(str, counts))} test episodes"]
    if _on_base_classes(results):
        notes.append("base mIoU: of base classes on held-out images, by which checkpoints were chosen")
    if any(run.cost.memory_kind == "saved_for_backward" for run in results):
        notes.append("backward memory: what one training step keeps for its backward pass")
    if several:
        seeds = [{run.key.seed for run in row.runs} for row in rows]
        same = all(s == seeds[0] for s in seeds)
        listed = ", ".join(map(str, sorted(set.union(*seeds))))
        notes.append(f"mean over seeds {listed}" if same else f"mean over seeds, not the same in each row ({listed})")
    lists: dict[tuple[str, int, int, int, str], set[str]] = {}
    for run in results:
        key = run.key
        if key.method != _LEARNER:
            lists.setdefault((key.data, key.fold, key.shot, key.seed, key.test), set()).add(run.episodes.hash)
    if any(len(hashes) > 1 for hashes in lists.values()):
        notes.append("WARNING: strategies were not tested on the same episodes")
    notes += [f"WARNING: strategies differ in more than the strategy: {told}" for told in uneven_options(results)]
    notes += [*_everywhere(results), *_left_out(results)]
    rules = sorted({run.selection.rule for run in results})
    return [*notes, f"checkpoint selection: {', '.join(rules)}"]


def _everywhere(results: Sequence[Result]) -> list[str]:
    """Return what predicting foreground everywhere scores in the test of each fold and number of shots."""
    several = len({(run.key.data, run.key.fold, run.key.shot, run.key.test) for run in results}) > 1
    found: dict[str, None] = {}
    for run in results:
        if run.scores.miou_all_foreground is not None:
            key = run.key
            where = f" on {key.data} fold {key.fold}, {key.test or f'{key.shot}-shot'}" if several else ""
            found[f"foreground everywhere{where}: mIoU {run.scores.miou_all_foreground:.1f}"] = None
    return list(found)


def _left_out(results: Sequence[Result]) -> list[str]:
    """Return which classes the means leave out, for each rule and data set."""
    found: dict[str, None] = {}
    for run in results:
        if run.scores.left_out:
            least = run.config.get("data", {}).get("min_test_images")
            listed = ", ".join(f"{name} ({count})" for name, count in run.scores.left_out.items())
            where = f"{run.key.data} fold {run.key.fold}"
            found[f"left out of the mean of {where}, with fewer than {least} test images: {listed}"] = None
    return list(found)
