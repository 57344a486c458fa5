"""Training transform of one image and its label as in the release (protocol B.1), built on albumentations.

The stock transforms of albumentations differ from the release in ways that change results (resizing by a size ratio
instead of the factor, rotation about another centre, other blur kernels, crops without the retry rule), so the
steps are our own ``DualTransform`` classes on OpenCV.

Deviations of the training pipeline from the release:

* Images stay uint8 until the end; the release computes in float32. Every step rounds to whole grey levels, and
  OpenCV's 8-bit bilinear kernels use fixed-point weights: each of scale and rotation is off by at most 1 grey level
  plus the rounding (test: at most 1.01), the blur by 0.5.
* The border colour of rotation and padding is the mean of the backbone's normalisation, rounded: (124, 116, 104) with
  ImageNet's, not (123.675, 116.28, 103.53).
* Random numbers come from a generator seeded per image by (seed, epoch, split, episode, slot), not from a global
  one. All steps share that generator: ``Compose.set_random_seed`` would give every step the same numbers, so that
  flip, blur and rotation would happen together.

The test transform has no deviations, see :mod:`fss.data.eval_transform`.
"""

from __future__ import annotations

import random
from typing import Any

import albumentations as A
import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fss.data.eval_transform import Transform, eval_transform
from fss.data.normalisation import Normalise, mean_colour
from fss.data.options import TransformOptions
from fss.data.reading.masks import UInt8
from fss.types import IGNORE, InputSpec

Array = npt.NDArray[Any]


class RandomScale(A.DualTransform):  # type: ignore[misc]
    """Scale both axes by one factor; the sampling step is exactly 1/factor, whatever the rounded size.

    Args:
        low: smallest factor.
        high: largest factor.
    """

    def __init__(self, low: float, high: float) -> None:
        super().__init__(p=1.0)
        self.low, self.high = low, high

    def get_params(self) -> dict[str, Any]:
        """Draw the factor."""
        return {"factor": self.low + (self.high - self.low) * self.py_random.random()}

    def apply(self, img: Array, factor: float, **params: Any) -> Array:
        """Scale the image, bilinear, (H, W, 3) -> (H', W', 3)."""
        return cv2.resize(img, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)

    def apply_to_mask(self, mask: Array, factor: float, **params: Any) -> Array:
        """Scale the label, nearest, (H, W) -> (H', W')."""
        return cv2.resize(mask, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)


class RandomRotate(A.DualTransform):  # type: ignore[misc]
    """Rotate about (w/2, h/2) on the same canvas, filled with the mean colour, or 255 in the label.

    Args:
        limit: largest angle in degrees.
        colour: the mean colour, in grey levels.
        p: probability.
    """

    def __init__(self, limit: float, colour: tuple[int, ...], p: float = 0.5) -> None:
        super().__init__(p=p)
        self.limit, self.colour = limit, colour

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the angle and build the 2 x 3 matrix."""
        h, w = params["shape"][:2]
        angle = self.limit * (2 * self.py_random.random() - 1)
        return {"matrix": cv2.getRotationMatrix2D((w / 2, h / 2), angle, 1)}

    def apply(self, img: Array, matrix: Array, **params: Any) -> Array:
        """Rotate the image, bilinear, (H, W, 3)."""
        return _warp(img, matrix, cv2.INTER_LINEAR, self.colour)

    def apply_to_mask(self, mask: Array, matrix: Array, **params: Any) -> Array:
        """Rotate the label, nearest, (H, W)."""
        return _warp(mask, matrix, cv2.INTER_NEAREST, (IGNORE,))


class BinomialBlur(A.ImageOnlyTransform):  # type: ignore[misc]
    """5 x 5 Gaussian blur with sigma 0, in OpenCV the kernel [1, 4, 6, 4, 1] / 16; border reflect-101.

    Args:
        p: probability.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p=p)

    def apply(self, img: Array, **params: Any) -> Array:
        """Blur the image, (H, W, 3)."""
        return cv2.GaussianBlur(img, (5, 5), 0)


