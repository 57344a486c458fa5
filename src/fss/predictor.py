"""Segment a user's own images with a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fss.data.named_transforms import fixed_transform
from fss.data.options import TransformOptions, check_side
from fss.data.reading.arrays import as_image, as_label
from fss.data.reading.masks import UInt8
from fss.episode_protocol import EpisodeProtocol
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
        size: side S of its square input.
        transform: how images become that input: ``pad``, or what the protocol of its training names for the test.

    Raises:
        FssError: if the backbone does not take this side, or the transform is random.
    """

    def __init__(self, model: FewShotSegmenter, size: int, transform: str = "pad") -> None:
        self.model, self.size = model, size
        check_side(size, model.input)
        self._transform = fixed_transform(transform, TransformOptions(size=size), model.input)

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
        config = checkpoint.config
        protocol = config.get("protocol") or {}  # checkpoints from before the group lack it
        return cls(
            model.to(device).eval(), int(config["data"]["size"]), str(protocol.get("test", EpisodeProtocol.test))
        )

    @torch.inference_mode()
    def __call__(self, query: UInt8, supports: Sequence[tuple[UInt8, UInt8]]) -> Prediction:
        """Segment one image.

        Args:
            query: RGB, (H, W, 3), or grey, (H, W), any size, uint8.
            supports: pairs of an image (H', W', 3) and its object mask (H', W'): 1 on the object, 255 ignored.

        Returns:
            Mask and probability at the size of the query.

        Raises:
            FssError: if there is no support, an array is of another kind, a mask is empty or differs in size from its
                image, its object vanishes at the network's resolution, or the weights have diverged.
        """
        query = as_image(query, "The query")
        pairs = [self._support(number, pair) for number, pair in enumerate(supports, start=1)]
        if not pairs:
            raise FssError("There is no support. Give at least one image with a mask of the object.")
        device = next(self.model.parameters()).device
        images = torch.stack([image for image, _ in pairs])[None].to(device)
        masks = torch.stack([label for _, label in pairs])[None].to(device)
        height, width = query.shape[:2]
        image, padding = self._transform(query, np.zeros((height, width), np.uint8), 0)
        logits = self.model(image[None].to(device), images, masks, padding[None].to(device)).float()
        h, w = self._transform.filled(height, width)
        full_logits = up(logits[:, :, :h, :w], (height, width), align_corners=False)
        probability = self.model.probability(full_logits, len(pairs))[0].cpu().numpy()
        if not np.isfinite(probability).all():
            raise FssError("The model returns values that are not finite: its weights have diverged. Use another one.")
        return Prediction((probability > 0.5).astype(np.uint8), probability)

    def _support(self, number: int, pair: tuple[UInt8, UInt8]) -> tuple[Tensor, Tensor]:
        """Check a support and transform it to the network's input."""
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise FssError(f"Support {number} is no pair. Give supports=[(image, mask), ...].")
        image, mask = as_image(pair[0], f"The image of support {number}"), as_label(pair[1], f"Mask {number}")
        if image.shape[:2] != mask.shape:
            raise FssError(
                f"Support {number} has {image.shape[1]} x {image.shape[0]} pixels, its mask {mask.shape[1]} x "
                f"{mask.shape[0]}. They must be equal."
            )
        area = int((mask == 1).sum())
        if not area:
            raise FssError(f"The mask of support {number} marks nothing. Paint the object with 1.")
        pixels, label = self._transform(image, mask, 0)
        if not (label == 1).any():
            raise FssError(
                f"The object of support {number} has {area} of {mask.size} pixels, of which none is left when the "
                f"image is resized to {self.size} x {self.size}. Crop the image and its mask closer to the object."
            )
        return pixels, label
