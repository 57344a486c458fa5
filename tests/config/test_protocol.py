"""What counts as another way to run a row of a table, and what does not."""

from __future__ import annotations

import pytest

from fss.config.compose import composed
from fss.config.protocol import deviations
from fss.reports.paper_tables import cells


def command(name: str, row: str) -> list[str]:
    return next(c.arguments for c in cells(name) if c.row == row)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("data.epochs=1", "data.epochs=1 instead of 200"),
        ("trainer.max_steps=5", "trainer.max_steps=5 instead of -1"),
        ("trainer.max_epochs=3", "trainer.max_epochs=3 instead of 200"),
        ("trainer.limit_train_batches=1", "trainer.limit_train_batches=1 instead of 1.0"),
        ("trainer.precision=bf16-mixed", "trainer.precision=bf16-mixed instead of 32-true"),
        ("backbone.weights=none", "backbone.weights=none instead of imagenet"),
        ("backbone.stem=deep", "backbone.stem=deep instead of torchvision"),
        ("data.size=97", "data.size=97 instead of 473"),
        ("data.augment=false", "data.augment=false instead of true"),
        ("data.sampler=release", "data.sampler=release instead of stateless"),
        ("data.episodes=list.json", "data.episodes=list.json instead of null"),
        ("data.train_list=mine.txt", "data.train_list=mine.txt instead of nothing"),
        ("data.min_test_images=10", "data.min_test_images=10 instead of null"),
        ("finetune.qkv=three", "finetune.qkv=three instead of one"),
        ("selection=base", "selection=base instead of novel"),
        ("recipe.optimizer.lr=0.1", "recipe.optimizer.lr=0.1 instead of 0.015"),
        ("recipe.backbone_lr_factor=1", "recipe.backbone_lr_factor=1 instead of 0.1"),
        ("method.dropout=0", "method.dropout=0 instead of 0.5"),
        ("method.support_view=masked_image", "method.support_view=masked_image instead of masked_before_stage4"),
        ("test_seed=1", "test_seed=1 instead of 321"),
        ("protocol.scoring=network", "protocol.scoring=network instead of original"),
        ("protocol.test=square", "protocol.test=square instead of pad"),
    ],
)
def test_one_option(words: str, told: str) -> None:
    row = command("table08", "t08r03")
    assert deviations(composed([*row, words]), row) == [told]


@pytest.mark.parametrize(
    "words", ["seed=1", "fold=3", "shot=5", "workers=0", "group=mine", "data.root=x", "trainer=cpu"]
)
def test_what_tells_runs_of_a_row_apart_or_changes_nothing(words: str) -> None:
    row = command("table08", "t08r03")
    assert deviations(composed([*(w for w in row if w.split("=")[0] != words.split("=")[0]), words]), row) == []


def test_what_a_run_adds_to_its_options_is_no_deviation() -> None:
    row = command("table01", "t01r16")
    config = composed(row)
    config["data"] |= {"content": "1", "episodes_content": "2"}
    config["backbone"]["weights_content"] = "3"
    config["method"]["base_learner"] |= {"identity": "4", "checkpoint": "x.ckpt", "built": {}}
    assert deviations(config, row) == []


def test_runs_from_before_some_options_deviate_in_nothing() -> None:
    row = command("table08", "t08r03")
    config = composed(row)
    del (
        config["backbone"]["sizes"],
        config["method"]["support_view"],
        config["protocol"],
        config["recipe"]["optimizers"],
    )
    assert deviations(config, row) == []


def test_the_stage_before_counts_for_bam() -> None:
    row = command("table01", "t01r16")
    assert deviations(composed([*row, "data.base.epochs=1"]), row) == ["data.base.epochs=1 instead of 100"]
    config = composed([*row, 'method.base_learner.overrides=["seed=1"]'])
    assert deviations(config, row) == ["method.base_learner.overrides=[seed=1] instead of []"]
    other = command("table08", "t08r03")
    assert deviations(composed([*other, "data.base.epochs=1"]), other) == [], "nothing else reads it"
