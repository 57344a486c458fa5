"""What batch norm of a backbone does in training, in the modes of the releases."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from tests.lit.fabricate import Episodes, module, trainer
from tests.methods.fakes import tiny
from torch import Tensor, nn

from fss.checkpoints.tuned import apply_tuned, save_tuned
from fss.errors import FssError
from fss.finetune import ModuleStages
from fss.finetune.base import Strategy
from fss.finetune.freeze import Freeze
from fss.finetune.full import Full
from fss.lit.callbacks.finetuning import BackboneFinetune
from fss.model.features import extract
from fss.types import FeatureSpec

EPOCHS, BATCHES, SLOTS = 2, 3, 2


def counts(backbone: Any) -> dict[str, int]:
    """Stage -> how often its batch norm took statistics, if that is the same in the whole stage."""
    found: dict[str, set[int]] = {}
    for name, buffer in backbone.named_buffers():
        if name.endswith("num_batches_tracked"):
            found.setdefault(name.split(".")[0], set()).add(int(buffer))
    return {stage: number for stage, (number,) in found.items()}


STRATEGIES: dict[str, tuple[Strategy, tuple[int, int]]] = {  # and the counts of stages 0 to 2, and of 3 and 4
    "freeze eval": (Freeze(), (0, 0)),
    "freeze train": (Freeze("train"), (EPOCHS * BATCHES * SLOTS,) * 2),
    "freeze first": (Freeze("train_first"), (EPOCHS * SLOTS,) * 2),
    "freeze late": (Freeze("train_late"), (0, EPOCHS * BATCHES)),
    "PMMs": (Full((0, 1, 2, 3, 4), norm_mode="train"), (EPOCHS * BATCHES * SLOTS,) * 2),
    "PPNet": (Full((3, 4), train_norm=True, norm_mode="train_late"), (0, EPOCHS * BATCHES)),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_training_moves_the_statistics_of(name: str, tmp_path: Path) -> None:
    """Query and support are two batches, or one if only the late stages have batch statistics."""
    strategy, (early, late) = copy.deepcopy(STRATEGIES[name])
    net = module()
    before = copy.deepcopy(net.model.backbone.state_dict())
    trainer(tmp_path, BackboneFinetune(strategy), epochs=EPOCHS).fit(net, datamodule=Episodes(BATCHES))
    backbone = net.model.backbone
    assert counts(backbone) == {f"layer{i}": early if i < 3 else late for i in range(5)}
    assert not any(m.training for m in backbone.eval().modules())
    norms = {
        f"{n}.{k}" for n, m in backbone.named_modules() if isinstance(m, nn.BatchNorm2d) for k in ("weight", "bias")
    }
    moved = {k for k, v in backbone.state_dict().items() if not torch.equal(v, before[k])} & norms
    assert bool(moved) == (name == "PPNet")
    assert all(k.startswith(("layer3", "layer4")) for k in moved)


def test_the_first_step_of_an_epoch_is_a_mode_of_its_own(tmp_path: Path) -> None:
    seen: list[tuple[str, bool, str]] = []

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer: Any, net: Any, *_: Any) -> None:
            self._see("train", net)

        def on_validation_batch_start(self, trainer: Any, net: Any, *_: Any, **__: Any) -> None:
            self._see("val", net)

        def _see(self, stage: str, net: Any) -> None:
            norms = {m.training for m in net.model.backbone.modules() if isinstance(m, nn.BatchNorm2d)}
            assert len(norms) == 1
            seen.append((stage, norms.pop(), net.model.backbone.norm_mode))

    run = trainer(tmp_path, BackboneFinetune(Freeze("train_first")), Watch(), epochs=2, limit_val_batches=1)
    run.fit(module(), datamodule=Episodes(2))
    epoch = [("train", True, "train"), ("train", False, "eval"), ("val", False, "eval")]
    assert seen == 2 * epoch


def test_late_statistics_are_those_of_query_and_supports_together() -> None:
    torch.manual_seed(0)
    backbone = tiny()
    Freeze("train_late").apply(backbone)
    backbone.train()
    plain = copy.deepcopy(backbone).eval()
    query, supports = torch.randn(1, 3, 33, 33), torch.randn(1, 2, 3, 33, 33)
    spec = FeatureSpec(stages=(3,))
    with torch.no_grad():
        x = torch.cat([query, *supports.unbind(1)])
        for index in range(3):
            x = plain.stage(index)(x)
        first = plain.stage(3)[0].conv1(x)  # type: ignore[index]
        expected = backbone.stage(3).train()(x)
        for norm in (m for m in backbone.stage(3).modules() if isinstance(m, nn.BatchNorm2d)):
            norm.reset_running_stats()
        got = extract(backbone, spec, query, supports, torch.ones(1, 2, 33, 33))
    assert not torch.allclose(expected, plain.stage(3)(x))
    found: list[Tensor] = [got.query[3], *got.support[3].unbind(1)]
    assert torch.allclose(torch.cat(found), expected, rtol=0, atol=1e-5)
    mean = backbone.stage(3)[0].bn1.running_mean  # type: ignore[index]
    assert torch.allclose(mean, 0.1 * first.mean((0, 2, 3)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["train", "train_late"])
def test_tuned_values_include_the_statistics(mode: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    start = tiny()
    tuned, fresh = copy.deepcopy(start), copy.deepcopy(start)
    Full((3, 4), norm_mode=mode).apply(tuned)
    Full((3, 4), norm_mode=mode).apply(fresh)
    image = torch.randn(2, 3, 33, 33)
    with torch.no_grad():
        tuned.train()(image)
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.mul_(1.1)
        save_tuned(tmp_path / "tuned.pt", tuned, {})
        apply_tuned(tmp_path / "tuned.pt", fresh)
        assert all(torch.equal(a, b) for a, b in zip(tuned.eval()(image), fresh.eval()(image), strict=True))


def test_unknown_modes_are_refused() -> None:
    for strategy in (Freeze, Full):
        with pytest.raises(FssError, match=r"norm_mode=on is not known: choose eval.*train_late"):
            strategy(norm_mode="on")  # type: ignore[arg-type]
    with pytest.raises(FssError, match="train_first is not known"):
        Full(norm_mode="train_first")  # type: ignore[arg-type]
    with pytest.raises(FssError, match="train_late needs one of this package's backbones"):
        Full((4,), norm_mode="train_late").apply(ModuleStages(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))))  # type: ignore[arg-type]
