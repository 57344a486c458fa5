"""The paper's tables with runs in them: what is shown, what is refused, what is warned of, in every format."""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.reports.fabricate_runs import write_previews, write_run

from fss.config.compose import composed
from fss.config.protocol import deviations
from fss.reports.comparison_table import as_csv, latex, markdown, sheet, terminal
from fss.reports.deviations import letters
from fss.reports.html_page import html_page
from fss.reports.paper_tables import PaperTable, cells, table, tables
from fss.reports.table_runs import FilledTable, Line
from fss.reports.table_runs import fill_table as fill
from fss.results import ReportError, Result, load_result

Make = Callable[..., Result]


def none(config: Mapping[str, Any], command: Sequence[str]) -> list[str]:
    """Find no deviation: these runs have but the options that a test is about."""
    return []


def fill_table(paper: PaperTable, results: list[Result], toy: bool) -> FilledTable:
    return fill(paper, results, toy, none)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return a function that writes the result of one cell of a table."""

    def made(
        name: str, row: str, fold: int, seed: int = 321, shot: int = 1, toy: bool = False, **changes: Any
    ) -> Result:
        cell = next(c for c in cells(name) if (c.row, c.fold, c.shot) == (row, fold, shot))
        assert cell.overrides is not None
        config: dict[str, Any] = {"seed": seed, "test_seed": 321, "trainer": {}, "extra": changes.pop("extra", None)}
        for key, value in {**cell.overrides, **changes.pop("options", {})}.items():
            full = f"{key}.name" if key in ("data", "method", "backbone", "finetune", "recipe") else key
            *path, last = full.split(".")
            place = config
            for part in path:
                place = place.setdefault(part, {})
            place[last] = value
        if toy:
            config["data"]["name"] = "shapes"
        keys = {k: config[k]["name"] for k in ("data", "method", "backbone", "finetune", "recipe")}
        keys |= {"fold": fold, "shot": shot, "seed": seed}
        folder = tmp_path / f"run{len(list(tmp_path.glob('run*')))}"
        values = {f"key__{k}": v for k, v in keys.items()} | {"episodes__hash": f"fold {fold}"}
        values |= {"episodes__count": 1000} | changes
        return load_result(write_run(folder, config=config, **values))

    return made


def line(lines: tuple[Line, ...], row: str, shot: int = 1) -> Line:
    return next(one for one in lines if (one.row.id, one.shot) == (row, shot))


def test_cells_count_and_quoted_rows_are_not_run() -> None:
    assert sum(len(cells(name)) for name in tables()) == 796 + 2 * 4, "two rows are ours"
    quoted = [c for c in cells("table15") if c.overrides is None]
    assert len(quoted) == 7 * 2 * 4, "CyCTR can be run"
    assert all(c.paper is not None and not c.arguments for c in quoted)
    (cell,) = [c for c in cells("table05") if (c.row, c.fold) == ("t05r04", 2)]
    assert cell.paper is None, "the paper prints the mean alone"
    assert " ".join(cell.arguments) == (
        "data=pascal method=baseline backbone=resnet50 finetune=part finetune.stages=[3,4] finetune.kernel_sizes=[1,3] "
        "recipe=paper data.novel_images=drop data.test_episodes=1000 shot=1 fold=2"
    )
    with pytest.raises(ReportError, match=r"table25 is no table .* table01 to table24"):
        table("table25")


def test_mean_difference_and_interval(make: Make) -> None:
    scores = {321: (60.0, 61.0, 62.0, 63.0), 322: (62.0, 63.0, 64.0, 65.0)}
    runs = [
        make("table05", "t05r06", fold, seed, scores__miou=miou)
        for seed, folds in scores.items()
        for fold, miou in enumerate(folds)
    ]
    runs.append(make("table05", "t05r01", 0))
    filled = fill_table(table("table05"), runs, toy=False)
    assert filled.warnings == ()
    svf, frozen = line(filled.lines, "t05r06"), line(filled.lines, "t05r01")
    assert svf.folds == (61.0, 62.0, 63.0, 64.0)
    assert svf.mean == 62.5
    assert svf.seeds == [321, 322]
    assert svf.half_interval == pytest.approx(12.7062, abs=1e-4)  # t(1) x 1.4142 / sqrt(2)
    assert (frozen.mean, frozen.half_interval, frozen.folds[1]) == (None, None, None)
    text = sheet(filled)
    ours = {row[0] or previous[0]: row for previous, row in zip([[""], *text.rows], text.rows, strict=False)}
    assert ours["t05r06"][-2:] == ["62.50 ± 12.71 (-4.64)", "321 322"]
    assert ours["t05r01"][-2] == "1 of 4 folds"
    assert ours["t05r02"][-2] == "not run"


def test_a_row_of_ours_has_no_numbers_of_the_paper_and_says_so(make: Make) -> None:
    runs = [make("table12", row, fold, scores__miou=60.0) for row in ("t12r05", "t12r05svf") for fold in range(4)]
    filled = fill_table(table("table12"), runs, toy=False)
    text, reader = sheet(filled), csv.DictReader(io.StringIO(as_csv([filled])))
    lines = [row for row in text.rows if row[0].startswith("t12r05svf")]
    assert [row[text.left - 1] for row in lines] == ["ours"]
    assert lines[0][-2] == "60.00"
    assert any("t12r05svf" in note and "Added here" in note for note in text.notes)
    ours = [row for row in reader if row["row"].startswith("t12r05")]
    assert [(row["row"], row["from"]) for row in ours] == [
        ("t12r05", "quoted"), ("t12r05", "ours"), ("t12r05svf", "ours"),
    ]  # fmt: skip
    assert "t12r05svf* (added)" in html_page([filled], "t")
    quoted = [row for row in text.rows if row[0].startswith("t12r05*")]
    assert quoted[0][text.left - 1] == "quoted"
    assert text.rows[text.rows.index(quoted[0]) + 1][-2] == "60.00 (-4.20)"


def test_fb_iou_where_the_table_has_it(make: Make) -> None:
    runs = [make("table03", "t03r02", fold, shot=5, scores__fb_iou=80.0, scores__miou=60.0) for fold in range(4)]
    filled = fill_table(table("table03"), runs, toy=False)
    assert line(filled.lines, "t03r02", 5).mean == 80.0
    assert line(filled.lines, "t03r02", 1).mean is None


def test_toy_runs_stand_alone(make: Make) -> None:
    runs = [make("table05", "t05r06", fold, toy=True, scores__miou=99.0) for fold in range(4)]
    assert all(not one.runs for one in fill_table(table("table05"), runs, toy=False).lines)
    text = sheet(fill_table(table("table05"), runs, toy=True))
    assert "TOY SIZE on shapes" in text.heading
    assert {row[text.left - 1] for row in text.rows} == {"ours"}
    page = html_page([fill_table(table("table05"), runs, toy=True)], "t")
    for other in (markdown(text), latex(text), page):
        assert "67.14" not in other, "the paper's number of SVF"
        assert "99.00" in other


def test_wrong_recipe_is_not_shown_but_named(make: Make) -> None:
    wrong = make("table05", "t05r01", 0, options={"recipe": "paper"})
    filled = fill_table(table("table05"), [wrong], toy=False)
    assert not line(filled.lines, "t05r01").runs
    (warning,) = filled.warnings
    assert "t05r01, 1-shot, fold 0: not shown, it has recipe=paper instead of original" in warning
    kept = make("table05", "t05r06", 0, options={"data.novel_images": "keep"})
    assert "data.novel_images=keep instead of drop" in fill_table(table("table05"), [kept], toy=False).warnings[0]
    assert line(fill_table(table("table11"), [wrong], toy=False).lines, "t11r02").runs, "Table 11 has this very run"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"episodes__hash": "other"}, "test episodes of fold 0"),
        ({"options": {"backbone.weights": "none"}}, "weights of resnet50 differ: None (t05r01); none (t05r06)"),
        ({"options": {"data.size": 65}}, "sizes of images differ"),
        ({"selection__rule": "last"}, "rules of selection differ: novel (t05r01); last (t05r06)"),
        ({"options": {"trainer.limit_train_batches": 2}}, "limit_train_batches differ"),
    ],
)
def test_what_should_be_equal(make: Make, changes: dict[str, Any], words: str) -> None:
    runs = [make("table05", "t05r01", 0), make("table05", "t05r06", 0, **changes)]
    filled = fill_table(table("table05"), runs, toy=False)
    assert any(words in warning for warning in filled.warnings), filled.warnings
    assert f"WARNING: {filled.warnings[0]}" in markdown(sheet(filled))


def test_batch_size_within_a_recipe(make: Make) -> None:
    runs = [make("table05", "t05r01", 0, options={"recipe.batch_size": 4}), make("table05", "t05r06", 0)]
    assert fill_table(table("table05"), runs, toy=False).warnings == (), "another recipe may have another batch"
    runs.append(make("table05", "t05r05", 0, options={"recipe.batch_size": 4}))
    assert "batch sizes of recipe paper" in fill_table(table("table05"), runs, toy=False).warnings[0]


def test_two_runs_of_one_cell_and_tests_alone(make: Make) -> None:
    one, two = make("table05", "t05r06", 0), make("table05", "t05r06", 0, extra="other")
    filled = fill_table(table("table05"), [one, two], toy=False)
    assert "seed 321: 2 different runs fit; the newest is shown" in filled.warnings[0]
    tested = make("table05", "t05r05", 0, cost__train_seconds=None)
    assert not any(one.runs for one in fill_table(table("table05"), [tested], toy=False).lines)


def test_footnotes_tell_what_the_print_leaves_doubtful() -> None:
    for name, words in {
        "table02": "t02r09: The printed five-shot gain of 1.93",
        "table12": "four differences printed average 2.60",
        "table07": "Table 19",
        "table20": "t20r02: Fold 3 equals",
        "table01": "t01r05, t01r15: The paper says that it ran every method itself",
    }.items():
        text = sheet(fill_table(table(name), [], toy=False))
        assert words in markdown(text)
    assert any(row[0] == "t02r09*" for row in sheet(fill_table(table("table02"), [], toy=False)).rows)


def test_every_table_in_every_format() -> None:
    filled = [fill_table(one, [], toy=False) for one in tables().values()]
    rows = list(csv.DictReader(io.StringIO(as_csv(filled))))
    assert len(rows) == 199, "rows x shots; nothing is ours"
    assert sum(row["from"] == "quoted" for row in rows) == 8 * 2 + 2 + 1
    out = io.StringIO()
    for one in filled:
        text = sheet(one)
        assert all(len(row) == len(text.header) for row in text.rows)
        tex = latex(text)
        assert not re.search(r"(?<!\\)[%_#]", tex), "unescaped"
        assert tex.count(r"\\") == len(text.rows) + 1
        Console(file=out, width=160).print(terminal(text))
        assert "…" not in out.getvalue()
    for one in tables().values():
        for row in one.rows:
            means = [numbers.mean for numbers in row.numbers.values() if numbers.mean is not None]
            assert all(f"{mean:.2f}" in out.getvalue() for mean in means)
            assert bool(means) is (row.origin != "added")


class Reader(HTMLParser):
    """Counts tags, and fails on what HTML does not close."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: dict[str, int] = {}
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] = self.seen.get(tag, 0) + 1
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "link", "br", "polyline"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag != "polyline":
            assert self.open.pop() == tag


