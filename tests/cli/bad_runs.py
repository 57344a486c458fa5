"""Bad inputs that runs left or read: weights, checkpoints, episode lists, results, and disks."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tests.cli.bad_data import cut, gone, holds
from tests.cli.bad_inputs import CKPT, RUN, TRAIN, Case

from fss.backbones.resnet import ResNet
from fss.data.episodes.lists import EpisodeList
from fss.data.episodes.stateless import Draw

Damage = Callable[[Path], None]
PHOTO, MASK = "data/VOC2012/JPEGImages/val_0001.jpg", "data/VOC2012/SegmentationClassAug/val_0001.png"
LAST, RESULT = f"{RUN}/checkpoints/last.ckpt", f"{RUN}/result.json"
LOAD = """
import sys
import fss
from fss.errors import FssError
try:
    fss.load(sys.argv[1])
except FssError as error:
    sys.stderr.write(f"Error: {error}\\n")
    sys.exit(2)
"""


class Payload:
    """Makes a file when it is unpickled; the snapshot of the folder would show it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("payload-was-run"),)


def both(*damages: Damage) -> Damage:
    def damage(home: Path) -> None:
        for each in damages:
            each(home)

    return damage


def weights(name: str, make: Damage, *words: str) -> Case:
    """Return a case that trains from a bad weight file."""
    return Case(name, "train.py", (*TRAIN, "backbone.weights=w.pth"), words, ("shapes",), make)


def tested(name: str, damage: Damage, *words: str) -> Case:
    """Return a case that tests a bad checkpoint."""
    return Case(name, "eval.py", (f"ckpt={CKPT}", "trainer=cpu"), words, ("shapes", "run"), damage)


def loaded(name: str, damage: Damage, *words: str) -> Case:
    """Return a case that loads a bad checkpoint from Python."""
    return Case(name, "load.py", (CKPT,), words, ("run",), both(damage, holds("load.py", LOAD)))


def resumed(name: str, damage: Damage, *words: str, option: str = "fold=0") -> Case:
    """Return a case that continues a run from a bad checkpoint."""
    arguments = (*TRAIN, f"hydra.run.dir={RUN}", option)
    return Case(name, "train.py", arguments, (*words, "resume=never"), ("shapes", "run"), both(gone(RESULT), damage))


def replayed(name: str, damage: Damage, *words: str) -> Case:
    """Return a case that replays a bad list of episodes."""
    arguments = (*TRAIN, "data.episodes=list.json")
    return Case(name, "train.py", arguments, ("list.json", "fss data episodes", *words), ("shapes",), damage)


def reported(name: str, damage: Damage, *words: str) -> Case:
    """Return a case that reports a bad result."""
    return Case(name, "fss", ("report", "multirun/debug"), ("result.json", *words), ("run",), damage)


def checkpoint(change: Callable[[dict[str, Any]], object], name: str = CKPT) -> Damage:
    """Change what a checkpoint holds."""

    def damage(home: Path) -> None:
        content = torch.load(home / name, weights_only=True)
        change(content)
        torch.save(content, home / name)

    return damage


def target(group: str, callable_name: str) -> Damage:
    """Let a checkpoint ask for something else to be called, which would make a folder."""

    def change(content: dict[str, Any]) -> None:
        node = content["fss"]["config"]
        for name in group.split("."):
            node = node[name]
        node.clear()
        node.update({"_target_": callable_name, "path": "was-run", "_partial_": False})

    return checkpoint(change)


def saved(name: str, content: Callable[[], Any]) -> Damage:
    return lambda home: torch.save(content(), home / name)


def pickled(name: str) -> Damage:
    return lambda home: (home / name).write_bytes(pickle.dumps(Payload())) and None


def listed(fold: int = 0, shot: int = 1, data: str = "shapes", class_id: int = 1) -> Damage:
    """Write an episode list of images that no data set has."""

    def damage(home: Path) -> None:
        draw = Draw(class_id, "ghost_1", tuple(f"ghost_{2 + k}" for k in range(shot)))
        EpisodeList(data, fold, shot, "test", 321, "stateless", (draw,)).save(home / "list.json")

    return damage


def edited(home: Path) -> None:
    listed()(home)
    content = json.loads((home / "list.json").read_text())
    content["episodes"][0]["query"] = "ghost_9"
    (home / "list.json").write_text(json.dumps(content))


def result(change: Callable[[dict[str, Any]], object]) -> Damage:
    def damage(home: Path) -> None:
        content = json.loads((home / RESULT).read_text())
        change(content)
        (home / RESULT).write_text(json.dumps(content))

    return damage


