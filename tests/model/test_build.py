"""A model whose values come from a checkpoint has those that no checkpoint holds, too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.methods.fakes import inputs
from torch import Tensor, nn

import fss
from fss.backbones.resnet import ResNet
from fss.errors import FssError
from fss.methods.baseline import Baseline
from fss.model.build import build_model, build_strategy, empty_model


class Table(nn.Module):
    """Keeps a table out of its state dict, as timm's Swin keeps its index of relative positions."""

    def __init__(self, drawn: bool) -> None:
        super().__init__()
        self.register_buffer("table", torch.randn(4) if drawn else torch.linspace(0.5, 1.5, 4), persistent=False)
        self.register_buffer("index", torch.arange(6).view(2, 3), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.table.sum() + self.index.sum()


class Positioned(ResNet):
    drawn = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.layer3.append(Table(self.drawn))


class Drawn(Positioned):
    drawn = True


class Scaled(Baseline):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.register_buffer("gain", torch.tensor(3.0), persistent=False)

    def decode(self, query: Tensor, prototype: Tensor, prior: Tensor) -> Tensor:
        return self.gain * super().decode(query, prototype, prior)


def config(backbone: str = "Positioned", strategy: str = "SVF") -> dict[str, Any]:
    here = __name__
    return {
        "backbone": {
            "_target_": f"{here}.{backbone}", "name": "resnet18", "depth": 18, "width": 4, "stem": "torchvision",
            "dilation": "torchvision", "weights": "none",
        },
        "method": {"_target_": f"{here}.Scaled", "name": "baseline", "width": 4},
        "finetune": {"_target_": f"fss.finetune.{strategy.lower()}.{strategy}", "name": strategy.lower()},
        "data": {"name": "shapes", "size": 65}, "recipe": {}, "trainer": {}, "fold": 0, "shot": 1,
    }  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_buffers_outside_of_the_state_dict_are_computed(dtype: torch.dtype) -> None:
    before = torch.get_rng_state()
    model: Any = empty_model(config(), dtype)[0]
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(model.backbone.layer3[2].table, torch.linspace(0.5, 1.5, 4).to(dtype))
    assert model.backbone.layer3[2].index.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert model.head.gain.item() == 3.0
    assert model.head.gain.dtype == dtype


def test_a_checkpoint_of_such_a_model_opens_and_gives_its_scores(tmp_path: Any) -> None:
    torch.manual_seed(5)
    model = build_model(config())
    build_strategy(config()["finetune"]).apply(model.backbone)
    state = {f"model.{k}": v for k, v in model.state_dict().items()}
    assert not [k for k in state if "table" in k]
    card = {"format": 2, "config": config(), "identity": "0" * 64}
    torch.save({"state_dict": state, "fss": card}, tmp_path / "x.ckpt")
    loaded = fss.load(tmp_path / "x.ckpt", trusted=[__name__.partition(".")[0]])
    given = inputs(1, 1)
    with torch.no_grad():
        assert torch.equal(loaded(*given), model.eval()(*given))


def test_a_buffer_that_was_drawn_is_refused() -> None:
    with pytest.raises(FssError, match=r"does not hold backbone\.layer3\.2\.table, which.*persistent=True"):
        empty_model(config("Drawn"), torch.float32)


def test_weights_that_are_not_finite_are_refused(tmp_path: Any) -> None:
    model = build_model(config())
    build_strategy(config()["finetune"]).apply(model.backbone)
    with torch.no_grad():
        model.head.cls[0].weight[0, 0, 0, 0] = torch.inf
    state = {f"model.{k}": v for k, v in model.state_dict().items()}
    card = {"format": 2, "config": config(), "identity": "0" * 64}
    torch.save({"state_dict": state, "fss": card}, tmp_path / "x.ckpt")
    with pytest.raises(FssError, match=r"x\.ckpt holds values that are not finite, in head\.cls\.0\.weight"):
        fss.load(tmp_path / "x.ckpt", trusted=[__name__.partition(".")[0]])