def test_the_page_holds_everything_itself(make: Make) -> None:
    runs = [make("table05", "t05r06", fold, key__method="baseline") for fold in range(2)]
    folder = write_previews(runs[0].folder)
    (folder / "csv").mkdir()
    (folder / "csv" / "metrics.csv").write_text("step,train/loss_total,val/miou\n0,0.9,\n1,0.5,\n2,,30\n3,0.4,\n")
    evil = make("table05", "t05r05", 0, commit="<script>alert(1)</script>")
    page = html_page([fill_table(table(n), [*runs, evil], toy=False) for n in ("table05", "table01")], "Tables")
    reader = Reader()
    reader.feed(page)
    assert not reader.open
    assert (reader.seen["table"], reader.seen["script"], reader.seen["img"], reader.seen["svg"]) == (2, 1, 2, 2)
    assert "t01r08, SVF, 1-shot, fold 0" in page, "Table 1 has the same run"
    assert all(link.startswith(("data:image/jpeg;base64,", "#table")) for link in reader.links)
    assert "http" not in page.replace("http-equiv", "")
    assert "&lt;script&gt;alert(1)" in page
    image = next(link for link in reader.links if link.startswith("data:"))
    assert base64.b64decode(image.split(",")[1])[:3] == b"\xff\xd8\xff"
    assert "train/loss_total from 0.9 to 0.4, step 0 to 3" in page
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page


