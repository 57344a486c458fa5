"""Where the configuration groups lie, in a checkout and in an installed package."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parents[1] / "conf"
"""Folder of the configuration groups: a wheel holds it within the package, a checkout beside ``src``."""


def groups() -> list[str]:
    """List the configuration groups, in alphabetical order."""
    return sorted(path.name for path in CONF.glob("*") if any(path.glob("*.yaml")))
