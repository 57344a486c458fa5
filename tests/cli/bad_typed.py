"""Bad inputs that are typed and would be without effect: unknown keys under any prefix, and what comes too late."""

from __future__ import annotations

from tests.cli.bad_options import asked, tested, trained

SWEEP = "finetune=freeze,svf"
PLAN = "sweep plan data=shapes"
NOTHING = "which nothing reads"

FIRST = "method=bam data.base.size=65"

KEYS = (
    trained("mistyped group with a plus", "+sise=smoke", "+sise=smoke", NOTHING, "Do you mean +size?"),
    trained("mistyped group without a plus", "sise=smoke", "sise=smoke", "Do you mean +size?"),
    trained("mistyped key that would be added", "++data.epoch=3", "data.epoch,", NOTHING, "Do you mean data.epochs?"),
    trained("mistyped key within a mapping", "++data={epoch:3}", "data.epoch,", "Do you mean data.epochs?"),
    trained("rows instead of row", "+rows=t05r06", "+rows=t05r06", "Do you mean +row?"),
    trained("row without a sweep", "+row=t05r06", "+row selects rows", "-m experiment=table05 +row=t05r06"),
    trained("row forced onto a sweep without rows", f"{SWEEP} ++row=t05r06 -m", "+row selects rows", "leave it out"),
    trained("seeds instead of seed", "+seeds=1,2 -m", "names seeds", "Do you mean seed?"),
    trained("option of another head", "+method.bins=[1]", "method=baseline", "it belongs to method=", "method=pfenet"),
    trained("power of a schedule that has none", "+recipe.schedule.power=2", "recipe=paper", "recipe=original"),
    trained("option of another strategy", "++finetune.bn_stages=[1]", "finetune=svf", "finetune=svf_bn"),
    trained("mistyped argument of the optimiser", "+recipe.optimizer.nestrov=true", "recipe.optimizer.nesterov"),
    trained("mistyped wish of a head", "+method.wants.dilatation=uniform", "Do you mean method.wants.dilation?"),
    trained("mistyped key of the reader", "+data.source.roots=x", "Do you mean data.source.root?"),
    trained("mistyped key of the logger", "++logger.wandbb=online", "Do you mean logger.wandb?"),
    trained("argument that fss gives itself", "+trainer.callbacks=[]", "fss itself gives callbacks", "Leave it out"),
    trained("mistyped key of Hydra", "+hydra.swep.dir=x", "hydra.swep.dir", NOTHING),
    trained("mistyped folder of Hydra", "+hydra.run.dirr=x", "Do you mean hydra.run.dir?"),
    trained("group in another place", "+data@second=coco", "names second", NOTHING),
    trained("key taken away that is not there", "~foldx", "~foldx", "Do you mean fold?"),
    trained("key taken away that runs need", "~fold", "~fold", "give it a value"),
    trained("group taken away", "~recipe", "~recipe", "give it a value"),
    trained("option of an experiment that is not chosen", "++strategy_lr.svf=3", "strategy_lr.svf", NOTHING),
    trained("mistyped key in a sweep", f"{SWEEP} ++data.epoch=3 -m", "data.epoch,", "Do you mean data.epochs?"),
    trained("mistyped option of a base learner", "method=bam method.base_learner.overrides=[+data.epoch\\=3]",
            "+data.epoch=3", "Do you mean data.epochs?"),
    tested("mistyped key of a test that would be added", "+shots=5", "+shots=5", "Do you mean shot?"),
    tested("option of data in a test without data", "+data.size=65", "not chosen", "add data=NAME"),
    tested("mistyped argument of the trainer in a test", "++trainer.precison=64", "Do you mean trainer.precision?"),
    tested("mistyped key in tests of several seeds", "seed=1,2 +rot=x -m", "+rot=x", "Do you mean root?"),
    asked("mistyped key in a plan", f"{PLAN} ++data.epoch=3", "data.epoch,", "Do you mean data.epochs?"),
    asked("mistyped group in a plan", f"{PLAN} +sise=smoke", "sise", "Do you mean +size?"),
    asked("mistyped row in a state", "sweep status experiment=table05 +rows=t05r06", "rows", "Do you mean +row?"),
)  # fmt: skip
LATE = (
    trained("optimiser that refuses its arguments", "recipe.optimizer.momentum=0 +recipe.optimizer.nesterov=true",
            "recipe.optimizer", "nesterov=True", "python train.py --help"),
    trained("trainer refused before the first stage", f"{FIRST} trainer.precision=12-bit", "12-bit", "32-true"),
    trained("limit refused before the first stage", f"{FIRST} trainer.gradient_clip_val=much", "gradient_clip_val",
            "trainer"),
    trained("steps refused before the first stage", f"{FIRST} trainer.check_val_every_n_epoch=often",
            "check_val_every_n_epoch", "trainer"),
    trained("argument of the trainer refused before the first stage", f"{FIRST} +trainer.accumulate_grad_batches=no",
            "trainer", "accumulate_grad_batches"),
    trained("optimiser refused before the first stage",
            f"{FIRST} recipe.optimizer.momentum=0 +recipe.optimizer.nesterov=true", "recipe.optimizer", "nesterov"),
    trained("untrained part refused before the first stage", f"{FIRST} recipe.untrained=[nose]", "nose", "has"),
    trained("head refused before the first stage", f"{FIRST} method.kshot_hidden=-1", "kshot_hidden=-1", "from 0 up"),
    trained("strategy refused before the first stage", f"{FIRST} finetune.memory=most", "memory", "balanced"),
)  # fmt: skip
