"""Options that distinguish runs which would otherwise share a table row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from fss.results import Result

_LABELLED = ("finetune", "method", "recipe", "backbone", "data", "protocol", "trainer", "selection")
"""Config groups that define an experiment; the rest of a configuration says how it was run."""

_OWN = {
    "finetune": ("finetune.", "recipe.backbone_lr_factor", "selection"),
    "method": ("method.", "recipe.optimizers", "recipe.untrained", "backbone.dilation", "selection", "data.base."),
}
"""Options in which strategies, or heads, may differ: what they are, what they ask for; tables tell the selection."""
_MEANS = (
    "data.root", "data.source.", "data.base.", "data.image_cache_mb", "method.base_learner.built",
    "method.base_learner.checkpoint", "method.base_learner.overrides", "method.base_learner.train_if_missing",
    "trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy", "trainer.enable_progress_bar",
    "trainer.log_every_n_steps",
)  # fmt: skip
"""Options that say where and on what it was run."""
_DESCRIBING = ("backbone.sizes", "backbone.support_view")
"""What describes a backbone's class; runs from before lack it."""


def option_differences(results: Sequence[Result], setting: Callable[[Result], tuple[str, ...]]) -> dict[str, str]:
    """Label runs that share a setting and a seed by the options in which they differ.

    Args:
        results: finished runs.
        setting: returns the setting that puts a run into a row.

    Returns:
        labels: run identity -> its differing options as typed, e.g. ``factors=[U]``; empty if no two runs share a cell.
    """
    cells: dict[tuple[str, ...], set[str]] = {}
    for run in results:
        cells.setdefault((*setting(run), str(run.key.seed)), set()).add(run.identity)
    crowded = {cell[:-1] for cell, identities in cells.items() if len(identities) > 1}
    labels: dict[str, str] = {}
    for row in crowded:
        members = {run.identity: dict(_leaves(run.config)) for run in results if setting(run) == row}
        names = sorted({name for leaves in members.values() for name in leaves})
        differing = [name for name in names if len({repr(leaves.get(name)) for leaves in members.values()}) > 1]
        for identity, leaves in members.items():
            labels[identity] = " ".join(f"{name.rsplit('.', 1)[-1]}={_typed(leaves.get(name))}" for name in differing)
    return labels


def uneven_options(results: Sequence[Result], between: Literal["finetune", "method"] = "finetune") -> list[str]:
    """Name the options, besides their own, in which strategies of one setting differ: no comparison of like with like.

    Args:
        results: finished runs.
        between: what is compared: strategies, or heads.

    Returns:
        ``data.epochs=1 (svf), 8 (freeze)``, one for each option.
    """
    others = [f for f in ("data", "method", "finetune", "backbone", "recipe", "fold", "shot", "test") if f != between]
    settings: dict[tuple[str, ...], list[Result]] = {}
    for run in results:
        settings.setdefault(tuple(str(getattr(run.key, field)) for field in others), []).append(run)
    told: dict[str, None] = {}
    for runs in settings.values():
        leaves = [(str(getattr(run.key, between)), dict(_leaves(run.config))) for run in runs]
        for name in dict.fromkeys(name for _, own in leaves for name in own):
            if name.startswith((*_OWN[between], *_MEANS)):
                continue
            values: dict[str, set[str]] = {}
            for choice, own in leaves:
                values.setdefault(choice, set()).add(_typed(own.get(name)))
            if len(set(map(frozenset, values.values()))) > 1:
                texts = (f"{' or '.join(sorted(found))} ({choice})" for choice, found in values.items())
                told[f"{name}={', '.join(texts)}"] = None
    return list(told)


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if not prefix and key not in _LABELLED:
            continue
        name = f"{prefix}.{key}" if prefix else key
        if name in _DESCRIBING:
            continue
        if isinstance(value, Mapping):
            yield from _leaves(value, name)
        elif not key.startswith("_"):
            yield name, value


def _typed(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_typed, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
