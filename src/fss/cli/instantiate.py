"""Instantiate configuration groups; imports no torch by itself, so that a missing data set is noticed at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from fss.cli.edge import cause
from fss.data.source import PictureFiles, SegmentationSource
from fss.errors import FssError

Node = Mapping[str, Any]

# Facts of a group that are for people and other groups, not for its constructor.
_NOT_ARGUMENTS = ("name", "wants", "weights", "base_learner")

# How classes refuse their arguments; anything else that they raise is a defect.
_REFUSALS = ("TypeError", "ValueError", "ImportError", "ModuleNotFoundError", "MisconfigurationException")


def make(group: str, node: Node, **more: Any) -> Any:
    """Instantiate one group.

    Args:
        group: its name, for messages.
        node: ``_target_`` and arguments; ``name``, ``wants`` and ``weights`` are left out.
        more: further arguments.

    Returns:
        The object.

    Raises:
        FssError: if the class is unknown or refuses its arguments.
    """
    arguments = {k: v for k, v in node.items() if k not in _NOT_ARGUMENTS}
    try:
        return instantiate(arguments, **more, _convert_="all")
    except InstantiationException as error:
        known = cause(error)
        if known is not None:
            raise known from error
        reason = error.__cause__
        if reason is not None and type(reason).__name__ not in _REFUSALS:
            raise  # a defect of the class, not of its arguments
        text = " ".join(str(reason or error).split())
        raise FssError(_refused(group, node, text + _unfound(str(node.get("_target_")), text))) from error


def _unfound(target: str, reason: str) -> str:
    """Say how Python finds a package of the user's own; empty for other reasons."""
    package = target.split(".")[0]
    if package == "fss" or f"No module named '{package}'" not in reason:
        return ""
    return f" Let Python find it: export PYTHONPATH=FOLDER, the one that holds {package}."


def _refused(group: str, node: Node, text: str) -> str:
    if group != "trainer":
        return (
            f"The options of {group}={node.get('name')} cannot be used: {text} Given: {_given(node)}. "
            f"All options: python train.py {group}={node.get('name')} --help"
        )
    hardware = {k: node[k] for k in ("accelerator", "devices", "num_nodes", "strategy", "precision") if k in node}
    return (
        f"The options of the trainer cannot be used: {text} Given: {_given(hardware, 'trainer.')}. Devices that are "
        "there: fss doctor. All options: python train.py --help"
    )


def _given(node: Node, prefix: str = "") -> str:
    return ", ".join(f"{prefix}{k}={v}" for k, v in node.items() if k != "_target_")


def build_source(node: Node) -> SegmentationSource:
    """Build the reader of a data set; imports no torch.

    Args:
        node: the data group.

    Returns:
        The reader.
    """
    source = make("data", node["source"])
    assert isinstance(source, SegmentationSource)
    if isinstance(source, PictureFiles):
        source.remember(node.get("cache_mb", 0) << 20)  # checkpoints from before the option lack it
    return source


def targets(node: Any) -> list[str]:
    """List every ``_target_`` in a configuration.

    Args:
        node: nested dictionaries and lists.

    Returns:
        Import paths.
    """
    if isinstance(node, Mapping):
        own = [str(node["_target_"])] if "_target_" in node else []
        return own + [t for v in node.values() for t in targets(v)]
    if isinstance(node, Sequence) and not isinstance(node, str):
        return [t for v in node for t in targets(v)]
    return []