class Flip(A.DualTransform):  # type: ignore[misc]
    """Flip left to right.

    Args:
        p: probability.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p=p)

    def apply(self, img: Array, **params: Any) -> Array:
        """Flip image or label."""
        return cv2.flip(img, 1)


class PadRandomCrop(A.DualTransform):  # type: ignore[misc]
    """Pad to at least S x S, then crop S x S at random; redraw if too little foreground is left.

    The offset is redrawn, at most 31 times, while the crop holds less than 0.85 of the label's foreground.

    Args:
        size: side S.
        colour: of the padding, in grey levels.
    """

    keep, redraws = 0.85, 31

    def __init__(self, size: int, colour: tuple[int, ...]) -> None:
        super().__init__(p=1.0)
        self.size, self.colour = size, colour

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the crop's offset in the image; it is negative where the crop reaches over the border."""
        h, w = params["shape"][:2]
        pad_h, pad_w = max(self.size - h, 0), max(self.size - w, 0)
        foreground = np.equal(data["mask"], 1).view(np.uint8)
        total = cv2.countNonZero(foreground)
        for _ in range(1 + self.redraws):
            top = self.py_random.randint(0, h + pad_h - self.size) - pad_h // 2
            left = self.py_random.randint(0, w + pad_w - self.size) - pad_w // 2
            inside = foreground[max(top, 0) : top + self.size, max(left, 0) : left + self.size]
            if cv2.countNonZero(inside) >= self.keep * total:
                break
        return {"top": top, "left": left}

    def apply(self, img: Array, top: int, left: int, **params: Any) -> Array:
        """Crop the image, padded with the mean colour, (H, W, 3) -> (S, S, 3)."""
        return self._cut(img, top, left, self.colour)

    def apply_to_mask(self, mask: Array, top: int, left: int, **params: Any) -> Array:
        """Crop the label, padded with 255, (H, W) -> (S, S)."""
        return self._cut(mask, top, left, (IGNORE,))

    def _cut(self, array: Array, top: int, left: int, value: tuple[int, ...]) -> Array:
        inside = array[max(top, 0) : top + self.size, max(left, 0) : left + self.size]
        above, before = max(-top, 0), max(-left, 0)
        below, after = self.size - above - inside.shape[0], self.size - before - inside.shape[1]
        return cv2.copyMakeBorder(inside, above, below, before, after, cv2.BORDER_CONSTANT, value=value)


class JointTransform:
    """A pipeline for one image and its label; all randomness comes from the seed of each call.

    Args:
        steps: geometric and photometric steps on uint8 arrays; normalisation and conversion follow.
        images: normalisation of the backbone.
    """

    def __init__(self, steps: list[A.BasicTransform], images: InputSpec) -> None:
        self._normalise = Normalise(images)
        self._compose = A.Compose(steps, additional_targets={"more": "mask"})

    def __call__(self, image: UInt8, label: UInt8, seed: int) -> tuple[Tensor, Tensor]:
        """Transform an image and its label, see :class:`fss.data.eval_transform.Transform`."""
        out = self._run(seed, image=image, mask=label)
        return out["image"], out["mask"]

    def with_more(self, image: UInt8, label: UInt8, more: UInt8, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Transform an image and two labels with the same random parameters."""
        out = self._run(seed, image=image, mask=label, more=more)
        return out["image"], out["mask"], out["more"]

    def _run(self, seed: int, **arrays: UInt8) -> dict[str, Tensor]:
        self._compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        out = self._compose(**arrays)
        return {k: self._normalise(v) if k == "image" else torch.from_numpy(v) for k, v in out.items()}


def train_transform(options: TransformOptions, images: InputSpec) -> Transform:
    """Return the training pipeline (protocol B.1).

    Args:
        options: sizes and ranges.
        images: normalisation of the backbone.
    """
    if not options.augment:
        return eval_transform(options, images)
    colour = mean_colour(images)
    return JointTransform(
        [
            RandomScale(options.scale_min, options.scale_max),
            RandomRotate(options.rotate, colour),
            BinomialBlur(),
            Flip(),
            PadRandomCrop(options.size, colour),
        ],
        images,
    )


def _warp(array: Array, matrix: Array, interpolation: int, border: tuple[int, ...]) -> Array:
    h, w = array.shape[:2]
    coloured = array.ndim == 3
    if coloured:  # with four channels OpenCV needs less than half the time and gives the same grey levels
        array = cv2.cvtColor(array, cv2.COLOR_RGB2RGBA)
    rotated = cv2.warpAffine(
        array, matrix, (w, h), flags=interpolation, borderMode=cv2.BORDER_CONSTANT, borderValue=border
    )
    return cv2.cvtColor(rotated, cv2.COLOR_RGBA2RGB) if coloured else rotated
