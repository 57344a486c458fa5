"""``fss convert``: checkpoints of the releases, into ours and back."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from fss.cli.friendly import friendly
from fss.commands import option, shell, typed


class Source(str, Enum):  # noqa: UP042  # typer shows the values
    """Releases."""

    svf = "svf"
    pfenet = "pfenet"
    bam = "bam"


class Method(str, Enum):  # noqa: UP042
    """Methods that releases have."""

    baseline = "baseline"
    pfenet = "pfenet"
    bam = "bam"
    base_learner = "base_learner"


class BackboneName(str, Enum):  # noqa: UP042
    """Backbones that releases have."""

    resnet50 = "resnet50"
    resnet101 = "resnet101"
    resnet152 = "resnet152"
    vgg16 = "vgg16"


class DataName(str, Enum):  # noqa: UP042
    """Data sets that releases have."""

    pascal = "pascal"
    coco = "coco"


class Finetune(str, Enum):  # noqa: UP042
    """Whether layers are decomposed."""

    freeze = "freeze"
    svf = "svf"


@friendly
def convert(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A release's .pth; with --to-release a .ckpt of ours.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    source: Annotated[Source | None, typer.Option(help="The release whose conventions the file follows.")] = None,
    method: Annotated[Method | None, typer.Option(help="What the file holds.")] = None,
    backbone: Annotated[BackboneName, typer.Option(help="Its backbone.")] = BackboneName.resnet50,
    data: Annotated[DataName, typer.Option(help="Data set it was trained on.")] = DataName.pascal,
    shot: Annotated[int, typer.Option(help="Supports it was trained with.", min=1)] = 1,
    finetune: Annotated[Finetune, typer.Option(help="svf if it holds factors U, S and V.")] = Finetune.freeze,
    fold: Annotated[int, typer.Option(help="Fold it was trained on.", min=0, max=3)] = 0,
    to_release: Annotated[bool, typer.Option("--to-release", help="From ours to a release's file.")] = False,
    merge: Annotated[bool, typer.Option("--merge", help="With --to-release: write factors as plain weights.")] = False,
) -> None:
    """Read a release's checkpoint, for fss.load and eval.py; with --to-release, write one for the release's code.

    Every tensor must have its place and shape. The release's conventions that its tensors do not tell (dilation,
    grids, aggregation of supports) come from --source, --method, --backbone and --data.
    """
    from fss.checkpoints import release_files as conversion
    from fss.checkpoints.release_models import Released
    from fss.errors import FssError

    if to_release:
        written = conversion.export(file, out, None if source is None else source.value, merge)
        typer.echo(f"{out}: {written}")
        return
    if merge:
        raise FssError("--merge goes with --to-release; a converted checkpoint is merged by fss.load(path, merge=True)")
    if source is None or method is None:
        lacking = " and ".join(n for n, v in (("--source", source), ("--method", method)) if v is None)
        raise FssError(
            f"{lacking} must be given, e.g. fss convert {shell(file)} --source svf --method baseline "
            f"--out {shell(out)}\n"
            "--source: svf, pfenet or bam; --method: baseline, pfenet, bam or base_learner"
        )
    released = Released(source.value, method.value, backbone.value, data.value, shot, finetune.value, fold)
    written = conversion.convert_file(file, released, out)
    typer.echo(f"{out}: {written}. Test it: {typed(option('ckpt', out), name='eval')}")
