"""Strategies on modules of other libraries: convolutions, linear layers and attention."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.models.vision_transformer import VisionTransformer

from fss.errors import FssError
from fss.finetune import ModuleStages, apply, load_trained_state, merge, trained_state
from fss.finetune.adapter import Adapter
from fss.finetune.base import Strategy
from fss.finetune.bias import Bias
from fss.finetune.bn import BN
from fss.finetune.full import Full
from fss.finetune.layers.attention import SVFAttention
from fss.finetune.layers.factored import SVFLinear
from fss.finetune.layers.tuned import TunedLayer
from fss.finetune.ln import LN
from fss.finetune.lora import LoRA
from fss.finetune.rotation_scale import RotationScale
from fss.finetune.scale_in import ScaleIn
from fss.finetune.svf import SVF
from fss.finetune.svf_bn import SVFBN
from fss.finetune.svf_foundation import SVFFoundation
from fss.finetune.svf_ln import SVFLN
from fss.finetune.svf_residual import SVFResidual


def convnext() -> nn.Module:
    blocks = [CNBlockConfig(8, 12, 1), CNBlockConfig(12, None, 1)]
    return ConvNeXt(blocks, layer_scale=0.5, num_classes=3)


def vit() -> nn.Module:
    return VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=12, mlp_dim=20, num_classes=3)


def resnet() -> nn.Module:
    return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=3)


MODELS: dict[str, Callable[[], nn.Module]] = {"convnext": convnext, "resnet": resnet, "vit": vit}
# layers with a matrix: convolutions, linear layers, and attention's q, k, v and output
RANKS = {
    # stem 8 <- 48; depthwise 8; 32 <- 8; 8 <- 32; 12 <- 32; depthwise 12; 48 <- 12; 12 <- 48; classifier 3
    "convnext": 8 + 8 + 8 + 8 + 12 + 12 + 12 + 12 + 3,
    # patches 12 <- 192; two blocks of q, k, v, out and 20 <- 12, 12 <- 20; classifier 3
    "vit": 12 + 2 * (4 * 12 + 12 + 12) + 3,
    # stem 64 <- 147; two 3x3 of 64, 128, 256 and 512, their downsamples from half of the channels; classifier 3
    "resnet": 64 + 2 * 64 + (2 * 128 + 64) + (2 * 256 + 128) + (2 * 512 + 256) + 3,
}
STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "svf": SVF,
    "svf-usv": lambda: SVF(factors=("U", "S", "V")),
    "svf_residual": SVFResidual,
    "rotation_scale": RotationScale,
    "scale_in": ScaleIn,
    "svf_bn": SVFBN,
    "svf_ln": SVFLN,
    "svf_foundation": SVFFoundation,
    "ln": LN,
    "lora": LoRA,
    "bias": Bias,
    "full": Full,
}


@pytest.fixture(params=sorted(MODELS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make(kind: str) -> nn.Module:
    torch.manual_seed(0)
    model = MODELS[kind]()
    for parameter in model.parameters():  # torchvision starts its ViT with a classifier of zeros
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return model


def make_image() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def output(model: nn.Module) -> Tensor:
    model.eval()
    with torch.no_grad():
        found: Tensor = model(make_image())
    return found


@pytest.mark.parametrize(
    ("kind", "name"),
    [(k, n) for k in ("convnext", "vit") for n in sorted(STRATEGIES) if n != "svf_bn"] + [("resnet", "svf_bn")],
)
def test_injected_trained_and_merged(kind: str, name: str) -> None:
    plain, model = make(kind), make(kind)
    before, strategy = output(model), STRATEGIES[name]()
    report = apply(model, strategy)
    assert report.plain_total == sum(p.numel() for p in plain.parameters())
    assert torch.allclose(output(model), before, atol=1e-5)
    model.train()
    values = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.01)
    model(make_image()).square().sum().backward()
    optimizer.step()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, values[n])}
    assert moved == report.trainable.keys()
    assert moved
    trained = output(model)
    assert float((trained - before).abs().max()) > 1e-4
    twin = make(kind)
    apply(twin, strategy)
    load_trained_state(twin, trained_state(model))  # type: ignore[arg-type]  # any module has named_parameters
    assert torch.equal(output(twin), trained)
    assert torch.equal(output(copy.deepcopy(model)), trained)
    assert apply(model, strategy).trainable == report.trainable
    merge(model, strategy)
    assert [type(m) for m in model.modules()] == [type(m) for m in plain.modules()]
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert torch.allclose(output(model), trained, atol=1e-5)
    plain.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(output(plain), output(model))


@pytest.mark.parametrize(("kind", "name"), [("convnext", "svf_bn"), ("vit", "svf_bn"), ("resnet", "svf_ln")])
def test_half_of_a_strategy_is_refused_and_changes_nothing(kind: str, name: str) -> None:
    model = make(kind)
    state = model.state_dict().keys()
    with pytest.raises(FssError, match=f"finetune={name} finds no weight or bias of .*has .*(LayerNorm|BatchNorm2d)"):
        apply(model, STRATEGIES[name]())
    assert model.state_dict().keys() == state
    assert all(p.requires_grad for p in model.parameters())


def test_every_matrix_has_its_rank(kind: str) -> None:
    model = make(kind)
    assert apply(model, SVF()).trainable_total == RANKS[kind]
    left = [n for n, m in model.named_modules() if type(m) in (nn.Conv2d, nn.Linear, nn.MultiheadAttention)]
    assert left == []


def test_attention_equals_torchs_in_every_call() -> None:
    torch.manual_seed(0)
    for batch_first in (True, False):
        model = nn.Sequential(nn.MultiheadAttention(8, 2, batch_first=batch_first)).double()
        plain = copy.deepcopy(model)
        apply(model, SVF())
        assert isinstance(model[0], SVFAttention)
        q, k = torch.randn(3, 5, 8).double(), torch.randn(3, 5, 8).double()
        pad = torch.zeros((3, 5) if batch_first else (5, 3), dtype=torch.bool)
        pad[0, -1] = True
        mask = nn.Transformer.generate_square_subsequent_mask(5 if batch_first else 3, dtype=torch.float64)
        for options in ({}, {"key_padding_mask": pad}, {"attn_mask": mask}, {"need_weights": False}):
            ours, theirs = model[0](q, k, k, **options), plain[0](q, k, k, **options)
            assert torch.allclose(ours[0], theirs[0], atol=1e-12)
            assert (ours[1] is None) == (theirs[1] is None)
            assert ours[1] is None or torch.allclose(ours[1], theirs[1], atol=1e-12)


def test_torchs_encoder_layer_does_not_bypass_the_factors() -> None:
    """In evaluation mode it reads the weights of attention directly where it can."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)).eval()
    x = torch.randn(2, 4, 8)
    with torch.no_grad():
        before = model(x)
        apply(model, SVF())
        assert torch.allclose(model(x), before, atol=1e-5)
        model[0].self_attn.in_proj.S.mul_(3)
        assert not torch.allclose(model(x), before, atol=1e-3)


