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
    from fss.data.user_images import png, read_own_image, read_own_mask

    _check_device(device)
    photo = read_own_image(query)  # read before the model is built, to fail early on a wrong file name
    pairs = [tuple(Path(name) for name in word.split(_SEPARATOR)) for word in support]
    supports = [(read_own_image(image), read_own_mask(mask, value)) for image, mask in pairs]

    from fss.files import atomic
    from fss.predictor import Predictor
    from fss.reports.overlay import overlay

    found = Predictor.load(ckpt, device, trust or ())(photo, supports)
    images = {
        out: overlay(photo, found.mask),
        out.with_name(f"{out.stem}-mask.png"): 255 * found.mask,
        out.with_name(f"{out.stem}-probability.png"): (255 * found.probability).round().astype("uint8"),
    }
    for path, pixels in images.items():
        try:
            with atomic(path) as file:
                file.write(png(pixels))
        except OSError as error:
            raise FssError(f"Cannot write {path}: {error.strerror or error}. Give another --out.") from error
    share = 100 * float(found.mask.mean())
    typer.echo(f"The object covers {share:.1f} % of {query}: {', '.join(str(p) for p in images)}")


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
