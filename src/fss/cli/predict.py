"""``fss predict``: segment an image, given one or more support images with masks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from fss.cli.friendly import friendly
from fss.errors import FssError, first_line

_SEPARATOR = "\0"  # cannot occur in a file name


class PairsCommand(TyperCommand):
    """Command whose ``--support`` takes two words and can be repeated; Typer supports only one of the two."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Join the two words after each ``--support``.

        Args:
            ctx: Typer's context.
            args: words of the command line.

        Returns:
            The remaining words.

        Raises:
            SystemExit: with status 2, if an image or a mask is missing.
        """
        words, joined = iter(args), []
        for word in words:
            joined.append(word)
            if word == "--support":
                pair = [next(words, ""), next(words, "")]
                if not pair[1] or pair[1].startswith("--"):
                    sys.stderr.write(f"Error: --support {pair[0]} names no mask: give --support image.jpg mask.png\n")
                    raise SystemExit(2)
                joined.append(_SEPARATOR.join(pair))
        remaining: list[str] = super().parse_args(ctx, joined)
        return remaining


@friendly
def predict(
    ckpt: Annotated[Path, typer.Option(help="Checkpoint of a run, or one written by fss convert.")],
    support: Annotated[
        list[str],
        typer.Option(metavar="IMAGE MASK", help="Support image and its mask; repeat for more shots."),
    ],
    query: Annotated[Path, typer.Option(help="Image to segment.")],
    out: Annotated[
        Path, typer.Option(help="Overlay to write; NAME-mask.png and NAME-probability.png are written beside it.")
    ],
    value: Annotated[
        int | None, typer.Option(help="Mask value of the object, if the masks hold several values.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    trust: Annotated[
        list[str] | None,
        typer.Option(help="Your own Python package whose classes the checkpoint may name; repeatable."),
    ] = None,
) -> None:
    """Segment the object of the support images in a query image."""
    from fss.data.reading.images import read_image
    from fss.data.user_images import png, read_support

    _check_device(device)
    pairs = [tuple(Path(name) for name in word.split(_SEPARATOR)) for word in support]
    written = _outputs(out, [query, *(file for pair in pairs for file in pair)])
    photo = read_image(query)  # read before the model is built, to fail early on a wrong file name
    supports = [read_support(image, mask, value) for image, mask in pairs]

    from fss.files import atomic
    from fss.predictor import Predictor
    from fss.reports.overlay import overlay

    found = Predictor.load(ckpt, device, trust or ())(photo, supports)
    probability = (255 * found.probability).round().astype("uint8")
    for path, pixels in zip(written, (overlay(photo, found.mask), 255 * found.mask, probability), strict=True):
        try:
            with atomic(path) as file:
                file.write(png(pixels))
        except OSError as error:
            raise FssError(f"Cannot write {path}: {error.strerror or error}. Give another --out.") from error
    share = 100 * float(found.mask.mean())
    typer.echo(f"The object covers {share:.1f} % of {query}: {', '.join(str(p) for p in written)}")


def _outputs(out: Path, inputs: list[Path]) -> list[Path]:
    """Return the files to write; reject another format than PNG, and files that are read."""
    if out.suffix.lower() != ".png":
        raise FssError(f"--out {out} does not end in .png, but PNG files are written. Give for example {out.stem}.png.")
    written = [out, out.with_name(f"{out.stem}-mask.png"), out.with_name(f"{out.stem}-probability.png")]
    read = {file.resolve() for file in inputs}
    for path in written:
        if path.resolve() in read:
            raise FssError(f"--out {out} would overwrite {path}, which is read. Give another --out.")
    return written


def _check_device(name: str) -> None:
    """Reject an unavailable device before anything is read."""
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # torch raises both
        raise FssError(
            f"--device {name} cannot be used: {first_line(error)}. Give cpu, or cuda where a GPU is there; fss doctor "
            "shows what this machine has."
        ) from error
