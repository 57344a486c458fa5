"""Whether W&B runs online; imports neither wandb nor Lightning."""

from __future__ import annotations

import netrc
import os
from urllib.parse import urlparse

from fss.errors import FssError

MODES = ("auto", "online", "offline", "disabled")


def wandb_mode(asked: str) -> str:
    """Decide how W&B runs.

    Args:
        asked: ``auto``, ``online``, ``offline`` or ``disabled``.

    Returns:
        ``online``, ``offline`` or ``disabled``; ``auto`` is online only if a key is set, and the environment variable
        ``WANDB_MODE`` overrides it.

    Raises:
        FssError: if the mode is unknown.
    """
    if asked not in MODES:
        raise FssError(f"logger.wandb={asked} is not known: choose one of {', '.join(MODES)}.")
    if asked != "auto":
        return asked
    env_mode = os.environ.get("WANDB_MODE", "")
    if env_mode in MODES and env_mode != "auto":
        return env_mode
    return "online" if has_key() else "offline"


def has_key() -> bool:
    """Tell whether a W&B key is set, in the environment or in ~/.netrc; makes no request."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
