"""The field's habit: the backbone does not train."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from torch import nn

from fss.finetune.base import Strategy
from fss.types import StagedBackbone


class Freeze(Strategy):
    """Freeze the whole backbone, batch-norm statistics included."""

    name: ClassVar[str] = "freeze"

    def trainable(self, backbone: StagedBackbone) -> Iterator[nn.Parameter]:
        """Yield nothing."""
        return iter(())
