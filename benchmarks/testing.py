"""Seconds per test episode, each by itself and with remembered features: ``python -m benchmarks.testing``.

Without a GPU they are seconds of the processor, so that other programs do not count. There are about as many episodes
per picture as in 1000 episodes on a fold of PASCAL (364 to 592 pictures); more episodes gain more.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from benchmarks.rows import Row
from fss.backbones.resnet import ResNet
from fss.data.datamodule import FewShotDataModule
from fss.data.options import EpisodeOptions, IndexOptions, LoaderOptions, TransformOptions
from fss.data.shapes import write_shapes
from fss.data.source import SegmentationSource
from fss.data.voc import ShapesSource
from fss.lit.episodic import EpisodicModule
from fss.lit.optim import Recipe
from fss.methods.baseline import Baseline
from fss.methods.segmenter import FewShotSegmenter

MIN_AREA = 150  # as conf/data/shapes.yaml: the pictures are small
TARGETS = {1: 3.0, 5: 8.0}


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        size: side of the network's input.
        pictures: scenes drawn; half of them hold a novel class, and 80 are enough for five supports of each.
        episodes: test episodes with remembered features.
        plain: how many of them, the first ones, are measured one by one too.
        batch: episodes per call of the head.
        megabytes: limit of what is remembered.
    """

    size: int = 129
    pictures: int = 80
    episodes: int = 100
    plain: int = 4
    batch: int = 4
    megabytes: int = 4096


@dataclass(frozen=True)
class Measured:
    """Outcome for one number of supports.

    Attributes:
        shot: supports per episode.
        pictures: distinct pictures of all episodes.
        plain: seconds per episode, each by itself.
        remembered: seconds per episode with remembered features.
        differing: episodes, of those computed both ways, whose intersections or unions differ.
        compared: number of episodes computed both ways.
    """

    shot: int
    pictures: int
    plain: float
    remembered: float
    differing: int
    compared: int

    @property
    def ratio(self) -> float:
        """How many times faster."""
        return self.plain / self.remembered


def measure(shot: int, source: SegmentationSource, settings: Settings) -> Measured:
    """Test a ResNet-50 with random weights both ways, loading included.

    Args:
        shot: supports per episode.
        source: the data set.
        settings: sizes.

    Returns:
        Seconds per episode, and how many differ.
    """
    episodes = EpisodeOptions(test_episodes=settings.episodes)
    tested = _module()
    rows = {}
    seconds = {}
    for way in ("plain", "remembered"):
        plain = way == "plain"
        loader = LoaderOptions(test_batch_size=1 if plain else settings.batch, workers=0, by_picture=not plain)
        data = FewShotDataModule(
            source,
            0,
            shot,
            transforms=TransformOptions(size=settings.size),
            index=IndexOptions(min_area=MIN_AREA),
            episodes=episodes,
            loader=loader,
        )
        data.setup("test")
        batches: Iterable[object] = data.test_dataloader()
        if plain:
            batches = islice(batches, settings.plain)
        tested.model.remember(None if plain else settings.megabytes * 2**20)
        seconds[way], rows[way] = _run(tested, batches)
    drawn = [data.streams.test.draw(0, i) for i in range(settings.episodes)]
    both = rows["remembered"][rows["plain"][:, 0]]
    return Measured(
        shot,
        len({name for d in drawn for name in (d.query, *d.supports)}),
        seconds["plain"] / len(rows["plain"]),
        seconds["remembered"] / len(rows["remembered"]),
        int((both != rows["plain"]).any(dim=1).sum()),
        len(both),
    )


def all_measured(settings: Settings) -> list[Measured]:
    """Draw a data set into a temporary folder and measure one and five supports.

    Args:
        settings: sizes.
    """
    with TemporaryDirectory() as folder, redirect_stdout(sys.stderr):  # progress bars
        os.environ.setdefault("FSS_CACHE", str(Path(folder) / "cache"))
        root = Path(folder) / "shapes"
        write_shapes(root, 0, train=1, val=settings.pictures, pretrain_per_class=1, workers=1)
        return [measure(shot, ShapesSource(root), settings) for shot in TARGETS]


def rows() -> list[Row]:
    """Measure with the default settings, for the table of all measurements."""
    return [_row(m, Settings()) for m in all_measured(Settings())]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    for name, value in asdict(Settings()).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    given = vars(parser.parse_args())
    as_json = given.pop("json")
    settings = Settings(**given)
    found = all_measured(settings)
    if as_json:
        print(json.dumps({**given, "measured": [{**asdict(m), "ratio": m.ratio} for m in found]}, indent=2))
        return
    for m in found:
        row = _row(m, settings)
        print(f"{row.name}: {row.ours} against {row.reference}: {row.ratio:.2f} times faster (target {row.target})")


def _row(found: Measured, settings: Settings) -> Row:
    name = (
        f"testing, {found.shot}-shot, {settings.size}^2: {settings.episodes} episodes of {found.pictures} pictures; "
        f"{found.differing} of {found.compared} differ"
    )
    target = TARGETS[found.shot]
    return Row(
        name,
        f"{found.remembered:.3f} s per episode",
        f"{found.plain:.3f} s, one by one",
        found.ratio,
        f">= {target:g}",
        found.ratio >= target and found.differing == 0,
    )


def _module() -> EpisodicModule:
    torch.manual_seed(0)
    backbone = ResNet(50)
    for norm in (m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)):
        assert norm.running_var is not None
        norm.running_var.uniform_(0.5, 2.0)
    model = FewShotSegmenter(backbone, Baseline(backbone.channels))
    names = [str(i) for i in range(20)]
    recipe = Recipe(optimizer=partial(torch.optim.SGD, lr=0.1))
    module = EpisodicModule(model, recipe, names, names, names).eval()
    return module.cuda() if torch.cuda.is_available() else module


@torch.inference_mode()
def _run(module: EpisodicModule, batches: Iterable[object]) -> tuple[float, Tensor]:
    """Test; return seconds and index, class, intersections and unions of each episode."""
    clock = time.perf_counter if module.device.type == "cuda" else time.process_time
    begun = clock()
    for number, batch in enumerate(batches):
        module.test_step(module.transfer_batch_to_device(batch, module.device, 0), number)
    metric = module.scores["test_iou"]
    table: Tensor = metric.table()  # type: ignore[operator]  # waits for the device
    seconds = clock() - begun
    metric.reset()  # type: ignore[operator]
    return seconds, table


if __name__ == "__main__":
    main()
