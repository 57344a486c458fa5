"""The augmentation of PFENet's release with a resize to a square in place of its crop, as HDMNet trains."""

from __future__ import annotations

from typing import Any

import albumentations as A
import cv2
import numpy.typing as npt

from fss.data.eval_transform import Transform
from fss.data.normalisation import mean_colour
from fss.data.options import TransformOptions
from fss.data.train_transform import BinomialBlur, Flip, JointTransform, RandomRotate, RandomScale
from fss.data.transforms.stretch import StretchTransform, stretched
from fss.types import InputSpec

Array = npt.NDArray[Any]


class Stretch(A.DualTransform):  # type: ignore[misc]
    """Resize to S x S, whatever the aspect ratio.

    Args:
        size: side S.
    """

    def __init__(self, size: int) -> None:
        super().__init__(p=1.0)
        self.size = size

    def apply(self, img: Array, **params: Any) -> Array:
        """Resize the image, bilinear, (H, W, 3) -> (S, S, 3)."""
        return stretched(img, self.size, cv2.INTER_LINEAR)

    def apply_to_mask(self, mask: Array, **params: Any) -> Array:
        """Resize the label, nearest, (H, W) -> (S, S)."""
        return stretched(mask, self.size, cv2.INTER_NEAREST)


def transform(options: TransformOptions, images: InputSpec) -> Transform:
    """Return the transform: random scale, rotation, blur and flip, then the resize.

    Args:
        options: sizes and ranges; without augmentation it is the transform of the test.
        images: normalisation of the backbone.
    """
    if not options.augment:
        return StretchTransform(options.size, images)
    return JointTransform(
        [
            RandomScale(options.scale_min, options.scale_max),
            RandomRotate(options.rotate, mean_colour(images)),
            BinomialBlur(),
            Flip(),
            Stretch(options.size),
        ],
        images,
    )
