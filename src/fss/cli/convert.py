"""``fss convert``: checkpoints of the releases, into ours and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fss.cli.friendly import friendly
from fss.commands import option, shell, typed


@friendly
def convert(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A release's .pth; with --to-release a .ckpt of ours.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    source: Annotated[
        str | None, typer.Option(help="The release whose conventions the file follows: svf, or the name of a head.")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="What the file holds, as in method=; needed where a release has several.")
    ] = None,
    backbone: Annotated[str, typer.Option(help="Its backbone, as in backbone=.")] = "resnet50",
    data: Annotated[str, typer.Option(help="Data set it was trained on: pascal or coco.")] = "pascal",
    shot: Annotated[int, typer.Option(help="Supports it was trained with.", min=1)] = 1,
    finetune: Annotated[str, typer.Option(help="svf if it holds factors U, S and V.")] = "freeze",
    fold: Annotated[int, typer.Option(help="Fold it was trained on.", min=0, max=3)] = 0,
    to_release: Annotated[bool, typer.Option("--to-release", help="From ours to a release's file.")] = False,
    merge: Annotated[bool, typer.Option("--merge", help="With --to-release: write factors as plain weights.")] = False,
) -> None:
    """Read a release's checkpoint, for fss.load and fss eval; with --to-release, write one for the release's code.

    Every tensor must have its place and shape. The release's conventions that its tensors do not tell (dilation,
    grids, aggregation of supports) come from --source, --method, --backbone and --data.
    """
    from fss.checkpoints import release_files as conversion
    from fss.checkpoints.known_releases import known_releases, only_method
    from fss.errors import FssError
    from fss.methods.releases import Released

    if to_release:
        written = conversion.export(file, out, source, merge)
        typer.echo(f"{out}: {written}")
        return
    if merge:
        raise FssError("--merge goes with --to-release; a converted checkpoint is merged by fss.load(path, merge=True)")
    if source is not None and method is None:
        method = only_method(source)
    if source is None or method is None:
        lacking = " and ".join(n for n, v in (("--source", source), ("--method", method)) if v is None)
        known = ", ".join(f"{s} {m}" for s, m in known_releases())
        raise FssError(
            f"{lacking} must be given, e.g. fss convert {shell(file)} --source svf --method baseline "
            f"--out {shell(out)}\n"
            f"Known pairs of --source and --method: {known}"
        )
    released = Released(source, method, backbone, data, shot, finetune, fold)
    written = conversion.convert_file(file, released, out)
    typer.echo(f"{out}: {written}. Test it: {typed(option('ckpt', out), name='eval')}")
