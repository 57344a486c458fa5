"""``fss backbones``: what there is to choose from, what it gives and takes, and what serves which head."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fss.cli.friendly import friendly
from fss.cli.strategies import names
from fss.errors import FssError

if TYPE_CHECKING:
    from rich.console import Console

    from fss.model.backbone_facts import BackboneFacts
    from fss.types import InputSpec

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
NOTE = (
    "Channels and strides: of stages 0 to 4. Sides: of the square input, in pixels. svf: values that finetune=svf "
    "trains in stages 2 to 4. Supports masked: the image, or the maps before stage 4 as PFENet and BAM were published, "
    "where stages run one by one. More of one: fss backbones resnet50"
)


@friendly
def backbones(
    chosen: Annotated[list[str] | None, typer.Argument(help="Backbones to describe; none: a table of all.")] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="Option of the training, as backbone.model=regnety_002; repeatable.")
    ] = None,
) -> None:
    """List the backbones, or describe some: stages, sides, normalisation, strategies and heads. Loads no weights."""
    from rich.console import Console

    console = Console(markup=False, highlight=False)
    if chosen:
        for name in names(chosen, "backbone", "fss backbones resnet50"):
            _describe(console, name, option or [])
        return
    from rich import box
    from rich.table import Table

    columns = ("backbone", "channels", "strides", "sides", "normalised by", "values", "svf", "supports masked")
    table = Table(*columns, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name in names([], "backbone"):
        table.add_row(*_row(name, option or []))
    console.print(table)
    console.print(NOTE)


def _row(name: str, overrides: list[str]) -> tuple[str, ...]:
    """Return the cells of a backbone; of one whose package is not installed, what to do."""
    from fss.config.compose import composed
    from fss.model.backbone_facts import empty_backbone, facts_of, trained_by

    config = composed([f"backbone={name}", *overrides])
    try:
        found = facts_of(empty_backbone(config["backbone"]))
    except FssError as error:
        if (extra := missing_extra(error)) is None:
            raise
        return name, f"needs {extra}", *[""] * 6
    return (
        name,
        " ".join(str(stage.channels) for stage in found.stages),
        " ".join(str(stage.stride) for stage in found.stages),
        found.input.rule,
        normalisation(found.input),
        _millions(found.parameters),
        f"{trained_by(config['backbone'], config['finetune']):,}",
        "image, maps" if found.stepwise else "image",
    )


def missing_extra(error: FssError) -> str | None:
    """Return the extra of fss that would have spared an error; None if none would.

    Args:
        error: what building a backbone raised.
    """
    from fss.instantiate import extra_of

    return None if error.__cause__ is None else extra_of(error.__cause__)


def normalisation(spec: InputSpec) -> str:
    """Name the statistics that images are normalised by.

    Args:
        spec: of a backbone.
    """
    if (spec.mean, spec.std) == IMAGENET:
        return "ImageNet"
    if len({*spec.mean, *spec.std}) == 1:
        return f"{spec.mean[0]:g}"
    return " ".join(f"{value:.3f}" for value in spec.mean)


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M"


def _describe(console: Console, name: str, overrides: list[str]) -> None:
    from rich import box
    from rich.table import Table

    from fss.config.compose import composed
    from fss.model.backbone_facts import empty_backbone, facts_of

    config = composed([f"backbone={name}", *overrides])
    node = config["backbone"]
    backbone = empty_backbone(node)
    found = facts_of(backbone)
    console.print(f"\nbackbone={name}: {_millions(found.parameters)} values, {type(backbone).__name__}")
    table = Table("stage", "channels", "stride", "blocks", "values", box=box.SIMPLE_HEAD, show_edge=False)
    for index, stage in enumerate(found.stages):
        cells = (stage.channels, stage.stride, stage.blocks, stage.parameters)
        table.add_row(str(index), *(f"{value:,}" for value in cells))
    console.print(table)
    for label, text in _lines(config, found):
        console.print(f"{label}: {text}", soft_wrap=True)
    console.print(_strategies(name, overrides, node))
    for head, reason in _heads(name, overrides, backbone):
        console.print(f"method={head}: {reason or 'yes'}", soft_wrap=True)


def _lines(config: dict[str, Any], found: BackboneFacts) -> Iterator[tuple[str, str]]:
    spec = found.input
    yield "sides", f"{spec.rule}; data={config['data']['name']} takes {config['data']['size']}"
    mean, std = (" ".join(f"{value:g}" for value in values) for values in (spec.mean, spec.std))
    yield "normalisation", f"mean {mean}, standard deviation {std}"
    yield "weights", str(config["backbone"]["weights"])
    runs = "one by one" if found.stepwise else "in one call"
    masked = "the image or, as published by PFENet and BAM, the maps before stage 4" if found.stepwise else "the image"
    yield "stages run", f"{runs}; supports can be masked in {masked}"
    for note in found.notes:
        yield "note", note


def _strategies(name: str, overrides: list[str], node: dict[str, Any]) -> str:
    """List what every strategy trains, fewest values first."""
    from fss.config.compose import choices, composed
    from fss.model.backbone_facts import trained_by

    counts: dict[str, int] = {}
    refused: list[str] = []
    for strategy in choices("finetune"):
        try:
            options = composed([f"finetune={strategy}", f"backbone={name}", *overrides])["finetune"]
            counts[strategy] = trained_by(node, options)
        except FssError:
            refused.append(strategy)
    listed = ", ".join(f"{strategy} {counts[strategy]:,}" for strategy in sorted(counts, key=lambda s: counts[s]))
    return f"values that strategies train: {listed}" + (f"; refused: {', '.join(refused)}" if refused else "")


def _heads(name: str, overrides: list[str], backbone: Any) -> Iterator[tuple[str, str]]:
    """Yield every few-shot head, and why it cannot work on this backbone; nothing if it can."""
    from fss.config.compose import choices, composed
    from fss.instantiate import imported
    from fss.methods.base import FewShotHead
    from fss.model.backbone_facts import why_not

    for head in choices("method"):
        node = composed([f"method={head}", f"backbone={name}", *overrides])["method"]
        cls = imported("method", node)
        if isinstance(cls, type) and issubclass(cls, FewShotHead):
            yield head, why_not(backbone, node)
