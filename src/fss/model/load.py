"""Load a trained model from a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from fss.commands import option, typed
from fss.errors import FssError
from fss.finetune.base import Strategy
from fss.model.build import empty_model
from fss.model.checkpoint import Checkpoint, read_checkpoint
from fss.model.segmenter import FewShotSegmenter


def load(
    path: str | Path,
    device: str | torch.device = "cpu",
    merge: bool = False,
    trusted: Sequence[str] = (),
    dtype: torch.dtype | None = None,
) -> FewShotSegmenter:
    """Load a trained model, ready to segment.

    Args:
        path: a ``.ckpt`` file of a run, or of ``fss convert``.
        device: device of the model.
        merge: merge tuned layers into plain ones (equal output).
        trusted: import prefixes, besides ``fss.``, whose classes the checkpoint may name.
        dtype: dtype of its parameters; None: float32. With float64, a file of float64 values is loaded exactly.

    Returns:
        ``model(query, support_images, support_masks) -> logits (B, 2, H, W)``, in evaluation mode.

    Raises:
        FssError: if the file is missing, damaged, or does not fit the model it describes.
    """
    model, strategy = rebuild(read_checkpoint(path, trusted), dtype)
    if merge:
        strategy.merge(model.backbone)
    return model.to(device).eval()


def rebuild(checkpoint: Checkpoint, dtype: torch.dtype | None = None) -> tuple[FewShotSegmenter, Strategy]:
    """Build the model that a checkpoint describes and load the trained weights.

    Args:
        checkpoint: result of :func:`read_checkpoint`.
        dtype: dtype of its parameters; None: float32.

    Returns:
        The model, with its fine-tuning strategy injected, and the strategy.

    Raises:
        FssError: if the weights do not fit the model or are not finite, or if it is not a few-shot model.
    """
    model, strategy = empty_model(checkpoint.config, dtype or torch.float32)
    if not isinstance(model, FewShotSegmenter):
        raise FssError(
            f"{checkpoint.path} holds a base learner, which segments no new classes. Train BAM on it: "
            + typed("method=bam", option("method.base_learner.checkpoint", checkpoint.path))
        )
    try:
        model.load_state_dict(checkpoint.state, strict=True)
    except RuntimeError as error:
        reason = "\n".join(str(error).splitlines()[:5])
        raise FssError(
            f"{checkpoint.path} does not fit the model it describes: {reason}\nIt was changed, or written by another "
            "version of fss: give another checkpoint, or test it with the commit that its result.json names."
        ) from error
    broken = [name for name, value in model.named_parameters() if not bool(value.isfinite().all())]
    if broken:
        raise FssError(
            f"{checkpoint.path} holds values that are not finite, in {broken[0]} and {len(broken) - 1} other weights: "
            "its training diverged, or the file was damaged. Give another checkpoint."
        )
    return model, strategy
