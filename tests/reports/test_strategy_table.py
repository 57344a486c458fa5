"""The strategy table: numbers, order, seeds, and refusal to mix what does not belong together."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.reports.fabricate_runs import write_run

from fss.reports.strategy_table import strategy_table, to_markdown
from fss.results import ReportError, Result, load_result


def run(tmp_path: Path, name: str, **changes: Any) -> Result:
    return load_result(write_run(tmp_path / name, **changes))


def printed(results: list[Result], width: int = 160) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(strategy_table(results))
    return out.getvalue()


def cells(results: list[Result]) -> list[dict[str, str]]:
    lines = [
        [c.strip() for c in line.strip("|\n ").split("|")]
        for line in to_markdown(results).split("\n\n")[0].splitlines()
    ]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def test_one_seed(tmp_path: Path) -> None:
    svf = run(tmp_path, "svf")
    freeze = run(
        tmp_path,
        "freeze",
        key__finetune="freeze",
        parameters__backbone_trainable=0,
        scores__miou=35.04,
        scores__miou_interval=[34.0, 36.6],
        cost__train_seconds=125.0,
        cost__peak_memory_mb=2048.0,
    )
    first, second = cells([svf, freeze])
    assert first == {
        "strategy": "freeze",
        "trainable backbone params": "0",
        "mIoU ± 95 %": "35.0 ± 1.3",
        "FB-IoU ± 95 %": "65.0 ± 1.0",
        "training time": "2 m 05 s",
        "backward memory": "2.0 GB",
    }
    assert second["strategy"] == "svf"
    assert second["trainable backbone params"] == "1,200 (0.06 %)"
    assert second["mIoU ± 95 %"] == "40.0 ± 1.5"
    assert second["training time"] == "61 s"
    assert second["backward memory"] == "812 MB"
    text = printed([svf, freeze])
    assert text.index("freeze") < text.index("svf")
    assert "40.0 ± 1.5" in text
    assert "over the images of 400 test episodes" in " ".join(text.split())
    assert "WARNING" not in text


def test_mean_over_seeds_and_the_single_values(tmp_path: Path) -> None:
    runs = [
        run(tmp_path, f"s{seed}", key__seed=seed, scores__miou=miou, scores__miou_interval=[miou - d, miou + d])
        for seed, miou, d in ((2, 43.0, 3.0), (0, 40.0, 1.0), (1, 41.5, 2.0))
    ]
    (row,) = cells(runs)
    assert row["mIoU ± 95 %"] == "41.5 ± 2.0"
    assert row["mIoU by seed"] == "40.0 41.5 43.0"
    assert "mean over seeds 0, 1, 2" in to_markdown(runs)
    assert "40.0 41.5 43.0" in printed(runs)


def test_settings_that_differ_get_columns_and_rows(tmp_path: Path) -> None:
    runs = [run(tmp_path, f"{fold}{shot}", key__fold=fold, key__shot=shot) for fold in (1, 0) for shot in (1, 5)]
    rows = cells(runs)
    assert [(r["fold"], r["shot"]) for r in rows] == [("0", "1"), ("0", "5"), ("1", "1"), ("1", "5")]
    assert "method" not in rows[0]


def test_warnings(tmp_path: Path) -> None:
    a = run(tmp_path, "a")
    b = run(tmp_path, "b", key__finetune="full", episodes__hash="other")
    assert "WARNING: strategies were not tested on the same episodes" in to_markdown([a, b])
    c = run(tmp_path, "c", key__finetune="full", key__seed=1)
    assert "WARNING" not in to_markdown([a, c])
    d = run(tmp_path, "d", key__seed=1)
    e = run(tmp_path, "e", key__finetune="full")
    assert "not the same in each row" in to_markdown([a, d, e])


def test_scores_of_base_classes_where_all_runs_have_them(tmp_path: Path) -> None:
    on_base = {"selection__rule": "base", "selection__validation_miou": 55.25}
    runs = [run(tmp_path, f"s{seed}", key__seed=seed, **on_base) for seed in (0, 1)]
    (row,) = cells(runs)
    assert row["base mIoU"] == "55.2"
    assert "held-out images" in to_markdown(runs)
    other = run(tmp_path, "novel", key__seed=2, selection__validation_miou=70.0)
    assert "base mIoU" not in cells([*runs, other])[0], "that one was validated on novel classes"


def test_unknown_cost_is_a_dash(tmp_path: Path) -> None:
    (row,) = cells([run(tmp_path, "a", cost__train_seconds=None, cost__peak_memory_mb=None)])
    (bare,) = cells(
        [run(tmp_path, "b", scores__miou_interval=None, cost__peak_memory_mb=9.37, cost__memory_kind="cuda")]
    )
    assert bare["mIoU ± 95 %"] == "40.0"
    assert bare["GPU peak memory"] == "9.4 MB"
    assert row["training time"] == row["backward memory"] == "-"


def test_two_runs_of_one_cell(tmp_path: Path) -> None:
    a, b = run(tmp_path, "a"), run(tmp_path, "b")
    assert len(cells([a, b])) == 1, "the same run twice is one"
    other = run(tmp_path, "c", config={"workers": 1})
    with pytest.raises(ReportError, match=r"a/result\.json and .*c/result\.json are different runs of svf seed 0"):
        strategy_table([a, other])


def test_runs_that_differ_in_options_have_rows_of_their_own(tmp_path: Path) -> None:
    trained = (["U"], ["S"], ["U", "S"])
    runs = [
        run(
            tmp_path,
            f"{i}{seed}",
            key__seed=seed,
            config={"finetune": {"factors": f, "_target_": str(i)}, "group": str(i)},
        )
        for i, f in enumerate(trained)
        for seed in range(2)
    ]
    rows = cells([*runs, run(tmp_path, "other", key__finetune="freeze")])
    assert [row["options"] for row in rows if row["strategy"] == "svf"] == [
        "factors=[S]",
        "factors=[U,S]",
        "factors=[U]",
    ]
    assert [row["options"] for row in rows if row["strategy"] == "freeze"] == [""]
    assert all(row["mIoU by seed"].count("40.0") == 2 for row in rows if row["strategy"] == "svf")
    assert "options" not in cells(runs[:2])[0], "seeds alone need no column"


def test_nothing_to_tabulate() -> None:
    with pytest.raises(ReportError, match="no finished results"):
        strategy_table([])


def test_three_seeds_fit_a_terminal_of_80_columns(tmp_path: Path) -> None:
    runs = [
        run(
            tmp_path,
            f"{k}{seed}",
            key__seed=seed,
            key__finetune=name,
            parameters__backbone_trainable=count,
            cost__train_seconds=3599,
        )
        for k, (name, count) in enumerate((("freeze", 0), ("full", 23_999_999)))
        for seed in range(3)
    ]
    text = printed(runs, 80)
    assert "…" not in text
    assert "40.0 40.0 40.0" in text
    assert "23,999,999" in text


def test_tests_of_one_checkpoint_are_rows_of_their_own(tmp_path: Path) -> None:
    """Two test seeds, and another shot, of one training: nothing is a repetition, nothing is refused."""
    tests = ["1shot s365 release", "1shot s510 release", "5shot s321 stateless"]
    made = [run(tmp_path, test, key__test=test, episodes__hash=test) for test in tests]
    assert sorted(cell["test"] for cell in cells(made)) == tests
    assert "WARNING" not in printed(made)
    old = run(tmp_path, "old")
    assert old.key.test == "", "files of before this key are read"


def test_strategies_that_differ_in_more_than_the_strategy(tmp_path: Path) -> None:
    """One epoch beside eight is said; rates, hardware, folders and the strategy's own options are not."""
    made = []
    for name, epochs, batches, rate in (("svf", 1, 1, 30.0), ("freeze", 8, 1.0, 0.0)):
        config = {
            "data": {"epochs": epochs, "root": name, "size": 97},
            "finetune": {"name": name, "stages": [epochs]},
            "recipe": {"backbone_lr_factor": rate},
            "trainer": {"limit_train_batches": batches, "accelerator": name},
        }
        made.append(load_result(write_run(tmp_path / name, key__finetune=name, config=config)))
    text = to_markdown(made)
    assert "WARNING: strategies differ in more than the strategy: data.epochs=1 (svf), 8 (freeze)" in text
    assert "trainer.limit_train_batches=1 (svf), 1.0 (freeze)" in text
    assert text.count("WARNING") == 2
    assert "WARNING" not in to_markdown(made[:1])
    swept = [
        load_result(
            write_run(tmp_path / f"{n}{e}", key__finetune=n, config={"data": {"epochs": e}, "finetune": {"name": n}})
        )
        for n in ("svf", "freeze")
        for e in (1, 8)
    ]
    assert "WARNING" not in to_markdown(swept), "both were run with either, and the table tells which is which"


def test_what_foreground_everywhere_scores(tmp_path: Path) -> None:
    """Said once where the runs share their test, and with the test where they do not."""
    shots = [run(tmp_path, str(k), key__shot=k, scores__miou_all_foreground=20.0 + k) for k in (1, 5)]
    alone = to_markdown([shots[0], run(tmp_path, "old", key__finetune="full")])
    assert alone.count("foreground everywhere: mIoU 21.0") == 1
    both = to_markdown(shots)
    assert "foreground everywhere on shapes fold 0, 1-shot: mIoU 21.0" in both
    assert "foreground everywhere on shapes fold 0, 5-shot: mIoU 25.0" in both
    assert "everywhere" not in to_markdown([run(tmp_path, "older")])
