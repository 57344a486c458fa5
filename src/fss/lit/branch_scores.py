"""Scores of the branches of a head: BAM's meta learner and base learner alone (protocol D.4)."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from fss.metrics.geometry import Scoring
from fss.metrics.iou import EpisodeIoU
from fss.metrics.multiclass import Confusion, multiclass_scores
from fss.nn.resize import up
from fss.types import Episode, HeadOutput


class BranchScores(nn.Module):
    """Accumulates the meta learner's scores and the base learner's mIoU over test episodes.

    Branches and labels that are missing are skipped, so it works with every head.

    Args:
        novel: number of novel classes.
        base: number of base classes.
        left_out: positions of novel classes that the meta learner's mean leaves out.
    """

    def __init__(self, novel: int, base: int, left_out: Collection[int] = ()) -> None:
        super().__init__()
        self.meta = EpisodeIoU(novel, samples=0, left_out=left_out)
        self.base = Confusion(base + 1)
        self.counted = {"meta": False, "base": False}

    def update(self, output: HeadOutput, episode: Episode, align_corners: bool, scoring: Scoring) -> None:
        """Add a batch of episodes.

        Args:
            output: output of the head.
            episode: the batch, with labels at original size.
            align_corners: how the head's logits are resized.
            scoring: size at which they are scored.
        """
        size = (episode.query.shape[-2], episode.query.shape[-1])
        meta, base = output.branch_logits.get("meta"), output.branch_logits.get("base")
        if meta is not None:
            square = up(meta, size, align_corners).float()
            for i, label in enumerate(episode.full_labels):
                logits, target = scoring(square[i], label, episode.query_label[i], align_corners)
                self.meta.update(logits.argmax(dim=0), target, episode.class_index[i], episode.index[i])
                self.counted["meta"] = True
        if base is not None:
            square = up(base, size, align_corners).float()
            for i, label in enumerate(episode.full_base_labels):
                small = episode.extras["base_label"][i] if scoring.at == "network" else label
                logits, target = scoring(square[i], label, small, align_corners)
                self.base.update(logits.argmax(dim=0), target.long())
                self.counted["base"] = True

    def compute(self) -> dict[str, float]:
        """Return the scores in percent and reset the counts.

        Returns:
            ``miou_m`` and ``fb_iou_m`` of the meta learner alone; ``miou_b`` of the base learner over the base classes
            present in the images.
        """
        found: dict[str, float] = {}
        if self.counted["meta"]:
            scores = self.meta.compute()
            found |= {"miou_m": 100 * scores.miou, "fb_iou_m": 100 * scores.fb_iou}
        if self.counted["base"]:
            found["miou_b"] = 100 * multiclass_scores(self.base.compute()).miou_of_present
        self.meta.reset()
        self.base.reset()
        self.counted = {"meta": False, "base": False}
        return found
