"""Train and test one run."""

from __future__ import annotations

import os
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from fss.config.base_learner import NAME, completed
from fss.config.checks import check
from fss.config.compose import plain
from fss.config.identity import slug
from fss.config.no_effect import warn_once, without_effect
from fss.errors import FssError
from fss.runs.attempts import Sweep, attempt
from fss.runs.cleanup import remove_if_unused
from fss.runs.job import Job
from fss.runs.overwriting import begin_request
from fss.runs.processes.signals import ending_on_signals


def run(cfg: DictConfig) -> float:
    """Train and test what the configuration describes, unless it is done already.

    Args:
        cfg: composed configuration.

    Returns:
        Novel-class mIoU in percent (what a Hydra sweeper maximises); NaN for a run of a sweep that failed.
    """
    config = completed(plain(cfg))
    check(config)
    hydra = HydraConfig.get()
    warn_once(without_effect(config, list(hydra.overrides.task), hydra.runtime.choices))
    job = Job(config, Path(hydra.runtime.output_dir), slug(config))
    if hydra.mode is not RunMode.MULTIRUN:
        begin_request()
        return attempt(job, _run)
    listing = str(hydra.sweeper.get("_target_", "")).endswith(("BasicSweeper", "RowSweeper"))
    return attempt(job, _run, Sweep(str(hydra.runtime.choices["hydra/launcher"]), optimising=not listing))


def _run(job: Job) -> float:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    from fss.config.source import build_source
    from fss.data.sources.seen import refuse_leaks

    try:
        source = build_source(job.config["data"])
        for split in ("train", "val"):
            source.check(split)
        job.notes = refuse_leaks(source, job.config.get("leaks", "refuse"))
        with ending_on_signals():
            if job.config["method"]["name"] == NAME:
                from fss.runs.base_learner import train_base_learner

                return train_base_learner(job, source)
            from fss.runs.few_shot import train_few_shot

            return train_few_shot(job, source)
    except (FssError, OSError):
        remove_if_unused(job.folder)
        raise
