"""The one error that wrong data or a wrong data option raises."""

from __future__ import annotations

from fss.errors import FssError


class DataError(FssError):
    """Data or a data option cannot be used.

    The text says what was given, what is allowed and what to do next; the command line prints it as one
    paragraph and ends with exit code 2.
    """
