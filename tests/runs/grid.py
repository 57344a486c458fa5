"""Every method with every backbone, shot and strategy through train.py: ``python -m tests.runs.grid`` prints the table.

Real depth, few channels, small images: it shows that everything runs, and costs relative to each other. BAM's base
learners are trained on the way, one per backbone.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from tests.programs import call

from fss.data.shapes.write import write_shapes

SMALL = (
    "data=shapes", "++backbone.width=8", "backbone.weights=none", "method.width=16", "data.size=65",
    "data.base.size=65", "data.epochs=1", "data.base.epochs=1", "trainer.limit_train_batches=4", "data.test_episodes=6",
    "data.val_episodes=4", "recipe.batch_size=2", "workers=0", "trainer=cpu", "trainer.enable_progress_bar=false",
    "logger=none", "previews=0", "checkpoint_minutes=0",
)  # fmt: skip
BASE_LEARNER = 'method.base_learner.overrides=["method.width=16","recipe.batch_size=4"]'
SHOTS, STRATEGIES = (1, 5), ("freeze", "svf", "full")
METHODS = {
    "resnet50": ("baseline", "pfenet", "bam"),
    "vgg16": ("baseline", "pfenet", "bam"),
    "resnet101": ("pfenet", "bam"),
}
HEADER = "| method | backbone | K | strategy | trainable | ms/step | backward memory | mIoU |"


@dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        method: the head.
        backbone: with its real depth.
        shot: supports.
        strategy: fine-tune strategy.
    """

    method: str
    backbone: str
    shot: int
    strategy: str


def cells() -> Iterator[Cell]:
    """Yield all runs, those of one backbone together."""
    for backbone, methods in METHODS.items():
        for method, shot, strategy in product(methods, SHOTS, STRATEGIES):
            yield Cell(method, backbone, shot, strategy)


def run(home: Path, cell: Cell) -> dict[str, Any]:
    """Train, validate and test one cell.

    Args:
        home: working directory with ``data/shapes``.
        cell: what to run.

    Returns:
        Its result file.

    Raises:
        RuntimeError: if the program fails.
    """
    options = [f"method={cell.method}", f"backbone={cell.backbone}", f"shot={cell.shot}", f"finetune={cell.strategy}"]
    code, text = call(home, "train.py", *SMALL, *options, *([BASE_LEARNER] if cell.method == "bam" else []))
    if code:
        raise RuntimeError(f"{cell}: {text}")
    pattern = f"{cell.method}-{cell.backbone}-{cell.strategy}-shapes0-{cell.shot}shot-*/result.json"
    (path,) = (home / "multirun/runs").glob(pattern)
    content = json.loads(path.read_text())
    assert isinstance(content, dict)
    return content


def row(cell: Cell, result: dict[str, Any]) -> str:
    """Return a line of the table.

    Args:
        cell: what was run.
        result: its result file.
    """
    parameters, cost = result["parameters"], result["cost"]
    trainable = parameters["backbone_trainable"] + parameters["head_trainable"]
    return (
        f"| {cell.method} | {cell.backbone} | {cell.shot} | {cell.strategy} | {trainable:,} | {cost['step_ms']:.0f} | "
        f"{cost['saved_for_backward_mb']:.1f} MB | {result['scores']['miou']:.2f} |"
    )


def main() -> None:
    """Run all cells and print the table."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        write_shapes(home / "data/shapes", 0, train=160, val=100, pretrain_per_class=1, workers=1)
        sys.stdout.write(f"{HEADER}\n| :-- | :-- | --: | :-- | --: | --: | --: | --: |\n")
        for cell in cells():
            sys.stdout.write(f"{row(cell, run(home, cell))}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
