"""What a model is made of, read from the code itself: stages, convolutions, factors, and which of them train."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fss.errors import FssError
from fss.files import write_json
from fss.reports.figures.base import STRUCTURE, Run

if TYPE_CHECKING:
    from fss.backbones.staged import StagedModule

BACKBONE, METHOD, STRATEGIES = "resnet50", "baseline", ("freeze", "svf", "svf_residual")
"""What the schematic figures show: the paper's ablation setting."""
EXAMPLE = "layer3.5.conv2"
"""Convolution whose factors are shown with their shapes."""


def write_structure(folder: Path) -> Run:
    """Write what schematic figures are drawn from; no weights are read or made, only shapes.

    Args:
        folder: receives the file.

    Returns:
        The folder, as figures take it.

    Raises:
        FssError: if it cannot be written.
    """
    content, path = structure(BACKBONE, METHOD, STRATEGIES, EXAMPLE), folder / STRUCTURE
    try:
        write_json(path, content)
    except OSError as error:
        raise FssError(
            f"Cannot write {path}: {error.strerror or error}. Make room there or name another folder with --out, then "
            "type the same command again."
        ) from error
    return Run(folder, None)


def structure(backbone: str, method: str, strategies: tuple[str, ...], example: str) -> dict[str, Any]:
    """Build a model on torch's meta device once per strategy and say what it is made of.

    Args:
        backbone: choice of ``backbone=``.
        method: choice of ``method=``.
        strategies: choices of ``finetune=``.
        example: path of a convolution in the backbone.

    Returns:
        Plain values: ``head``, the number of values of the head that train; and per strategy ``stages``, a list of
        dictionaries with ``plain`` (values of the plain stage), ``convolutions``, ``factored`` (how many of them are
        kept as factors), and ``values`` and ``trainable`` by kind of parameter; and ``example``, kind of parameter ->
        ``shape`` and ``trains``.

    Raises:
        FssError: if an option is wrong.
    """
    import torch
    from torch import nn

    from fss.backbones.staged import StagedModule
    from fss.cli.conventions import composed
    from fss.cli.instantiate import make  # not fss.cli.build, which takes Lightning's seconds
    from fss.finetune.base import Strategy

    described: dict[str, Any] = {"backbone": backbone, "method": method, "layer": example, "strategies": {}}
    for name in strategies:
        config = composed([f"finetune={name}", f"backbone={backbone}", f"method={method}"])
        with torch.device("meta"):
            network, tuning = make("backbone", config["backbone"]), make("finetune", config["finetune"])
            assert isinstance(network, StagedModule)
            assert isinstance(tuning, Strategy)
            plain = [sum(p.numel() for p in network.stage(i).parameters()) for i in range(StagedModule.STAGES)]
            tuning.apply(network)
            head = make("method", config["method"], channels=list(network.channels))
        assert isinstance(head, nn.Module)
        described["head"] = sum(p.numel() for p in head.parameters() if p.requires_grad)
        described["strategies"][name] = {
            "stages": [_stage(network, i, values) for i, values in enumerate(plain)],
            "example": {
                kind: {"shape": list(p.shape), "trains": p.requires_grad}
                for kind, p in network.get_submodule(example).named_parameters()
            },
        }
    return described


def _stage(backbone: StagedModule, index: int, plain: int) -> dict[str, Any]:
    """Count the values of a stage after injection, by kind of parameter."""
    from torch import nn

    from fss.finetune.layers import SVFConv2d

    stage = backbone.stage(index)
    modules = list(stage.modules())
    factored = sum(isinstance(m, SVFConv2d) for m in modules)
    values: dict[str, int] = {}
    trainable: dict[str, int] = {}
    for name, parameter in stage.named_parameters():
        kind = name.rpartition(".")[2]
        values[kind] = values.get(kind, 0) + parameter.numel()
        trainable[kind] = trainable.get(kind, 0) + parameter.numel() * parameter.requires_grad
    return {
        "stage": index,
        "plain": plain,
        "convolutions": factored + sum(isinstance(m, nn.Conv2d) for m in modules),
        "factored": factored,
        "values": values,
        "trainable": trainable,
    }
