"""Every strategy that swaps layers on timm's models: ``python -m benchmarks.timm_injection``, which takes an hour.

The weights are random; norm weights and layer scales are 1, so that every residual branch counts. For each model and
strategy the table shows by how much injection changes the output, relative to its largest value, or which layers the
strategy refuses. A training step must leave the statistics of batch norm alone, and merging must give the same output.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from benchmarks.__main__ import machine
from fss.errors import FssError
from fss.files import atomic
from fss.finetune import apply, merge
from fss.finetune.adapter import Adapter
from fss.finetune.base import Strategy
from fss.finetune.layers import svd
from fss.finetune.layers.factored import FactoredLayer
from fss.finetune.layers.geometry import LinearGeometry
from fss.finetune.layers.module_stages import keeps_statistics
from fss.finetune.layers.on_weight import TunedWeight
from fss.finetune.layers.tuned import TunedLayer
from fss.finetune.lora import LoRA
from fss.finetune.rotation_scale import RotationScale
from fss.finetune.scale_in import ScaleIn
from fss.finetune.scale_out import ScaleOut
from fss.finetune.svf import SVF
from fss.finetune.svf_bn import SVFBN
from fss.finetune.svf_bounded import SVFBounded
from fss.finetune.svf_residual import SVFResidual
from fss.finetune.svf_rotated import SVFRotated

ALLOWED = 1e-5

STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "svf": SVF,
    "svf_bn": SVFBN,
    "svf_bounded": SVFBounded,
    "svf_residual": SVFResidual,
    "svf_rotated": SVFRotated,
    "rotation_scale": RotationScale,
    "lora": LoRA,
    "scale_in": ScaleIn,
    "scale_out": ScaleOut,
    "adapter": Adapter,
}
CHANGES = {"svf_rotated"}  # by its formula
FACTORS = {"weight", "gamma", "gamma_1", "gamma_2", "gamma1", "gamma2", "gamma3", "gain", "skipinit_gain"}


@dataclass(frozen=True)
class Model:
    """A model of timm.

    Attributes:
        name: its name.
        kind: what it is built of.
        side: side of the square input in pixels.
        options: further arguments of its constructor.
    """

    name: str
    kind: str
    side: int = 96
    options: dict[str, Any] = field(default_factory=dict)


MODELS = (
    Model("resnet50", "conv"),
    Model("resnet18", "conv"),
    Model("regnety_002", "conv"),
    Model("convnext_tiny", "conv"),
    Model("convnextv2_atto", "conv"),
    Model("efficientnet_lite0", "conv"),
    Model("mobilenetv3_small_050", "conv"),
    Model("mixnet_s", "conv"),
    Model("repvgg_a0", "conv"),
    Model("densenet121", "conv"),
    Model("hrnet_w18_small", "conv"),
    Model("mambaout_femto", "conv"),
    Model("tf_efficientnet_lite0", "subclassed conv"),
    Model("tf_mobilenetv3_small_minimal_100", "subclassed conv"),
    Model("resnetv2_50x1_bit", "subclassed conv"),
    Model("nf_resnet26", "subclassed conv", 96, {"channels": (64, 128, 256, 512)}),
    Model("nf_regnet_b0", "subclassed conv"),
    Model("swin_tiny_patch4_window7_224", "transformer", 224),
    Model("swinv2_cr_tiny_ns_224", "transformer", 224, {"embed_dim": 48, "num_heads": (3, 3, 6, 12)}),
    Model("vit_small_patch14_dinov2", "transformer", 98, {"img_size": 98}),
    Model("vit_small_patch16_dinov3", "transformer"),
    Model("beit_base_patch16_224", "transformer", 224, {"depth": 4, "embed_dim": 192, "num_heads": 3}),
    Model("eva02_tiny_patch14_224", "transformer", 224),
    Model("cait_xxs24_224", "transformer", 224, {"depth": 8}),
    Model("xcit_nano_12_p16_224", "transformer", 224),
    Model("pvt_v2_b0", "transformer"),
    Model("hiera_tiny_224", "transformer", 224, {"embed_dim": 48}),
    Model("sam2_hiera_tiny", "transformer", 128, {"embed_dim": 48}),
    Model("davit_tiny", "hybrid", 224, {"embed_dims": (48, 96, 192, 384), "num_heads": (3, 6, 12, 12)}),
    Model("fastvit_t8", "hybrid", 128),
    Model("levit_128s", "hybrid", 224),
    Model("mobilevit_xxs", "hybrid", 128),
    Model("edgenext_xx_small", "hybrid", 128),
    Model("maxvit_rmlp_pico_rw_256", "hybrid", 256),
    Model("vit_tiny_r_s16_p8_224", "subclassed conv, hybrid", 224),
)

# Singular values of convolutions, depthwise convolutions and linear layers, with a classifier of 1000 classes where
# the model has one: counted by hand from shapes.
COUNTS: dict[str, tuple[int, int, int]] = {
    "resnet50": (13_248, 0, 1_000),
    "convnext_tiny": (1_392, 6_624, 14_016),
    "swin_tiny_patch4_window7_224": (48, 0, 19_776),
    "vit_small_patch14_dinov2": (384, 0, 18_432),
    "vit_small_patch16_dinov3": (384, 0, 18_432),
    "tf_efficientnet_lite0": (3_643, 8_960, 1_000),
    "efficientnet_lite0": (3_643, 8_960, 1_000),
}


@dataclass(frozen=True)
class Outcome:
    """What a strategy does to a model.

    Attributes:
        refused: the message, if it was refused.
        change: of the output by injection, relative to its largest value.
        merged: likewise by merging, after a training step.
        moved: statistics of batch norm that the training step moved.
        trained: whether every tensor that trains got a gradient; LoRA's A gets none while its B is zero.
        trainable: number of values that train.
        replaced: layers with a stand-in.
        on_weight: layers that keep their forward.
    """

    refused: str = ""
    change: float = 0.0
    merged: float = 0.0
    moved: int = 0
    trained: bool = True
    trainable: int = 0
    replaced: int = 0
    on_weight: int = 0

    def good(self, name: str) -> bool:
        """Tell whether the strategy of this name keeps its promises."""
        unchanged = self.change <= ALLOWED or name in CHANGES
        return bool(self.refused) or (unchanged and self.merged <= ALLOWED and self.moved == 0 and self.trained)


def build(name: str, classes: int = 0, **options: Any) -> nn.Module:
    """Build a model of timm with random weights that count.

    Args:
        name: its name.
        classes: classes of a classifier; 0 leaves it out.
        **options: further arguments of its constructor.
    """
    torch.manual_seed(0)
    features = options.get("features_only", False)
    return lively(timm.create_model(name, **({} if features else {"num_classes": classes}), **options))


@torch.no_grad()
def lively(model: nn.Module) -> nn.Module:
    """Let every part of a model count: norm weights and layer scales are 1, and nothing is all zeros.

    Args:
        model: with its initial values; changed.

    Returns:
        The model, in evaluation mode.
    """
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            continue
        if parameter.dim() < 2 and name.rpartition(".")[2] in FACTORS:
            parameter.fill_(1)
        elif not bool(parameter.any()):
            parameter.normal_(std=0.1)
    for module in model.modules():
        if hasattr(module, "drop_prob"):  # else a training step may skip a whole branch
            module.drop_prob = 0.0
    return model.eval()


def relative(got: Tensor, expected: Tensor) -> float:
    """Return the largest difference, relative to the largest value; infinite if it is not a number."""
    found = float((got - expected).abs().max() / expected.abs().max())
    return found if found == found else float("inf")


def run(model: nn.Module, image: Tensor) -> Tensor:
    """Return the output in evaluation mode."""
    with torch.no_grad():
        found: Tensor = model.eval()(image)
    return found


def inject(model: nn.Module, strategy: Callable[[], Strategy], image: Tensor) -> Outcome:
    """Inject a strategy, take a training step, and merge.

    Args:
        model: changed.
        strategy: builds the strategy.
        image: (N, 3, H, W), with N > 1.
    """
    before = run(model, image)
    try:
        report = apply(model, strategy())
    except FssError as error:
        return Outcome(refused=str(error))
    change = relative(run(model, image), before)
    on_weight = [m for m in model.modules() if isinstance(m, TunedWeight)]
    inner = {id(m) for one in on_weight for m in one.modules() if m is not one}
    tuned = [m for m in model.modules() if isinstance(m, TunedLayer) and id(m) not in inner]
    moved, trained = _step(model, image)
    after = run(model, image)
    merge(model, strategy())
    merged = relative(run(model, image), after)
    return Outcome(
        "", change, merged, moved, trained, report.trainable_total, len(tuned) - len(on_weight), len(on_weight)
    )


def _step(model: nn.Module, image: Tensor) -> tuple[int, bool]:
    """Take a training step; return how many statistics it moved, and whether it moved all values."""
    held = [b for m in model.modules() if keeps_statistics(m) for b in m.buffers(recurse=False)]
    statistics = [b.clone() for b in held]
    training = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    optimizer = torch.optim.Adam([p for _, p in training], lr=1e-3)
    output = model.train()(image)
    (output / output.detach().abs().max()).square().mean().backward()
    optimizer.step()
    still = [n for n, p in training if p.grad is None or not bool(p.grad.any())]
    moved = sum(not torch.equal(b, was) for b, was in zip(held, statistics, strict=True))
    return moved, not [n for n in still if not n.endswith(".A")]  # LoRA's A waits for B


def counts(name: str, **options: Any) -> tuple[int, int, int]:
    """Count singular values of convolutions, depthwise convolutions and linear layers, on the meta device.

    Args:
        name: model.
        **options: further arguments of its constructor.
    """
    with torch.device("meta"):
        headless = "dino" in name
        model = build(name, 0 if headless else 1000, **options)
        apply(model, SVF())
    found = [0, 0, 0]
    for layer in model.modules():
        if isinstance(layer, FactoredLayer):
            linear = isinstance(layer.geometry, LinearGeometry) or layer.V.dim() == 2
            depthwise = not linear and layer.geometry.groups == layer.U.shape[0]
            found[2 if linear else int(depthwise)] += layer.S.numel()
    return found[0], found[1], found[2]


@contextmanager
def decomposed_once() -> Iterator[None]:
    """Compute the decomposition of equal matrices once: six strategies begin with the same one."""
    known: dict[bytes, tuple[Tensor, Tensor, Tensor]] = {}
    plain = svd._svd

    def remembered(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        key = hashlib.sha256(matrix.contiguous().numpy().tobytes() + str(tuple(matrix.shape)).encode()).digest()
        if key not in known:
            known[key] = plain(matrix)
        u, s, vt = known[key]
        return u.clone(), s.clone(), vt.clone()

    svd._svd = remembered
    try:
        yield
    finally:
        svd._svd = plain


def measure(model: Model) -> dict[str, tuple[Outcome, str]]:
    """Inject every strategy into a model.

    Args:
        model: the model.

    Returns:
        Strategy -> outcome, and what else is to be said about it.
    """
    plain = build(model.name, **model.options)
    image = torch.randn(2, 3, model.side, model.side, generator=torch.Generator().manual_seed(0))
    found = {}
    for name, strategy in STRATEGIES.items():
        outcome, more = inject(copy.deepcopy(plain), strategy, image), ""
        if not outcome.good(name):  # rounding is amplified by deep networks without norm: judge in double precision
            exact = run(copy.deepcopy(plain).double(), image.double())
            rounding = relative(run(plain, image).double(), exact)
            double = inject(copy.deepcopy(plain).double(), strategy, image.double())
            more = (
                f" in float64; {outcome.change:.0e} in float32, whose rounding alone moves the model by {rounding:.0e}"
            )
            outcome = double if outcome.change <= 10 * rounding else outcome
        found[name] = (outcome, more)
    return found


def cell(name: str, outcome: Outcome, more: str) -> str:
    """Write an outcome."""
    if outcome.refused:
        return "refused: " + _why(outcome.refused)
    mark = "" if outcome.good(name) else "**wrong** "
    return f"{mark}{outcome.change:.0e}{' by its formula' if name in CHANGES else ''}{more}"


def _why(message: str) -> str:
    """Shorten a refusal."""
    for long, short in (
        ("finetune=adapter needs", "no stages of known width"),
        ("no weight or bias of batch norm", "no batch norm"),
    ):
        if long in message:
            return short
    return message.partition("chosen stages: ")[2].partition(". Nothing was")[0] or message


def main(arguments: list[str]) -> int:
    """Print the table.

    Args:
        arguments: names of models, none for all; ``--write FILE`` keeps the table.

    Returns:
        Exit status: 1 if something is wrong.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.timm_injection", description=__doc__)
    parser.add_argument("wanted", nargs="*", metavar="MODEL", help="models to measure; none: all")
    parser.add_argument("--write", type=Path, metavar="FILE", help="Markdown file for the table")
    given = parser.parse_args(arguments)
    models = [m for m in MODELS if not given.wanted or m.name in given.wanted]
    columns = ("model", "kind", "layers replaced + on weight", *STRATEGIES, "worst merge", "statistics moved", "trains")
    lines = [machine(), "", f"| {' | '.join(columns)} |", "| :-- " * len(columns) + "|"]
    print("\n".join(lines), flush=True)
    good = True
    for model in models:
        begun = time.perf_counter()
        with decomposed_once():
            found = measure(model)
        svf = found["svf"][0]
        good &= all(one.good(name) for name, (one, _) in found.items())
        narrow = " (narrow)" if model.options.keys() - {"img_size"} else ""
        cells = [model.name + narrow, model.kind, f"{svf.replaced} + {svf.on_weight}"]
        cells += [cell(name, *one) for name, one in found.items()]
        cells += _rest([one for one, _ in found.values()])
        lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], flush=True)
        sys.stderr.write(f"({model.name}: {time.perf_counter() - begun:.0f} s)\n")
    lines += ["", "| model | singular values: conv + depthwise + linear, with classifier | expected | |"]
    lines += ["| :-- | --: | --: | :-- |"]
    for name, expected in COUNTS.items():
        if given.wanted and name not in given.wanted:
            continue
        got = counts(name)
        good &= got == expected
        mark = "equal" if got == expected else "**wrong**"
        lines.append(f"| {name} | {_sum(got)} | {_sum(expected)} | {mark} |")
    print("\n".join(lines[len(models) + 4 :]))
    if given.write is not None:
        with atomic(given.write) as file:
            file.write("\n".join(["# Strategies on models of timm", "", *lines, ""]).encode())
    return 0 if good else 1


def _rest(outcomes: Iterable[Outcome]) -> list[str]:
    done = [one for one in outcomes if not one.refused]
    worst = max((one.merged for one in done), default=0.0)
    trains = "all" if all(one.trained for one in done) else "**not all**"
    return [f"{worst:.0e}", str(sum(one.moved for one in done)), trains]


def _sum(values: tuple[int, int, int]) -> str:
    return " + ".join(f"{v:,}" for v in values)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
