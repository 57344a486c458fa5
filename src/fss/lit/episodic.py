"""The Lightning module that trains and tests any few-shot head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fss.bootstrap import SAMPLES, method
from fss.episode_protocol import Ignored
from fss.lit.branch_scores import BranchScores
from fss.lit.optim import Recipe, build_optimizer, freeze_untrained
from fss.lit.scoring import ScoringModule
from fss.lit.state_memory import StateMemory
from fss.metrics.geometry import Scoring
from fss.metrics.iou import EpisodeIoU, Scores
from fss.metrics.loss import EpisodeLoss
from fss.model.head_call import PREVIOUS
from fss.model.segmenter import FewShotSegmenter
from fss.nn.distributed import means_over_processes
from fss.nn.resize import up
from fss.types import IGNORE, Episode, HeadOutput


def counted_as(label: Tensor, ignored: Ignored) -> Tensor:
    """Return a label in which ignored pixels are what a protocol takes them for.

    Args:
        label: values 0, 1, 255.
        ignored: 255 stays as it is, or becomes 0 or 1.
    """
    if ignored == "ignore":
        return label
    return label.masked_fill(label == IGNORE, int(ignored == "foreground"))


class EpisodicModule(ScoringModule):
    """Wraps a backbone and a head; a callback injects the fine-tuning strategy before the optimiser is built.

    Attributes:
        model: the model to train.
        recipe: optimiser and schedule.
        scores: metric per stage: ``train_iou``, ``val_iou``, ``test_iou``.
        everywhere: metric of the test with every pixel predicted as foreground, which a head has to exceed.
        card: plain facts stored with every checkpoint, from which the model can be rebuilt.
        left_out: stage -> classes that its mean leaves out -> number of their images; None: not asked for.
    """

    def __init__(
        self,
        model: FewShotSegmenter,
        recipe: Recipe,
        train_classes: list[str],
        val_classes: list[str],
        test_classes: list[str],
        card: dict[str, Any] | None = None,
        base_classes: int = 0,
        left_out: Mapping[str, Mapping[str, int]] | None = None,
        ignored: Ignored = "ignore",
        scoring: Scoring | None = None,
    ) -> None:
        """Store the parts.

        Args:
            model: backbone and head.
            recipe: optimiser and schedule.
            train_classes: names by class index, of training episodes.
            val_classes: likewise, of validation episodes.
            test_classes: likewise, of test episodes.
            card: facts to store with checkpoints.
            base_classes: number of base classes, for methods with a base learner.
            left_out: stage (``val``, ``test``) -> classes with too few images for its mean over classes, and how many
                they have; None where ``data.min_test_images`` asks for none.
            ignored: what pixels of label 255 are in the loss.
            scoring: size at which predictions are scored; None: that of the original label.

        Raises:
            FssError: if no class is left.
        """
        super().__init__()
        self.model = model
        self.ignored, self.scoring = ignored, scoring or Scoring()
        self.recipe = recipe
        self.card = card or {}
        self.class_names = {"train": train_classes, "val": val_classes, "test": test_classes}
        self.left_out = left_out
        freeze_untrained(model.head, recipe.untrained)
        self.scores = torch.nn.ModuleDict(
            {
                f"{s}_iou": EpisodeIoU(len(n), SAMPLES if s == "test" else 0, left_out=self._positions(s))
                for s, n in self.class_names.items()
            }
        )
        self.everywhere = EpisodeIoU(len(test_classes), 0, left_out=self._positions("test"))
        self.branch_scores = BranchScores(len(test_classes), base_classes, self._positions("test"))
        self.losses = torch.nn.ModuleDict({"val": EpisodeLoss(), "test": EpisodeLoss()})
        self.memory = StateMemory() if model.head.remembers else None

    def forward(self, query: Tensor, support_images: Tensor, support_masks: Tensor) -> Tensor:
        """Segment queries; see :meth:`FewShotSegmenter.forward`.

        Args:
            query: (B, 3, H, W).
            support_images: (B, K, 3, H, W).
            support_masks: (B, K, H, W).

        Returns:
            logits (B, 2, H, W).
        """
        logits: Tensor = self.model(query, support_images, support_masks)
        return logits

    def configure_optimizers(self) -> Any:
        """Build the optimiser once, for the parameters that train after the strategy was injected."""
        steps = int(self.trainer.estimated_stepping_batches)  # the same on any number of devices
        optimizer, scheduler = build_optimizer(self.model, self.recipe, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def training_step(self, episode: Episode, batch_idx: int) -> Tensor:
        """Compute the loss of a batch.

        Args:
            episode: the batch.
            batch_idx: unused.

        Returns:
            The weighted sum of all loss terms.
        """
        labels = {
            "query": counted_as(episode.query_label, self.ignored),
            "support": counted_as(episode.support_labels.flatten(0, 1), self.ignored),
        }
        output = self._remembering(replace(episode, query_label=labels["query"]))
        if "base_label" in episode.extras:
            labels["base"] = episode.extras["base_label"]
        terms = self.model.head.loss(output, labels)
        for name, value in means_over_processes(terms).items():
            self.log(f"train/loss_{name}", value, prog_bar=name == "total", batch_size=len(episode))
        with torch.no_grad():
            size = (episode.query.shape[-2], episode.query.shape[-1])
            predicted = up(output.logits.detach().float(), size, self.model.head.align_corners).argmax(dim=1)
            for i in range(len(episode)):
                self._metric("train").update(
                    predicted[i], episode.query_label[i], episode.class_index[i], episode.index[i]
                )
        return terms["total"]

    def epoch_scores(self) -> Scores:
        """Return the scores of the training episodes seen so far in the epoch, over all processes."""
        scores: Scores = self._metric("train").compute()
        return scores

    def on_train_epoch_end(self) -> None:
        """Log the epoch's scores on augmented training crops."""
        self._log_scores("train", self.epoch_scores())
        self._metric("train").reset()

    def validation_step(self, episode: Episode, batch_idx: int) -> None:
        """Score a batch of validation episodes.

        Args:
            episode: the batch.
            batch_idx: unused.
        """
        self._score("val", episode)

    def on_validation_epoch_end(self) -> None:
        """Log the scores of the validation episodes."""
        self._log_loss("val")
        self._log_scores("val", self._metric("val").compute())
        self._metric("val").reset()

    def test_step(self, episode: Episode, batch_idx: int) -> dict[str, Any]:
        """Score a batch of test episodes.

        Args:
            episode: the batch.
            batch_idx: unused.

        Returns:
            ``predictions``: maps of 0 and 1 where they are scored, B of them; ``masks``: at network size, (B, H, W);
            ``iou``: foreground IoU per episode.
        """
        return self._score("test", episode)

    def on_test_epoch_end(self) -> None:
        """Log the test scores and keep them in :attr:`test_scores` for the result file."""
        self.test_scores = self._metric("test").compute()
        self.test_rows = self._metric("test").counted
        self.test_everywhere: Scores = self.everywhere.compute()
        self.everywhere.reset()
        self.test_branch_scores = self.branch_scores.compute()
        self._log_loss("test")
        self._log_scores("test", self.test_scores)
        for name, value in self.test_branch_scores.items():
            self.log(f"test/{name}", value)
        self._metric("test").reset()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the facts to rebuild the model, the episodes scored so far in the epoch, and what the head remembers.

        Args:
            checkpoint: Lightning's dictionary.
        """
        checkpoint["fss"] = self.card
        if self.memory is not None:
            checkpoint["fss_states"] = self.memory.state_dict()
        metric = self._metric("train")
        with metric.sync_context(should_unsync=True):
            checkpoint["fss_train_rows"] = metric.table()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the training episodes scored so far in the epoch, and what the head remembers.

        Args:
            checkpoint: Lightning's dictionary.
        """
        if self.memory is not None and "fss_states" in checkpoint:
            self.memory.load_state_dict(checkpoint["fss_states"])
        rows = checkpoint.get("fss_train_rows")
        if rows is not None:
            metric = self._metric("train")
            metric.reset()
            metric.rows.append(rows.to(metric.device))  # on every process; repeated rows count once

    def result_scores(self) -> dict[str, Any]:
        """Return the ``scores`` of the result file, in percent; for BAM also those of its two learners alone."""
        scores = self.test_scores
        names, metric = self.class_names["test"], self._metric("test")
        return {
            "miou": 100 * scores.miou,
            "miou_interval": [100 * v for v in scores.miou_interval],
            "fb_iou": 100 * scores.fb_iou,
            "fb_iou_interval": [100 * v for v in scores.fb_iou_interval],
            "per_class": {name: 100 * value for name, value in zip(names, scores.per_class, strict=True)},
            "class_intervals": {
                name: None if ends is None else [100 * v for v in ends]
                for name, ends in zip(names, scores.class_intervals, strict=True)
            },
            "class_episodes": dict(zip(names, scores.class_episodes, strict=True)),
            "intervals": method(metric.samples, metric.seed),
            "miou_all_foreground": 100 * self.test_everywhere.miou,
            **({} if self.left_out is None else {"left_out": dict(self.left_out["test"])}),
            **self.test_branch_scores,
        }

    def result_episodes(self, data: Any) -> dict[str, Any]:
        """Return the ``episodes`` of the result file.

        Args:
            data: the data module.
        """
        stream = data.streams.test
        return {"count": self.test_scores.episodes, "hash": data.test_episodes_hash, "sampler": stream.sampler}

    def _positions(self, stage: str) -> list[int]:
        """Return the positions of the classes that the means of a stage leave out."""
        names = {} if self.left_out is None else self.left_out.get(stage, {})
        return [k for k, name in enumerate(self.class_names[stage]) if name in names]

    def _metric(self, stage: str) -> EpisodeIoU:
        metric = self.scores[f"{stage}_iou"]
        assert isinstance(metric, EpisodeIoU)
        return metric

    def _loss(self, stage: str) -> EpisodeLoss:
        metric = self.losses[stage]
        assert isinstance(metric, EpisodeLoss)
        return metric

    def _remembering(self, episode: Episode) -> HeadOutput:
        """Run a training batch; a head that remembers is given the states of the last visits."""
        if self.memory is None:
            return self.model.run_episode(episode)
        previous = self.memory.recall(episode)
        if previous is not None:
            episode = replace(episode, extras={**episode.extras, PREVIOUS: previous})
        output = self.model.run_episode(episode)
        assert output.state is not None, "a head that remembers must return a state"
        self.memory.keep(episode, output.state)
        return output

    def _score(self, stage: str, episode: Episode) -> dict[str, Any]:
        head = self.model.head
        output: HeadOutput = self.model.run_episode(episode)
        size = (episode.query.shape[-2], episode.query.shape[-1])
        square = up(output.logits, size, head.align_corners).float()
        shots = [up(shot.logits, size, head.align_corners).float() for shot in output.shots]
        branches = [output.branch_logits[name] for name in ("meta", "base") if name in output.branch_logits]
        self.watch(stage, square, *(branches if stage == "test" else ()))
        if stage == "test":
            self.branch_scores.update(output, episode, head.align_corners, self.scoring)
        predictions, ious = [], []
        for i, label in enumerate(episode.full_labels):
            sized = (label, episode.query_label[i], head.align_corners)
            logits, target = self.scoring(square[i], *sized)
            alone = [self.scoring(shot[i], *sized)[0] for shot in shots]
            counted_target = counted_as(target, self.ignored)[None]
            losses = [head.criterion(one[None], counted_target) for one in alone or [logits]]
            self._loss(stage).update(torch.stack(losses).mean())
            predicted = logits.argmax(dim=0)
            images = (episode.query_ids[i], *episode.support_ids[i]) if stage == "test" else ()
            self._metric(stage).update(predicted, target, episode.class_index[i], episode.index[i], images)
            if stage == "test":
                all_foreground = torch.ones_like(target)
                self.everywhere.update(all_foreground, target, episode.class_index[i], episode.index[i])
            height, width = label.shape if self.scoring.at == "original" else target.shape
            predictions.append(predicted[:height, :width].to(torch.uint8))
            counted = target != 255
            p, t = (predicted == 1) & counted, target == 1
            ious.append(float((p & t).sum() / (p | t).sum().clamp(min=1)))
        masks = square.argmax(dim=1).to(torch.uint8)
        return {"predictions": predictions, "iou": ious, "masks": masks}

    def _log_loss(self, stage: str) -> None:
        self.log(f"{stage}/loss", self._loss(stage).compute())
        self._loss(stage).reset()

    def _log_scores(self, stage: str, scores: Scores) -> None:
        """Log scores, which are already reduced over all processes."""
        self.log(f"{stage}/miou", 100 * scores.miou, prog_bar=True)
        self.log(f"{stage}/fb_iou", 100 * scores.fb_iou)
        if stage != "train":
            for name, value in zip(self.class_names[stage], scores.per_class, strict=True):
                self.log(f"{stage}/iou_{name}", 100 * value)
