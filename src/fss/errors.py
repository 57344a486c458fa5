"""The error of everything a user can mend."""

from __future__ import annotations


class FssError(ValueError):
    """Bad input or a missing file. Its message says what was given, what is allowed, and what to do next.

    The command line prints the message alone and exits with status 2; any other exception is a defect and keeps its
    traceback.
    """


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its type where it has none.

    Args:
        error: any exception.

    Returns:
        One line.
    """
    return next(iter(str(error).splitlines()), type(error).__name__)


def unreadable(error: BaseException) -> str:
    """Say why ``torch.load`` refuses a file, without its advice to run the code in it.

    Args:
        error: what it raised.

    Returns:
        A clause.
    """
    text = str(error)
    if "Unsupported" in text or "GLOBAL" in text:
        return "it holds pickled code, which is never run"
    if isinstance(error, OSError):
        return error.strerror or text
    return "it is cut short, damaged, or was not written by torch.save"


class DataError(FssError):
    """Data or a data option cannot be used."""
