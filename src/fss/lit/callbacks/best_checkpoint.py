"""The checkpoint with the best validation score, which is still found after the run's folder was moved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytorch_lightning.callbacks import ModelCheckpoint


class BestCheckpoint(ModelCheckpoint):
    """Keeps ``best.ckpt`` by the largest ``val/miou``.

    Lightning stores absolute paths and drops the best score if the folder has a new path; here only file names count.

    Args:
        folder: folder of the checkpoints.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(
            folder, "best", monitor="val/miou", mode="max", save_top_k=1, save_on_train_epoch_end=False,
            enable_version_counter=False,
        )  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore scores, with paths in the current folder.

        Args:
            state_dict: state from a checkpoint, possibly written when the folder had another path.
        """
        super().load_state_dict(_moved(state_dict, str(self.dirpath)))


def _moved(state: dict[str, Any], folder: str) -> dict[str, Any]:
    """Replace the folder of every path in a state."""

    def here(path: str) -> str:
        return str(Path(folder) / Path(path).name) if path else path

    changed = {**state, "dirpath": folder}
    for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
        changed[name] = here(str(state.get(name, "")))
    changed["best_k_models"] = {here(path): score for path, score in state.get("best_k_models", {}).items()}
    return changed
