"""Every head frozen and with SVF, and its lean form against the plain one: ``python -m benchmarks.heads``.

A step is forward and backward pass of one episode through a backbone with random weights, a ResNet-50 unless others
are named; a test episode is one forward pass without a feature cache. Forms that are compared run in turns in this
process, so that a busy machine slows both, and their scores and gradients are first found equal to 1e-10 in double
precision on a small network.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.__main__ import machine
from benchmarks.training import saved_bytes
from fss.config.compose import composed, heads
from fss.files import atomic
from fss.lit.callbacks.finetuning import leave_out_later_stages
from fss.model.build import build_model, build_strategy
from fss.model.segmenter import FewShotSegmenter
from fss.types import Episode

STRATEGIES = ("freeze", "svf")
LEAN = {"lean": True, "query_chunk": 256}
"""Options that trade time for memory, with the values that are measured."""
EQUAL = 1e-10
BACKBONE = "resnet50"
BASE = 15
"""Base classes of a fold of PASCAL."""
Clock = Callable[[], float]


@dataclass(frozen=True)
class Cell:
    """A choice of ``method``, of ``backbone`` and of ``finetune``."""

    head: str
    backbone: str
    strategy: str


@dataclass
class Cost:
    """What a model costs.

    Attributes:
        kept: bytes kept for the backward pass.
        steps: seconds of each step.
        tests: seconds of each test episode.
    """

    kept: int
    steps: list[float]
    tests: list[float]


def lean_options(head: str) -> dict[str, Any]:
    """Return the options that make a head lean; none if it has no such form.

    Args:
        head: choice of ``method``.
    """
    own = composed([f"method={head}"])["method"]
    return {name: value for name, value in LEAN.items() if name in own}


def build(
    head: str, strategy: str, options: Mapping[str, Any], shot: int, small: bool, backbone: str = BACKBONE
) -> FewShotSegmenter:
    """Build a model with random weights, the same ones for the same arguments.

    Args:
        head: choice of ``method``.
        strategy: choice of ``finetune``.
        options: of the head.
        shot: supports per episode.
        small: a narrow network without dropout instead of the whole one.
        backbone: choice of ``backbone``.

    Returns:
        The model in training mode, without its base learner's values if it has one.
    """
    words = [f"method={head}", f"finetune={strategy}", f"backbone={backbone}", "backbone.weights=none", f"shot={shot}"]
    config = composed([*words, *(["++backbone.width=8", "method.width=8"] if small else [])])
    method = config["method"] | dict(options)
    if small:
        method |= {name: 0.0 for name in method if name.endswith("dropout")}
    if "base_learner" in method:
        learner = {"_target_": "fss.methods.base_learner.BaseLearner", **({"width": 8} if small else {})}
        method["base_learner"] = {"built": {"classes": BASE + 1, "method": learner, "backbone": config["backbone"]}}
    torch.manual_seed(0)
    model = build_model(config | {"method": method}, pretrained=False)
    report = build_strategy(config["finetune"]).apply(model.backbone)
    leave_out_later_stages(model, report)
    return model.train()


def drawn(shot: int, size: int, dtype: torch.dtype = torch.float32) -> Episode:
    """Draw one episode whose object fills a quarter of each image.

    Args:
        shot: supports.
        size: side of the images.
        dtype: of the images.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(1 + shot, 3, size, size, generator=generator, dtype=dtype)
    label = torch.zeros(1, size, size, dtype=torch.uint8)
    label[:, size // 4 : 3 * size // 4, size // 4 : 3 * size // 4] = 1
    empty = torch.zeros_like(label)
    return Episode(
        query=images[:1],
        query_label=label,
        support_images=images[None, 1:],
        support_labels=label.expand(1, shot, size, size).clone(),
        class_id=torch.tensor([1]),
        class_index=torch.tensor([0]),
        index=torch.tensor([0]),
        query_ids=["query"],
        support_ids=[[f"support{k}" for k in range(shot)]],
        extras={"base_label": empty, "base_index": torch.tensor([0]), "query_padding": empty},
    )


def loss(model: FewShotSegmenter, episode: Episode) -> Tensor:
    """Run the forward pass of a training step.

    Args:
        model: in training mode.
        episode: a batch.
    """
    labels = {
        "query": episode.query_label,
        "support": episode.support_labels.flatten(0, 1),
        "base": episode.extras["base_label"],
    }
    total: Tensor = model.head.loss(model.run_episode(episode), labels)["total"]
    return total


def check_equal(head: str, options: Mapping[str, Any], shot: int) -> None:
    """Make sure that a head's forms have the same scores and gradients.

    Args:
        head: choice of ``method``.
        options: of the lean form; parts of 256 positions are made smaller for the small network.
        shot: supports per episode.

    Raises:
        AssertionError: if they differ by more than 1e-10 of the largest value.
    """
    small = {
        name: 7 if isinstance(value, int) and not isinstance(value, bool) else value for name, value in options.items()
    }
    episode, found = drawn(shot, 65, torch.float64), []
    for own in ({}, small):
        model = build(head, "svf", own, shot, small=True).double()
        torch.manual_seed(1)
        loss(model, episode).backward()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        with torch.no_grad():
            output = model.eval().run_episode(episode)
        found.append({**gradients, **{f"scores {i}": o.logits for i, o in enumerate((output, *output.shots))}})
    plain, lean = found
    assert plain.keys() == lean.keys()
    for name, value in plain.items():
        difference = float((lean[name] - value).abs().max())
        assert difference <= EQUAL * max(1.0, float(value.abs().max())), f"{head} {name}: {difference}"


def measure(
    cell: Cell, forms: Mapping[str, Mapping[str, Any]], shot: int, size: int, rounds: int, clock: Clock
) -> dict[str, Cost]:
    """Measure the forms of a head in turns.

    Args:
        cell: what is measured.
        forms: name -> options.
        shot: supports per episode.
        size: side of the images, or the nearest that the backbone takes.
        rounds: timed steps and tests of each form, after one that is not counted.
        clock: says the time.

    Returns:
        Name of the form -> its cost.
    """
    models = {
        name: build(cell.head, cell.strategy, options, shot, small=False, backbone=cell.backbone)
        for name, options in forms.items()
    }
    episode = drawn(shot, next(iter(models.values())).backbone.input.nearest(size))
    costs = {}
    for name, model in models.items():
        loss(model, episode).backward()  # blocks find out how they can be run
        costs[name] = Cost(saved_bytes(model, lambda model=model: loss(model, episode)), [], [])
    for _ in range(rounds):
        for name, model in models.items():
            begun = clock()
            loss(model.train(), episode).backward()
            costs[name].steps.append(clock() - begun)
        for name, model in models.items():
            model.eval()
            begun = clock()
            with torch.inference_mode():
                model.run_episode(episode)
            costs[name].tests.append(clock() - begun)
    return costs


def header(named: bool) -> str:
    """Return the head of the table.

    Args:
        named: whether lines name the backbone.
    """
    columns = ["head", *(["backbone"] if named else []), "strategy", "form"]
    figures = ["step", "kept for the backward pass", "test episode", "step : plain", "kept : plain"]
    rule = [":--"] * len(columns) + ["--:"] * len(figures)
    return f"| {' | '.join(columns + figures)} |\n| {' | '.join(rule)} |"


def lines(cells: list[Cell], named: bool, shot: int, size: int, rounds: int, clock: Clock) -> Iterator[str]:
    """Measure and yield the lines of the table.

    Args:
        cells: what is measured.
        named: whether lines name the backbone.
        shot: supports per episode.
        size: side of the images.
        rounds: timed steps of each form.
        clock: says the time.
    """
    checked: set[str] = set()
    for cell in cells:
        options = lean_options(cell.head)
        forms: dict[str, dict[str, Any]] = {"plain": {}}
        if options:
            if cell.head not in checked:
                check_equal(cell.head, options, shot)
                checked.add(cell.head)
            forms["lean: " + ", ".join(f"{name}={str(value).lower()}" for name, value in options.items())] = options
        costs = measure(cell, forms, shot, size, rounds, clock)
        plain = costs["plain"]
        for name, cost in costs.items():
            ratios = ["", ""]
            if cost is not plain:
                pace = median(a / b for a, b in zip(cost.steps, plain.steps, strict=True))
                ratios = [f"{pace:.2f}", f"{cost.kept / plain.kept:.2f}"]
            figures = [f"{median(cost.steps):.2f} s", f"{cost.kept / 2**20:.0f} MiB", f"{median(cost.tests):.2f} s"]
            place = [cell.backbone] if named else []
            yield f"| {' | '.join([cell.head, *place, cell.strategy, name, *figures, *ratios])} |"


def main() -> None:
    """Print the table, and keep it where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("heads", nargs="*", default=[], help="which ones; none: all")
    parser.add_argument("--backbone", nargs="+", default=[BACKBONE], metavar="NAME", help=f"{BACKBONE} without it")
    parser.add_argument(
        "--strategy", nargs="+", default=list(STRATEGIES), metavar="NAME", help="freeze and svf without"
    )
    parser.add_argument("--size", type=int, default=241, help="side of the images")
    parser.add_argument("--shot", type=int, default=1, help="supports per episode")
    parser.add_argument("--rounds", type=int, default=3, help="timed steps of each form")
    parser.add_argument("--cpu-time", action="store_true", help="seconds of the processor, for a machine that is busy")
    parser.add_argument("--write", type=Path, metavar="FILE", help="Markdown file for the finished table")
    given = parser.parse_args()
    torch.set_num_threads(1)
    named = len(given.backbone) > 1
    kind = "seconds of one core" if given.cpu_time else "wall time on one thread"
    text = [
        f"One episode of {given.shot} support(s) and images of {given.size} pixels or the nearest allowed side, "
        f"{', '.join(given.backbone)}, {kind}, median of {given.rounds}, on {machine()}. Lean forms equal the plain "
        f"ones to {EQUAL:.0e} in double precision, gradients included.",
        "",
        *header(named).splitlines(),
    ]
    print("\n".join(text), flush=True)
    clock = time.process_time if given.cpu_time else time.perf_counter
    wanted = itertools.product(given.heads or heads(), given.backbone, given.strategy)
    for line in lines([Cell(*each) for each in wanted], named, given.shot, given.size, given.rounds, clock):
        text.append(line)
        print(line, flush=True)
    if given.write is not None:
        with atomic(given.write) as file:
            title = "Heads on backbones" if named else "Heads"
            file.write("\n".join([f"# {title}\n\nWritten by `python -m benchmarks.heads`.", *text, ""]).encode())


if __name__ == "__main__":
    main()
