"""Combination of several strategies."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

from torch import nn

from fss.finetune.base import Strategy
from fss.types import StagedBackbone


class Composed(Strategy):
    """Inject several strategies in sequence and train the union of their parameters.

    Subclasses name the parts; their order matters only where two swap the same layers, because the first one wins.
    """

    @property
    @abstractmethod
    def parts(self) -> tuple[Strategy, ...]:
        """The strategies, in the order of injection."""

    def swap(self, backbone: StagedBackbone) -> list[str]:
        """Replace the layers of every part; one that replaces none is asked first what it finds."""
        for part in self.parts:
            if type(part).swap is Strategy.swap:
                part.found(backbone, self.name)  # a refusal comes before the work, and changes nothing
        return [note for part in self.parts for note in part.swap(backbone)]

    def trainable(self, backbone: StagedBackbone) -> Iterator[nn.Parameter]:
        """Yield what every part trains."""
        for part in self.parts:
            yield from part.trainable(backbone)

    def found(self, backbone: StagedBackbone, name: str | None = None) -> list[nn.Parameter]:
        """List what every part trains.

        Args:
            backbone: the backbone.
            name: strategy that the user chose, if this one is a part of it.

        Raises:
            FssError: if one part finds nothing, which would make this strategy another one.
        """
        return [parameter for part in self.parts for parameter in part.found(backbone, name or self.name)]

    def after_step(self, backbone: StagedBackbone) -> None:
        """Let every part project its values."""
        for part in self.parts:
            part.after_step(backbone)
