"""Time to decompose a ResNet-50 at start-up, on two threads: ``python -m benchmarks.decomposition``."""

from __future__ import annotations

import time

import torch
from torch import nn

from benchmarks.rows import Row
from fss.backbones.resnet import ResNet
from fss.finetune.svf import SVF

ROUNDS = 3
LIMIT = 3.0


def plain(net: ResNet) -> None:
    """Decompose what SVF decomposes, one convolution after the other, as the release does but in float64."""
    for stage in (2, 3, 4):
        for conv in net.stage(stage).modules():
            if isinstance(conv, nn.Conv2d):
                torch.linalg.svd(conv.weight.detach().double().flatten(1), full_matrices=False)


def rows() -> list[Row]:
    """Measure the best of some rounds, in turns.

    Returns:
        The lines of the table: seconds by the clock, and of processor time, which other programs disturb less.
    """
    threads, found = torch.get_num_threads(), []
    for seed in range(ROUNDS):
        torch.manual_seed(seed)
        net = ResNet(50)
        torch.set_num_threads(1)
        begun, spent = time.perf_counter(), time.process_time()
        plain(net)
        other = time.perf_counter() - begun, time.process_time() - spent
        torch.set_num_threads(2)
        begun, spent = time.perf_counter(), time.process_time()
        SVF(memory="plain").apply(net)
        found.append((time.perf_counter() - begun, time.process_time() - spent, *other))
    torch.set_num_threads(threads)
    clock, own, clock_plain, own_plain = (min(column) for column in zip(*found, strict=True))
    title = "decomposition of a ResNet-50"
    return [
        Row(title, f"{clock:.1f} s", f"{clock_plain:.1f} s", clock / clock_plain, f"ours < {LIMIT:g} s", clock < LIMIT),
        Row(f"{title}, processor time", f"{own:.1f} s", f"{own_plain:.1f} s", own / own_plain, "", True),
    ]


if __name__ == "__main__":
    for row in rows():
        print(f"{row.name:45s} {row.ours:>9s} {row.reference:>9s} {row.ratio:6.2f}  {row.target}")
