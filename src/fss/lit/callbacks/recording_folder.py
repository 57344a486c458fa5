"""The folder to which a training records data for figures; a failed write never stops the training."""

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
    """A folder of complete files. Files that cannot be written are skipped, with one warning for all of them.

    Args:
        path: created with the first file.
        about: facts about the run, written next to the files, because a running training has no result file yet.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.path = path
        self.about = about
        self._warned = False

    def write(self, name: str, content: bytes) -> None:
        """Write a file; if that fails, the previous file stays.

        Args:
            name: name of the file.
            content: its complete content.
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
