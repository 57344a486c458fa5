"""A small input through a layer before and after it is tuned: both must give the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fss.errors import first_line
from fss.finetune.layers.attention import SVFAttention
from fss.finetune.layers.tuned import TunedLayer

_LEAST_EFFECT = 0.05
"""A trained factor on a layer's weight changes its output by 1; below this share, the layer normalises it away."""


class ProbeError(Exception):
    """A layer cannot be run on the small input, or gives something else than one map."""


def sample(layer: nn.Module) -> tuple[Tensor, ...]:
    """Draw a small input for a layer, always the same one, without touching torch's global generator.

    Args:
        layer: convolution, linear layer or attention, with its values.

    Returns:
        The arguments of its forward, normally distributed, in the dtype and on the device of its values.
    """
    like = next(layer.parameters())
    if isinstance(layer, nn.MultiheadAttention):
        shape: tuple[int, ...] = (2, 3, layer.embed_dim)
    elif isinstance(layer, nn.Conv2d):
        sides = [d * (k - 1) + 1 + s for d, k, s in zip(layer.dilation, layer.kernel_size, layer.stride, strict=True)]
        pads = (0, 0) if isinstance(layer.padding, str) else layer.padding
        shape = (2, layer.in_channels, *(max(side, pad + 1) for side, pad in zip(sides, pads, strict=True)))
    else:
        assert isinstance(layer, nn.Linear)
        shape = (2, 3, layer.in_features)
    x = torch.randn(shape, dtype=torch.float64, device="cpu", generator=torch.Generator("cpu").manual_seed(0))
    return (x.to(like),) * (3 if isinstance(layer, nn.MultiheadAttention) else 1)


def output(layer: nn.Module, arguments: Sequence[Tensor]) -> Tensor:
    """Run a layer, without its hooks.

    Args:
        layer: in evaluation mode.
        arguments: of its forward.

    Returns:
        The map; of attention, without the attention weights.

    Raises:
        ProbeError: if it cannot be run so.
    """
    try:
        found = layer.forward(*arguments)
    except Exception as error:  # a user's layer may want anything
        shapes = ", ".join(str(tuple(a.shape)) for a in arguments)
        raise ProbeError(f"it fails on an input of shape {shapes}: {first_line(error)}") from error
    if isinstance(layer, nn.MultiheadAttention | SVFAttention):
        found = found[0]
    if not isinstance(found, Tensor):
        raise ProbeError(f"it returns a {type(found).__name__}, not a tensor")
    return found


def difference(expected: Tensor, got: Tensor) -> str:
    """Say how two outputs differ.

    Args:
        expected: of the plain layer.
        got: of the tuned one.

    Returns:
        A clause, or nothing if they are equal up to rounding.
    """
    if expected.shape != got.shape:
        return f"its output has shape {tuple(got.shape)} instead of {tuple(expected.shape)}"
    if not bool(expected.isfinite().all()):
        return "its output is not finite before it is tuned"
    size, gap = float(expected.abs().max()), float((expected - got).abs().max())
    if gap <= _allowed(expected) * size:  # False for NaN
        return ""
    return f"its output changes by {gap:.2g}, of values up to {size:.2g}"


def _allowed(like: Tensor) -> float:
    """Return the share of an output that rounding may be: 4e-10 in float64, 7e-5 in float32, 5e-2 in bfloat16."""
    rounded = like.is_cuda or torch.get_float32_matmul_precision() != "highest"  # products may be rounded to TF32
    if like.dtype == torch.float32 and rounded:
        return 1e-2
    return float(torch.finfo(like.dtype).eps ** 0.6)


def effect(got: Tensor, added: Iterable[nn.Parameter]) -> str:
    """Say whether values on a layer's weight reach its output.

    Args:
        got: output of the layer, with gradients.
        added: the new values.

    Returns:
        A clause, or nothing if they do.
    """
    values = list(added)
    energy = got.square().sum() / 2
    grads = torch.autograd.grad(energy, values, allow_unused=True) if got.requires_grad else [None] * len(values)
    if all(g is None for g in grads):
        return "it does not read its attribute 'weight'"
    power = 2 * float(energy.detach())
    if power == 0:
        return ""
    for value, grad in zip(values, grads, strict=True):
        if grad is None:
            continue
        size = float(value.detach().norm())
        share = float(grad.norm()) * size / power
        if share > _LEAST_EFFECT or (size == 0 and bool(grad.any())):  # LoRA starts with a factor of zeros
            return ""
    return "it normalises its weight, so the new values would have no effect"


@contextmanager
def evaluating(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Hold layers in evaluation mode, and put their modes and buffers back afterwards.

    Args:
        layers: the layers.
    """
    modes = [(module, module.training) for layer in layers for module in layer.modules()]
    buffers = [(buffer, buffer.clone()) for layer in layers for buffer in layer.buffers()]
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


@contextmanager
def untraced(device: torch.device) -> Iterator[None]:
    """Run layers in full precision, and leave the global random numbers as they were.

    Args:
        device: of the layers.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.autocast(device.type, enabled=False):
        yield


def added_to(plain: nn.Module, tuned: TunedLayer) -> list[nn.Parameter]:
    """List the parameters that a tuned layer has and the plain one has not."""
    own = {id(p) for p in plain.parameters()}
    return [p for p in tuned.parameters() if id(p) not in own]
