"""Run names, identity and early checks: nothing here needs torch."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf.errors import OmegaConfBaseException

from fss.cli.friendly import friendly
from fss.config.checks import check
from fss.config.compose import plain, prepare_hydra
from fss.config.error_texts import cause
from fss.config.identity import determining, identity, slug
from fss.errors import FssError

CONF = Path(__file__).resolve().parents[2] / "conf"


@pytest.fixture(scope="module", autouse=True)
def _hydra() -> Iterator[None]:
    prepare_hydra()
    with initialize_config_dir(str(CONF), version_base="1.3", job_name="test"):
        yield


@cache
def composed(overrides: tuple[str, ...]) -> dict[str, Any]:
    return plain(compose("config", overrides=list(overrides)))


def config(*overrides: str) -> dict[str, Any]:
    return copy.deepcopy(composed(overrides))


FREE = [
    "data.root=/somewhere/else",
    "data.image_cache_mb=64",
    "logger=csv",
    "logger.project=mine",
    "logger.wandb=offline",
    "group=other",
    "overwrite=true",
    "leaks=allow",
    "protocol.name=mine",
    "resume=never",
    "previews=0",
    "workers=7",
    "test_batch_size=4",
    "feature_cache_mb=0",
    "trainer.accelerator=gpu",
    "trainer.devices=2",
    "trainer.enable_progress_bar=false",
    "trainer.log_every_n_steps=1",
    "trainer=cpu",
]
DETERMINING = [
    "fold=1",
    "shot=5",
    "seed=1",
    "test_seed=1",
    "selection=base",
    "selection=last",
    "protocol=hsnet",
    "protocol.scoring=network",
    "protocol.support=square",
    "method=cyctr",
    "method.width=64",
    "method.shot_aggregation=sum",
    "backbone=resnet18",
    "backbone=resnet50_v2",
    "backbone.stem=deep",
    "backbone.dilation=uniform",
    "backbone.stride_on=1x1",
    "backbone.pool=ceil",
    "backbone.last_relu=false",
    "backbone.weights=none",
    "finetune=freeze",
    "finetune=full",
    "finetune.stages=[3,4]",
    "finetune.factors=[U,S]",
    "finetune.rank_rounding=4",
    "finetune.qkv=three",
    "recipe=release",
    "recipe.batch_size=4",
    "recipe.optimizer.lr=0.01",
    "recipe.optimizer.weight_decay=0",
    "recipe.backbone_lr_factor=1.0",
    "recipe.untrained=[down_query]",
    "data=coco",
    "data.size=321",
    "data.scale_min=0.5",
    "data.rotate=0",
    "data.novel_images=keep",
    "data.min_area=100",
    "data.small_classes=drop",
    "data.min_test_images=10",
    "data.epochs=1",
    "data.test_episodes=10",
    "data.val_episodes=10",
    "data.test_shot=5",
    "data.episodes=list.json",
    "data.sampler=release",
    "data.train_list=other.txt",
    "data.val_list=other.txt",
    "trainer.precision=bf16-mixed",
    "trainer.max_epochs=3",
    "trainer.max_steps=5",
    "trainer.limit_train_batches=2",
    "trainer.gradient_clip_val=1.0",
    "+trainer.accumulate_grad_batches=2",
    "debug=one_batch",
]


@pytest.mark.parametrize("override", FREE)
def test_identity_ignores(override: str) -> None:
    assert identity(config(override)) == identity(config())


@pytest.mark.parametrize("override", DETERMINING)
def test_identity_changes_with(override: str) -> None:
    assert identity(config(override)) != identity(config())


def test_all_identities_differ() -> None:
    found = {identity(config(o)) for o in DETERMINING}
    assert len(found) == len(DETERMINING) - 1, "only stem=deep and resnet50_v2 are the same run"
    assert identity(config("backbone.stem=deep")) == identity(config("backbone=resnet50_v2"))
    assert identity(config("data=coco", "data.scheme=panet")) != identity(config("data=coco"))


def leaves(node: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaves(value, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix


def put(node: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, leaf = dotted.split(".")
    for parent in parents:
        node = node[parent]
    node[leaf] = value


def test_every_leaf_of_the_configuration_is_decided() -> None:
    """Changing a value changes the identity, unless it is one of those that cannot matter."""
    base = config()
    free = set()
    for leaf in leaves(base):
        changed = copy.deepcopy(base)
        put(changed, leaf, "changed")
        if identity(changed) == identity(base):
            free.add(leaf)
    recording = {f"recording.{leaf}" for leaf in base["recording"]}
    assert recording
    assert free == recording | {
        "group",
        "leaks",
        "protocol.name",
        "overwrite",
        "resume",
        "checkpoint_minutes",
        "previews",
        "workers",
        "test_batch_size",
        "feature_cache_mb",
        "logger.csv",
        "logger.tensorboard",
        "logger.wandb",
        "logger.project",
        "data.base.size",
        "data.base.epochs",
        "data.base.scale_min",
        "data.base.scale_max",
        "data.base.index_split",
        "data.root",
        "data.image_cache_mb",
        "data.source.root",
        "backbone.sizes",
        "finetune.memory",
        "trainer._target_",
        "trainer.accelerator",
        "trainer.devices",
        "trainer.num_nodes",
        "trainer.strategy",
        "trainer.enable_progress_bar",
        "trainer.log_every_n_steps",
    }


def test_determining_leaves_its_argument_alone() -> None:
    given = config()
    before = copy.deepcopy(given)
    kept = determining(given)
    assert given == before
    assert "logger" not in kept
    assert "root" not in kept["data"]
    assert kept["data"]["reader"]["_target_"] == "fss.data.sources.pascal.PascalSource"


def test_runs_from_before_an_option_keep_their_identity() -> None:
    older = config()
    assert older["data"].pop("min_test_images") is None
    assert older["finetune"].pop("qkv") == "one"
    for key in ("stride_on", "pool", "last_relu"):
        del older["backbone"][key]
    assert identity(older) == identity(config())
    assert identity(older) != identity(config("backbone.pool=ceil"))
    full = config("finetune=full")
    assert full["finetune"].pop("norm_mode") == "eval"
    assert identity(full) == identity(config("finetune=full"))
    assert identity(full) != identity(config("finetune=full", "finetune.norm_mode=train"))


def test_identity_is_a_sha256_and_stable_under_order() -> None:
    given = config()
    assert re.fullmatch("[0-9a-f]{64}", identity(given))
    assert identity(dict(reversed(list(given.items())))) == identity(given)


def test_slug() -> None:
    given = config("data=coco", "fold=2", "shot=5", "backbone=resnet50_v2", "finetune.stages=[2,3]")
    name = slug(given)
    assert name == f"baseline-resnet50-svf-coco2-5shot-s321-{identity(given)[:6]}"
    for override in DETERMINING:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+", slug(config(override)))


def test_check_accepts_the_defaults_and_zeros() -> None:
    check(config())
    check(config("fold=0", "seed=0", "test_seed=0", "workers=0", "previews=0"))


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("fold=4", r"fold=4 is not allowed: give a whole number from 0 to 3"),
        ("fold=-1", "fold=-1"),
        ("fold=1.5", "fold=1.5"),
        ("fold=true", "fold=True"),
        ("fold=all", "fold=all"),
        ("fold=null", "fold=None"),
        ("shot=0", "shot=0 is not allowed: give a whole number from 1 up"),
        ("seed=-3", "seed=-3"),
        ("seed=4294967296", "seed=4294967296"),
        ("test_seed=x", "test_seed=x"),
        ("workers=-1", "workers=-1"),
        ("feature_cache_mb=-1", "feature_cache_mb=-1 is not allowed: give a whole number from 0 up"),
        ("previews=-1", "previews=-1"),
        ("recipe.batch_size=0", r"recipe\.batch_size=0"),
        ("selection=best", "selection=best is not known: choose one of novel, base, last"),
        ("resume=yes", "resume=.* is not known: choose auto or never"),
        ("finetune.stages=[5]", r"finetune\.stages=\[5\]"),
        ("finetune.stages=3", r"finetune\.stages=3"),
        ("finetune.stages=[a]", r"finetune\.stages"),
    ],
)
def test_check_names_value_and_allowed_values(override: str, text: str) -> None:
    with pytest.raises(FssError, match=text):
        check(config(override))


def test_friendly_shows_one_paragraph(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        try:
            raise FssError("Give x.")
        except FssError as error:
            raise RuntimeError("wrapped by a library") from error

    with pytest.raises(SystemExit) as caught:
        friendly(fail)()
    assert caught.value.code == 2
    assert capsys.readouterr().err == "\nError: Give x.\n"


def test_friendly_covers_omegaconf(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise OmegaConfBaseException("no such key")

    with pytest.raises(SystemExit) as caught:
        friendly(fail)()
    assert caught.value.code == 2
    assert "no such key" in capsys.readouterr().err


def test_defects_keep_their_traceback() -> None:
    def fail() -> None:
        raise KeyError("a defect")

    with pytest.raises(KeyError):
        friendly(fail)()
    assert friendly(lambda: 3)() == 3


def test_cause_searches_the_chain() -> None:
    inner = FssError("x")
    outer = RuntimeError("y")
    outer.__context__ = inner
    assert cause(outer) is inner
    assert cause(ValueError("z")) is None
    assert cause(None) is None


def test_the_edge_imports_no_heavy_library() -> None:
    code = (
        "import sys, fss, fss.config.checks, fss.cli.friendly, fss.runs.train, fss.cli.main\n"
        "heavy = {'torch', 'torchvision', 'pytorch_lightning', 'albumentations', 'cv2', 'wandb', 'matplotlib'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "[]"
