"""Convolutions of the networks, from which the closed form of what a strategy trains is written.

Every strategy has its own form with its default options, as the function ``trained`` of tests/finetune/test_NAME.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

Counts = dict[str, int]  # parameter -> number of values
ALL = (0, 1, 2, 3, 4)
DEEP = (2, 3, 4)


@dataclass(frozen=True)
class Conv:
    """A convolution and the batch norm behind it."""

    name: str
    out: int
    into: int
    k: int
    biased: bool = False

    @property
    def rank(self) -> int:
        return min(self.out, self.columns)

    @property
    def columns(self) -> int:
        return self.into * self.k * self.k

    @property
    def norm(self) -> str:
        *path, last = self.name.split(".")
        return ".".join([*path, str(int(last) + 1) if last.isdigit() else last.replace("conv", "bn")])


Network = dict[int, list[Conv]]


def resnet18(width: int) -> Network:
    convs: Network = {0: [Conv("layer0.0", width, 3, 7)]}
    c_in = width
    for stage in range(1, 5):
        planes = width * 2 ** (stage - 1)
        convs[stage] = []
        for block in range(2):
            prefix = f"layer{stage}.{block}"
            convs[stage].append(Conv(f"{prefix}.conv1", planes, c_in, 3))
            convs[stage].append(Conv(f"{prefix}.conv2", planes, planes, 3))
            if c_in != planes:
                convs[stage].append(Conv(f"{prefix}.downsample.0", planes, c_in, 1))
            c_in = planes
    return convs


def resnet50(counts: tuple[int, ...] = (3, 4, 6, 3)) -> Network:
    stem = [("layer0.0", 64, 3, 3), ("layer0.3", 64, 64, 3), ("layer0.6", 128, 64, 3)]
    convs: Network = {0: [Conv(*c) for c in stem]}
    c_in = 128
    for stage, blocks in enumerate(counts, start=1):
        planes = 64 * 2 ** (stage - 1)
        convs[stage] = []
        for block in range(blocks):
            prefix = f"layer{stage}.{block}"
            convs[stage].append(Conv(f"{prefix}.conv1", planes, c_in, 1))
            convs[stage].append(Conv(f"{prefix}.conv2", planes, planes, 3))
            convs[stage].append(Conv(f"{prefix}.conv3", 4 * planes, planes, 1))
            if block == 0:
                convs[stage].append(Conv(f"{prefix}.downsample.0", 4 * planes, c_in, 1))
            c_in = 4 * planes
    return convs


def vgg16(width: int = 64) -> Network:
    convs: Network = {}
    c_in = 3
    for stage, (factor, count) in enumerate(((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))):
        out = width * factor
        convs[stage] = [Conv(f"layer{stage}.{3 * i}", out, c_in if i == 0 else out, 3, True) for i in range(count)]
        c_in = out
    return convs


NETWORKS: dict[str, Callable[[], Network]] = {
    "resnet18": lambda: resnet18(8),
    "resnet50": resnet50,
    "vgg16": vgg16,
    "vgg16-small": lambda: vgg16(4),
}


def convs(network: Network, stages: Iterable[int]) -> Iterator[Conv]:
    for stage in stages:
        yield from network[stage]


def blocks(network: Network, stage: int) -> int:
    """Children of a stage: residual blocks, or convolution, batch norm and ReLU (and the pooling)."""
    first = network[stage][0].name
    if "conv" in first:
        return 1 + max(int(c.name.split(".")[1]) for c in network[stage])
    return 3 * len(network[stage]) + (stage == 0 or (network[stage][0].biased and stage < 4))


def kernels(network: Network) -> Counts:
    """Kernels and biases of stages 2 to 4."""
    weights = {f"{c.name}.weight": c.out * c.columns for c in convs(network, DEEP)}
    return weights | {f"{c.name}.bias": c.out for c in convs(network, DEEP) if c.biased}


def norms(network: Network, affine: tuple[str, ...] = ("weight", "bias")) -> Counts:
    """Values of every batch norm."""
    return {f"{c.norm}.{a}": c.out for c in convs(network, ALL) for a in affine}
