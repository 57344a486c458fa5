"""The Lightning module that tests base and novel classes at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fss.lit.scoring import ScoringModule
from fss.metrics.generalised import GeneralisedIoU, Merge, joined, merged
from fss.metrics.geometry import Scoring
from fss.model.segmenter import FewShotSegmenter
from fss.nn.resize import up
from fss.types import Episode


class GeneralisedModule(ScoringModule):
    """Tests a model with a base branch as BAM's test_GFSS.py does (protocol D.5).

    Attributes:
        model: the model to test.
        base_names: base classes, ascending.
        novel_names: novel classes, ascending.
        tau: threshold on the probability of the novel class.
        rule: which learner wins where both predict a class.
    """

    def __init__(
        self,
        model: FewShotSegmenter,
        base_names: list[str],
        novel_names: list[str],
        tau: float = 0.9,
        rule: Merge = "final",
        left_out: Mapping[str, int] | None = None,
        scoring: Scoring | None = None,
    ) -> None:
        """Store the parts.

        Args:
            model: its head must return ``base`` in ``branch_logits``.
            base_names: base classes, ascending.
            novel_names: novel classes, ascending.
            tau: threshold on the probability of the novel class.
            rule: ``final`` or ``base``, see :func:`fss.metrics.generalised.merged`.
            left_out: base and novel classes with too few images for the means over classes, and how many they have;
                None where ``data.min_test_images`` asks for none.
            scoring: size at which predictions are scored; None: that of the original label.

        Raises:
            FssError: if no base or no novel class is left.
        """
        super().__init__()
        self.model = model
        self.base_names, self.novel_names = base_names, novel_names
        self.tau, self.rule = tau, rule
        self.scoring = scoring or Scoring()
        self.left_out = left_out
        positions = [[k for k, name in enumerate(n) if name in (left_out or {})] for n in (base_names, novel_names)]
        self.counted = GeneralisedIoU(len(base_names), len(novel_names), *positions)

    def test_step(self, episode: Episode, batch_idx: int) -> None:
        """Score a batch of episodes.

        Args:
            episode: the batch, with base labels.
            batch_idx: unused.
        """
        output, align = self.model.run_episode(episode), self.model.head.align_corners
        size = (episode.query.shape[-2], episode.query.shape[-1])
        final = up(output.logits, size, align).float()
        base = up(output.branch_logits["base"], size, align).float()
        self.watch("test", final, base)
        labels = zip(episode.full_labels, episode.full_base_labels, strict=True)
        for i, (label, base_label) in enumerate(labels):
            target = joined(label, base_label, len(self.base_names))
            small, small_base = target, base_label
            if self.scoring.at == "network":
                small_base = episode.extras["base_label"][i]
                small = joined(episode.query_label[i], small_base, len(self.base_names))
            large, target = self.scoring(final[i], target, small, align)
            large_base, _ = self.scoring(base[i], base_label, small_base, align)
            prediction = merged(large, large_base, self.tau, self.rule)
            self.counted.update(prediction, target, episode.class_index[i])

    def on_test_epoch_end(self) -> None:
        """Log the scores and keep them in :attr:`test_scores` for the result file."""
        self.test_scores = self.counted.compute()
        self.counted.reset()
        for name, value in self.result_scores().items():
            if isinstance(value, float):
                self.log(f"test/{name}", value)

    def result_scores(self) -> dict[str, Any]:
        """Return the ``scores`` of the result file, in percent; ``miou`` is that of all classes."""
        scores = self.test_scores
        named = [*zip(self.base_names, scores.base, strict=True), *zip(self.novel_names, scores.novel, strict=True)]
        return {
            "miou": 100 * scores.miou,
            "miou_interval": None,
            "fb_iou": 100 * scores.fb_iou,
            "fb_iou_interval": None,
            "per_class": {name: 100 * value for name, value in named},
            "miou_base": 100 * scores.base_miou,
            "miou_novel": 100 * scores.novel_miou,
            "foreground_iou": 100 * scores.foreground_iou,
            "novel_count": scores.novel_count,
            **({} if self.left_out is None else {"left_out": dict(self.left_out)}),
        }

    def result_episodes(self, data: Any) -> dict[str, Any]:
        """Return the ``episodes`` of the result file.

        Args:
            data: the data module.
        """
        stream = data.streams.test
        return {"count": self.test_scores.episodes, "hash": data.test_episodes_hash, "sampler": stream.sampler}
