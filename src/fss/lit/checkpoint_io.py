"""Atomic writing of checkpoints: they are complete or absent."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from fss.errors import FssError
from fss.files import atomic


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a file next to the target and renames it.

    Lightning writes to the system's temporary folder and moves the file; if that folder is on another disk, this is a
    copy, which can be cut short.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Args:
            checkpoint: Lightning's dictionary.
            path: the file.
            storage_options: unused.

        Raises:
            FssError: if it cannot be written; an existing file is untouched then.
        """
        content = io.BytesIO()
        torch.save(checkpoint, content)  # in memory first: on a full disk torch's own writer hides the reason
        try:
            with atomic(Path(path)) as file:
                file.write(content.getbuffer())
        except OSError as error:
            raise FssError(
                f"Cannot write the checkpoint {path}: {error.strerror or error}. Make room or give another folder, "
                "then type the same command again; it continues at the last checkpoint that was written."
            ) from error
