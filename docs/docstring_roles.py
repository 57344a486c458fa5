"""Turn the Sphinx roles of docstrings into links of the API reference; mkdocstrings loads this extension of Griffe."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from griffe import Alias, AliasResolutionError, Extension, GriffeLoader, Module, NameResolutionError, Object

_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`([\w.]+)`")
_LITERAL_BLOCK = re.compile(r"::$", re.MULTILINE)


class DocstringRoles(Extension):
    """Rewrites ``:func:`name``` to a link where the reference has an entry for the name, else to code."""

    def on_package(self, *, pkg: Module, loader: GriffeLoader, **kwargs: Any) -> None:
        """Rewrite all docstrings of a package after it is loaded.

        Args:
            pkg: the package.
            loader: knows all modules.
            kwargs: unused.
        """
        for member in _objects(pkg):
            if member.docstring is not None:
                text = _ROLE.sub(lambda role, member=member: _link(member, role[1]), member.docstring.value)  # type: ignore[misc]
                member.docstring.value = _LITERAL_BLOCK.sub(":", text)


def _objects(parent: Object) -> Iterator[Object]:
    """Yield an object and everything that is defined in it."""
    yield parent
    for member in parent.members.values():
        if not isinstance(member, Alias):
            yield from _objects(member)


def _link(member: Object, name: str) -> str:
    """Return a reference to a name as it is understood at a docstring."""
    found = _find(member, name)
    if found is None or found.docstring is None or any(part.startswith("_") for part in found.path.split(".")):
        return f"`{name}`"
    return f"[`{name}`][{found.path}]"


def _find(member: Object, name: str) -> Object | None:
    """Look a name up, first as a full path, then in the scopes around a docstring."""
    root = member.package
    first, *rest = name.split(".")
    try:
        path = name if first == root.name else ".".join([member.resolve(first), *rest])
        found = root[path.removeprefix(f"{root.name}.")]
        return found.final_target if isinstance(found, Alias) else found
    except (AliasResolutionError, KeyError, NameResolutionError):
        return None
