"""Errors that a user can fix."""

from __future__ import annotations


class FssError(ValueError):
    """Bad input or a missing file. The message says what was given, what is allowed, and what to do next.

    The command line prints only the message and exits with status 2; any other exception is a bug and keeps its
    traceback.
    """


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type name if the message is empty.

    Args:
        error: any exception.

    Returns:
        One line.
    """
    return next(iter(str(error).splitlines()), type(error).__name__)


def unreadable(error: BaseException) -> str:
    """Say why ``torch.load`` rejected a file, without torch's advice to allow the pickled code in it.

    Args:
        error: the exception that ``torch.load`` raised.

    Returns:
        A clause for an error message.
    """
    text = str(error)
    if "Unsupported" in text or "GLOBAL" in text:
        return "it holds pickled code, which is never run"
    if isinstance(error, OSError):
        return error.strerror or text
    return "it is cut short, damaged, or was not written by torch.save"


class DataError(FssError):
    """Data or a data option that cannot be used."""
