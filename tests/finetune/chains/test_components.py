"""Looking into factored convolutions: the right maps, and nothing changed."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.methods.fakes import tiny
from tests.model.tokens import tokens
from torch import Tensor

from fss.backbones.resnet import ResNet
from fss.backbones.vgg import VGG
from fss.finetune.base import Strategy
from fss.finetune.chains.components import component_maps, last_of_stage, look_inside, tuned_convolutions
from fss.finetune.freeze import Freeze
from fss.finetune.full import Full
from fss.finetune.rotation_scale import RotationScale
from fss.finetune.svf import SVF
from fss.finetune.svf_residual import SVFResidual
from fss.finetune.svf_rotated import SVFRotated


@pytest.mark.parametrize("strategy", [SVF(), SVF(memory="least"), SVFResidual(), SVFRotated(), RotationScale()])
def test_maps_mixed_by_u_are_the_output_of_the_convolution(strategy: Strategy) -> None:
    """U times the maps is what the merged, plain convolution gives for the input that was shown."""
    backbone = tiny()
    strategy.apply(backbone)
    with torch.no_grad():
        for layer in tuned_convolutions(backbone).values():
            layer.S.mul_(torch.linspace(0.5, 1.5, len(layer.S)))
            if layer.p is not None:
                layer.p.add_(0.3)
    plain = copy.deepcopy(backbone)
    strategy.merge(plain)
    x, layers, outputs = torch.randn(2, 3, 33, 33), tuned_convolutions(backbone), {}
    for name in layers:
        plain.get_submodule(name).register_forward_hook(lambda _m, _i, o, at=name: outputs.update({at: o}))
    plain(x)
    seen: dict[str, Tensor] = {}
    look_inside(backbone, x, layers, lambda name, entered: seen.update({name: component_maps(layers[name], entered)}))
    assert set(seen) == set(layers), "every tuned convolution is shown"
    assert len(layers) == 15  # stages 2 to 4 of ResNet-18: 12 and 3 shortcuts
    for name, maps in seen.items():
        mixed = layers[name].geometry.lift(maps, layers[name].U, None)
        assert torch.allclose(mixed, outputs[name], atol=1e-4), name


def test_looking_changes_nothing() -> None:
    backbone, x = tiny(), torch.randn(1, 3, 33, 33)
    SVF().apply(backbone)
    before = [out.clone() for out in backbone(x)]
    values = {n: v.clone() for n, v in backbone.state_dict().items()}
    layers, state = tuned_convolutions(backbone), torch.get_rng_state()

    def fail(name: str, _: Tensor) -> None:
        raise RuntimeError(name)

    with pytest.raises(RuntimeError, match=r"layer2\.0\.conv1"):
        look_inside(backbone, x, layers, fail)
    look_inside(backbone, x, layers, lambda _n, _x: None)
    assert torch.equal(state, torch.get_rng_state())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in backbone.modules())
    assert all(torch.equal(values[n], v) for n, v in backbone.state_dict().items())
    assert all(torch.equal(a, b) for a, b in zip(before, backbone(x), strict=True))


@pytest.mark.parametrize("strategy", [Freeze(), Full(), SVF(factors=("U",)), SVFRotated(train_s=False)])
def test_only_diagonals_that_train_count(strategy: Strategy) -> None:
    backbone = tiny()
    strategy.apply(backbone)
    assert tuned_convolutions(backbone) == {}


def last(backbone: ResNet | VGG) -> list[str]:
    SVF(stages=(3,)).apply(backbone)
    return last_of_stage(tuned_convolutions(backbone).items(), 3)


def test_last_convolutions_of_a_stage() -> None:
    assert last(ResNet(50, width=4)) == ["layer3.5.conv2", "layer3.5.conv3"]
    assert last(tiny()) == ["layer3.1.conv2"], "a shortcut is no convolution of the block"
    assert len(last(VGG(width=4))) == 1


def test_a_plain_transformer_shows_its_patch_embedding() -> None:
    """Its stages run in one call; of its layers only the embedding is a convolution."""
    backbone = tokens()
    plain = copy.deepcopy(backbone)
    SVF(stages=(0, 1, 2, 3, 4)).apply(backbone)
    layers, seen = tuned_convolutions(backbone), {}
    assert list(layers) == ["layer0.patches"]
    x = torch.randn(2, 3, 35, 35)
    look_inside(backbone, x, layers, lambda name, entered: seen.update({name: component_maps(layers[name], entered)}))
    layer = layers["layer0.patches"]
    mixed = torch.einsum("or,nrhw->nohw", layer.U.flatten(1), seen["layer0.patches"])
    convolution = plain.get_submodule("layer0.patches")
    expected = convolution(x) - convolution.bias[:, None, None]  # type: ignore[operator,index]
    torch.testing.assert_close(mixed, expected, rtol=1e-4, atol=1e-5)
