"""Resize to a square, whatever the aspect ratio, as HDMNet does in the test; nothing is averaged where it shrinks."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fss.data.options import TransformOptions
from fss.data.reading.masks import UInt8
from fss.data.transforms.square import SquareTransform
from fss.types import InputSpec


class StretchTransform(SquareTransform):
    """Resize image and label to S x S with OpenCV, as PFENet and its descendants resize; nothing is random.

    The image is resized bilinearly in float32 without averaging, the label takes the nearest pixel.

    Args:
        size: side S.
        images: normalisation of the backbone.
    """

    def _image(self, image: UInt8) -> Tensor:
        return self._normalise(stretched(image.astype(np.float32), self.size, cv2.INTER_LINEAR))

    def _label(self, label: UInt8) -> Tensor:
        return torch.from_numpy(stretched(label, self.size, cv2.INTER_NEAREST))


def stretched(array: npt.NDArray[Any], size: int, interpolation: int) -> npt.NDArray[Any]:
    """Resize an array to a square.

    Args:
        array: (H, W), or (H, W, C).
        size: side S.
        interpolation: of OpenCV.

    Returns:
        (S, S), or (S, S, C).
    """
    return cv2.resize(array, (size, size), interpolation=interpolation)


def transform(options: TransformOptions, images: InputSpec) -> StretchTransform:
    """Return the transform.

    Args:
        options: sizes.
        images: normalisation of the backbone.
    """
    return StretchTransform(options.size, images)
