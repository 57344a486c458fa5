"""Option groups of the data modules, validated on construction."""

from __future__ import annotations

from dataclasses import dataclass

from fss.data.episodes.options import check_least, check_number
from fss.errors import DataError
from fss.input_spec import InputSpec


@dataclass(frozen=True)
class LoaderOptions:
    """How batches are loaded.

    Attributes:
        batch_size: training episodes per step over all devices.
        test_batch_size: validation and test episodes per step and device.
        workers: data loader workers per device; 0 loads in the main process.
        progress: show progress bars while masks are read.
        group_by_image: order validation and test episodes by class and then by query, so that a small feature cache
            suffices.
    """

    batch_size: int = 8
    test_batch_size: int = 1
    workers: int = 2
    progress: bool = True
    group_by_image: bool = False

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            DataError: if a value is not allowed.
        """
        for name, least in (("batch_size", 1), ("test_batch_size", 1), ("workers", 0)):
            check_least(name, getattr(self, name), least)


@dataclass(frozen=True)
class TransformOptions:
    """Sizes and ranges of the transforms.

    Attributes:
        size: side S of the square network input, at least 17; which sides are allowed beyond that, the backbone says
            (:class:`fss.input_spec.InputSpec`).
        scale_min: smallest random scale factor in training.
        scale_max: largest one; the release uses 0.9..1.1 on PASCAL and 0.8..1.25 on COCO.
        rotate: largest rotation in degrees.
        augment: False trains with the test transform (for overfitting checks).
    """

    size: int = 473
    scale_min: float = 0.9
    scale_max: float = 1.1
    rotate: float = 10.0
    augment: bool = True

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            DataError: if a value is not allowed.
        """
        check_least("size", self.size, 17)
        for name in ("scale_min", "scale_max", "rotate"):
            check_number(name, getattr(self, name))
        if not 0 < self.scale_min <= self.scale_max:
            raise DataError(
                f"scale_min={self.scale_min} with scale_max={self.scale_max} is not allowed: give "
                "0 < scale_min <= scale_max."
            )
        if not 0 <= self.rotate <= 180:
            raise DataError(f"rotate={self.rotate} is not allowed: give degrees from 0 to 180.")
        if not isinstance(self.augment, bool):
            raise DataError(f"augment={self.augment!r} is not allowed: give true or false.")


def check_side(size: int, images: InputSpec, backbone: str = "this backbone") -> None:
    """Refuse a side of the network input that a backbone does not take.

    Args:
        size: side S.
        images: sides of the backbone.
        backbone: its name, for the message.

    Raises:
        DataError: if it is not allowed.
    """
    if not images.allows(size):
        near = dict.fromkeys(images.around(size))
        raise DataError(
            f"size={size} is not allowed: sides of {backbone} are {images.rule}. Give one of the nearest: "
            f"{' or '.join(map(str, near))}."
        )
