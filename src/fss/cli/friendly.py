"""User errors shown as one paragraph, with exit status 2."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

from fss.config.error_texts import explained


def friendly(program: Callable[..., Any]) -> Callable[..., Any]:
    """Show a user's error as one paragraph and exit with status 2; bugs keep their traceback.

    Covers :class:`FssError`, Hydra's errors about unknown options and values, and files that cannot be written.

    Args:
        program: function of a command.

    Returns:
        The wrapped function.
    """

    @wraps(program)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        _survive_any_encoding()
        try:
            return program(*args, **kwargs)
        except BrokenPipeError:  # the reader has gone, as head does when it has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.exit(141)
        except KeyboardInterrupt:
            sys.stderr.write("\nInterrupted.\n")
            sys.exit(130)
        except Exception as error:
            text = explained(error)
            if text is None:
                raise
            sys.stderr.write(f"\nError: {text.strip()}\n")
            sys.exit(2)

    return wrapped


def _survive_any_encoding() -> None:
    """Escape characters that the terminal or log cannot encode, where Python would end the run."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
