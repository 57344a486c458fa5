"""Every experiment of the paper's tables runs the cells of its table, no fewer and no more."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from fss.config.checks import check
from fss.config.compose import plain, prepare_hydra
from fss.config.identity import identity
from fss.errors import FssError
from fss.reports.paper_tables import Cell, cells, tables
from fss.reports.table_runs import setting
from fss.sweeps.expansion import expand

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "conf"
RUNS = {  # rows x shots x folds that can be run: of quoted rows those of CyCTR alone
    "table01": 144, "table02": 96, "table03": 48, "table04": 16, "table05": 24, "table06": 20, "table07": 28,
    "table08": 16, "table09": 28, "table10": 20, "table11": 24, "table12": 40, "table13": 16, "table14": 24,
    "table15": 24, "table16": 16, "table17": 24, "table18": 20, "table19": 28, "table20": 16, "table21": 20,
    "table22": 16, "table23": 16, "table24": 16,
}  # fmt: skip
GRID = ("fold", "shot")


@pytest.fixture(scope="module", autouse=True)
def _hydra() -> Iterator[None]:
    prepare_hydra()
    with initialize_config_dir(str(CONF), version_base="1.3", job_name="test"):
        yield


@pytest.fixture(scope="module")
def composed() -> dict[tuple[str, ...], dict[str, Any]]:
    """Configurations by what composed them: many tables share rows."""
    return {}


def jobs(name: str, *arguments: str) -> list[list[str]]:
    sweeper = compose("config", overrides=[f"experiment={name}"], return_hydra_config=True).hydra.sweeper
    assert sweeper._target_ == "hydra_plugins.fss_rows.RowSweeper"
    rows, params = OmegaConf.to_container(sweeper.rows), OmegaConf.to_container(sweeper.params)
    assert isinstance(rows, dict)
    assert isinstance(params, dict)
    return expand(rows, params, [f"experiment={name}", *arguments], OverridesParser.create().parse_overrides)  # type: ignore[arg-type]


def configs(name: str, known: dict[tuple[str, ...], dict[str, Any]]) -> list[dict[str, Any]]:
    """Compose each row once; fold and shot are plain values that nothing but BAM's head reads."""
    made = []
    for words in jobs(name):
        grid = {k: int(v) for k, _, v in (word.partition("=") for word in words) if k in GRID}
        row = tuple(word for word in words if word.partition("=")[0] != "fold")
        if row not in known:
            known[row] = plain(compose("config", overrides=list(row)))
        made.append({**known[row], "fold": grid["fold"]})
    return made


def runnable(name: str) -> list[Cell]:
    methods = {path.stem for path in (CONF / "method").glob("*.yaml")}
    return [cell for cell in cells(name) if cell.overrides is not None and cell.overrides["method"] in methods]


def described(value: dict[str, Any], keys: set[str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key, str(setting(value, key))) for key in keys))


def test_every_table_has_its_experiment() -> None:
    assert list(tables()) == list(RUNS)
    assert {p.stem for p in (CONF / "experiment").glob("table*.yaml")} == set(RUNS)


