"""The light edge of the programs: run names, checks that need no heavy library, and how errors are shown.

Nothing here imports torch, so a wrong option is answered at once, and Hydra only where a configuration is at hand, so
that ``fss`` starts at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

from fss.cli.explain import disk_text, hydra_text, is_of_disk, of_hydra, own_words
from fss.cli.recording import check_recording
from fss.cli.values import check_values, whole
from fss.errors import FssError

if TYPE_CHECKING:
    from omegaconf import DictConfig

# Keys that do not determine a run's numbers: names, paths, loggers, hardware and display.
_FREE = (
    "hydra",
    "group",
    "overwrite",
    "resume",
    "checkpoint_minutes",
    "pictures",
    "workers",
    "test_batch_size",
    "test_cache_mb",
    "logger",
    "recording",
    "data.root",
    "data.cache_mb",
    "data.source",
    "data.base",  # the chosen values stand in data, too
    "method.base_learner.checkpoint",  # its identity stands beside it
    "method.base_learner.train_if_missing",
    "method.base_learner.overrides",
    "method.base_learner.built",
    "finetune.memory",
    "trainer._target_",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.enable_progress_bar",
    "trainer.log_every_n_steps",
)
SELECTIONS = ("novel", "base", "last")


def determining(config: dict[str, Any]) -> dict[str, Any]:
    """Keep of a resolved configuration what determines a run's numbers.

    Args:
        config: resolved, plain values.

    Returns:
        A copy without paths, loggers, hardware and display.
    """
    kept: dict[str, Any] = json.loads(json.dumps(config, default=str))
    for dotted in _FREE:
        *parents, leaf = dotted.split(".")
        node: Any = kept
        for parent in parents:
            node = node.get(parent, {}) if isinstance(node, dict) else {}
        if isinstance(node, dict):
            node.pop(leaf, None)
    source = config.get("data", {}).get("source") or {}
    kept.setdefault("data", {})["reader"] = {k: v for k, v in source.items() if k not in ("root", "progress")}
    return kept


def identity(config: dict[str, Any]) -> str:
    """Hash what determines a run's numbers.

    Args:
        config: resolved, plain values.

    Returns:
        64 hexadecimal digits, equal for runs that must give equal numbers on the same code.
    """
    text = json.dumps(determining(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def slug(config: dict[str, Any]) -> str:
    """Name a run: readable parts, then six digits of its identity.

    Args:
        config: resolved, plain values.

    Returns:
        A name without characters that need quoting.
    """
    parts = [
        config["method"]["name"],
        config["backbone"]["name"],
        config["finetune"]["name"],
        f"{config['data']['name']}{config['fold']}",
        f"{config['shot']}shot",
        f"s{config['seed']}",
    ]
    return "-".join([*parts, identity(config)[:6]])


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Resolve a configuration into plain values, without Hydra's own node.

    Args:
        cfg: composed configuration.

    Returns:
        Nested dictionaries and lists.
    """
    from omegaconf import OmegaConf

    keys = [str(k) for k in cfg if k != "hydra"]
    content = OmegaConf.to_container(OmegaConf.masked_copy(cfg, keys), resolve=True)
    assert isinstance(content, dict)
    return {str(k): v for k, v in content.items()}


def prepare_hydra(complete: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> None:
    """Make ``${fss.slug:}`` known to OmegaConf, and let Hydra's errors through to :func:`friendly` (idempotent).

    Args:
        complete: adds to a resolved configuration what its identity depends on besides the options.
    """
    from omegaconf import OmegaConf

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")

    def resolve(*, _root_: DictConfig) -> str:
        config = plain(_root_) if complete is None else complete(plain(_root_))
        check(config)
        return slug(config)

    OmegaConf.register_new_resolver("fss.slug", resolve, replace=True)


def check(config: dict[str, Any]) -> None:
    """Check plain values that no group validates, before anything heavy is imported.

    Args:
        config: resolved, plain values.

    Raises:
        FssError: on the first wrong value.
    """
    whole("fold", config["fold"], 0, 3)
    whole("shot", config["shot"], 1, None)
    whole("seed", config["seed"], 0, 2**32 - 1)
    whole("test_seed", config["test_seed"], 0, 2**32 - 1)
    whole("workers", config["workers"], 0, None)
    whole("pictures", config["pictures"], 0, None)
    whole("recipe.batch_size", config["recipe"]["batch_size"], 1, None)
    _shared(config["recipe"]["batch_size"], config["trainer"])
    if config["selection"] not in SELECTIONS:
        raise FssError(f"selection={config['selection']} is not known: choose one of {', '.join(SELECTIONS)}.")
    minutes = config.get("checkpoint_minutes", 0)  # checkpoints of before this option are tested too
    if isinstance(minutes, bool) or not isinstance(minutes, int | float) or not minutes >= 0:
        raise FssError(f"checkpoint_minutes={minutes} is not allowed: give minutes from 0 up; 0 means never.")
    if config["resume"] not in ("auto", "never"):
        raise FssError(f"resume={config['resume']} is not known: choose auto or never.")
    stages = config["finetune"].get("stages", [])
    if not isinstance(stages, list) or any(not isinstance(s, int) or not 0 <= s <= 4 for s in stages):
        raise FssError(f"finetune.stages={stages} is not allowed: give a list of stages 0 (stem) to 4, e.g. [2,3,4].")
    check_values(config)
    check_recording(config)


def friendly(program: Callable[..., Any]) -> Callable[..., Any]:
    """Show a user's error as one paragraph and exit with status 2; defects keep their traceback.

    Covers :class:`FssError`, Hydra's own complaints about unknown options and values, and files that the system does
    not let be written.

    Args:
        program: a command's function.

    Returns:
        The wrapped function.
    """

    @wraps(program)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return program(*args, **kwargs)
        except KeyboardInterrupt:
            sys.stderr.write("\nInterrupted.\n")
            sys.exit(130)
        except Exception as error:
            text = explained(error)
            if text is None:
                raise
            sys.stderr.write(f"\nError: {text.strip()}\n")
            sys.exit(2)

    return wrapped


def explained(error: Exception) -> str | None:
    """Put a user's mistake into words.

    Args:
        error: what a program ended with.

    Returns:
        One paragraph, or None for a defect.
    """
    known = cause(error)
    if known is not None:
        return own_words(known)
    if of_hydra(error):
        return hydra_text(error)
    return disk_text(error) if is_of_disk(error) else None


def cause(error: BaseException | None) -> FssError | None:
    """Find the user's error that libraries may have wrapped.

    Args:
        error: what was caught.

    Returns:
        The :class:`FssError` in its chain, or None.
    """
    while error is not None:
        if isinstance(error, FssError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _shared(batch: int, trainer: dict[str, Any]) -> None:
    """Check that a batch divides by the processes, where their number is given as a number."""
    devices, nodes = trainer.get("devices", 1), trainer.get("num_nodes", 1)
    if isinstance(devices, int) and isinstance(nodes, int) and devices > 0 and nodes > 0 and batch % (devices * nodes):
        raise FssError(
            f"recipe.batch_size={batch} cannot be shared by {devices * nodes} processes (trainer.devices={devices}, "
            f"trainer.num_nodes={nodes}): it is the size over all of them. Give a multiple of {devices * nodes}."
        )