def backbone(width: int) -> dict[str, Any]:
    return ResNet(18, "torchvision", "torchvision", width).state_dict()


def config(**values: Any) -> Damage:
    return checkpoint(lambda c: c["fss"]["config"].update(values))


def folder(name: str) -> Damage:
    return lambda home: (home / name).mkdir(parents=True)


def predicted(name: str, change: str, *words: str, damage: Damage = lambda home: None) -> Case:
    """Return a case of fss predict in which one word of the command line is another."""
    old, new = change.split(" -> ")
    command = f"predict --ckpt {CKPT} --support {PHOTO} {MASK} --query {PHOTO} --value 2 --out found.png"
    assert old in command
    return Case(name, "fss", tuple(command.replace(old, new).split()), words, ("run", "pascal"), damage)


WEIGHTS = (
    Case("weights that are missing", "train.py", (*TRAIN, "backbone.weights=w.pth"),
         ("backbone.weights=w.pth", "none, imagenet", ".pth"), ("shapes",)),
    Case("weights without public address", "train.py", ("data=shapes", "backbone=resnet50_v2"),
         ("resnet50_v2.pth", "semseg", "backbone.weights="), ("shapes",)),
    weights("weights: text", holds("w.pth", "hello"), "w.pth", "no readable weight file", "Fetch it again"),
    weights("weights: empty file", holds("w.pth", ""), "w.pth", "no readable weight file", "Fetch it again"),
    weights("weights: truncated", both(saved("w.pth", lambda: backbone(8)), cut("w.pth")), "w.pth", "Fetch it again"),
    weights("weights: of another backbone", saved("w.pth", lambda: backbone(16)), "w.pth", "shapes differ", "stem"),
    weights("weights: no state dict", saved("w.pth", lambda: [1, 2]), "w.pth", "no state dict"),
    weights("weights: pickle with a payload", pickled("w.pth"), "w.pth", "weights_only"),
)  # fmt: skip
TAKEN = (*TRAIN, "method=bam", "method.base_learner.checkpoint=w.ckpt")
LEARNERS = (
    Case("base learner: pickle with a payload", "train.py", TAKEN, ("w.ckpt", "never run"), ("shapes",),
         pickled("w.ckpt")),
    Case("base learner: text", "train.py", TAKEN, ("w.ckpt", "no readable checkpoint"), ("shapes",),
         holds("w.ckpt", "hello")),
    Case("base learner: of another method", "train.py",
         (*TRAIN, "method=bam", f"method.base_learner.checkpoint={CKPT}"),
         ("method=baseline, not base_learner", "python train.py method=base_learner"), ("shapes", "run")),
)  # fmt: skip
TESTED = (
    tested("checkpoint: truncated", cut(CKPT), "best.ckpt", "no readable checkpoint", "overwrite=true"),
    tested("checkpoint: text", holds(CKPT, "hello"), "best.ckpt", "no readable checkpoint", "overwrite=true"),
    tested("checkpoint: pickle with a payload", pickled(CKPT), "best.ckpt", "never run"),
    tested("checkpoint: not of this program", saved(CKPT, lambda: {"state_dict": {}}), "best.ckpt", "not written by"),
    tested("checkpoint: without configuration", checkpoint(lambda c: c["fss"].pop("config")), "best.ckpt", "lacks"),
    tested("checkpoint: configuration cut", checkpoint(lambda c: c["fss"]["config"].pop("method")), "best.ckpt",
           "method"),
    tested("checkpoint: another backbone inside", checkpoint(lambda c: c["fss"]["config"]["backbone"].update(width=16)),
           "best.ckpt", "does not fit"),
    tested("checkpoint: weights missing", checkpoint(lambda c: c["state_dict"].popitem()), "does not fit"),
    tested("checkpoint: fold out of range", config(fold=9), "fold=9", "0 to 3"),
    tested("checkpoint: class outside", target("backbone", "os.mkdir"), "os.mkdir", "not part of fss"),
    tested("checkpoint: class outside as data", target("data.source", "os.mkdir"), "os.mkdir", "not part"),
    tested("checkpoint: class outside as recipe", target("recipe.schedule", "os.mkdir"), "os.mkdir"),
    tested("checkpoint: class behind ours", target("backbone", "fss.files.os.mkdir"), "files.os.mkdir", "Do not use"),
    loaded("load: truncated", cut(CKPT), "best.ckpt", "no readable checkpoint", "overwrite=true"),
    loaded("load: pickle with a payload", pickled(CKPT), "best.ckpt", "never run"),
    loaded("load: class outside", target("method", "os.mkdir"), "os.mkdir", "trusted"),
)  # fmt: skip
RESUMED = (
    resumed("resume: truncated last.ckpt", cut(LAST), "last.ckpt", "unusable"),
    resumed("resume: last.ckpt with a payload", pickled(LAST), "last.ckpt", "unusable"),
    resumed("resume: last.ckpt of another run", lambda home: None, "last.ckpt", "other options", option="seed=5"),
    resumed("resume: last.ckpt of another program", saved(LAST, lambda: {"x": 1}), "last.ckpt", "no checkpoint of"),
)
REPLAYED = (
    replayed("list that is missing", lambda home: None, "No such file"),
    replayed("list that is no JSON", holds("list.json", "hello")),
    replayed("list that is cut", both(listed(), cut("list.json"))),
    replayed("list without episodes", holds("list.json", '{"data": "shapes", "fold": 0, "shot": 1}'), "episodes"),
    replayed("list of another fold", listed(fold=1), "fold 1", "fold 0"),
    replayed("list of another shot", listed(shot=5), "shot 5", "shot 1"),
    replayed("list of another data set", listed(data="pascal"), "data set pascal", "data set shapes"),
    replayed("list of base classes", listed(class_id=9), "[9]", "novel here"),
    replayed("list of unknown images", listed(), "ghost_1", "not in the validation list"),
    replayed("list edited after export", edited, "changed after export"),
)
REPORTED = (
    reported("result: truncated", cut(RESULT), "damaged", "run again"),
    reported("result: of another version", result(lambda c: c.update(schema_version=99)), "99", "run again"),
    reported("result: lacks a value", result(lambda c: c["scores"].pop("miou")), "scores.miou", "missing"),
    reported("result: text as score", result(lambda c: c["scores"].update(miou="high")), "scores.miou", "high"),
    reported("result: of an unfinished run", result(lambda c: c.update(status="running")), "unfinished", "continues"),
)
PREDICTED = (
    predicted("predict: photograph that is missing", f"--query {PHOTO} -> --query gone.jpg", "gone.jpg"),
    predicted("predict: photograph that is cut", f"{PHOTO} -> {PHOTO}", "val_0001.jpg", "damaged", damage=cut(PHOTO)),
    predicted("predict: mask that is missing", f"{MASK} -> gone.png", "gone.png"),
    predicted("predict: support without mask", f"{MASK} -> ", "--support", "image.jpg mask.png"),
    predicted("predict: value that the mask lacks", "--value 2 -> --value 19", "19", "val_0001.png"),
    predicted("predict: unknown device", "--value 2 -> --value 2 --device abacus", "abacus", "cpu"),
    predicted("predict: checkpoint that is missing", f"--ckpt {CKPT} -> --ckpt gone.ckpt", "gone.ckpt", "multirun/"),
    predicted("predict: into a file as folder", "found.png -> data/VOC2012/classes.txt/found.png", "Cannot write"),
)
DISKS = (
    Case("cache below a file", "train.py", TRAIN, ("cache", "Cannot write", "$FSS_CACHE"), ("shapes",),
         holds("cache", "x")),
    Case("runs below a file", "train.py", TRAIN, ("multirun", "Cannot write"), ("shapes",), holds("multirun", "x")),
    Case("tests below a file", "eval.py", (f"ckpt={CKPT}", "trainer=cpu", "out=data/shapes/classes.txt/x"),
         ("data/shapes/classes.txt", "Cannot write"), ("shapes", "run")),
    Case("full disk: checkpoint", "train.py", TRAIN, ("Cannot write the checkpoint", "Make room"), ("shapes",),
         file_bytes=100_000),
    Case("full disk: list", "fss", ("data", "episodes", "pascal", "--root", "data/VOC2012", "--out", "list.json"),
         ("Cannot write list.json", "room"), ("pascal",), file_bytes=4_000),
    Case("full disk: drawing", "fss", ("data", "shapes", "--root", "new", "--train", "4", "--val", "4"),
         ("Cannot write", "/new", "Make room"), file_bytes=2_000),
    Case("full disk: preparing", "fss",
         ("data", "prepare", "pascal", "--root", "root", "--archives", "archives", "--unverified", "--workers", "1"),
         ("Cannot write root", "room"), ("archives",), file_bytes=2_000, continues=("root",)),
    Case("full disk: pre-training", "fss",
         ("pretrain", "--data", "data/shapes/classification", "--width", "8", "--epochs", "1", "--batch-size", "4",
          "--out", "w.pth"),
         ("Cannot write", "w.pth", "room"), ("shapes",), file_bytes=250_000),
)  # fmt: skip
