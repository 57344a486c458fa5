"""``fss data prepare``: official archives -> a root that training reads. Heavy imports happen inside."""

from __future__ import annotations

import logging
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fss.cli.friendly import friendly
from fss.commands import option, typed
from fss.data.sources.manifest import Manifest, finished
from fss.errors import FssError

if TYPE_CHECKING:
    from fss.data.prepare.request import Request


class DataName(str, Enum):  # noqa: UP042  # typer shows the values
    """Data sets that have official archives, or are drawn."""

    pascal = "pascal"
    coco = "coco"
    shapes = "shapes"


class MaskRuleName(str, Enum):  # noqa: UP042
    """How COCO's instances become masks."""

    full = "full"
    first_polygon = "first_polygon"


@friendly
def prepare(
    data: Annotated[DataName, typer.Argument(help="Data set.")],
    root: Annotated[Path, typer.Option(help="Folder to fill; later data.root.")],
    archives: Annotated[
        Path | None,
        typer.Option(help="Folder of the official archives or of what they unpack to; default ROOT/archives."),
    ] = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch missing archives into that folder.")] = False,
    year: Annotated[int | None, typer.Option(help="COCO only: 2014 (default) or 2017.")] = None,
    mask_rule: Annotated[
        MaskRuleName | None, typer.Option(help="COCO only: whole instances (default) or their first polygons.")
    ] = None,
    unverified: Annotated[bool, typer.Option("--unverified", help="Accept archives other than the official.")] = False,
    workers: Annotated[int | None, typer.Option(help="Processes; default one per core.", min=1)] = None,
) -> None:
    """Turn the official archives into the folders that training reads; goes on where an interrupted run stopped."""
    if data is not DataName.coco and (year is not None or mask_rule is not None):
        raise FssError(f"--year and --mask-rule belong to coco, not to {data.value}. Leave them out.")
    if data is DataName.shapes:
        _draw(root, workers)
        return
    options: dict[str, Any] = {}
    if data is DataName.coco:
        options = {"year": 2014 if year is None else year, "mask_rule": (mask_rule or MaskRuleName.full).value}
    known = finished(root, {"data": data.value, **options})
    if known is not None:
        typer.echo(f"{_summary(known, root)}: prepared already")
        return
    from fss.data.prepare.extraction import Pace
    from fss.data.prepare.request import Request

    logging.basicConfig(format="%(levelname)s: %(message)s")
    done = _run(Request(data.value, root, archives, options, download, unverified, Pace(workers)))
    command = typed(f"data={data.value}", option("data.root", root))
    typer.echo(f"{_summary(done, root)}. Train with: {command}{_more(done)}")


def _run(request: Request) -> Manifest:
    from fss.data.prepare.coco import prepare_coco
    from fss.data.prepare.pascal import prepare_pascal

    return prepare_coco(request) if request.data == "coco" else prepare_pascal(request)


def _draw(root: Path, workers: int | None) -> None:
    from fss.data.shapes.write import write_shapes

    write_shapes(root, workers=workers)
    typer.echo(f"shapes (seed 0) -> {root}")


def _summary(known: Manifest, root: Path) -> str:
    counts = known["counts"]
    return f"{counts['train']:,} training and {counts['val']:,} validation images in {root} ({known['source']})"


def _more(known: Manifest) -> str:
    """Return the options of train.py that differ from its defaults."""
    year = f" data.year={known['year']}" if known.get("year", 2014) != 2014 else ""
    rule = f" data.mask_rule={known['mask_rule']}" if known.get("mask_rule", "full") != "full" else ""
    return year + rule