def as_run(folder: Path, words: list[str], more: tuple[str, ...] = (), **changes: Any) -> Result:
    """Write the result of ``python train.py WORDS MORE``."""
    config = composed([*words, *more])
    keys = {k: config[k]["name"] for k in ("data", "method", "backbone", "finetune", "recipe")}
    keys |= {name: config[name] for name in ("fold", "shot", "seed")}
    values = {f"key__{k}": v for k, v in keys.items()} | {"episodes__count": 1000, "data": {"lists": "released"}}
    return load_result(write_run(folder, config=config, **(values | changes)))


def test_a_run_off_the_protocol_is_marked_in_every_format(tmp_path: Path) -> None:
    """One epoch of one batch with random weights: 3.21 stands beside the paper's 67.14, but not without a word."""
    odd = ("data.epochs=1", "trainer.limit_train_batches=1", "backbone.weights=none", "selection=last", "test_seed=5")
    words = {c.fold: c.arguments for c in cells("table08") if c.row == "t08r03"}
    runs = [
        as_run(
            tmp_path / str(fold),
            words[fold],
            odd if fold == 0 else (),
            scores__miou=3.21 if fold == 0 else 67.0,
            **({"data": {"lists": "other", "test_images_trained_on": 16}, "episodes__count": 10} if fold == 0 else {}),
        )
        for fold in range(4)
    ]
    filled = fill(table("table08"), runs, False, deviations)
    told = [
        "data.epochs=1 instead of 200", "trainer.limit_train_batches=1 instead of 1.0",
        "backbone.weights=none instead of imagenet", "selection=last instead of novel", "test_seed=5 instead of 321",
        "image lists other than the released ones", "16 images of the test's list are in the training's, too",
        "tested on 10 episodes instead of 1,000",
    ]  # fmt: skip
    assert sorted(filled.marks) == sorted(told)
    text = sheet(filled)
    (ours,) = [row for row in text.rows if row[text.left - 1] == "ours" and "3.21" in row[text.left]]
    assert ours[text.left] == "3.21 [a,b,c,d,e,f,g,h]"
    assert "[" not in "".join(ours[text.left + 1 : text.left + 4]), "the other folds follow the protocol"
    assert "[a,b,c,d,e,f,g,h]" in ours[text.left + 4], "their mean does not"
    out = io.StringIO()
    Console(file=out, width=200).print(terminal(text))
    page = html_page([filled], "t")
    for form in (out.getvalue(), markdown(text), latex(text).replace(r"\_", "_"), page.replace("&#39;", "'")):
        assert "3.21 [a,b,c,d,e,f,g,h]" in form
        for letter, line_below in filled.marks.items():
            assert f"[{line_below}] {letter} (t08r03)" in form
    (row,) = [r for r in csv.DictReader(io.StringIO(as_csv([filled]))) if r["from"] == "ours"]
    assert row["fold0"] == "3.21"
    assert set(row["deviations"].split("; ")) == {f"{text} (fold 0)" for text in told}