@pytest.mark.parametrize("name", RUNS)
def test_an_experiment_is_its_table(name: str, composed: dict[tuple[str, ...], dict[str, Any]]) -> None:
    """Data file and experiment file were written apart: cells, options and numbers of runs must agree."""
    wanted, found = runnable(name), configs(name, composed)
    assert len(wanted) == len(found) == RUNS[name]
    keys = {key for cell in wanted for key in cell.overrides or ()}
    expected = []
    for cell in wanted:
        assert cell.overrides is not None
        own = {key: str(value) for key, value in cell.overrides.items()}
        like = next((c for c in found if all(str(setting(c, k)) == v for k, v in own.items())), None)
        assert like is not None, f"no run of {name} has {' '.join(cell.arguments)}"
        expected.append(described(like, keys))
    assert Counter(expected) == Counter(described(config, keys) for config in found)
    assert len({identity(config) for config in found}) == RUNS[name], "two cells would be one run"
    assert {config["group"] for config in found} == {"paper"}
    for config in found[:: len(found) // 4]:
        check(config)


def test_a_run_that_tables_share_is_one_run(composed: dict[tuple[str, ...], dict[str, Any]]) -> None:
    found = {
        name: {identity(config) for config in configs(name, composed)} for name in ("table01", "table03", "table05")
    }
    assert found["table03"] < found["table01"]
    assert len(found["table05"] & found["table01"]) == 8, "frozen and SVF on four folds"


def test_the_user_chooses_and_extends() -> None:
    assert len(jobs("table05", "fold=0")) == 6
    assert len(jobs("table05", "fold=0,2", "seed=1,2,3")) == 36
    assert len(jobs("table01", "method=bam", "shot=5")) == 24
    assert len(jobs("table01", "+row=t01r02,t01r07", "fold=1", "shot=1")) == 2
    (one,) = jobs("table05", "finetune=part", "finetune.stages=[3,4]", "fold=3", "+size=smoke")
    assert {"finetune=part", "finetune.stages=[3,4]", "fold=3", "shot=1", "+size=smoke", "experiment=table05"} == set(
        one
    )
    with pytest.raises(FssError, match=r"method=hsnet chooses no row .* method bam, baseline, pfenet"):
        jobs("table01", "method=hsnet")
    with pytest.raises(FssError, match="chooses no row of this sweep together with the other options"):
        jobs("table05", "finetune=svf", "finetune.stages=[3,4]")
    with pytest.raises(FssError, match="intervals have no end"):
        jobs("table05", "seed=interval(1,3)")


def test_smoke_keeps_what_rows_are_about() -> None:
    for name, row in (("table14", "t14r05"), ("table01", "t01r18"), ("table02", "t02r04")):
        (words,) = jobs(name, f"+row={row}", "fold=2", "shot=1", "+size=smoke")
        small = plain(compose("config", overrides=words))
        check(small)
        cell = next(c for c in cells(name) if (c.row, c.fold, c.shot) == (row, 2, 1))
        assert cell.overrides is not None
        differ = {key for key, value in cell.overrides.items() if setting(small, key) != value}
        assert differ <= {"data", "data.test_episodes"}, "only the data and the number of its episodes"
        assert (small["data"]["name"], small["group"], small["backbone"]["width"]) == ("shapes", "smoke", 8)
        assert (small["data"]["test_episodes"] == 5000) == (name == "table14")


def test_numbers_are_those_of_the_reference() -> None:
    shared = Path(os.environ.get("FSS_SHARED", ROOT.parent / "shared"))
    path = shared / "reference" / "paper_tables.yaml"
    if not path.is_file():
        pytest.skip(f"no {path}; set FSS_SHARED")
    reference = yaml.safe_load(path.read_text())
    seen = 0
    for printed, ours in zip(reference["tables"], tables().values(), strict=True):
        assert (printed["id"], printed["dataset"], printed["metric"]) == (ours.number, ours.data, ours.metric)
        for row, mine in zip(printed["rows"], [r for r in ours.rows if r.origin != "added"], strict=True):
            assert (row["id"], row["source"] == "reported") == (mine.id, mine.origin == "quoted")
            assert (row["method"], row["backbone"]) == (mine.facts["method"], mine.facts["backbone"])
            assert row["dataset_trick"] == (mine.facts["novel classes"] == "dropped")
            layers = row["finetune"].get("layers")
            assert layers in (None, (mine.overrides or {}).get("finetune.stages"))
            for shot, values in row["values"].items():
                assert mine.numbers[shot].mean == values["mean"]
                assert list(mine.numbers[shot].folds) == [values[f"fold{fold}"] for fold in range(4)]
                seen += 1
    assert seen == 199
