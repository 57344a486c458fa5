"""Reading of checkpoints, and a check that they name only trusted classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from fss.commands import noun, program
from fss.errors import FssError, unreadable
from fss.files import CHECKPOINT_FORMAT
from fss.instantiate import refuse_without_extra, targets

_BUILT = ("backbone", "method", "finetune")
_GROUPS = (*_BUILT, "data", "recipe", "trainer")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and checked.

    Attributes:
        path: the file.
        config: configuration of the run that wrote it.
        identity: hash of that run.
        state: parameter name -> tensor of the model.
        trained_on: names of the classes that the run trained on.
        released: facts that ``fss convert`` stored about the release's file; empty for our own runs.
    """

    path: Path
    config: dict[str, Any]
    identity: str
    state: dict[str, torch.Tensor]
    trained_on: tuple[str, ...] = ()
    released: dict[str, Any] = field(default_factory=dict)


def read_checkpoint(path: str | Path, trusted: Sequence[str] = ()) -> Checkpoint:
    """Read a checkpoint without executing any code in it.

    Args:
        path: a ``.ckpt`` file of a run.
        trusted: import prefixes, besides ``fss.``, whose classes the checkpoint may name.

    Returns:
        Its configuration and weights.

    Raises:
        FssError: if the file is missing, damaged, not a checkpoint of this package, or names other classes.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FssError(f"There is no checkpoint {file}. Runs keep theirs in multirun/<group>/<run>/checkpoints/.")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged and unsafe files raise many types
        raise FssError(
            f"{file} is no readable checkpoint: {unreadable(error)}. Give another one; those of a run are written "
            f"again by {program()} with the options of the run and overwrite=true."
        ) from error
    card = content.get("fss") if isinstance(content, Mapping) else None
    config = card.get("config") if isinstance(card, Mapping) else None
    if not isinstance(card, Mapping) or not isinstance(content.get("state_dict"), Mapping) or "identity" not in card:
        raise FssError(
            f"{file} was not written by fss: it lacks the configuration of its run. Give a checkpoint of a run: "
            "multirun/<group>/<run>/checkpoints/best.ckpt."
        )
    if card.get("format") != CHECKPOINT_FORMAT:
        raise FssError(
            f"{file} has format {card.get('format')}, this version of fss reads format {CHECKPOINT_FORMAT}. Use the "
            "version that wrote it (its result.json names the commit), or train the model again."
        )
    lacking = [g for g in _GROUPS if not isinstance(config, Mapping) or not isinstance(config.get(g), Mapping)]
    if not isinstance(config, Mapping) or lacking:
        raise FssError(
            f"The configuration in {file} lacks {', '.join(lacking)}: it was changed. Give that of another run."
        )
    config = {str(k): v for k, v in config.items()}
    refuse_strangers(file, {group: config[group] for group in _BUILT}, trusted)
    state = {k.removeprefix("model."): v for k, v in content["state_dict"].items() if k.startswith("model.")}
    trained_on = tuple(map(str, card.get("trained_on", ())))
    return Checkpoint(file, config, str(card["identity"]), state, trained_on, dict(content.get("fss_release", {})))


def refuse_strangers(file: Path, nodes: Any, trusted: Sequence[str] = ()) -> None:
    """Check that building what a checkpoint describes only imports this package, and what the user trusts.

    :func:`fss.instantiate.make` checks the kinds of the classes: it only calls backbones, heads, strategies, readers,
    optimisers and schedules, and passes plain values.

    Args:
        file: the checkpoint, for the message.
        nodes: the parts of its configuration that will be built.
        trusted: import prefixes, besides ``fss.``, that may be named.

    Raises:
        FssError: if anything else is named, also through one of our modules (``fss.files.os.remove``).
    """
    prefixes = tuple(f"{t.rstrip('.')}." for t in trusted)
    for target in targets(nodes):
        if not target.startswith(prefixes) and not _is_harmless(target):
            if target.startswith("fss."):
                raise FssError(
                    f"{file} names {target}, which is no class of fss that a configuration may name. Do not use this "
                    "file."
                )
            package = target.split(".")[0]
            raise FssError(
                f"{file} wants to build {target}, which is not part of fss. If you trust it: "
                f'fss.load(path, trusted=["{package}"]), {noun("eval")} trusted=[{package}], fss predict --trust '
                f"{package}. "
                f"{noun('eval')} takes a reader of your own as data=NAME."
            )


_FOLDERS = ("fss.backbones.", "fss.methods.", "fss.finetune.", "fss.data.sources.", "fss.lit.optim.")
"""Modules whose classes a configuration may name."""


def _is_harmless(target: str) -> bool:
    """Tell whether an import path is a part that fss defines, an optimiser of torch, or the trainer."""
    module, _, name = target.rpartition(".")
    if target == "pytorch_lightning.Trainer":
        return True
    if module == "torch.optim":
        optimizer = getattr(torch.optim, name, None)
        return isinstance(optimizer, type) and issubclass(optimizer, torch.optim.Optimizer)
    if not target.startswith(_FOLDERS):
        return False
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        refuse_without_extra(error, target)
        return False
    return getattr(found, "__module__", None) == module
