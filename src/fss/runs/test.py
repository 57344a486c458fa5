"""Test a checkpoint: on its fold, with any shot, on any episodes."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from fss.commands import program, typed
from fss.config.checks import check
from fss.config.compose import plain
from fss.config.content import with_data_content
from fss.config.identity import identity
from fss.config.test_options import merged, test_name, trusted_names
from fss.data.reading.derived_files import content_hash
from fss.errors import FssError
from fss.results import load_result
from fss.runs.cleanup import remove_if_unused
from fss.runs.job import Job

if TYPE_CHECKING:
    from fss.model.checkpoint import Checkpoint

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> float:
    """Test what the configuration names.

    Args:
        cfg: composed configuration of eval.py.

    Returns:
        mIoU in percent.

    Raises:
        FssError: if the checkpoint or an option is wrong.
    """
    try:
        return _run(cfg)
    except (FssError, OSError):
        remove_if_unused(Path(HydraConfig.get().runtime.output_dir))
        raise


def _run(cfg: DictConfig) -> float:
    asked = plain(cfg)
    if asked["ckpt"] == "???":
        raise FssError(
            f"Say which checkpoint to test: {program('eval')} ckpt=multirun/<group>/<run>/checkpoints/best.ckpt "
            f"({program('eval')} --help shows the other options)."
        )
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    from fss.model.checkpoint import read_checkpoint, refuse_strangers
    from fss.runs.checkpoint_test import test_checkpoint, unseen_alone

    trusted = trusted_names(asked["trusted"])
    checkpoint = read_checkpoint(asked["ckpt"], trusted)
    theirs = ("recipe", "trainer") if asked.get("data") else ("data", "recipe", "trainer")
    refuse_strangers(checkpoint.path, [checkpoint.config[group] for group in theirs], trusted)
    if asked.get("data"):  # the nearest side that this backbone takes, where none was typed
        asked["data"] = plain(cfg, checkpoint.config["backbone"])["data"]
    config = merged(asked, checkpoint.config)
    check(config)
    seen, notes = unseen_alone(config, asked, checkpoint)
    config["tested"] = {"checkpoint": content_hash(checkpoint.path), **seen}
    config = with_data_content(config)
    if "task" in config:
        _check_generalised(config, checkpoint)
    name = test_name(config)
    folder = Path(asked["out"] or checkpoint.path.parent.parent / name)
    if asked["out"] and HydraConfig.get().mode is RunMode.MULTIRUN:
        folder /= name  # one folder for all would keep the last test only
    _refuse_other_result(folder, identity(config))
    return test_checkpoint(Job(config, folder, name, notes), checkpoint)


def _check_generalised(config: dict[str, Any], checkpoint: Checkpoint) -> None:
    if not any(name.startswith("companion.") for name in checkpoint.state):
        raise FssError(
            f"task=generalised needs a base learner beside the head; {checkpoint.path} of "
            f"method={config['method']['name']} has none. Give a checkpoint of method=bam: {typed('method=bam')}"
        )


def _refuse_other_result(folder: Path, own: str) -> None:
    """Make sure that a test does not write over the result of another run or test."""
    path = folder / "result.json"
    if not path.is_file():
        return
    try:
        same = load_result(path).identity == own
    except FssError:
        same = False
    if not same:
        raise FssError(
            f"out={folder} holds the result of another run or test, or a damaged one: {path}. Give another folder, or "
            "leave out away: every test has a folder of its own then."
        )
