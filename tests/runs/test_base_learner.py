"""Base learners and BAM through the programs: both stages, what is found again, what is refused, interruptions."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from tests.programs import ROOT, TINY, Program, call
from torch import Tensor

import fss
from fss.config.base_learner import _whole, base_learner_config, command, differences
from fss.config.compose import plain, prepare_hydra
from fss.config.identity import identity
from fss.data.sources.shapes import ShapesSource
from fss.model.checkpoint import Checkpoint
from fss.runs.base_learner import unfinished

COMMON = (
    *TINY, "data.base.size=65", "data.base.epochs=2", "data.epochs=2", "data.test_episodes=12", "data.val_episodes=6",
    "trainer.limit_train_batches=3", "logger=csv",
)  # fmt: skip
BAM = (*COMMON, "method=bam", "recipe.batch_size=2", 'method.base_learner.overrides=["method.width=8"]')
LEARNER = (*COMMON, "method=base_learner")


def folders(home: Path, start: str, group: str = "runs") -> list[Path]:
    return sorted((home / "multirun" / group).glob(f"{start}-*"))


def weights(folder: Path, name: str = "last") -> dict[str, Tensor]:
    state = torch.load(folder / f"checkpoints/{name}.ckpt", weights_only=True)["state_dict"]
    assert isinstance(state, dict)
    return state


def result(folder: Path) -> dict[str, Any]:
    content = json.loads((folder / "result.json").read_text())
    assert isinstance(content, dict)
    return content


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def both(home: Path) -> tuple[Path, Path, str]:
    """Folders of base learner and BAM after one command from a clean tree, and what it printed."""
    code, text = call(home, "train.py", *BAM)
    assert code == 0, text
    (first,), (second,) = folders(home, "base_learner"), folders(home, "bam")
    return first, second, text


def test_both_stages_by_one_command(both: tuple[Path, Path, str]) -> None:
    first, second, text = both
    assert "training it first" in text
    assert "The base learner is ready" in text
    scores = result(second)["scores"]
    assert {"miou", "miou_m", "fb_iou_m", "miou_b"} <= scores.keys()
    assert "miou_m" not in result(first)["scores"]
    assert result(first)["config"]["data"]["size"] == 65, "options of the base learner in data.base are passed on"


def test_the_base_branch_is_the_base_learner_bit_by_bit(both: tuple[Path, Path, str]) -> None:
    first, second, _ = both
    learner = {k.removeprefix("model."): v for k, v in weights(first, "best").items() if k.startswith("model.")}
    trained = weights(second)
    branch = {k.removeprefix("model.companion."): v for k, v in trained.items() if k.startswith("model.companion.")}
    assert same(branch, learner)
    assert any(k.startswith("model.backbone.") and "S" in k.split(".")[-1] for k in trained), "the other one is SVF's"


def test_frozen_stages_are_shared_in_a_trained_model(both: tuple[Path, Path, str]) -> None:
    """SVF leaves stages 0 and 1 alone; the query runs through the base branch's own from stage 2 on only."""
    model = fss.load(both[1] / "checkpoints/best.ckpt")
    assert model.companion is not None
    calls: list[str] = []
    for name, backbone in (("own", model.backbone), ("base", model.companion.backbone)):
        for index in range(5):
            stage = backbone.stage(index)

            def note(x: Any, key: str = f"{name}{index}", forward: Any = stage.forward) -> Any:
                calls.append(key)
                return forward(x)

            stage.forward = note  # a hook would end the sharing
    with torch.no_grad():
        model(torch.rand(1, 3, 33, 33), torch.rand(1, 1, 3, 33, 33), torch.ones(1, 1, 33, 33))
    assert [c for c in calls if c.startswith("base")] == ["base2", "base3", "base4"]


def test_the_same_command_finds_both(home: Path, both: tuple[Path, Path, str]) -> None:
    """Also after a newer base learner was trained by hand: the run still names the one it used."""
    code, text = call(home, "train.py", *LEARNER, "method.width=8", "seed=7")
    assert code == 0, text
    assert len(folders(home, "base_learner")) == 2
    code, text = call(home, "train.py", *BAM)
    assert code == 0, text
    assert "Already finished" in text
    assert len(folders(home, "bam")) == 1


@pytest.mark.slow
def test_a_base_learner_by_its_path_is_another_run(home: Path, both: tuple[Path, Path, str]) -> None:
    path = both[0] / "checkpoints/last.ckpt"
    code, text = call(home, "train.py", *BAM, f"method.base_learner.checkpoint={path}", "shot=2", "finetune=full")
    assert code == 0, text
    assert f"Base learner: {path}" in text
    (folder,) = folders(home, "bam-resnet18-full")
    assert result(folder)["config"]["method"]["base_learner"]["built"]["checkpoint"] == str(path)


