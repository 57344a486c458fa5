"""Where a training records for figures: it never fails because of it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fss.files import atomic

log = logging.getLogger(__name__)

ABOUT = "about.json"


class RecordingFolder:
    """A folder of complete files. What cannot be written is left out, with one warning for all of them.

    Args:
        path: made with the first file.
        about: what was run, written beside the first file: a run that is still training has no result that says it.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.path = path
        self.about = about
        self._warned = False

    def write(self, name: str, content: bytes) -> None:
        """Write a file, or keep what was there before.

        Args:
            name: of the file.
            content: all of it.
        """
        about = json.dumps(self.about, indent=2, ensure_ascii=False, default=str) + "\n"
        try:
            for file_name, text in ((ABOUT, about.encode()), (name, content)):
                with atomic(self.path / file_name) as file:
                    file.write(text)
        except OSError as error:
            if not self._warned:
                log.warning(
                    "Cannot write %s: %s. The training goes on; what is missing in %s is written at the next record "
                    "if there is room again.",
                    self.path / name,
                    error.strerror or error,
                    self.path,
                )
            self._warned = True
