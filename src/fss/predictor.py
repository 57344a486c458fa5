"""Segment a user's own images with a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from fss.data.eval_transform import eval_transform, resized_shape
from fss.data.options import TransformOptions
from fss.data.sources.masks import UInt8
from fss.errors import FssError
from fss.model.checkpoint import read_checkpoint
from fss.model.load import rebuild
from fss.model.segmenter import FewShotSegmenter
from fss.nn.resize import up


@dataclass(frozen=True)
class Prediction:
    """Segmentation of a query image.

    Attributes:
        mask: 1 on the object, (H, W), uint8.
        probability: probability of the object, in [0, 1], (H, W), float32.
    """

    mask: UInt8
    probability: npt.NDArray[np.float32]


class Predictor:
    """A trained model with its input size.

    Example::

        predictor = fss.Predictor.load("multirun/runs/RUN/checkpoints/best.ckpt")
        prediction = predictor(query, supports=[(image, mask)])

    Args:
        model: in evaluation mode.
        size: side S of its square input; S - 1 must be divisible by 8.
    """

    def __init__(self, model: FewShotSegmenter, size: int) -> None:
        self.model, self.size = model, size
        self._transform = eval_transform(TransformOptions(size=size))

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu", trusted: Sequence[str] = ()) -> Predictor:
        """Load a checkpoint.

        Args:
            path: a ``.ckpt`` file of a run, or a converted checkpoint.
            device: device of the model.
            trusted: as for :func:`fss.load`.

        Returns:
            The predictor.

        Raises:
            FssError: if the file is missing, damaged or unsafe.
        """
        checkpoint = read_checkpoint(path, trusted)
        model, _ = rebuild(checkpoint)
        return cls(model.to(device).eval(), int(checkpoint.config["data"]["size"]))

    @torch.inference_mode()
    def __call__(self, query: UInt8, supports: Sequence[tuple[UInt8, UInt8]]) -> Prediction:
        """Segment one image.

        Args:
            query: RGB, (H, W, 3), any size.
            supports: pairs of an image (H', W', 3) and its object mask (H', W'): 1 on the object, 255 ignored.

        Returns:
            Mask and probability at the size of the query.

        Raises:
            FssError: if there is no support, or a mask is empty or differs in size from its image.
        """
        if not supports:
            raise FssError("There is no support. Give at least one image with a mask of the object.")
        for number, (pixels, mask) in enumerate(supports, start=1):
            if pixels.shape[:2] != mask.shape:
                raise FssError(
                    f"Support {number} has {pixels.shape[1]} x {pixels.shape[0]} pixels, its mask {mask.shape[1]} x "
                    f"{mask.shape[0]}. They must be equal."
                )
            if not (mask == 1).any():
                raise FssError(f"The mask of support {number} marks nothing. Paint the object with 1.")
        device = next(self.model.parameters()).device
        pairs = [self._transform(pixels, mask, 0) for pixels, mask in supports]
        images = torch.stack([image for image, _ in pairs])[None].to(device)
        masks = torch.stack([label for _, label in pairs])[None].to(device)
        height, width = query.shape[:2]
        image, _ = self._transform(query, np.zeros((height, width), np.uint8), 0)
        logits = self.model(image[None].to(device), images, masks).float()
        h, w = resized_shape(height, width, self.size)
        full_logits = up(logits[:, :, :h, :w], (height, width), align_corners=False)
        probability = full_logits.softmax(dim=1)[0, 1].cpu().numpy()
        return Prediction((probability > 0.5).astype(np.uint8), probability)
