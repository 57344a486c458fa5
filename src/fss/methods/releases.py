"""What a head says of its official code: names of tensors, and the options that they do not tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

Pairs = tuple[tuple[str, str], ...]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class KeyMap:
    """Prefix pairs between a release and this package.

    Attributes:
        pairs: (release prefix, our prefix); the first matching pair renames a key.
        unused: release prefixes of tensors that nothing reads.
        repeated: (prefix, original) of tensors that the release stores a second time under another name.
        shared: (our prefix, our original) of tensors that we store twice and the release once.
        counted: whether the release stores ``num_batches_tracked`` beside the statistics of a norm layer.
        computed: gives tensors that the release stores although they follow from the architecture, by their names
            there: they are written, and a file must hold these values.
        order: release prefixes in the order of its files, for code that takes tensors by their place, not their name;
            tensors of one prefix are in our order, and others come last.
    """

    pairs: Pairs
    unused: tuple[str, ...] = ()
    repeated: Pairs = ()
    shared: Pairs = ()
    counted: bool = True
    computed: Callable[[], Mapping[str, Tensor]] = dict
    order: tuple[str, ...] = ()


@dataclass(frozen=True)
class Released:
    """The model in a release's file.

    Attributes:
        source: the release, such as ``svf`` or ``pfenet``.
        method: choice of ``method=``.
        backbone: choice of ``backbone=``.
        data: pascal or coco.
        shot: number of supports it was trained with.
        finetune: ``freeze`` or ``svf``.
        fold: 0 to 3.
    """

    source: str
    method: str
    backbone: str
    data: str
    shot: int
    finetune: str
    fold: int


def _nothing(released: Released) -> Sequence[str]:
    return ()


def _no_tensors(released: Released) -> Shapes:
    return {}


@dataclass(frozen=True)
class Release:
    """One official code of a method; a head lists its own in ``releases``.

    Attributes:
        source: its name, as in ``fss convert --source``.
        keys: names of its tensors, given the backbone.
        backbones: choices of ``backbone=`` that it has.
        options: options of ``train.py``, besides the groups, with which a model computes what the release does.
        deciding: those of the method's options that change outputs but neither names nor shapes, ``method.NAME``.
        decomposed: whether there are files with the factors U, S and V.
        unread: tensors that it saves although nothing reads them: name -> shape.
        telling: prefixes of names that all occur in its files; the release with most of them is suggested for a file.
        classes: name of a tensor with one value per base class and background, which tells the data set.
        wrapped: whether its files hold the tensors below ``state_dict``, not alone.
        prefix: what its files put before every name, as parallel training does.
    """

    source: str
    keys: Callable[[str], KeyMap]
    backbones: tuple[str, ...]
    options: Callable[[Released], Sequence[str]] = _nothing
    deciding: Callable[[Released], Sequence[str]] = _nothing
    decomposed: bool = False
    unread: Callable[[Released], Shapes] = _no_tensors
    telling: tuple[str, ...] = ()
    classes: str = ""
    wrapped: bool = True
    prefix: str = ""


STAGES = range(5)
STAGED: Pairs = tuple((f"layer{i}.", f"backbone.layer{i}.") for i in STAGES)
"""PSPNet's code and what builds on it name the stages as we do."""

PSPNET = ("resnet50", "resnet101", "resnet152", "vgg16")
"""Backbones of that code, the ResNets with the deep stem."""


def torchvision_resnet(prefix: str) -> Pairs:
    """Return the names of torchvision's ResNets.

    Args:
        prefix: what stands before them, such as ``backbone.``.
    """
    stages = tuple((f"{prefix}layer{i}.", f"backbone.layer{i}.") for i in STAGES[1:])
    return ((f"{prefix}conv1.", "backbone.layer0.0."), (f"{prefix}bn1.", "backbone.layer0.1."), *stages)


def torchvision_vgg(prefix: str) -> Pairs:
    """Return the names of torchvision's VGG-16 without batch norm, ``vgg16_plain`` here.

    Args:
        prefix: what stands before them, such as ``backbone.``.
    """
    first = {0: (0, 2, 5, 7), 10: (0, 2, 4), 17: (0, 2, 4), 23: (1, 3, 5)}
    return tuple(
        (f"{prefix}features.{number + place}.", f"backbone.layer{stage}.{place}.")
        for stage, (number, places) in enumerate(first.items())
        for place in places
    )


def deep_stem(backbone: str, dilation: str) -> list[str]:
    """Return the options of a ResNet in PSPNet's code and what builds on it; none for VGG.

    Args:
        backbone: choice of ``backbone=``.
        dilation: ``uniform`` or ``torchvision``.
    """
    return ["backbone.stem=deep", f"method.wants.dilation={dilation}"] if backbone.startswith("resnet") else []
