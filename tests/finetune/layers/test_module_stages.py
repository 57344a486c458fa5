"""Layers that follow the statistics of their batches stay in evaluation mode, of whatever class they are."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from fss.finetune.layers.module_stages import ModuleStages


class Activated(nn.BatchNorm2d):
    """Batch norm with an activation in it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


class Wilful(nn.BatchNorm1d):
    """Has a train() of its own."""

    def train(self, mode: bool = True) -> Wilful:
        super().train(mode)
        return self


class Variance(nn.Module):
    """No batch norm, but it follows a variance, as EvoNorm does."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_var", torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        running = self.get_buffer("running_var")
        if self.training:
            running.mul_(0.9).add_(0.1 * x.detach().var(dim=0))
        return x / running.sqrt()


def make() -> nn.Module:
    return nn.ModuleDict(
        {
            "plain": nn.BatchNorm2d(3),
            "activated": nn.Sequential(Activated(3), nn.Dropout(0.5)),
            "synced": nn.SyncBatchNorm(3),
            "wilful": Wilful(3),
            "volume": nn.BatchNorm3d(3),
            "instance": nn.InstanceNorm2d(3, track_running_stats=True),
            "variance": Variance(),
        }
    )


INPUTS = {"wilful": (4, 3), "volume": (2, 3, 2, 2, 2), "variance": (4, 3)}


def statistics(model: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def run(model: nn.Module, name: str) -> None:
    layer = model.get_submodule(name)
    if name == "synced" and layer.training:
        pytest.skip("SyncBatchNorm trains on GPUs only")
    layer(3 + 2 * torch.randn(INPUTS.get(name, (2, 3, 4, 4))))


@pytest.mark.parametrize("name", list(make()))  # type: ignore[call-overload]
@pytest.mark.parametrize("copied", ["itself", "deepcopy", "pickle"])
def test_statistics_are_held_and_given_back(name: str, copied: str) -> None:
    model = make()
    classes = [type(m) for m in model.modules()]
    ModuleStages(model).norm_mode = "eval"
    if copied != "itself":
        original = model
        model = copy.deepcopy(model) if copied == "deepcopy" else pickle.loads(pickle.dumps(model))
        ModuleStages(original).norm_mode = "train"  # the copy has its own train()
    before = statistics(model)
    for mode in (True, False, True):
        model.train(mode)
        for module in model.modules():
            module.train(mode)
    run(model, name)
    assert all(torch.equal(b, before[n]) for n, b in model.named_buffers())
    assert [type(m) for m in model.modules()] == classes
    assert model.training
    assert model.get_submodule("activated.1").training  # dropout follows
    assert ModuleStages(model).norm_mode == "eval"
    ModuleStages(model).norm_mode = "train"
    assert ModuleStages(model).norm_mode == "train"
    assert all(m.training for m in model.modules())
    run(model, name)
    moved = {n.split(".")[0] for n, b in model.named_buffers() if not torch.equal(b, before[n])}
    assert moved == {name}
    assert not [m for m in model.modules() if "train" in vars(m)]
