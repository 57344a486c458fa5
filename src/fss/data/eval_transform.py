"""Transform for validation, test and prediction: resize onto a square canvas (protocol B.2), without albumentations."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fss.data.normalisation import Normalise
from fss.data.options import TransformOptions
from fss.data.reading.masks import UInt8
from fss.types import IGNORE, InputSpec

Array = npt.NDArray[Any]


class Transform(Protocol):
    """A transform of one image and its label; all randomness comes from the seed of each call."""

    def __call__(self, image: UInt8, label: UInt8, seed: int) -> tuple[Tensor, Tensor]:
        """Transform an image and its label.

        Args:
            image: RGB, (H, W, 3), uint8.
            label: 0, 1, 255, (H, W), uint8.
            seed: seed of all random steps.

        Returns:
            Normalised image, (3, S, S), float32, and label, (S, S), uint8.
        """
        ...

    def with_more(self, image: UInt8, label: UInt8, more: UInt8, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Transform an image and two labels with the same random parameters; a crop depends on the first label.

        Args:
            image: RGB, (H, W, 3), uint8.
            label: 0, 1, 255, (H, W), uint8.
            more: another label of the same image, (H, W), uint8.
            seed: seed of all random steps.

        Returns:
            Normalised image, (3, S, S), float32, and both labels, (S, S), uint8.
        """
        ...


@runtime_checkable
class FixedTransform(Transform, Protocol):
    """A transform in which nothing is random, so that predictions can be brought back to the image.

    Attributes:
        fit: ``pad``: the longer side is resized to S and the rest filled; ``square``: both sides are.
    """

    fit: ClassVar[Literal["pad", "square"]]

    def filled(self, height: int, width: int) -> tuple[int, int]:
        """Return the rows and columns of the input that an image fills, from the top left.

        Args:
            height: rows of the image.
            width: columns.
        """
        ...


class EvalTransform:
    """Resize an image as :func:`resized_shape` says and place it top-left on an S x S canvas.

    Computed in float32, as in the release. The canvas is 0 before normalisation, not the mean colour; the label canvas
    is 255.

    Args:
        size: side S.
        images: normalisation of the backbone.
    """

    fit: ClassVar[Literal["pad"]] = "pad"

    def __init__(self, size: int, images: InputSpec) -> None:
        self.size = size
        self._normalise = Normalise(images)

    def __call__(self, image: UInt8, label: UInt8, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Transform an image and its label, see :class:`Transform`; nothing is random."""
        return self._image(image), self._label(label)

    def with_more(self, image: UInt8, label: UInt8, more: UInt8, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Transform an image and two labels."""
        return self._image(image), self._label(label), self._label(more)

    def filled(self, height: int, width: int) -> tuple[int, int]:
        """Return the rows and columns that an image fills, see :func:`resized_shape`."""
        return resized_shape(height, width, self.size)

    def _image(self, image: UInt8) -> Tensor:
        return self._normalise(self._place(image.astype(np.float32), cv2.INTER_LINEAR, 0))

    def _label(self, label: UInt8) -> Tensor:
        return torch.from_numpy(self._place(label, cv2.INTER_NEAREST, IGNORE))

    def _place(self, array: Array, interpolation: int, fill: int) -> Array:
        h, w = resized_shape(array.shape[0], array.shape[1], self.size)
        canvas = np.full((self.size, self.size, *array.shape[2:]), fill, dtype=array.dtype)
        canvas[:h, :w] = cv2.resize(array, (w, h), interpolation=interpolation)
        return canvas


def resized_shape(height: int, width: int, size: int) -> tuple[int, int]:
    """Return height and width after the test resize (protocol B.2): 375 x 500 at 473 -> 352 x 472.

    The longer side fills the canvas, up to the one pixel that a side of 8m + 1 has beyond a multiple of 8: scores are
    resized as if it did (:func:`fss.metrics.geometry.at_label_size`).

    Args:
        height: rows of the image.
        width: columns.
        size: side S of the canvas.

    Returns:
        The longer side S, or S - 1 where that divides by 8; the other one rounded down to a multiple of 8, at least 8.
        The release, which rounds both and knows only sides of 8m + 1, fails on images over 59 times as long as wide.
    """
    longer = max(height, width)
    ratio, filled = size / longer, size - (size % 8 == 1)
    h, w = (filled if side == longer else max(8, int(side * ratio) // 8 * 8) for side in (height, width))
    return h, w


def eval_transform(options: TransformOptions, images: InputSpec) -> EvalTransform:
    """Return the validation and test transform (protocol B.2, ``Resize``).

    Args:
        options: sizes.
        images: normalisation of the backbone.
    """
    return EvalTransform(options.size, images)
