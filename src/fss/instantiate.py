"""Build the object that a configuration group names by ``_target_``; knows neither Hydra nor torch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from fss.errors import FssError

Node = Mapping[str, Any]
"""A configuration group as plain values: ``_target_``, an import path, beside the arguments of what it names."""

# Facts of a group that are for people and other groups, not for its constructor.
_NOT_ARGUMENTS = ("name", "wants", "weights", "base_learner", "_target_")

# How classes refuse their arguments, by name: this module imports no library. Anything else is a defect.
_REFUSALS = ("TypeError", "ValueError", "ImportError", "ModuleNotFoundError", "MisconfigurationException")


def make(group: str, node: Node, **more: Any) -> Any:
    """Build the object of one group.

    Args:
        group: its name, for messages.
        node: ``_target_`` and arguments; ``name``, ``wants`` and ``weights`` are left out.
        more: other arguments.

    Returns:
        The object.

    Raises:
        FssError: if the class is unknown or refuses its arguments, or an argument names a class of its own.
    """
    found = _target(group, node)
    try:
        return found(**_arguments(group, node), **more)
    except FssError:
        raise
    except Exception as error:
        if type(error).__name__ not in _REFUSALS:
            raise  # a defect of the class, not of its arguments
        raise FssError(_refused(group, node, f"{node['_target_']}: {_in_one_line(error)}")) from error


def partial(group: str, node: Node) -> Callable[..., Any]:
    """Bind the arguments of one group to its target, which is called later.

    Args:
        group: its name, for messages.
        node: ``_target_`` and arguments.

    Returns:
        What the target returns once it is called with the arguments that are left.

    Raises:
        FssError: if the target is unknown, or an argument names a class of its own.
    """
    return functools.partial(_target(group, node), **_arguments(group, node))


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


def _target(group: str, node: Node) -> Callable[..., Any]:
    """Import what a group names."""
    path = str(node.get("_target_", ""))
    module, _, name = path.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        reason = f"{path or 'nothing'} cannot be imported: {_in_one_line(error)}."
        raise FssError(_refused(group, node, reason + _how_to_find(path, reason))) from error
    if not callable(found):
        raise FssError(_refused(group, node, f"{path} is no class or function."))
    target: Callable[..., Any] = found
    return target


def _arguments(group: str, node: Node) -> dict[str, Any]:
    arguments = {str(k): v for k, v in node.items() if k not in _NOT_ARGUMENTS}
    nested = targets(arguments)
    if nested:
        raise FssError(
            _refused(group, node, f"its arguments name {nested[0]}, but only plain values are allowed below _target_.")
        )
    return arguments


def _in_one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _how_to_find(path: str, reason: str) -> str:
    """Say how Python finds a package of the user's own; empty for other reasons."""
    package = path.split(".")[0]
    if package == "fss" or f"No module named '{package}'" not in reason:
        return ""
    return f" Let Python find it: export PYTHONPATH=FOLDER, the one that holds {package}."


def _refused(group: str, node: Node, text: str) -> str:
    if group != "trainer":
        name = f"{group}={node['name']}" if "name" in node else group
        return (
            f"The options of {name} cannot be used: {text} Given: {_given(node)}. "
            f"All options: python train.py {name if '=' in name else ''} --help".replace("  ", " ")
        )
    hardware = {k: node[k] for k in ("accelerator", "devices", "num_nodes", "strategy", "precision") if k in node}
    return (
        f"The options of the trainer cannot be used: {text} Given: {_given(hardware, 'trainer.')}. Devices that are "
        "there: fss doctor. All options: python train.py --help"
    )


def _given(node: Node, prefix: str = "") -> str:
    return ", ".join(f"{prefix}{k}={v}" for k, v in node.items() if k != "_target_")
