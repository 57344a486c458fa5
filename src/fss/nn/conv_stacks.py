"""Convolution stacks shared by PFENet, the baseline and BAM."""

from __future__ import annotations

from torch import nn

from fss.nn.dropout import SharedDropout2d


def reduction(channels: int, width: int, dropout: float = 0.0) -> nn.Sequential:
    """Reduce channels: 1x1 convolution without bias, ReLU, optional channel dropout.

    Args:
        channels: input channels.
        width: output channels.
        dropout: fraction of output channels dropped in training; 0 omits the module.

    Returns:
        The stack; its convolution is module 0.
    """
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 1, bias=False), nn.ReLU(inplace=True)]
    if dropout > 0:
        layers.append(SharedDropout2d(dropout))
    return nn.Sequential(*layers)


def refinement(width: int) -> nn.Sequential:
    """Refine a map: two 3x3 convolutions without bias, each with ReLU; callers add the residual.

    Args:
        width: channels.

    Returns:
        The stack; its convolutions are modules 0 and 2.
    """
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.ReLU(inplace=True),
    )


def classifier(width: int, classes: int = 2, dropout: float = 0.1) -> nn.Sequential:
    """Classify: 3x3 convolution without bias, ReLU, channel dropout, 1x1 convolution with bias.

    Args:
        width: input channels.
        classes: output channels.
        dropout: fraction of channels dropped in training.

    Returns:
        The stack; its convolutions are modules 0 and 3.
    """
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.ReLU(inplace=True),
        SharedDropout2d(dropout),
        nn.Conv2d(width, classes, 1),
    )
