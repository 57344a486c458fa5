"""Resize to a square, whatever the aspect ratio, as HSNet, VAT and DCAMA do in training and test."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fss.data.normalisation import Normalise
from fss.data.options import TransformOptions
from fss.data.reading.masks import UInt8
from fss.types import InputSpec


class SquareTransform:
    """Resize image and label to S x S; nothing is random.

    The image is resized bilinearly by Pillow, which averages where it shrinks, and rounded to whole grey levels, as
    torchvision does with images of Pillow. Pixel i of a side of the label is pixel floor(i H / S) of the original.

    Args:
        size: side S.
        images: normalisation of the backbone.
    """

    fit: ClassVar[Literal["square"]] = "square"

    def __init__(self, size: int, images: InputSpec) -> None:
        self.size = size
        self._normalise = Normalise(images)

    def __call__(self, image: UInt8, label: UInt8, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Transform an image and its label, see :class:`fss.data.eval_transform.Transform`."""
        return self._image(image), self._label(label)

    def with_more(self, image: UInt8, label: UInt8, more: UInt8, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Transform an image and two labels."""
        return self._image(image), self._label(label), self._label(more)

    def filled(self, height: int, width: int) -> tuple[int, int]:
        """Return the rows and columns of the input that an image fills: all.

        Args:
            height: rows of the image.
            width: columns.
        """
        return self.size, self.size

    def _image(self, image: UInt8) -> Tensor:
        resized = Image.fromarray(image).resize((self.size, self.size), Image.Resampling.BILINEAR)
        return self._normalise(np.asarray(resized))

    def _label(self, label: UInt8) -> Tensor:
        rows, columns = (np.arange(self.size) * side // self.size for side in label.shape)
        return torch.from_numpy(label[rows[:, None], columns])


def transform(options: TransformOptions, images: InputSpec) -> SquareTransform:
    """Return the transform.

    Args:
        options: sizes.
        images: normalisation of the backbone.
    """
    return SquareTransform(options.size, images)
