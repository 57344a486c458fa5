"""Where one training step of BAM with SVF and five supports goes: ``python -m benchmarks.bam_step``."""

from __future__ import annotations

import argparse
import copy
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.released_form import as_released
from benchmarks.rows import Row
from benchmarks.training import saved_bytes
from fss.backbones.resnet import ResNet
from fss.finetune.chains.memory import Memory
from fss.finetune.svf import SVF
from fss.methods.bam import BAM
from fss.methods.base_learner import BaseLearner
from fss.model.companion import BaseBranch
from fss.model.segmenter import FewShotSegmenter
from fss.types import Episode

SIZE, SHOT, CLASSES = 241, 5, 16
FORMS = ("released", "balanced")


def build(form: str) -> FewShotSegmenter:
    """Build BAM on a ResNet-50 with random weights.

    Args:
        form: ``released`` (three modules per convolution, the base branch by itself) or a rule of memory.

    Returns:
        The model in training mode.
    """
    torch.manual_seed(0)
    backbone = ResNet(50, dilation="uniform")
    companion = BaseBranch(copy.deepcopy(backbone), BaseLearner(backbone.channels, CLASSES))
    memory: Memory = "plain" if form == "released" else form  # type: ignore[assignment]
    SVF(memory=memory).apply(backbone)
    if form == "released":
        as_released(backbone)
    model = FewShotSegmenter(backbone, BAM(backbone.channels, shot=SHOT), companion)
    if form == "released":
        model._shared = lambda *_: 0  # type: ignore[assignment]  # both branches from the image on
    return model.train()


def episode(size: int) -> Episode:
    """Draw a training episode of noise."""
    draw = torch.Generator().manual_seed(1)
    label = (torch.rand(1, size, size, generator=draw) > 0.7).byte()
    return Episode(
        query=torch.randn(1, 3, size, size, generator=draw),
        query_label=label,
        support_images=torch.randn(1, SHOT, 3, size, size, generator=draw),
        support_labels=label[:, None].expand(1, SHOT, size, size).contiguous(),
        class_id=torch.tensor([1]),
        class_index=torch.tensor([0]),
        index=torch.tensor([0]),
        query_ids=["a"],
        support_ids=[["b"] * SHOT],
        full_labels=[],
        full_base_labels=[],
        extras={"base_label": label, "base_index": torch.tensor([0])},
    )


class Clock:
    """Seconds of named parts; a part does not count what lies in another one within it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._open: list[tuple[str, float]] = []

    def enter(self, name: str) -> None:
        """Begin a part."""
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1][0]] += now - self._open[-1][1]
        self._open.append((name, now))

    def leave(self) -> None:
        """End the newest part."""
        now = time.perf_counter()
        name, begun = self._open.pop()
        self.seconds[name] += now - begun
        if self._open:
            self._open[-1] = (self._open[-1][0], now)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a block."""
        self.enter(name)
        yield
        self.leave()


def watch(model: FewShotSegmenter, clock: Clock) -> None:
    """Time stages, base branch and head of a model."""
    parts: dict[str, nn.Module] = {f"forward, stage {i}": model.backbone.stage(i) for i in range(5)}  # type: ignore[operator]
    assert model.companion is not None
    for index in range(5):
        parts[f"base branch, stage {index}"] = model.companion.backbone.stage(index)
    parts["base branch, classifier"] = model.companion.head
    parts["forward, head"] = model.head
    for name, module in parts.items():
        module.register_forward_pre_hook(lambda m, a, name=name: clock.enter(name))  # type: ignore[misc]
        module.register_forward_hook(lambda m, a, o: clock.leave())


def step(model: FewShotSegmenter, batch: Episode, clock: Clock) -> None:
    """Run a training step without the optimiser."""
    with clock.part("between"):
        output = model.run_episode(batch)
        labels: dict[str, Tensor] = {"query": batch.query_label.long(), "base": batch.extras["base_label"].long()}
        with clock.part("loss"):
            total = model.head.loss(output, labels)["total"]
        with clock.part("backward"):
            total.backward()


def measure(rounds: int, size: int) -> dict[str, dict[str, Any]]:
    """Measure both forms in turns.

    Args:
        rounds: timed steps of each.
        size: of the images.

    Returns:
        form -> ``saved`` bytes and ``seconds`` by part, of the fastest step.
    """
    batch, models, found = episode(size), {form: build(form) for form in FORMS}, {}
    for form, model in models.items():
        found[form] = {"saved": saved_bytes(model, lambda m=model: step(m, batch, Clock())), "seconds": {}}  # type: ignore[misc]
    clocks = {form: Clock() for form in FORMS}
    for form, model in models.items():
        watch(model, clocks[form])
    for _ in range(rounds):
        for form, model in models.items():
            clocks[form].seconds.clear()
            step(model, batch, clocks[form])
            times, best = dict(clocks[form].seconds), found[form]["seconds"]
            if not best or sum(times.values()) < sum(best.values()):
                found[form]["seconds"] = times
    return found


def rows(rounds: int = 2, size: int = SIZE) -> list[Row]:
    """Measure the step as a whole.

    Args:
        rounds: timed steps.
        size: of the images.

    Returns:
        The lines of the table.
    """
    found = measure(rounds, size)
    ours, base = found["balanced"], found["released"]
    title = f"BAM + SVF, 5 shots at {size}, training step"
    ratio = ours["saved"] / base["saved"]
    made = [Row(f"{title}, memory", _mb(ours), _mb(base), ratio, "<= 0.31", ratio <= 0.31)]
    times = [sum(found[form]["seconds"].values()) for form in ("balanced", "released")]
    ratio = times[0] / times[1]
    return [*made, Row(f"{title}, time", f"{times[0]:.2f} s", f"{times[1]:.2f} s", ratio, "<= 0.8", ratio <= 0.8)]


def _mb(one: dict[str, Any]) -> str:
    return f"{one['saved'] / 1e6:.0f} MB"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--size", type=int, default=SIZE)
    given = parser.parse_args()
    result = measure(given.rounds, given.size)
    print("| part | " + " | ".join(result) + " |\n| :-- |" + " --: |" * len(result))
    for part in sorted({p for one in result.values() for p in one["seconds"]}):
        print(f"| {part} | " + " | ".join(f"{one['seconds'].get(part, 0.0):.2f} s" for one in result.values()) + " |")
    print("| all | " + " | ".join(f"{sum(one['seconds'].values()):.2f} s" for one in result.values()) + " |")
    print("| kept for backward | " + " | ".join(_mb(one) for one in result.values()) + " |")
