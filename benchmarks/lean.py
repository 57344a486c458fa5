"""SVF on other networks than ResNets, against V, S and U as layers, memory and time: ``python -m benchmarks.lean``."""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import median

import torch
from torch import Tensor, nn

from benchmarks.released_form import as_released
from benchmarks.rows import Row
from benchmarks.training import saved_bytes
from fss.backbones.efficientnet_lite import EfficientNetLite
from fss.finetune import ModuleStages
from fss.finetune.chains.fuse import fuse
from fss.finetune.chains.memory import Memory
from fss.finetune.svf import SVF
from fss.types import StagedBackbone

EVERYWHERE = (0, 1, 2, 3, 4)
RULES: tuple[Memory, ...] = ("fast", "balanced", "least")


@dataclass(frozen=True)
class Network:
    """A network that is measured.

    Attributes:
        name: its name; of timm's networks, the one that timm knows.
        size: side of the images, in pixels.
        images: images of a step.
        target: greatest memory of ``finetune.memory=balanced`` relative to the plain form.
        ours: builds it if it is not timm's.
    """

    name: str
    size: int
    images: int
    target: float
    ours: Callable[[], nn.Module] | None = None


NETWORKS = (
    Network("lite0 (ours)", 97, 2, 0.35, EfficientNetLite),
    Network("tf_efficientnet_lite0", 161, 2, 0.35),
    Network("convnext_atto", 161, 2, 0.35),
    Network("convnext_tiny", 161, 2, 0.35),
    Network("vit_small_patch16_224", 224, 4, 0.45),
    Network("swin_tiny_patch4_window7_224", 224, 2, 0.45),
)


def build(network: Network) -> nn.Module:
    """Build a network with random weights; norms and LayerScale let everything through, as trained ones do."""
    torch.manual_seed(0)
    if network.ours is not None:
        net = network.ours()
    else:
        import timm  # an optional extra

        net = timm.create_model(network.name, pretrained=False, num_classes=0, drop_path_rate=0.0)
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        assert norm.running_var is not None
        norm.running_var.uniform_(0.5, 2.0)
    for name, value in net.named_parameters():
        if name.endswith("gamma"):
            nn.init.ones_(value)
    return net


def tune(net: nn.Module) -> StagedBackbone:
    """Apply SVF to every layer of a network."""
    backbone: StagedBackbone = net if isinstance(net, EfficientNetLite) else ModuleStages(net)  # type: ignore[assignment]
    SVF(EVERYWHERE).apply(backbone)
    net.train()
    return backbone


def step(net: nn.Module, x: Tensor) -> None:
    """Run forward and backward with a loss that saves nothing itself."""
    found = net(x)
    outputs = found if isinstance(found, list) else [found]
    sum(o.mean() for o in outputs).backward()  # type: ignore[union-attr]


def measure(
    network: Network, rule: Memory, rounds: int, clock: Callable[[], float] = time.perf_counter
) -> tuple[tuple[int, int], list[tuple[float, float]]]:
    """Measure a rule and the plain form in turns, so that a busy machine slows both.

    Args:
        network: what to measure.
        rule: what is kept for the backward pass.
        rounds: timed steps of each.
        clock: says the time.

    Returns:
        Bytes kept, and seconds of each step: of the rule and of the plain form.
    """
    own = build(network)
    backbone, plain = tune(own), copy.deepcopy(own)
    as_released(plain if isinstance(plain, EfficientNetLite) else ModuleStages(plain))  # type: ignore[arg-type]
    fuse(backbone, rule)
    x = torch.randn(network.images, 3, network.size, network.size)
    step(own, x)  # blocks find out how they can be run
    kept = saved_bytes(own, lambda: step(own, x)), saved_bytes(plain, lambda: step(plain, x))
    seconds = []
    for _ in range(rounds):
        begun = clock()
        step(own, x)
        between = clock()
        step(plain, x)
        seconds.append((between - begun, clock() - between))
    return kept, seconds


def rows(
    rounds: int = 5, wanted: tuple[Network, ...] = NETWORKS, clock: Callable[[], float] = time.perf_counter
) -> Iterator[Row]:
    """Measure and compare with the targets.

    Args:
        rounds: timed steps of each form.
        wanted: networks; those of timm are left out where it is not installed.
        clock: says the time.

    Yields:
        The lines of the table.
    """
    for network in wanted:
        if network.ours is None and find_spec("timm") is None:
            continue
        for rule in RULES:
            (own, plain), seconds = measure(network, rule, rounds, clock)
            ratio, target = own / plain, f"<= {network.target}" if rule == "balanced" else ""
            name = f"{network.name}, {network.images} x {network.size} px, {rule}"
            yield Row(f"{name}, memory", _mb(own), _mb(plain), ratio, target, not target or ratio <= network.target)
            pace = median(a / b for a, b in seconds)
            ours, theirs = (f"{median(column):.2f} s" for column in zip(*seconds, strict=True))
            yield Row(f"{name}, time", ours, theirs, pace, "", True)


def _mb(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="part of the names of the networks")
    parser.add_argument("--cpu-time", action="store_true", help="seconds of the processor, for a machine that is busy")
    given = parser.parse_args()
    networks = tuple(n for n in NETWORKS if given.only in n.name)
    for row in rows(given.rounds, networks, time.process_time if given.cpu_time else time.perf_counter):
        print(f"{row.name:60s} {row.ours:>9s} {row.reference:>9s} {row.ratio:6.3f}  {row.target}", flush=True)
