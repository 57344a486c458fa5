"""Convert an image in 0..255 to the network input: normalised and channels first, in one pass over the pixels."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

_MEAN = np.array(MEAN, dtype=np.float32) * np.float32(255)
_FACTOR = np.reciprocal(np.array(STD, dtype=np.float32) * np.float32(255))
_TABLES = (np.arange(256, dtype=np.float32) - _MEAN[:, None]) * _FACTOR[:, None]  # (3, 256)


def normalised(image: npt.NDArray[Any]) -> Tensor:
    """Normalise an image.

    Bit-identical to albumentations' ``Normalize`` and ``ToTensorV2``, which write the image three times.

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
            cv2.LUT(channel, _TABLES[k], dst=out[k])
        else:
            np.subtract(channel, _MEAN[k], out=out[k])
            np.multiply(out[k], _FACTOR[k], out=out[k])
    return torch.from_numpy(out)
