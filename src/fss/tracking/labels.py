"""W&B labels of a run: group, job type, tags, and extra keys of the configuration; imports no wandb."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from fss.config.base_learner import NAME
from fss.config.identity import identity
from fss.reports.paper_tables import TOY
from fss.reports.table_rows import TOY_TAG, TableRow, table_rows

_LONGEST_TAG = 64  # limit of W&B


@dataclass(frozen=True)
class Labels:
    """W&B labels of a run.

    Attributes:
        group: experiment or table that the run was started for.
        job_type: fine-tune strategy.
        tags: method, backbone, strategy, data, fold, shot, and every table that the run belongs to.
        config: the resolved configuration, plus ``cell``, equal for runs that differ only in fold and seed, and
            ``tables``, the run's row in each of its tables.
        table_rows: these rows.
    """

    group: str
    job_type: str
    tags: tuple[str, ...]
    config: dict[str, Any]
    table_rows: tuple[TableRow, ...]


def labels(config: dict[str, Any], experiment: str | None = None) -> Labels:
    """Label a run.

    Args:
        config: resolved configuration.
        experiment: choice of ``experiment=``, if any.

    Returns:
        Its labels.
    """
    trains_base = config["method"]["name"] == NAME
    rows = [] if trains_base else table_rows(config)
    names = [str(config[group]["name"]) for group in ("method", "backbone", "finetune", "data")]
    tags = [*names, f"fold-{config['fold']}", f"shot-{config['shot']}", *(row.table for row in rows)]
    if config["data"]["name"] == TOY:
        tags.append(TOY_TAG)
    extra = {"cell": cell(config), "tables": {row.table: row.label for row in rows}}
    return Labels(
        group=experiment or str(config["group"]),
        job_type=NAME if trains_base else str(config["finetune"]["name"]),
        tags=tuple(dict.fromkeys(tag[:_LONGEST_TAG] for tag in tags)),
        config={**config, **extra},
        table_rows=tuple(rows),
    )


def cell(config: dict[str, Any]) -> str:
    """Name what runs of several folds and seeds share, so that W&B can average over them.

    Args:
        config: resolved configuration.

    Returns:
        Readable parts, then six digits of the identity that the runs share.
    """
    shared = copy.deepcopy(config)
    shared["fold"] = shared["seed"] = 0
    for group in ("method", "backbone"):  # a base learner is specific to its fold
        if isinstance(shared[group].get(NAME), dict):
            shared[group][NAME].pop("identity", None)
    parts = [config[group]["name"] for group in ("method", "backbone", "finetune", "data")]
    return "-".join([*parts, f"{config['shot']}shot", identity(shared)[:6]])
