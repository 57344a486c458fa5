"""Test episodes over a few images, as a data module would bring them: the same image comes again and again."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from tests.methods.fakes import tiny
from torch import Tensor, nn

from fss.lit.episodic import EpisodicModule
from fss.lit.optim import Recipe
from fss.methods.bam import BAM
from fss.methods.base import FewShotHead
from fss.methods.base_learner import BaseLearner
from fss.methods.baseline import Baseline
from fss.methods.pfenet import PFENet
from fss.methods.separable import SeparableHead
from fss.model.companion import BaseBranch
from fss.model.segmenter import FewShotSegmenter
from fss.types import Episode, HeadOutput

IMAGES, CLASSES, SIZE = 6, 2, 65


class Stream:
    """Episodes whose images and labels depend on image and class alone.

    Args:
        shot: supports per episode.
        count: number of episodes.
        seed: of images and draws.
        dtype: of the images.
        size: their side.
    """

    def __init__(
        self, shot: int, count: int = 12, seed: int = 0, dtype: torch.dtype = torch.float32, size: int = SIZE
    ) -> None:
        g = torch.Generator().manual_seed(seed)
        self.images = torch.randn(IMAGES, 3, size, size, generator=g, dtype=dtype)
        self.labels = torch.zeros(IMAGES, CLASSES, size, size, dtype=torch.uint8)
        corners = torch.randint(2, 30, (IMAGES, CLASSES, 2), generator=g).tolist()
        for p in range(IMAGES):
            for c in range(CLASSES):
                y, x = corners[p][c]
                self.labels[p, c, y : y + 25, x : x + 30] = 1
                self.labels[p, c, :, -3:] = 255
        self.draws = []
        for i in range(count):
            order = torch.randperm(IMAGES, generator=g).tolist()
            self.draws.append((i % CLASSES, order[0], order[1 : 1 + shot]))

    def batches(self, size: int) -> list[Episode]:
        numbers = range(len(self.draws))
        return [self._batch(list(numbers[i : i + size])) for i in range(0, len(numbers), size)]

    def _batch(self, numbers: list[int]) -> Episode:
        rows = [self.draws[i] for i in numbers]
        stacked = [(c, list(reversed(s))) for c, _, s in rows]  # last sampled first
        return Episode(
            query=torch.stack([self.images[q] for _, q, _ in rows]),
            query_label=torch.stack([self.labels[q, c] for c, q, _ in rows]),
            support_images=torch.stack([self.images[s] for _, s in stacked]),
            support_labels=torch.stack([self.labels[s, c] for c, s in stacked]),
            class_id=torch.tensor([c + 1 for c, _, _ in rows]),
            class_index=torch.tensor([c for c, _, _ in rows]),
            index=torch.tensor(numbers),
            query_ids=[f"p{q}" for _, q, _ in rows],
            support_ids=[[f"p{s}" for s in row] for _, _, row in rows],
            full_labels=[self.labels[q, c][:50] for c, q, _ in rows],
        )


def build(name: str, shot: int, dtype: torch.dtype = torch.float32) -> FewShotSegmenter:
    """Build a tiny model with scores that differ from pixel to pixel."""
    backbone = tiny(8)
    companion = None
    head: FewShotHead
    if name == "bam":
        head = BAM(backbone.channels, width=8, shot=shot)
        own = tiny(8)
        own.stage(3)[0].conv1.weight.data.mul_(1.1)  # stages 0 to 2 are shared
        companion = BaseBranch(own, BaseLearner(own.channels, 5, width=8))
    else:
        head = {"baseline": Baseline, "pfenet": PFENet}[name](backbone.channels, width=8)
    model = FewShotSegmenter(backbone.requires_grad_(False), head, companion).to(dtype).eval()
    _spread(model.head)
    return model


def module(model: FewShotSegmenter) -> EpisodicModule:
    names = [str(c) for c in range(CLASSES)]
    recipe = Recipe(optimizer=partial(torch.optim.SGD, lr=0.1))
    return EpisodicModule(model, recipe, names, names, names, base_classes=4).eval()


@torch.inference_mode()
def rows(module: EpisodicModule, stream: Stream, size: int = 1) -> Tensor:
    """Return index, class, intersections and unions of every episode, (N, 6)."""
    for number, batch in enumerate(stream.batches(size)):
        module.test_step(batch, number)
    module.branch_scores.compute()
    table = module._metric("test").table()
    module._metric("test").reset()
    return table


def balance(model: FewShotSegmenter, stream: Stream) -> None:
    """Shift the head's scores by a constant, so that about half of all pixels are foreground."""
    with torch.no_grad():
        logits = torch.cat([model.run_episode(b).logits for b in stream.batches(1)])
    shift = (logits[:, 1] - logits[:, 0]).median()

    def shifted(output: HeadOutput) -> HeadOutput:
        return replace(output, logits=output.logits - shift * torch.tensor([0.0, 1.0])[:, None, None])

    kind: Any = type(model.head)
    assert issubclass(kind, SeparableHead)
    methods = {
        "forward": lambda self, features: shifted(kind.forward(self, features)),
        "encode_query": lambda self, maps: kind.encode_query(self, maps),
        "encode_support": lambda self, maps, labels: kind.encode_support(self, maps, labels),
        "forward_encoded": lambda self, episode: shifted(kind.forward_encoded(self, episode)),
    }
    model.head.__class__ = type(f"Shifted{kind.__name__}", (kind,), methods)  # a class that brings all four itself


def counted(model: FewShotSegmenter) -> dict[int, int]:
    """Count the images that go through each stage of the backbone, from now on."""
    seen = dict.fromkeys(range(5), 0)

    def count(index: int, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen[index] += len(inputs[0])

    for i in range(5):
        model.backbone.stage(i).register_forward_pre_hook(partial(count, i))
    return seen


def _spread(head: nn.Module) -> None:
    """Give the head weights that make both answers occur."""
    g = torch.Generator().manual_seed(3)
    for p in head.parameters():
        if p.dim() > 1:
            p.data.copy_(torch.randn(p.shape, generator=g, dtype=torch.float64) / p[0].numel() ** 0.5)