def test_stages_choose_what_is_tuned() -> None:
    model = make("convnext")
    stages = {0: ["features.0"], 2: ["features.1", "features.2"], 4: ["classifier.2"]}
    report = apply(model, SVF((2,)), stages)
    assert report.trainable.keys() == {
        "features.1.0.block.0.S",
        "features.1.0.block.3.S",
        "features.1.0.block.5.S",
        "features.2.1.S",
    }
    assert apply(make("convnext"), SVF((4,)), stages).trainable == {"classifier.2.S": 3}
    model = make("convnext")
    apply(model, SVF((4,)), stages)
    assert isinstance(model.classifier[2], SVFLinear)  # a stage that is a layer is swapped itself
    merge(model, SVF((4,)), stages)
    assert not [m for m in model.modules() if isinstance(m, TunedLayer)]


def test_batch_norm_is_held_and_given_back() -> None:
    model = make("resnet")
    apply(model, BN())
    before = {k: v.clone() for k, v in model.state_dict().items() if "running" in k or "tracked" in k}
    assert before
    twin = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    for one in (model, twin):
        one.train()
        one(3 + make_image())
        assert all(torch.equal(one.state_dict()[k], v) for k, v in before.items())
    assert ModuleStages(model).norm_mode == "eval"
    merge(model, BN())
    assert ModuleStages(model).norm_mode == "train"
    model.train()
    model(3 + make_image())
    assert not torch.equal(model.state_dict()["bn1.running_mean"], before["bn1.running_mean"])


@pytest.mark.parametrize(
    ("use", "text"),
    [
        (lambda: apply(nn.Linear(2, 2), SVF()), r"Linear has no submodules.*nn.Sequential\(layer\)"),
        (lambda: apply(convnext(), SVF(), {2: ["stem"]}), "no submodule 'stem'.*features, avgpool, classifier"),
        (lambda: apply(convnext(), SVF(), {7: ["features"]}), r"stages \[7\] do not exist.*0 to 4"),
        (lambda: apply(convnext(), Adapter()), "finetune=adapter needs a backbone.*use svf"),
    ],
)
def test_mistakes_are_answered(use: Callable[[], object], text: str) -> None:
    with pytest.raises(FssError, match=text):
        use()


def test_attention_of_several_widths_stays_as_it_is() -> None:
    """The report shows that nothing of it trains."""
    model = nn.Sequential(nn.MultiheadAttention(8, 2, kdim=4, vdim=4), nn.Linear(8, 3))
    report = apply(model, SVF())
    assert report.trainable == {"1.S": 3}
    assert type(model[0]) is nn.MultiheadAttention
