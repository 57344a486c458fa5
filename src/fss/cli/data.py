"""``fss data``: index, episode lists and the drawn data set. Heavy imports happen inside the commands."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fss.config.compose import choices
from fss.config.error_texts import explained
from fss.errors import FssError

if TYPE_CHECKING:
    from fss.data.sources.base import SegmentationSource

app = typer.Typer(help="Prepare data sets, index them, and list episodes.", no_args_is_help=True, rich_markup_mode=None)


class ListName(str, Enum):  # noqa: UP042  # typer shows the values
    """Image lists."""

    train = "train"
    val = "val"


class StreamName(str, Enum):  # noqa: UP042
    """Streams of episodes."""

    train = "train"
    val = "val"
    test = "test"


class NovelRule(str, Enum):  # noqa: UP042
    """What happens to training images that hold novel classes."""

    drop = "drop"
    keep = "keep"


class SmallRule(str, Enum):  # noqa: UP042
    """What happens to classes with fewer than shot + 1 images."""

    error = "error"
    drop = "drop"


class ObjectSize(str, Enum):  # noqa: UP042
    """Sizes of drawn objects."""

    small = "small"
    large = "large"


class SamplerName(str, Enum):  # noqa: UP042
    """Rules by which episodes are drawn."""

    stateless = "stateless"
    release = "release"


class Scheme(str, Enum):  # noqa: UP042
    """Class splits of COCO-20i."""

    fwb = "fwb"
    panet = "panet"


_OF_MANIFEST = ("year", "mask_rule")
"""Arguments of readers that fss.json of a prepared data set tells."""

Data = Annotated[str, typer.Argument(help=f"Data set: {', '.join(choices('data'))}.")]
Fold = Annotated[int, typer.Option(help="Fold, from 0.")]
Novel = Annotated[NovelRule, typer.Option(help="Training images with novel pixels: leave out or keep.")]
Root = Annotated[Path | None, typer.Option(help="Folder of a prepared data set.")]
Masks = Annotated[Path | None, typer.Option(help="Folder of masks ID.png, with --ids instead of --root.")]
Ids = Annotated[Path | None, typer.Option(help="Text file of image ids, with --masks.")]
Out = Annotated[Path, typer.Option(help="JSON file to write.")]
MinArea = Annotated[int | None, typer.Option(help="Least pixels of a class; default as in conf/data.")]
CocoSplit = Annotated[Scheme, typer.Option(help="Which classes a COCO fold holds out.")]


@app.command()
def index(
    data: Data,
    out: Out,
    fold: Fold = 0,
    split: Annotated[ListName, typer.Option(help="Image list and its classes: base or novel.")] = ListName.train,
    novel_images: Novel = NovelRule.drop,
    root: Root = None,
    masks: Masks = None,
    ids: Ids = None,
    min_area: MinArea = None,
    scheme: CocoSplit = Scheme.fwb,
) -> None:
    """Write which images take part and which hold each class."""
    with _explained():
        from fss.data.episodes.options import IndexOptions
        from fss.data.episodes.streams import EpisodeStreams

        source, least = _source(data, root, masks, ids, scheme)
        options = IndexOptions(novel_images.value, least if min_area is None else min_area)
        streams = EpisodeStreams(source, fold, index=options)
        training = split is ListName.train
        relevant = streams.classes.base if training else streams.classes.novel
        forbidden = streams.classes.novel if training and novel_images is NovelRule.drop else ()
        found = streams.raw_index(split.value, relevant, forbidden)
        content = {
            "data": data,
            "fold": fold,
            "split": split.value,
            "novel_images": novel_images.value,
            "images": list(found.images),
            "per_class": {str(c): list(images) for c, images in found.per_class.items()},
        }
        _write_json(out, content)
    typer.echo(f"{len(found.images)} images, {len(found.class_ids)} classes -> {out}")


@app.command()
def episodes(
    data: Data,
    out: Out,
    fold: Fold = 0,
    shot: Annotated[int, typer.Option(help="Supports per episode.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the stream.")] = 321,
    count: Annotated[int, typer.Option(help="Number of episodes.", min=1)] = 1000,
    split: Annotated[
        StreamName, typer.Option(help="test: novel classes; val: base classes of the validation list; train: epoch 0.")
    ] = StreamName.test,
    novel_images: Novel = NovelRule.drop,
    root: Root = None,
    masks: Masks = None,
    ids: Ids = None,
    min_area: MinArea = None,
    small_classes: Annotated[SmallRule, typer.Option(help="Classes with too few images.")] = SmallRule.error,
    scheme: CocoSplit = Scheme.fwb,
    sampler: Annotated[
        SamplerName, typer.Option(help="release: as 8 loader processes of SVF and BAM draw them; split test only.")
    ] = SamplerName.stateless,
) -> None:
    """Write a list of episodes that can be replayed with data.episodes=FILE."""
    with _explained():
        from fss.data.episodes.lists import EpisodeList, episodes_hash, record
        from fss.data.episodes.options import EpisodeOptions, IndexOptions
        from fss.data.episodes.streams import EpisodeStreams

        _check_sampler(sampler, split)
        source, least = _source(data, root, masks, ids, scheme)
        options = IndexOptions(novel_images.value, least if min_area is None else min_area, small_classes.value)
        tests = EpisodeOptions("base", count, test_seed=seed, sampler=sampler.value)
        streams = EpisodeStreams(source, fold, shot, seed, options, tests)
        chosen = {"train": lambda: streams.train, "val": lambda: streams.val, "test": lambda: streams.test}
        stream = chosen[split.value]()
        drawn = record(stream, count)
        EpisodeList(data, fold, shot, split.value, seed, stream.sampler, drawn).save(out)
    typer.echo(f"{len(drawn)} episodes, hash {episodes_hash(drawn)[:16]} -> {out}")


@app.command()
def shapes(
    root: Annotated[Path, typer.Option(help="Folder to write.")] = Path("data/shapes"),
    seed: Annotated[int, typer.Option(help="Seed of all images.", min=0)] = 0,
    train: Annotated[int, typer.Option(help="Training scenes.", min=1)] = 1600,
    val: Annotated[int, typer.Option(help="Validation scenes.", min=1)] = 500,
    pretrain_per_class: Annotated[int, typer.Option(help="Single objects per pre-training class.", min=1)] = 150,
    objects: Annotated[ObjectSize, typer.Option(help="Size of the objects.")] = ObjectSize.small,
) -> None:
    """Draw the embedded data set; does nothing if it is there already."""
    with _explained():
        from fss.data.shapes.write import write_shapes

        write_shapes(root, seed, train=train, val=val, pretrain_per_class=pretrain_per_class, objects=objects.value)
    typer.echo(f"shapes (seed {seed}) -> {root}")


def _source(
    data: str, root: Path | None, masks: Path | None, ids: Path | None, scheme: Scheme
) -> tuple[SegmentationSource, int]:
    """Build the reader that conf/data names, for the given files; with it the least pixels of a class."""
    from fss.config.compose import composed
    from fss.config.source import build_source
    from fss.errors import DataError

    if (masks is None) != (ids is None) or (masks is None) == (root is None):
        raise DataError(
            "Say where the masks are: either --root R for a prepared data set, or both --masks DIR and --ids FILE."
        )
    if data not in choices("data"):
        raise FssError(f"data={data} does not exist: choose of {', '.join(choices('data'))}.")
    node = composed([f"data={data}"])["data"]
    reader = {k: v for k, v in node["source"].items() if k not in _OF_MANIFEST}
    reader["root"] = root if root is not None else Path(masks or ".").parent
    if masks is not None:
        reader |= {"train_list": ids, "val_list": ids, "masks": masks}
    if "scheme" in reader:
        reader["scheme"] = scheme.value
    return build_source({"source": reader}), node["min_area"]


def _check_sampler(sampler: SamplerName, split: StreamName) -> None:
    from fss.errors import DataError

    if sampler is SamplerName.release and split is not StreamName.test:
        raise DataError(
            f"--sampler release with --split {split.value} is not possible: the releases' rule is known for novel "
            "classes only. Use --split test, or --sampler stateless, which draws training and base validation."
        )


def _write_json(path: Path, content: object) -> None:
    from fss.data.reading.derived_files import write_atomic

    write_atomic(path, json.dumps(content) + "\n")


@contextmanager
def _explained() -> Iterator[None]:
    """Turn wrong input and files that cannot be written into one paragraph and exit code 2."""
    try:
        yield
    except (FssError, OSError) as error:
        text = explained(error)
        if text is None:
            raise
        sys.stderr.write(f"Error: {text}\n")
        raise typer.Exit(2) from error