def test_a_base_learner_whose_run_has_no_result_is_noted(tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    learner = Checkpoint(checkpoints / "last.ckpt", {}, "0", {})
    assert "not known" in unfinished(learner)[0]
    assert unfinished(replace(learner, released={"source": "bam"})) == unfinished(None) == ()
    (tmp_path / "result.json").write_text("{}")
    assert unfinished(learner) == ()


REFUSED = {
    "another fold": (("fold=1", "method.base_learner.checkpoint={ckpt}"), "fold=0, not 1"),
    "another backbone": (("backbone.width=16", "method.base_learner.checkpoint={ckpt}"), "backbone.width=8, not 16"),
    "no base learner": (("method.base_learner.checkpoint={bam}",), "method=bam, not base_learner"),
    "none, and none may be trained": (("fold=2", "method.base_learner.train_if_missing=false"), "Train one: python"),
    "missing file": (("method.base_learner.checkpoint=gone.ckpt",), "gone.ckpt"),
    "unknown option of the training": (('method.base_learner.overrides=["data.epoch=1"]', "fold=3"), "epoch"),
    "weights of a base learner below BAM": (("backbone.weights=base_learner",), "does not go with method=bam"),
    "a base learner with svf": (("method=base_learner",), "finetune=svf"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(home: Path, both: tuple[Path, Path, str], name: str) -> None:
    options, words = REFUSED[name]
    if "method=base_learner" in options:
        arguments = [*LEARNER, "finetune=svf", "group=refused"]
    else:
        places = {"ckpt": both[0] / "checkpoints/best.ckpt", "bam": both[1] / "checkpoints/best.ckpt"}
        arguments = [*BAM, "group=refused", *(o.format(**places) if "{" in o else o for o in options)]
    code, text = call(home, "train.py", *arguments)
    assert code == 2, text
    assert words in " ".join(text.split())
    assert "Traceback" not in text
    assert not folders(home, "bam", "refused")
    assert not folders(home, "base_learner", "refused")


def test_a_base_learner_as_backbone_of_another_method(home: Path, both: tuple[Path, Path, str]) -> None:
    options = (*COMMON, "finetune=freeze", "backbone.weights=base_learner", "recipe.batch_size=2")
    code, text = call(home, "train.py", *options)
    assert code == 0, text
    (folder,) = folders(home, "baseline")
    chosen = Path(text.split("Base learner: ")[1].split()[0])
    own = weights(folder)
    learner = torch.load(home / chosen, weights_only=True)["state_dict"]
    names = [k for k in learner if k.startswith("model.backbone.")]
    assert names
    assert all(torch.equal(own[k], learner[k]) for k in names)
    code, text = call(home, "train.py", *options, "fold=1")
    assert code == 2, text
    assert "python train.py method=base_learner" in text


def test_generalised_by_eval(home: Path, both: tuple[Path, Path, str]) -> None:
    ckpt = f"ckpt={both[1] / 'checkpoints/best.ckpt'}"
    options = (ckpt, "task=generalised", "test_episodes=9", "tau=0.6", "trainer=cpu", f"out={home / 'generalised'}")
    code, text = call(home, "eval.py", *options)
    assert code == 0, text
    found = result(home / "generalised")
    assert found["episodes"]["sampler"] == found["config"]["task"] == "generalised"
    assert "generalised tau 0.6" in found["key"]["test"]
    scores = found["scores"]
    names = list(scores["per_class"])
    assert (len(names), len(set(names))) == (20, 20)
    values = [scores["per_class"][n] for n in names]
    assert scores["miou_base"] == pytest.approx(sum(values[:15]) / 15)
    assert scores["miou_novel"] == pytest.approx(sum(values[15:]) / 5)
    assert scores["miou"] == pytest.approx(sum(values) / 20)
    assert 0 <= scores["novel_count"] <= 9
    code, text = call(home, "eval.py", ckpt, "task=generalised", "fold=1", "seen_classes=keep", "trainer=cpu")
    assert code == 2, text
    assert "leave fold and data out" in text
    code, text = call(
        home, "eval.py", ckpt, "test_episodes=6", "fold=1", "seen_classes=keep", "trainer=cpu", "out=other"
    )
    assert code == 0, text
    assert "miou_b" not in result(home / "other")["scores"], "its base learner does not know that fold's classes"


def test_generalised_tests_leave_base_and_novel_classes_out(home: Path, both: tuple[Path, Path, str]) -> None:
    source = ShapesSource(home / "data/shapes")
    masks = [source.mask(image) for image in source.ids("val")]
    counts = {name: sum(bool((mask == c).any()) for mask in masks) for c, name in source.class_names.items()}
    least = max(sorted(counts.values())[5], min(list(counts.values())[:5]) + 1)
    few = {name: count for name, count in counts.items() if count < least}
    options = ("task=generalised", "test_episodes=6", "tau=0.6", f"min_test_images={least}", "trainer=cpu", "out=few")
    code, text = call(home, "eval.py", f"ckpt={both[1] / 'checkpoints/best.ckpt'}", *options)
    assert code == 0, text
    scores = result(home / "few")["scores"]
    assert scores["left_out"] == few
    base, novel = ([n for n in group if n not in few] for group in (list(counts)[5:], list(counts)[:5]))
    assert 0 < len(novel) < 5, counts
    assert 0 < len(base) < 15, counts
    assert scores["miou_base"] == pytest.approx(sum(scores["per_class"][n] for n in base) / len(base))
    assert scores["miou_novel"] == pytest.approx(sum(scores["per_class"][n] for n in novel) / len(novel))
    assert result(home / "few")["notes"][0].startswith(f"data.min_test_images={least}: left out of the mean IoU")


def test_interrupted_in_either_stage(both: tuple[Path, Path, str], drawn: Path, tmp_path: Path) -> None:
    """Stopped in the first stage, then in the second: the same weights as without."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/shapes").symlink_to(drawn)
    for stage in ("base_learner", "bam"):
        running = Program(tmp_path, "train.py", *BAM)
        while not any((f / "checkpoints/last.ckpt").is_file() for f in folders(tmp_path, stage)):
            assert running.alive_after(0.02), running.text()
        running.kill(signal.SIGTERM)
        assert running.wait() == 143, running.text()
        assert not folders(tmp_path, stage)[0].joinpath("result.json").is_file()
        assert "The same command continues from there." in running.text()
    code, text = call(tmp_path, "train.py", *BAM)
    assert code == 0, text
    assert "Continuing the interrupted run" in text
    for stage, whole in (("base_learner", both[0]), ("bam", both[1])):
        (folder,) = folders(tmp_path, stage)
        assert folder.name == whole.name
        assert same(weights(folder), weights(whole)), stage
        assert result(folder)["scores"] == result(whole)["scores"]


@pytest.mark.slow
def test_one_batch(home: Path) -> None:
    """The quick check trains a quick base learner, which real runs do not take."""
    code, text = call(home, "train.py", *BAM, "debug=one_batch", "fold=3")
    assert code == 0, text
    assert folders(home, "base_learner", "debug")
    code, text = call(home, "train.py", *BAM, "fold=3", "method.base_learner.train_if_missing=false")
    assert code == 2, text


def test_differences_are_named() -> None:
    base: dict[str, Any] = {
        "method": {"name": "base_learner"}, "fold": 0, "data": {"name": "coco", "scheme": "fwb"},
        "backbone": {"name": "resnet50", "stem": "deep", "weights": "a"},
    }  # fmt: skip
    assert differences(base, {**base, "backbone": {**base["backbone"], "weights": "b"}}) == []
    other = {**base, "fold": 2, "data": {"name": "coco", "scheme": "panet"}, "backbone": {"name": "resnet50"}}
    assert differences(base, other) == ["fold=0, not 2", "data.scheme=fwb, not panet", "backbone.stem=deep, not None"]


@pytest.mark.parametrize("backbone", ["resnet50", "resnet50_v2", "vgg16"])
def test_the_command_that_is_named_trains_the_base_learner_that_is_meant(backbone: str) -> None:
    prepare_hydra()
    own = 'method.base_learner.overrides=["data.epochs=7"]'
    options = ["method=bam", f"backbone={backbone}", "data=coco", "fold=2", "seed=5", "backbone.weights=none", own]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = plain(compose("config", overrides=[*options, "data.root=elsewhere", "shot=5"]))
        meant = base_learner_config(config)
        words = command(config).split()[2:]
        named = plain(compose("config", overrides=words))
    assert identity(meant) == identity(named)
    assert meant["data"]["epochs"] == 7
    assert meant["backbone"].keys() == config["backbone"].keys()
    assert meant["seed"] != config["seed"], "runs of several seeds share a base learner"


def test_a_shortened_base_learner_is_for_shortened_runs_only() -> None:
    """Runs that measure step times leave base learners behind, which no table may be built on."""
    whole, short, few = (
        {"trainer": {"limit_train_batches": n, "max_steps": m}} for n, m in ((1.0, -1), (20, -1), (1.0, 5))
    )
    assert _whole(whole, whole)
    assert _whole(whole, short)
    assert not _whole(short, whole)
    assert _whole(short, short)
    assert not _whole(few, whole)
    assert _whole(few, few)
