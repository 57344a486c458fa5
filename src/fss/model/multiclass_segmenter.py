"""The model of a base learner, which segments all base classes at once."""

from __future__ import annotations

from torch import Tensor, nn

from fss.methods.base_learner import LAST_STAGE, BaseLearner
from fss.model.features import run_stages
from fss.nn.resize import up
from fss.types import ImageBackbone


class MulticlassSegmenter(nn.Module):
    """A backbone and a base learner: segments all base classes at once.

    Attributes:
        backbone: a staged backbone.
        head: the base learner.
    """

    def __init__(self, backbone: nn.Module, head: BaseLearner) -> None:
        """Combine the two.

        Args:
            backbone: must follow :class:`fss.types.ImageBackbone`.
            head: built for the backbone's channels.

        Raises:
            TypeError: if the backbone does not follow the protocol.
        """
        super().__init__()
        if not isinstance(backbone, ImageBackbone):
            raise TypeError(f"{type(backbone).__name__} is no ImageBackbone: derive it from StagedModule")
        self.backbone = backbone
        self.head = head

    def forward(self, image: Tensor) -> Tensor:
        """Segment images.

        Args:
            image: normalised RGB, (B, 3, H, W).

        Returns:
            logits (B, classes, H, W).
        """
        return up(self.scores(image), (image.shape[-2], image.shape[-1]))

    def scores(self, maps: Tensor, first: int = 0) -> Tensor:
        """Score at the resolution of stage 4, starting from any stage of the backbone.

        Args:
            maps: input of stage ``first``: the image (B, 3, H, W) for 0, else the output of the previous stage.
            first: first stage to run; 5 runs none. 0 if the backbone is not ``stepwise``.

        Returns:
            logits (B, classes, h, w).
        """
        logits: Tensor = self.head(self.last_stage(maps, first))
        return logits

    def last_stage(self, maps: Tensor, first: int = 0) -> Tensor:
        """Run the backbone to its end.

        Args:
            maps: as for :meth:`scores`.
            first: likewise.

        Returns:
            stage 4, (B, C, h, w).
        """
        if first <= LAST_STAGE:
            found, _ = run_stages(self.backbone, [maps], range(first, LAST_STAGE + 1), (LAST_STAGE,))
            (maps,) = found[LAST_STAGE]
        return maps
