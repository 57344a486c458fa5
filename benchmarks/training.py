"""Memory and time of a training step of the backbone: ``python -m benchmarks.training``."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.released_form import as_released
from benchmarks.rows import Row
from fss.backbones.resnet import ResNet
from fss.finetune.chains.fuse import fuse
from fss.finetune.freeze import Freeze
from fss.finetune.full import Full
from fss.finetune.svf import SVF

SIZE, HALF_SIZE = 321, 97
LAST = ", channels-last"
"""Ending of a formulation whose images and weights are laid out so."""

FORMS = ("released", "plain", "fast", "balanced", "least", "full", "freeze")
TARGETS: tuple[tuple[str, float | None, float | None], ...] = (
    ("fast", None, 0.8),
    ("balanced", 0.31, 0.8),
    ("least", 0.15, None),
    ("plain", None, None),
    ("full", None, None),
    ("freeze", None, None),
)
"""Formulation, greatest memory and greatest time relative to the released one."""


@dataclass
class Measured:
    """Cost of a step: bytes saved for the backward pass outside parameters, and seconds of several rounds."""

    saved: int
    seconds: list[float]


def build(form: str, seed: int = 0) -> ResNet:
    """Build a ResNet-50 with some formulation of its stages 2 to 4.

    Args:
        form: one of :data:`FORMS`.
        seed: of the weights.

    Returns:
        The backbone in training mode.
    """
    torch.manual_seed(seed)
    net = ResNet(50)
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        assert norm.running_var is not None
        norm.running_var.uniform_(0.5, 2.0)
    if form in ("full", "freeze"):
        (Full() if form == "full" else Freeze()).apply(net)
    else:
        SVF().apply(net)
        fuse(net, "plain" if form == "released" else form)  # type: ignore[arg-type]
    if form == "released":
        as_released(net)
    return net.train()


def step(net: ResNet, x: Tensor) -> None:
    """Run forward and backward with a loss on the outputs that heads use."""
    outputs = net(x)
    if outputs[-1].requires_grad:
        sum(o.mean() for o in outputs[2:]).backward()  # saves nothing itself


def saved_bytes(net: nn.Module, run: Callable[[], Any]) -> int:
    """Count what a run saves for its backward pass, outside parameters and buffers; each storage once.

    Args:
        net: its parameters and buffers do not count.
        run: forward pass and backward pass.

    Returns:
        Bytes.
    """
    parameters = {t.untyped_storage().data_ptr() for t in (*net.parameters(), *net.buffers())}
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        run()
    return sum(found.values())


def measure(
    forms: tuple[str, ...], rounds: int, size: int = SIZE, kind: torch.dtype = torch.float32
) -> dict[str, Measured]:
    """Measure formulations in turns, so that a busy machine slows all of them.

    Args:
        forms: which.
        rounds: steps of each.
        size: of the two images.
        kind: of the computation; bfloat16 by autocast.

    Returns:
        What each costs.
    """
    nets = {form: build(form.removesuffix(LAST)) for form in forms}
    plain = torch.randn(2, 3, size, size)
    last = plain.to(memory_format=torch.channels_last)
    for form, net in nets.items():
        if form.endswith(LAST):
            net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(net: ResNet) -> None:
        x = last if any(net is nets[form] for form in forms if form.endswith(LAST)) else plain
        with torch.autocast("cpu", dtype=kind, enabled=kind is not torch.float32):
            step(net, x)

    found = {form: Measured(saved_bytes(net, lambda net=net: run(net)), []) for form, net in nets.items()}  # type: ignore[misc]
    for _ in range(rounds):
        for form, net in nets.items():
            begun = time.perf_counter()
            run(net)
            found[form].seconds.append(time.perf_counter() - begun)
    return found


def rows(rounds: int = 3) -> list[Row]:
    """Measure and compare with the targets.

    Args:
        rounds: steps of each formulation.

    Returns:
        The lines of the table.
    """
    made = []
    for form, memory, pace in TARGETS:
        # by pairs: more networks at a time take the processor's cache from each other, and the order decides the ratio
        found = measure(("released", form), rounds)
        base, own = found["released"], found[form]
        ratio = own.saved / base.saved
        text = "" if memory is None else f"<= {memory}"
        made.append(
            Row(f"training memory, {form}", _mb(own), _mb(base), ratio, text, memory is None or ratio <= memory)
        )
        ratio = median(a / b for a, b in zip(own.seconds, base.seconds, strict=True))
        text = "" if pace is None else f"<= {pace}"
        made.append(Row(f"training time, {form}", _s(own), _s(base), ratio, text, pace is None or ratio <= pace))
    return [*made, *_layout(rounds), _half()]


def _layout(rounds: int) -> list[Row]:
    """Lay images and weights out channels-last, and compare with the released form without."""
    made = []
    for form in ("released", "fast", "balanced"):
        found = measure(("released", f"{form}{LAST}"), rounds)
        base, own = found.values()
        ratio = median(a / b for a, b in zip(own.seconds, base.seconds, strict=True))
        made.append(Row(f"training time, {form}{LAST}", _s(own), _s(base), ratio, "", True))
    return made


def _half() -> Row:
    """Compare bfloat16 with float32; small images, as a processor without bfloat16 units is very slow."""
    half, whole = (measure(("balanced",), 0, HALF_SIZE, kind)["balanced"] for kind in (torch.bfloat16, torch.float32))
    ratio = half.saved / whole.saved
    return Row(
        f"training memory, balanced, bf16, {HALF_SIZE} px", _mb(half), _mb(whole), ratio, "<= 0.55", ratio <= 0.55
    )


def _mb(one: Measured) -> str:
    return f"{one.saved / 1e6:.0f} MB"


def _s(one: Measured) -> str:
    return f"{median(one.seconds):.2f} s"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    for row in rows(parser.parse_args().rounds):
        print(f"{row.name:45s} {row.ours:>9s} {row.reference:>9s} {row.ratio:6.2f}  {row.target}")
