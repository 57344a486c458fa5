"""Seconds per test episode, each by itself and with a memory: ``python -m benchmarks.testing``.

Without a GPU they are seconds of the processor, so that other programs do not count. There are about as many episodes
per image as in 1000 episodes on a fold of PASCAL (364 to 592 images); more episodes gain more. The seconds hold
everything from the files to the scores in one process; ``--profile`` says where they go, and what would be left if
every feature map were made once but nothing were narrowed: each image through stages 0 to 3, each query and each
masked support through stage 4, and the head once per episode.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.rows import Row
from benchmarks.spent import HEAD, PARTS, Spent
from fss.backbones.resnet import ResNet
from fss.data.datamodule import FewShotDataModule
from fss.data.episodes.options import EpisodeOptions, IndexOptions
from fss.data.options import LoaderOptions, TransformOptions
from fss.data.shapes.write import write_shapes
from fss.data.sources.base import SegmentationSource
from fss.data.sources.shapes import ShapesSource
from fss.finetune.chains.merged_copy import merged_copy
from fss.finetune.svf import SVF
from fss.lit.episodic import EpisodicModule
from fss.lit.optim import Recipe
from fss.methods.baseline import Baseline
from fss.model.segmenter import FewShotSegmenter

MIN_AREA = 150  # as conf/data/shapes.yaml: the images are small
TARGETS = {1: 3.0, 5: 8.0}


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        size: side of the network's input.
        images: scenes drawn; half of them hold a novel class, and 80 are enough for five supports of each.
        episodes: test episodes with the feature cache.
        plain: how many of them, the first ones, are measured one by one too.
        batch: episodes per call of the head.
        megabytes: limit of the feature cache.
        strategy: fine-tune strategy injected before: freeze, or svf, whose plain run composes its weights every time.
    """

    size: int = 129
    images: int = 80
    episodes: int = 100
    plain: int = 4
    batch: int = 4
    megabytes: int = 4096
    strategy: str = "freeze"


@dataclass(frozen=True)
class Measured:
    """Outcome for one number of supports.

    Attributes:
        shot: supports per episode.
        images: distinct images of all episodes.
        queries: distinct queries.
        supports: distinct pairs of support and class.
        plain: seconds per episode, each by itself.
        cached: seconds per episode with the feature cache.
        differing: episodes, of those computed both ways, whose intersections or unions differ.
        compared: number of episodes computed both ways.
        largest: greatest difference of a count, in pixels.
        parts: way -> part -> seconds per episode; empty unless asked for.
    """

    shot: int
    images: int
    queries: int
    supports: int
    plain: float
    cached: float
    differing: int
    compared: int
    largest: int
    parts: dict[str, dict[str, float]]

    def floor(self, episodes: int) -> float:
        """Return seconds per episode if every map were made once, from the parts of the plain way.

        Args:
            episodes: number of test episodes.
        """
        plain, passed = self.parts["plain"], 1 + self.shot
        early, late = self.images / episodes, (self.queries + self.supports) / episodes
        return plain["stages 0 to 3"] * early / passed + plain["stage 4"] * late / passed + plain[HEAD]

    @property
    def ratio(self) -> float:
        """How many times faster."""
        return self.plain / self.cached


