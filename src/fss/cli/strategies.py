"""``fss strategies``: how much of a backbone each fine-tune strategy trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from fss.cli.friendly import friendly
from fss.commands import noun
from fss.errors import FssError

DEFAULT = ["resnet50", "vgg16"]
CLAIMS = {"svf": 0.25}
"""Shares of the backbone, in per cent, that the SVF paper prints."""
REFUSED = "refused"
NOTE = (
    "refused: the backbone has nothing that the strategy trains. "
    "Share: trainable values over the plain backbone's, without the head. The SVF paper says that svf trains 0.25 % of "
    "the backbone; no count gives that: the release's own 12,544 and 3,840 values are 0.053 % of ResNet-50 and 0.026 % "
    "of VGG-16. But 12,544 is 0.25 % of the 4,929,794 values that train altogether, the baseline's head (4,917,250) "
    "included, which may be what was meant."
)


@dataclass(frozen=True)
class Count:
    """What a strategy trains of a backbone.

    Attributes:
        trainable: number of values that train.
        plain: number of values of the plain backbone.
    """

    trainable: int
    plain: int

    def __str__(self) -> str:
        """Return the number and its share."""
        return f"{self.trainable:,} ({100 * self.trainable / self.plain:.3f} %)"


def count(strategy: str, backbone: str, overrides: list[str]) -> Count | None:
    """Inject a strategy into a backbone of shapes alone.

    Args:
        strategy: choice of ``finetune=``.
        backbone: choice of ``backbone=``.
        overrides: other options of ``train.py``.

    Returns:
        The counts, or None if the backbone has nothing that the strategy trains.

    Raises:
        FssError: if an option is wrong.
    """
    import torch

    from fss.config.compose import composed
    from fss.finetune.layers.nothing_to_train import NothingToTrainError
    from fss.model.build import build_backbone, build_strategy

    config = composed([f"finetune={strategy}", f"backbone={backbone}", *overrides])
    with torch.device("meta"):
        built = build_backbone(config["backbone"], pretrained=False)
        try:
            report = build_strategy(config["finetune"]).apply(built)
        except NothingToTrainError:
            return None
    return Count(report.trainable_total, report.plain_total)


def names(given: list[str], group: str, example: str = "fss strategies svf full --backbone resnet50") -> list[str]:
    """Check choices of a group, or list them all.

    Args:
        given: names; empty for all.
        group: folder of conf/.
        example: a command with a right choice, for the message.

    Returns:
        The names.

    Raises:
        FssError: if one does not exist.
    """
    from fss.config.compose import choices

    known = choices(group)
    wrong = [n for n in given if n not in known]
    if wrong:
        raise FssError(f"{group}={wrong[0]} does not exist: choose of {', '.join(known)}. For example: {example}")
    return given or known


@friendly
def strategies(
    chosen: Annotated[list[str] | None, typer.Argument(help="Strategies; all of conf/finetune by default.")] = None,
    backbone: Annotated[list[str] | None, typer.Option(help="Backbones; resnet50 and vgg16 by default.")] = None,
    option: Annotated[
        list[str] | None, typer.Option(help=f"Option of {noun()} for every row, as finetune.stages=[4]; repeatable.")
    ] = None,
) -> None:
    """Print how many values each strategy trains, per backbone, beside what the SVF paper says."""
    from rich.console import Console
    from rich.table import Table

    rows, columns = names(chosen or [], "finetune"), names(backbone or DEFAULT, "backbone")
    counts = {(r, c): count(r, c, option or []) for r in rows for c in columns}
    table = Table("strategy", *columns, "SVF paper")

    def trainable(row: str) -> int:
        found = counts[row, columns[0]]
        return -1 if found is None else found.trainable

    for row in sorted(rows, key=trainable):
        claim = f"{CLAIMS[row]} %" if row in CLAIMS else ""
        table.add_row(row, *(str(counts[row, c] or REFUSED) for c in columns), claim)
    console = Console()
    console.print(table)
    console.print(NOTE)
