"""Find the transforms that a protocol names."""

from __future__ import annotations

from importlib import import_module

from fss.data.eval_transform import FixedTransform, Transform, eval_transform
from fss.data.options import TransformOptions
from fss.episode_protocol import OWN_TRANSFORMS
from fss.errors import DataError
from fss.types import InputSpec

_AUGMENT, _PAD = OWN_TRANSFORMS


def named_transform(name: str, options: TransformOptions, images: InputSpec) -> Transform:
    """Build a transform.

    Args:
        name: ``augment``, ``pad``, or the name of a file in ``fss/data/transforms``.
        options: sizes and ranges.
        images: normalisation of the backbone.
    """
    if name == _PAD:
        return eval_transform(options, images)
    if name == _AUGMENT:  # its library is imported in training alone
        build = import_module("fss.data.train_transform").train_transform
    else:
        build = import_module(f"fss.data.transforms.{name}").transform
    found: Transform = build(options, images)
    return found


def fixed_transform(name: str, options: TransformOptions, images: InputSpec) -> FixedTransform:
    """Build a transform in which nothing is random, for validation, test and prediction.

    Args:
        name: as in :func:`named_transform`.
        options: sizes.
        images: normalisation of the backbone.

    Raises:
        DataError: if the transform is a random one.
    """
    found = named_transform(name, options, images)
    if not isinstance(found, FixedTransform):
        raise DataError(f"protocol.test={name} is not possible: it is random. Give one that is not, pad or square.")
    return found
