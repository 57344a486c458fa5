"""Bad inputs that are typed: options of train.py, eval.py and fss."""

from __future__ import annotations

from tests.cli.bad_inputs import CKPT, RUN, SMALL, TRAIN, Case


def trained(name: str, option: str, *words: str) -> Case:
    """Return a case in which an option of train.py is wrong, and nothing else."""
    return Case(name, "train.py", (*TRAIN, *option.split()), words, ("shapes",))


def tested(name: str, option: str, *words: str) -> Case:
    """Return a case in which an option of eval.py is wrong, and nothing else."""
    return Case(name, "eval.py", (f"ckpt={CKPT}", "trainer=cpu", *option.split()), words, ("shapes", "run"))


def asked(name: str, command: str, *words: str, needs: tuple[str, ...] = ("pascal",)) -> Case:
    """Return a case in which the command line of fss is wrong."""
    return Case(name, "fss", tuple(command.split()), words, needs)


EPISODES, INDEX = "data episodes pascal --out list.json", "data index pascal --out index.json"
PASCAL = "--root data/VOC2012"

GROUPS = (
    Case("unknown choice of a group", "train.py", ("finetune=svff",), ("finetune/svff", "freeze", "full", "svf")),
    Case("unknown data set", "train.py", ("data=voc",), ("data/voc", "coco", "pascal", "shapes")),
    Case("unknown group", "train.py", ("metod=baseline",), ("metod", "method")),
    Case("unknown key", "train.py", ("finetune.stage=[2]",), ("finetune.stage", "stages")),
    Case("text that is no option", "train.py", ("fold",), ("fold", "key=value")),
    Case("unbalanced bracket", "train.py", ("finetune.stages=[2,3",), ("finetune.stages=[2,3",)),
    Case("missing value of eval.py", "eval.py", (), ("ckpt", "best.ckpt")),
    Case("unknown key of eval.py", "eval.py", ("ckpt=x", "shots=5"), ("shots", "shot")),
)
OPTIONS = (
    trained("fold out of range", "fold=7", "fold=7", "0 to 3"),
    trained("fold of a wrong type", "fold=all", "fold=all", "0 to 3"),
    trained("shot 0", "shot=0", "shot=0", "from 1 up"),
    trained("negative seed", "seed=-1", "seed=-1", "from 0 to"),
    trained("unknown selection", "selection=best", "selection=best", "novel, base, last"),
    trained("unknown resume", "resume=always", "resume=always", "auto or never"),
    trained("negative checkpoint_minutes", "checkpoint_minutes=-5", "checkpoint_minutes=-5", "from 0 up"),
    trained("stage that does not exist", "finetune.stages=[5]", "finetune.stages=[5]", "0 (stem) to 4"),
    trained("factor that does not exist", "finetune.factors=[W]", "W", "U, S, V"),
    trained("rank rounding 0", "finetune.rank_rounding=0", "rank_rounding=0", "from 1 up"),
    trained("size that does not divide", "data.size=64", "data.size=64", "57 or 65"),
    trained("size of a wrong type", "data.size=large", "data.size='large'", "whole number"),
    trained("size 0", "data.size=0", "data.size=0", "from 17 up"),
    trained("reversed scale range", "data.scale_min=1.2", "scale_min=1.2", "scale_max=1.1", "scale_min <= scale_max"),
    trained("scale of a wrong type", "data.scale_max=big", "scale_max='big'", "number"),
    trained("rotation out of range", "data.rotate=270", "data.rotate=270", "0 to 180"),
    trained("batch size 0", "recipe.batch_size=0", "recipe.batch_size=0", "from 1 up"),
    trained("batch larger than an epoch", "recipe.batch_size=4096", "recipe.batch_size=4096", "give at most"),
    trained("batch that processes cannot share", "trainer.devices=3", "recipe.batch_size=8", "multiple of 3"),
    trained("negative workers", "workers=-1", "workers=-1", "from 0 up"),
    trained("test batch 0", "test_batch_size=0", "test_batch_size=0", "from 1 up"),
    trained("no test episodes", "data.test_episodes=0", "test_episodes=0", "from 1 up"),
    trained("no epochs", "data.epochs=0", "data.epochs=0", "from 1 up"),
    trained("unknown sampler", "data.sampler=random", "sampler='random'", "pairs, release, stateless, uniform"),
    trained("unknown rule of novel images", "data.novel_images=ignore", "novel_images='ignore'", "drop, keep"),
    trained("more supports than a class has images", "shot=40", "shot + 1 = 41", "lower shot"),
    trained(
        "base learner that is missing",
        "method=bam method.base_learner.checkpoint=gone.ckpt",
        "gone.ckpt",
        "method=base_learner",
    ),
    trained(
        "no base learner, and none may be trained",
        "method=bam method.base_learner.train_if_missing=false",
        "no finished base learner",
        "python train.py method=base_learner",
    ),
    trained(
        "weights of a base learner that is missing",
        "backbone.weights=base_learner",
        "no finished base learner",
        "python train.py method=base_learner",
    ),
    trained("base learner chosen by novel classes", "method=base_learner selection=novel", "selection=novel", "base"),
    trained("unknown rule of small classes", "data.small_classes=skip", "small_classes='skip'", "error, drop"),
    trained("no least number of test images", "data.min_test_images=0", "min_test_images=0", "from 1 up"),
    trained("negative area", "data.min_area=-1", "min_area=-1", "from 1 up"),
    trained("unknown depth", "backbone.depth=34", "34", "18", "50"),
    trained("backbone of width 0", "backbone.width=0", ".width=0", "from 1 up"),
    trained("unknown stem", "backbone.stem=wide", "wide", "torchvision", "deep"),
    trained("unknown dilation", "backbone.dilation=3", "3", "torchvision", "uniform"),
    trained("unknown shot aggregation", "method.shot_aggregation=max", "max", "mean", "sum"),
    trained("dropout out of range", "method.dropout=1.5", "dropout=1.5", "0 to 1"),
    trained("head of width 0", "method.width=0", ".width=0", "from 1 up"),
    trained("untrained part that does not exist", "recipe.untrained=[nose]", "nose", "down_query"),
    trained("negative learning rate", "recipe.optimizer.lr=-1", "recipe.optimizer.lr=-1", "from 0 up"),
    trained("learning rate of a wrong type", "recipe.optimizer.lr=high", "recipe.optimizer.lr=high", "number"),
    trained("unknown key of the trainer", "+trainer.speed=9", "trainer", "speed"),
    trained("device that is not there", "trainer.accelerator=gpu trainer.devices=[63]", "trainer", "gpu", "fss doctor"),
    trained("unknown accelerator", "trainer.accelerator=abacus", "abacus", "cpu", "fss doctor"),
    trained("unknown precision", "trainer.precision=12-bit", "12-bit", "32-true"),
    trained("unknown strategy", "trainer.strategy=swarm", "swarm", "ddp"),
    trained("negative limit of batches", "trainer.limit_test_batches=-2", "limit_test_batches", "-2"),
    trained("unknown W&B mode", "logger.wandb=maybe", "logger.wandb=maybe", "online, offline, disabled"),
    Case("unknown COCO year", "train.py", ("data=coco", *SMALL, "data.year=2015"), ("data.year=2015", "2014 or 2017")),
    Case("unknown COCO scheme", "train.py", ("data=coco", *SMALL, "data.scheme=x"), ("scheme", "fwb", "panet")),
    Case("unknown mask rule", "train.py", ("data=coco", *SMALL, "data.mask_rule=x"), ("mask_rule=x", "first_polygon")),
)
TESTS = (
    tested("test on another fold", "fold=1", "fold=1", "was trained on", "none is left", "seen_classes=keep"),
    tested("unknown rule for seen classes", "seen_classes=maybe", "seen_classes=maybe", "refuse, drop, keep"),
    tested("unknown rule for leaks", "leaks=maybe", "leaks=maybe", "refuse, allow"),
    tested("list and sampler at once", "episodes=a.json sampler=release", "exclude each other", "Leave one"),
    tested("test with shot 0", "shot=0", "shot=0", "from 1 up"),
    tested("test with too many shots", "shot=500", "shot + 1 = 501", "lower shot"),
    tested("test of no episode", "test_episodes=0", "test_episodes=0", "from 1 up"),
    tested("test on a root that is missing", "root=gone", "gone", "fss data shapes --root gone"),
    tested("unknown task", "task=everything", "task=everything", "episodes, generalised"),
    tested("generalised without base learner", "task=generalised", "method=baseline", "python train.py method=bam"),
    tested("generalised on drawn lists", "task=generalised sampler=release", "leave episodes and sampler out"),
    tested("threshold above one", "task=generalised tau=2", "tau=2", "from 0 to 1"),
    tested("unknown merge rule", "task=generalised merge=both", "merge=both", "final, base"),
    tested("test with an unknown sampler", "sampler=dice", "sampler='dice'", "pairs, release, stateless, uniform"),
    Case("checkpoint that is missing", "eval.py", ("ckpt=gone.ckpt",), ("gone.ckpt", "multirun/")),
    Case("checkpoint that is a folder", "eval.py", (f"ckpt={RUN}",), (RUN, "multirun/"), ("run",)),
)
COMMANDS = (
    asked("neither root nor masks", EPISODES, "--root R", "--masks DIR"),
    asked("both root and masks", f"{INDEX} {PASCAL} --masks m --ids i", "either --root R", "--masks DIR"),
    asked("masks without ids", f"{INDEX} --masks data/VOC2012/SegmentationClassAug", "--ids FILE"),
    asked("index of a bad fold", f"{INDEX} {PASCAL} --fold 4", "fold=4", "0, 1, 2, 3"),
    asked("episodes of shot 0", f"{EPISODES} {PASCAL} --shot 0", "shot=0", "from 1 up"),
    asked("list of no episode", f"{EPISODES} {PASCAL} --count 0", "--count", "greater than or equal to 1"),
    asked("release sampler on training", f"{EPISODES} {PASCAL} --split train --sampler release", "--split test"),
    asked("shot larger than the data set", f"{EPISODES} {PASCAL} --shot 30", "shot + 1 = 31", "--small-classes drop"),
    asked("list into a file as folder", f"data index pascal {PASCAL} --out data/VOC2012/classes.txt/x.json",
          "Cannot write", "classes.txt/x.json", "writable"),
    asked("unknown command", "data fetch", "No such command 'fetch'"),
    asked("unknown data set of fss", "data prepare cityscapes --root x", "cityscapes", "pascal", "coco"),
    asked("mask rule of another data set", "data prepare pascal --root x --mask-rule full", "belong to coco"),
    asked("unknown mask rule of prepare", "data prepare coco --root x --mask-rule best", "best", "first_polygon"),
    asked("unknown year of prepare", "data prepare coco --root x --year 2015", "2015", "2014 or 2017"),
    asked("prepare without archives", "data prepare pascal --root x --archives y", "VOCtrainval", "--download"),
    asked("prepare into a file", "data prepare pascal --root data/VOC2012/classes.txt --archives archives",
          "classes.txt", "--root", needs=("pascal", "archives")),
    asked("shapes over another folder", "data shapes --root data/VOC2012", "data/VOC2012", "--root"),
    asked("pre-training without images", "pretrain --data gone --out w.pth", "gone", "fss data shapes"),
    asked("pre-training of an unknown depth",
          "pretrain --data data/shapes/classification --depth 34 --batch-size 4 --out w.pth",
          "34", "18", "50", needs=("shapes",)),
    asked("pre-training with too large a batch", "pretrain --data data/shapes/classification --out w.pth",
          "batch_size=64", "--batch-size", needs=("shapes",)),
    asked("report on a folder without runs", "report data", "no finished run", "python train.py"),
    asked("report on a missing folder", "report gone", "gone", "no folder"),
)  # fmt: skip
