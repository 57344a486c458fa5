"""The releases that the heads of ``conf/method`` know, found through their classes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from fss.config.compose import choices
from fss.config.conf_files import target
from fss.config.places import CONF
from fss.errors import FssError
from fss.instantiate import imported
from fss.methods.releases import Release


@cache
def known_releases() -> Mapping[tuple[str, str], Release]:
    """Return (source, method) -> release, sources and methods in alphabetical order."""
    found: dict[tuple[str, str], Release] = {}
    for method in choices("method"):
        path = target(CONF / "method" / f"{method}.yaml")
        if path:
            own = vars(imported("method", {"_target_": path})).get("releases", ())
            found |= {(release.source, method): release for release in own}
    return dict(sorted(found.items()))


def release_of(source: str, method: str) -> Release:
    """Look up a release.

    Args:
        source: its name.
        method: choice of ``method=``.

    Returns:
        What the head says of it.

    Raises:
        FssError: if there is none.
    """
    found = known_releases()
    if (source, method) in found:
        return found[source, method]
    sources = {s for s, _ in found}
    among = [pair for pair in found if pair[0] == source] or list(found)
    known = ", ".join(f"--source {s} --method {m}" for s, m in among)
    what = f"has no method {method}" if source in sources else "is not known"
    raise FssError(f"--source {source} {what}. Known: {known}")


def only_method(source: str) -> str | None:
    """Return the method of a source that has a single one; None if it has several, or is not known.

    Args:
        source: its name.
    """
    methods = [m for s, m in known_releases() if s == source]
    return methods[0] if len(methods) == 1 else None
