"""Options of the group ``recording``: what a run keeps for figures when it is asked to."""

from __future__ import annotations

from typing import Any

from fss.config.value_ranges import whole
from fss.errors import FssError

ABOUT = "about.json"
"""In that folder: what was run."""
FOLDER = "recording"
"""Below the run's folder."""


def check_recording(config: dict[str, Any]) -> None:
    """Check the options of the group ``recording``; checkpoints from before it lack them.

    Args:
        config: resolved, plain values.

    Raises:
        FssError: on the first wrong value.
    """
    node = config.get("recording") or {}
    enabled = node.get("enabled", False)
    if not isinstance(enabled, bool):
        raise FssError(f"recording.enabled={enabled} is not allowed: give true or false, or recording=on.")
    whole("recording.every", node.get("every", 1), 1, None)
    for name in ("episodes", "maps", "gallery"):
        whole(f"recording.{name}", node.get(name, 0), 0, None)
    layers = node.get("layers", [])
    if not isinstance(layers, list) or not all(isinstance(name, str) for name in layers):
        raise FssError(f"recording.layers={layers} is not allowed: give a list of names, e.g. [layer3.5.conv2].")
    if enabled and config["selection"] == "base":
        raise FssError(
            "recording.enabled=true with selection=base is not allowed: the curve of novel classes needs validation on "
            "novel episodes, and selection=base validates on base classes. Give selection=novel or selection=last."
        )


def records(config: dict[str, Any]) -> bool:
    """Tell whether a training records something; base learners have no episodes to record.

    Args:
        config: resolved, plain values.
    """
    return bool((config.get("recording") or {}).get("enabled")) and config["method"]["name"] != "base_learner"
