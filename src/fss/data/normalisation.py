"""Convert an image in 0..255 to the network input: normalised and channels first, in one pass over the pixels."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fss.types import InputSpec


class Normalise:
    """Normalises images as a backbone expects them.

    Bit-identical to albumentations' ``Normalize`` and ``ToTensorV2``, which write the image three times.

    Args:
        images: mean and std of the backbone.
    """

    def __init__(self, images: InputSpec) -> None:
        self._mean = np.array(images.mean, dtype=np.float32) * np.float32(255)
        self._factor = np.reciprocal(np.array(images.std, dtype=np.float32) * np.float32(255))
        # (3, 256)
        self._tables = (np.arange(256, dtype=np.float32) - self._mean[:, None]) * self._factor[:, None]

    def __call__(self, image: npt.NDArray[Any]) -> Tensor:
        """Normalise an image.

        Args:
            image: RGB in 0..255, (H, W, 3), uint8 or float32.

        Returns:
            (3, H, W), float32.

        Raises:
            ValueError: if the array has another shape; missing channels would stay undefined.
        """
        if image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"an image of shape {image.shape}; allowed is RGB, (H, W, 3)")
        out = np.empty((3, *image.shape[:2]), dtype=np.float32)
        for k, channel in enumerate(cv2.split(image)):
            if image.dtype == np.uint8:
                cv2.LUT(channel, self._tables[k], dst=out[k])
            else:
                np.subtract(channel, self._mean[k], out=out[k])
                np.multiply(out[k], self._factor[k], out=out[k])
        return torch.from_numpy(out)


def mean_colour(images: InputSpec) -> tuple[int, ...]:
    """Return the colour that normalisation turns into zeros, rounded to grey levels: (124, 116, 104) for ImageNet's.

    Args:
        images: mean of the backbone.
    """
    return tuple(round(255 * m) for m in images.mean)