def test_a_run_on_the_protocol_has_no_mark(tmp_path: Path) -> None:
    """Another seed, other hardware and another folder of the data are no deviation."""
    words = next(c.arguments for c in cells("table08") if c.row == "t08r03" and c.fold == 0)
    run = as_run(tmp_path / "run", words, ("seed=5", "workers=0", "data.root=elsewhere", "trainer=cpu"))
    filled = fill(table("table08"), [run], False, deviations)
    assert line(filled.lines, "t08r03").runs
    assert (filled.marks, filled.below()) == ({}, [])


def test_a_score_of_zero_is_marked(tmp_path: Path) -> None:
    words = next(c.arguments for c in cells("table08") if c.row == "t08r03" and c.fold == 0)
    filled = fill(table("table08"), [as_run(tmp_path / "run", words, scores__miou=0.0)], False, deviations)
    assert filled.below() == ["[a] mIoU 0: the training diverged, or learned nothing (t08r03)"]


@pytest.mark.parametrize("toy", [False, True])
def test_runs_of_another_data_set_never_fill_a_row(make: Make, toy: bool) -> None:
    """COCO's runs of Table 2 have the options of PASCAL's Table 8 but for the data; no toy either."""
    runs = [make("table02", "t02r09", fold, scores__miou=33.0) for fold in range(4)]
    filled = fill_table(table("table08"), runs, toy=toy)
    assert not any(one.runs for one in filled.lines)
    assert "33.00" not in markdown(sheet(filled))
    assert "coco" not in sheet(filled).heading
    assert line(fill_table(table("table02"), runs, toy=False).lines, "t02r09").mean == 33.0


def test_letters_go_on_after_z() -> None:
    marks = list(letters(map(str, range(54))).values())
    assert (marks[0], marks[25], marks[26], marks[27], marks[52]) == ("a", "z", "aa", "ab", "ba")
    assert len(set(marks)) == 54