def measure(shot: int, source: SegmentationSource, settings: Settings, profile: bool = False) -> Measured:
    """Test a ResNet-50 with random weights both ways, loading included.

    Args:
        shot: supports per episode.
        source: the data set.
        settings: sizes.
        profile: measure the parts too.

    Returns:
        Seconds per episode, and how many differ.
    """
    episodes = EpisodeOptions(test_episodes=settings.episodes)
    tested = _module(settings.strategy)
    spent = Spent(_clock(tested, profile))
    if profile:
        spent.watch(tested.model)
    rows, seconds, parts = {}, {}, {}
    for way in ("plain", "cached"):
        plain = way == "plain"
        loader = LoaderOptions(test_batch_size=1 if plain else settings.batch, workers=0, group_by_image=not plain)
        data = FewShotDataModule(
            source,
            tested.model.input,
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
        copy = None if plain or profile else merged_copy(tested.model.backbone)
        tested.model.cache_features(None if plain else settings.megabytes * 2**20, copy)
        seconds[way], rows[way] = _run(tested, spent.loading(batches), spent.clock)
        parts[way] = spent.shares(seconds[way], len(rows[way])) if profile else {}
    drawn = [data.streams.test.draw(0, i) for i in range(settings.episodes)]
    both = rows["cached"][rows["plain"][:, 0]]
    return Measured(
        shot,
        len({name for d in drawn for name in (d.query, *d.supports)}),
        len({d.query for d in drawn}),
        len({(name, d.class_id) for d in drawn for name in d.supports}),
        seconds["plain"] / len(rows["plain"]),
        seconds["cached"] / len(rows["cached"]),
        int((both != rows["plain"]).any(dim=1).sum()),
        len(both),
        int((both - rows["plain"]).abs().max()),
        parts if profile else {},
    )


def all_measured(settings: Settings, shots: Sequence[int] = tuple(TARGETS), profile: bool = False) -> list[Measured]:
    """Draw a data set into a temporary folder and measure one and five supports.

    Args:
        settings: sizes.
        shots: numbers of supports.
        profile: measure the parts too.
    """
    with TemporaryDirectory() as folder, redirect_stdout(sys.stderr):  # progress bars
        os.environ.setdefault("FSS_CACHE", str(Path(folder) / "cache"))
        root = Path(folder) / "shapes"
        write_shapes(root, 0, train=1, val=settings.images, pretrain_per_class=1, workers=1)
        return [measure(shot, ShapesSource(root), settings, profile) for shot in shots]


def rows() -> list[Row]:
    """Measure with the default settings, for the table of all measurements."""
    return [_row(m, Settings()) for m in all_measured(Settings())]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--profile", action="store_true", help="say where the seconds go (freeze only)")
    parser.add_argument("--shots", type=int, nargs="+", choices=sorted(TARGETS), default=sorted(TARGETS))
    parser.add_argument("--strategy", choices=["freeze", "svf"], default="freeze")
    for name, value in asdict(Settings()).items():
        if name != "strategy":
            parser.add_argument(f"--{name}", type=int, default=value)
    given = vars(parser.parse_args())
    as_json, profile, shots = (given.pop(name) for name in ("json", "profile", "shots"))
    if profile and given["strategy"] != "freeze":
        parser.error("--profile looks into the model's own layers: leave out --strategy svf")
    settings = Settings(**given)
    found = all_measured(settings, shots, profile)
    if as_json:
        print(json.dumps({**given, "measured": [{**asdict(m), "ratio": m.ratio} for m in found]}, indent=2))
        return
    for m in found:
        row = _row(m, settings)
        print(f"{row.name}: {row.ours} against {row.reference}: {row.ratio:.2f} times faster (target {row.target})")
        for part in PARTS if profile else ():
            before, after = (m.parts[way][part] for way in ("plain", "cached"))
            print(f"  {part:20s} {before:8.4f} s, cached {after:8.4f} s")
        if profile:
            floor = m.floor(settings.episodes)
            print(f"  every map once, nothing narrowed: {floor:.3f} s, {m.plain / floor:.2f} times faster")


def _row(found: Measured, settings: Settings) -> Row:
    name = (
        f"testing, {found.shot}-shot, {settings.size}^2: {settings.episodes} episodes of {found.images} images; "
        f"{found.differing} of {found.compared} differ" + (f" by at most {found.largest} px" if found.differing else "")
    )
    target = TARGETS[found.shot]
    return Row(
        name,
        f"{found.cached:.3f} s per episode",
        f"{found.plain:.3f} s, one by one",
        found.ratio,
        f">= {target:g}",
        found.ratio >= target and found.differing == 0,
    )


def _module(strategy: str = "freeze") -> EpisodicModule:
    torch.manual_seed(0)
    backbone = ResNet(50)
    for norm in (m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)):
        assert norm.running_var is not None
        norm.running_var.uniform_(0.5, 2.0)
    if strategy == "svf":
        SVF().apply(backbone)
    model = FewShotSegmenter(backbone, Baseline(backbone.channels))
    names = [str(i) for i in range(20)]
    recipe = Recipe(optimizer=partial(torch.optim.SGD, lr=0.1))
    module = EpisodicModule(model, recipe, names, names, names).eval()
    return module.cuda() if torch.cuda.is_available() else module


@torch.inference_mode()
def _run(module: EpisodicModule, batches: Iterable[Any], clock: Callable[[], float]) -> tuple[float, Tensor]:
    """Test; return seconds and index, class, intersections and unions of each episode."""
    begun = clock()
    for number, batch in enumerate(batches):
        module.test_step(module.transfer_batch_to_device(batch, module.device, 0), number)
    metric = module.scores["test_iou"]
    table: Tensor = metric.table()  # type: ignore[operator]  # waits for the device
    seconds = clock() - begun
    metric.reset()  # type: ignore[operator]
    return seconds, table


def _clock(module: EpisodicModule, wait: bool) -> Callable[[], float]:
    """Return processor time, or on a GPU time by the clock, which waits for the device if single parts count."""
    if module.device.type != "cuda":
        return time.process_time

    def waited() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return waited if wait else time.perf_counter


if __name__ == "__main__":
    main()
