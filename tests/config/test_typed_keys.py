"""An option that nothing reads is refused whatever stands before it, by whatever composes; the others are as before."""

from __future__ import annotations

import pytest
from hydra.errors import HydraException

from fss.config.compose import composed
from fss.errors import FssError
from fss.sweeps.grid import planned

UNKNOWN = {
    "+sise=smoke": "Do you mean +size?",
    "sise=smoke": "Do you mean +size?",
    "++data.epoch=3": "Do you mean data.epochs?",
    "++data={epoch: 3}": "Do you mean data.epochs?",
    "+rows=t05r06": "Do you mean +row?",
    "+row=t05r06": "+row selects rows of a sweep",
    "++row=t05r06": "+row selects rows of a sweep",
    "+seeds=1": "Do you mean seed?",
    "+method.bins=[1]": "reads with method=baseline; it belongs to method=",
    "+recipe.schedule.power=2": "reads with recipe=paper; it belongs to recipe=",
    "+recipe.optimizer.nestrov=true": "Do you mean recipe.optimizer.nesterov?",
    "+finetune.ranks=3": "Known below finetune: factors, memory, qkv, rank_rounding, stages",
    "+method.wants.dilatation=uniform": "Do you mean method.wants.dilation?",
    "+trainer.speed=9": "which nothing reads",
    "+trainer.callbacks=[]": "fss itself gives callbacks",
    "+data.source.roots=x": "Do you mean data.source.root?",
    "++strategy_lr.svf=3": "which nothing reads",
    "+data@second=coco": "names second",
    "+hydra.swep.dir=x": "which nothing reads",
    "+hydra.run.dirr=x": "Do you mean hydra.run.dir?",
    "~foldx": "Do you mean fold?",
    "~finetune.stage": "Do you mean finetune.stages?",
    "~fold": "which every run needs",
    "~data": "which every run needs",
    "~data.epochs": "which every run needs",
    "~recipe.schedule": "which every run needs",
}
KNOWN = (
    "++data.epochs=3",
    "++data={epochs: 3}",
    "++backbone.width=8",  # resnet50.yaml does not name it, its class takes it
    "+size=smoke",
    "+trainer.accumulate_grad_batches=2",
    "+recipe.optimizer.nesterov=true",
    "experiment=demo ++strategy_lr.svf=3",
    "method=pfenet ++method.bins=[1]",
    "method=bam ++method.base_learner.train_if_missing=false",
    "~recipe.optimizer.momentum",
    "recipe=pfenet ~recipe.schedule.power",
    "~experiment",
    "+hydra.job.env_set.X=1",
    "++hydra.run.dir=x",
)


@pytest.mark.parametrize("option", UNKNOWN)
def test_an_option_that_nothing_reads_is_refused(option: str) -> None:
    with pytest.raises(FssError) as caught:
        composed(["data=shapes", option])
    assert option in str(caught.value)
    assert UNKNOWN[option] in str(caught.value)


@pytest.mark.parametrize("options", KNOWN)
def test_an_option_that_something_reads_is_taken(options: str) -> None:
    composed(["data=shapes", *(options.split() if "{" not in options else [options])])


@pytest.mark.parametrize("option", ["+sise=smoke", "++data.epoch=3", "+rows=t05r06", "+trainer.speed=9"])
@pytest.mark.parametrize("sweep", [["experiment=table05"], ["fold=0,1"]])
def test_a_plan_refuses_it_too(option: str, sweep: list[str]) -> None:
    with pytest.raises(FssError, match="which nothing reads"):
        planned([*sweep, option])


def test_options_of_a_base_learner_are_no_way_around(tmp_path: object) -> None:
    with pytest.raises(FssError, match=r"\+data\.epoch=3 names data\.epoch"):
        planned(["data=shapes", "method=bam", 'method.base_learner.overrides=["+data.epoch=3"]'])


def test_force_selects_rows_as_plus_does() -> None:
    """``++`` before an option of a row, or of the grid, would otherwise go into every run beside the row's own."""
    rows = ["experiment=table05", "+size=smoke"]
    assert len(planned([*rows, "++row=t05r06"])) == 4
    assert [r.words for r in planned([*rows, "++row=t05r06"])] == [r.words for r in planned([*rows, "+row=t05r06"])]
    rows = ["experiment=table08", "+size=smoke"]
    plain = planned([*rows, "finetune.stages=[4]", "fold=1"])
    forced = planned([*rows, "++finetune.stages=[4]", "++fold=1"])
    assert [r.folder for r in forced] == [r.folder for r in plain]
    assert len(forced) == 1


def test_what_a_class_takes_is_added_as_hydra_says() -> None:
    with pytest.raises(HydraException, match=r"use \+trainer\.accumulate_grad_batches=2"):
        composed(["trainer.accumulate_grad_batches=2"])
