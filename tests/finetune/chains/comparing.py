"""A block with SVF in its plain form and in a lean one, and what both give."""

from __future__ import annotations

import copy
from typing import Any

import torch
from tests.finetune.chains.test_fuse import run, unusual
from torch import Tensor, nn

from fss.finetune import ModuleStages
from fss.finetune.chains.fuse import fuse
from fss.finetune.chains.memory import Memory
from fss.finetune.svf import SVF


def tuned(block: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """Put a block into a network, with SVF in its plain form and S away from where it was."""
    net = nn.Sequential(block).to(dtype)
    unusual(net)
    SVF(memory="plain").apply(ModuleStages(net))  # type: ignore[arg-type]
    net.train()
    with torch.no_grad():
        for name, value in net.named_parameters():
            if name.endswith(".S"):
                value.mul_(torch.linspace(0.5, 1.5, value.numel(), dtype=value.dtype))
    return net


def lean(net: nn.Module, memory: Memory) -> Any:
    """Copy a network and let the copy keep little."""
    made = copy.deepcopy(net)
    fuse(ModuleStages(made), memory)  # type: ignore[arg-type]
    return made


def results(net: nn.Module, x: Tensor) -> list[Tensor]:
    """Return output, gradient of the input, and gradients of what trains."""
    outputs, gradients = run(net, x, [p for p in net.parameters() if p.requires_grad])
    return [*outputs, *gradients]


def kept(net: nn.Module, x: Tensor) -> int:
    """Count the bytes that a forward pass keeps, without parameters and buffers."""
    own = {t.untyped_storage().data_ptr() for t in (*net.parameters(), *net.buffers())}
    seen: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            seen[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        net(x)
    return sum(t.untyped_storage().nbytes() for t in seen.values())
