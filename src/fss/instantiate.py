"""Build the object that a configuration group names by ``_target_``, without importing Hydra or torch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, TypeVar

from fss.commands import program
from fss.errors import FssError

T = TypeVar("T")

Node = Mapping[str, Any]
"""A configuration group as plain values: the import path ``_target_`` and the arguments of that class or function."""

_NOT_ARGUMENTS = ("name", "wants", "weights", "weights_content", "base_learner", "_target_")
_OF_BACKBONE = ("sizes", "support_view")  # describe its class; heads have an argument support_view

# Optional packages -> the extra of fss that installs them.
_EXTRAS = {"timm": "timm", "huggingface_hub": "timm", "safetensors": "timm"}

# Exceptions that mean bad arguments, by name as this module imports no library. Anything else is a bug.
_REFUSALS = ("TypeError", "ValueError", "ImportError", "ModuleNotFoundError", "MisconfigurationException")


def make(group: str, node: Node, kind: type[T], **more: Any) -> T:
    """Build the object of one group.

    Only classes of the expected kind are called: a configuration may come from a checkpoint that nobody vouches for.

    Args:
        group: its name, for messages.
        node: ``_target_`` and arguments; ``name``, ``wants`` and ``weights`` are left out.
        kind: base class of what the group may name.
        more: other arguments.

    Returns:
        The object.

    Raises:
        FssError: if the class is unknown, of another kind, or refuses its arguments, or if an argument is not a plain
            value.
    """
    found = imported(group, node)
    if not (isinstance(found, type) and issubclass(found, kind)):
        raise FssError(_rejection(group, node, f"{node['_target_']} is not a {kind.__name__}."))
    try:
        return found(**_arguments(group, node), **more)
    except FssError:
        raise
    except Exception as error:
        if type(error).__name__ not in _REFUSALS:
            raise  # a defect of the class, not of its arguments
        raise FssError(_rejection(group, node, f"{node['_target_']}: {_in_one_line(error)}")) from error


def partial(group: str, node: Node, allowed: Callable[[Any], bool]) -> Callable[..., Any]:
    """Bind the arguments of one group to its target, which is called later.

    Args:
        group: its name, for messages.
        node: ``_target_`` and arguments.
        allowed: tells whether the target is of the kind that the group may name.

    Returns:
        What the target returns once it is called with the remaining arguments.

    Raises:
        FssError: if the target is unknown or of another kind, or if an argument is not a plain value.
    """
    found = imported(group, node)
    if not allowed(found):
        raise FssError(_rejection(group, node, f"{node['_target_']} is of another kind than {group} may name."))
    return functools.partial(found, **_arguments(group, node))


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


def imported(group: str, node: Node) -> Callable[..., Any]:
    """Import the target of a group."""
    path = str(node.get("_target_", ""))
    module, _, name = path.rpartition(".")
    try:
        attribute = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        refuse_without_extra(error, f"{group}={node['name']}" if "name" in node else path)
        reason = f"{path or 'nothing'} cannot be imported: {_in_one_line(error)}."
        raise FssError(_rejection(group, node, reason + _pythonpath_hint(path, reason))) from error
    if not callable(attribute):
        raise FssError(_rejection(group, node, f"{path} is no class or function."))
    target: Callable[..., Any] = attribute
    return target


def refuse_without_extra(error: Exception, what: str) -> None:
    """Say which extra installs the package that an import has missed; do nothing if that was no optional one.

    Args:
        error: what the import raised.
        what: what was to be used, for the message.

    Raises:
        FssError: if an optional package is not installed.
    """
    if (extra := extra_of(error)) is not None:
        package = _missing(error)
        raise FssError(
            f"{what} needs the package {package}, which is not installed: pip install '{extra}', or "
            f"pip install {package}."
        ) from error


def extra_of(error: BaseException) -> str | None:
    """Return the extra that installs the optional package that an import has missed, as ``fss[timm]``.

    Args:
        error: what the import raised.

    Returns:
        The extra; None if the error is another one.
    """
    extra = _EXTRAS.get(_missing(error)) if isinstance(error, ModuleNotFoundError) else None
    return None if extra is None else f"fss[{extra}]"


def _missing(error: BaseException) -> str:
    return str(getattr(error, "name", None) or "").split(".")[0]


def not_arguments(group: str) -> tuple[str, ...]:
    """Return the keys of a group that people and other groups read, and that no constructor gets.

    Args:
        group: its name.
    """
    return (*_NOT_ARGUMENTS, *(_OF_BACKBONE if group == "backbone" else ()))


def _arguments(group: str, node: Node) -> dict[str, Any]:
    others = not_arguments(group)
    arguments = {str(k): v for k, v in node.items() if k not in others}
    special = targets(arguments) or sorted(k for k in arguments if k.startswith("_"))
    if special:
        text = f"its arguments hold {special[0]}, but only plain values are allowed beside and below _target_."
        raise FssError(_rejection(group, node, text))
    return arguments


def _in_one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _pythonpath_hint(path: str, reason: str) -> str:
    """Return a PYTHONPATH hint if a user's own package was not found, else an empty string."""
    package = path.split(".")[0]
    if package == "fss" or f"No module named '{package}'" not in reason:
        return ""
    return f" Let Python find it: export PYTHONPATH=FOLDER, the one that holds {package}."


def _rejection(group: str, node: Node, text: str) -> str:
    if group != "trainer":
        name = f"{group}={node['name']}" if "name" in node else group
        return (
            f"The options of {name} cannot be used: {text} Given: {_format(node)}. "
            f"All options: {program()} {f'{name} ' if '=' in name else ''}--help"
        )
    hardware = {k: node[k] for k in ("accelerator", "devices", "num_nodes", "strategy", "precision") if k in node}
    return (
        f"The options of the trainer cannot be used: {text} Given: {_format(hardware, 'trainer.')}. Devices that are "
        f"there: fss doctor. All options: {program()} --help"
    )


def _format(node: Node, prefix: str = "") -> str:
    return ", ".join(f"{prefix}{k}={v}" for k, v in node.items() if k != "_target_")
