"""Multi-class IoU from pixels accumulated over all images (protocol D.3 to D.5)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from fss.metrics.iou import EPS
from fss.types import IGNORE


class Confusion(MulticlassConfusionMatrix):
    """Confusion matrix (target, prediction) without ignored pixels, summed over all processes."""

    def __init__(self, classes: int) -> None:
        """Declare the state.

        Args:
            classes: number of classes, background (0) included.
        """
        super().__init__(classes, ignore_index=IGNORE, validate_args=False)


@dataclass(frozen=True)
class MulticlassScores:
    """Multi-class scores in [0, 1]; class 0 is the background.

    Attributes:
        per_class: I / (U + 1e-10) of every class, background first.
        present: whether a class has any pixel in the targets.
        fb_iou: mean of the background's IoU and the IoU from the counts of all other classes together.
    """

    per_class: tuple[float, ...]
    present: tuple[bool, ...]
    fb_iou: float

    @property
    def miou(self) -> float:
        """Mean over all classes but the background."""
        return sum(self.per_class[1:]) / len(self.per_class[1:])

    @property
    def miou_of_present(self) -> float:
        """Sum over all classes but the background, divided by the number of those that occur in the targets."""
        return sum(self.per_class[1:]) / max(1, sum(self.present[1:]))


def multiclass_scores(confusion: Tensor) -> MulticlassScores:
    """Compute the scores from a confusion matrix.

    Args:
        confusion: pixels by target (rows) and prediction (columns), (classes, classes).

    Returns:
        The scores.
    """
    counts = confusion.double()
    inter, target = counts.diagonal(), counts.sum(dim=1)
    union = target + counts.sum(dim=0) - inter
    iou = inter / (union + EPS)
    pooled = inter[1:].sum() / (union[1:].sum() + EPS)
    return MulticlassScores(
        tuple(float(v) for v in iou), tuple(bool(t > 0) for t in target), float((iou[0] + pooled) / 2)
    )
